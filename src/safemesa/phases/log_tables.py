"""Logs as one table of rows, and index tables that say which rows may be drawn.

Rows are what the safety networks see: normalised observations and actions in [-1, 1]. The table is
on the device, or, where it is too large, stays in its files.
"""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator, substream
from safemesa.core.types import Key, RiskBatch
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.datasets.replay import RowLayout
from safemesa.datasets.sampling import RowIndex, make_row_index, sample_rows, split_support_query
from safemesa.datasets.validation import row_chunks
from safemesa.learners.config import SamplingConfig
from safemesa.learners.meta.base import BatchPlan
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.config import RESIDENT_GIB


class LogTable(eqx.Module):
    """All rows of several logs, packed for one gather per batch."""

    rows: Float[Array, "rows width"]
    layout: RowLayout = eqx.field(static=True)

    def batch(self, index: Int[Array, "..."], *, key: Key) -> RiskBatch:
        """Gathers rows."""
        return batch_of_rows(self.layout, self.rows[index], key=key)


def batch_of_rows(layout: RowLayout, rows: Float[Array, "... width"], *, key: Key) -> RiskBatch:
    """Rows as a batch; where no next action is logged, a uniform one is drawn."""
    columns = layout.unpack(rows)
    following, now = jax.random.uniform(
        key, (2, *columns["next_action"].shape), jnp.float32, minval=-1.0, maxval=1.0
    )
    logged = columns["next_action_logged"][..., None] > 0.5
    return RiskBatch(
        obs=columns["obs"],
        action=columns["action"],
        cost=columns["cost"],
        next_obs=columns["next_obs"],
        next_action=jnp.where(logged, columns["next_action"], following),
        terminated=columns["terminated"],
        policy_action=now,
    )


def log_layout(spaces: Spaces) -> RowLayout:
    """The columns of a `LogTable`."""
    return RowLayout(
        fields=(
            ("obs", spaces.obs_size),
            ("action", spaces.action_size),
            ("next_obs", spaces.obs_size),
            ("next_action", spaces.action_size),
            ("cost", None),
            ("terminated", None),
            ("next_action_logged", None),
        )
    )


