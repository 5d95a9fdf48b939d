"""Logs on the device: one table of rows, and index tables that say which rows may be drawn.

Rows are what the safety networks see: normalised observations and actions in [-1, 1].
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.spaces import Spaces
from safemesa.core.types import Key, RiskBatch
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.datasets.replay import RowLayout
from safemesa.datasets.sampling import RowIndex, make_row_index, sample_rows, split_support_query
from safemesa.learners.meta import BatchPlan
from safemesa.networks.normaliser import Normaliser


def scale_actions(action: np.ndarray, spaces: Spaces) -> np.ndarray:
    """Physical actions `[..., act]` to [-1, 1] by the bounds of the action space."""
    low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
    return (2.0 * (action - low) / (high - low) - 1.0).astype(np.float32)


def unscale_actions(action: Float[Array, "... act"], spaces: Spaces) -> Float[Array, "... act"]:
    """Actions in [-1, 1] to physical units."""
    shape = (1,) * (action.ndim - 1) + (-1,)
    low = jnp.asarray(spaces.action_low, jnp.float32).reshape(shape)
    high = jnp.asarray(spaces.action_high, jnp.float32).reshape(shape)
    return low + 0.5 * (action + 1.0) * (high - low)


def physical_actions(action: np.ndarray, spaces: Spaces) -> np.ndarray:
    """Actions `[..., act]` in [-1, 1] as physical ones, within their bounds."""
    low, high = (np.asarray(bound, np.float32) for bound in (spaces.action_low, spaces.action_high))
    return np.clip(low + 0.5 * (action + 1.0) * (high - low), low, high).astype(np.float32)


class LogTable(eqx.Module):
    """All rows of several logs, packed for one gather per batch."""

    rows: Float[Array, "rows width"]
    layout: RowLayout = eqx.field(static=True)

    def batch(self, index: Int[Array, "..."], *, key: Key) -> RiskBatch:
        """Gathers rows; where no next action is logged, a uniform one is drawn."""
        columns = self.layout.unpack(self.rows[index])
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


def build_log_table(
    logs: tuple[TaskLog, ...], spaces: Spaces, normaliser: Normaliser, next_action: str
) -> LogTable:
    """Packs logs one after the other; `next_action` is `DataConfig.next_action`."""
    layout = log_layout(spaces)
    mean, std = np.asarray(normaliser.mean), np.asarray(normaliser.std)
    parts = []
    for log in logs:
        following, logged = log.next_action()
        uses_log = np.full(log.transitions, next_action == "logged") & logged
        following = np.where(logged[:, None], scale_actions(following, spaces), 0.0)
        columns = {
            "obs": (log.columns["obs"] - mean) / std,
            "action": scale_actions(log.columns["action"], spaces),
            "next_obs": (log.columns["next_obs"] - mean) / std,
            "next_action": following,
            "cost": log.columns["cost"],
            "terminated": log.columns["terminated"],
            "next_action_logged": uses_log,
        }
        parts.append(_pack(layout, columns))
    return LogTable(jnp.asarray(np.concatenate(parts)), layout)


def _pack(layout: RowLayout, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Host-side packing in the order of the layout."""
    flat = [
        np.asarray(columns[name], np.float32).reshape(len(columns["obs"]), -1)
        for name, _ in layout.fields
    ]
    return np.concatenate(flat, axis=1)


class TrainTables(eqx.Module):
    """Training logs with their index tables. Entries of `halves` are `2 task + half`."""

    table: LogTable
    everything: RowIndex
    halves: RowIndex
    tasks: int = eqx.field(static=True)


def build_train_tables(
    data: OfflineTasks, normaliser: Normaliser, next_action: str, seed: int
) -> TrainTables:
    """Packs the training logs and splits each by episodes into two halves.

    An outer step draws its support from one half of a task and its query from the other, in an
    order tossed per task and step: disjoint, and all data serve both purposes.
    """
    table = build_log_table(data.train, data.spaces, normaliser, next_action)
    rng = np.random.default_rng([seed, 2])
    sizes = [log.transitions for log in data.train]
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
    costs = [np.asarray(log.columns["cost"]) for log in data.train]
    everything = [np.arange(size, dtype=np.int32) for size in sizes]
    halves = [
        half
        for log in data.train
        for half in split_support_query(np.asarray(log.columns["episode"]), rng)
    ]
    return TrainTables(
        table=table,
        everything=make_row_index(everything, costs, offsets),
        halves=make_row_index(
            halves, [cost for cost in costs for _ in range(2)], np.repeat(offsets, 2).tolist()
        ),
        tasks=len(data.train),
    )


class MetaBatch(NamedTuple):
    """The rows of one outer step of Phase 1."""

    support: RiskBatch
    query: RiskBatch


def sample_meta_batch(
    tables: TrainTables, plan: BatchPlan, violation_fraction: float | None, *, key: Key
) -> MetaBatch:
    """Draws tasks, then rows: support `[tasks, steps, rows]`, query `[tasks, rows]`."""
    key_tasks, key_order, key_rows, key_action = jax.random.split(key, 4)
    if plan.distinct_tasks:
        tasks = jax.random.permutation(key_tasks, jnp.arange(tables.tasks, dtype=jnp.int32))
        tasks = tasks[: plan.tasks]
    else:
        tasks = jax.random.randint(key_tasks, (plan.tasks,), 0, tables.tasks, jnp.int32)

    def draw(index: RowIndex, entry: Array, rows: int, row_key: Key) -> Array:
        return sample_rows(index, entry, rows, violation_fraction, key=row_key)

    row_keys = jax.random.split(key_rows, (2, plan.tasks))
    if plan.support_steps == 0:
        query = _pooled_rows(tables.everything, tasks, plan, violation_fraction, row_keys[1])
        query_batch = tables.table.batch(query, key=key_action)
        return MetaBatch(jax.tree.map(lambda leaf: leaf[:, :0], query_batch), query_batch)
    half = jax.random.randint(key_order, (plan.tasks,), 0, 2, jnp.int32)
    support_rows = plan.support_steps * plan.support_rows
    support = jax.vmap(lambda entry, k: draw(tables.halves, entry, support_rows, k))(
        2 * tasks + half, row_keys[0]
    )
    query = jax.vmap(lambda entry, k: draw(tables.halves, entry, plan.query_rows, k))(
        2 * tasks + (1 - half), row_keys[1]
    )
    key_support, key_query = jax.random.split(key_action)
    shape = (plan.tasks, plan.support_steps, plan.support_rows)
    return MetaBatch(
        tables.table.batch(support.reshape(shape), key=key_support),
        tables.table.batch(query, key=key_query),
    )


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