@dataclass(frozen=True, kw_only=True)
class LogFiles:
    """Logs one after the other, whose rows are packed when they are asked for.

    Attributes:
        logs: Their columns may be memory-mapped.
        normaliser: Of observations.
        next_action: `SamplingConfig.next_action`.
    """

    logs: tuple[TaskLog, ...]
    spaces: Spaces
    normaliser: Normaliser
    next_action: str

    @property
    def layout(self) -> RowLayout:
        """The columns of a row."""
        return log_layout(self.spaces)

    @property
    def starts(self) -> Int[np.ndarray, " logs_and_end"]:
        """The first row of each log, then the number of rows."""
        return np.concatenate([[0], np.cumsum([log.transitions for log in self.logs])])

    @property
    def nbytes(self) -> int:
        """What all rows would take in memory."""
        return 4 * self.layout.width * int(self.starts[-1])

    def rows(self, index: Int[np.ndarray, "..."]) -> Float[np.ndarray, "... width"]:
        """The rows of a table of these logs, in any order and number."""
        flat = np.asarray(index).reshape(-1)
        # In the order in which they lie in their files.
        order = np.argsort(flat, kind="stable")
        ordered, starts = flat[order], self.starts
        found = np.empty((flat.size, self.layout.width), np.float32)
        for log, start, low, high in zip(
            self.logs,
            starts[:-1],
            np.searchsorted(ordered, starts[:-1]),
            np.searchsorted(ordered, starts[1:]),
            strict=True,
        ):
            found[order[low:high]] = self._pack(log, ordered[low:high] - start)
        return found.reshape(*np.shape(index), self.layout.width)

    def _pack(self, log: TaskLog, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n width"]:
        """Rows of one log."""
        mean, std = np.asarray(self.normaliser.mean), np.asarray(self.normaliser.std)
        following, has_next = log.next_action(rows)
        columns = {
            "obs": (log.columns["obs"][rows] - mean) / std,
            "action": self.spaces.to_unit(log.columns["action"][rows]),
            "next_obs": (log.columns["next_obs"][rows] - mean) / std,
            "next_action": np.where(
                has_next[:, None], self.spaces.to_unit(following), np.float32(0.0)
            ),
            "cost": log.columns["cost"][rows],
            "terminated": log.columns["terminated"][rows],
            "next_action_logged": has_next & (self.next_action == "logged"),
        }
        packed = np.empty((len(rows), self.layout.width), np.float32)
        for name, place in self.layout.places.items():
            packed[:, place] = columns[name]
        return packed


def chosen_rows(log: TaskLog, sampling: SamplingConfig) -> Int[np.ndarray, " rows"]:
    """Numbers of the rows of a log that are learned from."""
    return log.safe_starts if sampling.safe_starts else np.arange(log.transitions, dtype=np.int32)


def learned_obs(log: TaskLog, sampling: SamplingConfig) -> Float[np.ndarray, "rows obs"]:
    """Observations that the normaliser is fitted to: of the rows that are learned from."""
    obs = np.asarray(log.columns["obs"])
    return obs[log.safe_starts] if sampling.safe_starts else obs


def build_log_table(
    logs: tuple[TaskLog, ...], spaces: Spaces, normaliser: Normaliser, next_action: str
) -> LogTable:
    """All rows of some logs on the device; `next_action` is `SamplingConfig.next_action`."""
    files = LogFiles(logs=logs, spaces=spaces, normaliser=normaliser, next_action=next_action)
    table = np.empty((int(files.starts[-1]), files.layout.width), np.float32)
    for chunk in row_chunks(len(table)):
        table[chunk] = files.rows(np.arange(chunk.start, chunk.stop))
    return LogTable(jnp.asarray(table), files.layout)


class TrainTables(eqx.Module):
    """Training logs with their index tables. Entries of `halves` are `2 task + half`.

    `table` is None where the logs stay in their files; `halves` stands for nothing where no
    meta-learner takes support rows.
    """

    table: LogTable | None
    everything: RowIndex
    halves: RowIndex
    tasks: int = eqx.field(static=True)


def build_train_tables(
    data: OfflineTasks,
    normaliser: Normaliser,
    sampling: SamplingConfig,
    seed: int,
    resident_gib: float = RESIDENT_GIB,
    *,
    split: bool = True,
) -> TrainTables:
    """Packs the training logs and, where they are to be `split`, each by episodes into two halves.

    An outer step draws its support from one half of a task and its query from the other, in an
    order tossed per task and step: disjoint, and all data serve both purposes.
    """
    next_action = sampling.next_action
    files = LogFiles(
        logs=data.train, spaces=data.spaces, normaliser=normaliser, next_action=next_action
    )
    fits = files.nbytes <= resident_gib * 2**30
    rng = generator(seed, Stream.HALVES)
    offsets = files.starts[:-1].tolist()
    costs = [np.asarray(log.columns["cost"]) for log in data.train]
    everything = [chosen_rows(log, sampling) for log in data.train]
    index = make_row_index(everything, costs, offsets)
    halves = index
    if split:
        twice = [cost for cost in costs for _ in range(2)]
        rows = [half for log in data.train for half in _halves(log, sampling, rng)]
        halves = make_row_index(rows, twice, np.repeat(offsets, 2).tolist())
    return TrainTables(
        table=build_log_table(data.train, data.spaces, normaliser, next_action) if fits else None,
        everything=index,
        halves=halves,
        tasks=len(data.train),
    )


def _halves(
    log: TaskLog, sampling: SamplingConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    rows = chosen_rows(log, sampling)
    try:
        halves = split_support_query(np.asarray(log.columns["episode"])[rows], rng)
    except DatasetError as error:
        raise DatasetError(f"task {log.name!r}: {error}") from error
    return rows[halves[0]], rows[halves[1]]


class MetaBatch(NamedTuple):
    """The rows of one outer step of Phase 1."""

    support: RiskBatch
    query: RiskBatch


class MetaRows(NamedTuple):
    """Numbers of the rows of one outer step, or these rows themselves."""

    support: Array
    query: Array


def sample_meta_batch(
    tables: TrainTables, plan: BatchPlan, violation_fraction: float | None, *, key: Key
) -> MetaBatch:
    """Draws tasks, then rows: support `[tasks, steps, rows]`, query `[tasks, rows]`."""
    table = tables.table
    assert table is not None
    rows = sample_meta_rows(tables, plan, violation_fraction, key=key)
    return meta_batch(table.layout, jax.tree.map(lambda index: table.rows[index], rows), key=key)


def meta_batch(layout: RowLayout, rows: MetaRows, *, key: Key) -> MetaBatch:
    """The batch of rows `[..., width]` that `sample_meta_rows` chose with the same key."""
    key_action = substream(key, Stream.NEXT_ACTIONS)
    if rows.support.shape[1] == 0:
        query = batch_of_rows(layout, rows.query, key=key_action)
        return MetaBatch(jax.tree.map(lambda leaf: leaf[:, :0], query), query)
    key_support, key_query = jax.random.split(key_action)
    return MetaBatch(
        batch_of_rows(layout, rows.support, key=key_support),
        batch_of_rows(layout, rows.query, key=key_query),
    )


def sample_meta_rows(
    tables: TrainTables, plan: BatchPlan, violation_fraction: float | None, *, key: Key
) -> MetaRows:
    """Draws tasks, then numbers of rows, as `sample_meta_batch`."""
    key_tasks, key_order, key_rows = jax.random.split(key, 3)
    if plan.distinct_tasks:
        tasks = jax.random.permutation(key_tasks, jnp.arange(tables.tasks, dtype=jnp.int32))
        tasks = tasks[: plan.tasks]
    else:
        tasks = jax.random.randint(key_tasks, (plan.tasks,), 0, tables.tasks, jnp.int32)

    def draw(entry: Array, rows: int, row_key: Key, parts: int = 1) -> Array:
        return sample_rows(tables.halves, entry, rows, violation_fraction, parts=parts, key=row_key)

    row_keys = jax.random.split(key_rows, (2, plan.tasks))
    if plan.support_steps == 0:
        query = _pooled_rows(tables.everything, tasks, plan, violation_fraction, row_keys[1])
        return MetaRows(query[:, :0], query)
    half = jax.random.randint(key_order, (plan.tasks,), 0, 2, jnp.int32)
    support_rows = plan.support_steps * plan.support_rows
    support = jax.vmap(lambda entry, k: draw(entry, support_rows, k, plan.support_steps))(
        2 * tasks + half, row_keys[0]
    )
    query = jax.vmap(lambda entry, k: draw(entry, plan.query_rows, k))(
        2 * tasks + (1 - half), row_keys[1]
    )
    shape = (plan.tasks, plan.support_steps, plan.support_rows)
    return MetaRows(support.reshape(shape), query)


def _pooled_rows(
    index: RowIndex,
    tasks: Int[Array, " tasks"],
    plan: BatchPlan,
    violation_fraction: float | None,
    keys: Array,
) -> Int[Array, "tasks rows"]:
    """Rows of all tasks as one batch, of which a share violates.

    The share is met over the batch, since one row of a task cannot be a share of a violation.
    """

    def draw(fraction: float | None) -> Int[Array, "tasks rows"]:
        return jax.vmap(
            lambda task, key: sample_rows(index, task, plan.query_rows, fraction, key=key)
        )(tasks, keys)

    if violation_fraction is None:
        return draw(None)
    wanted = round(violation_fraction * plan.tasks * plan.query_rows)
    order = jnp.arange(plan.query_rows * plan.tasks).reshape(plan.query_rows, plan.tasks).T
    return jnp.where(order < wanted, draw(1.0), draw(0.0))
