"""Phase 1: the prior, from the logs of the training tasks (MESA section 4.1)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, root_key, substream
from safemesa.core.types import Key, Metrics, PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import RowLayout
from safemesa.learners.meta import MetaState
from safemesa.learners.risk import RecoveryState, with_recovery_actions
from safemesa.networks.normaliser import Normaliser, fit_normaliser
from safemesa.phases.build import Learners, fresh_risk_networks, prior_learners
from safemesa.phases.config import RESIDENT_GIB, RunConfig
from safemesa.phases.log_tables import (
    LogFiles,
    LogTable,
    MetaBatch,
    MetaRows,
    TrainTables,
    build_log_table,
    build_train_tables,
    learned_obs,
    meta_batch,
    sample_meta_batch,
    sample_meta_rows,
)
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.rehearsal import draw_rehearsal
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.storage.artefacts import Prior, RiskModel

CHUNK = 500
"""Outer steps between checkpoints and progress reports."""

STREAMED = 50
"""Outer steps whose rows are read together from logs that stay in their files."""


class MetaTrainState(eqx.Module):
    """Everything that Phase 1 changes. `totals` sums the metrics of the current chunk."""

    meta: MetaState
    recovery: RecoveryState


def _recovery_rows(
    batch: MetaBatch, test_table: LogTable | None, rows: int, key: Key
) -> tuple[Float[Array, "rows obs"], Float[Array, "rows act"]]:
    """States that the recovery policy learns on, of the query rows or of the test log.

    With the actions that were executed there.
    """
    if test_table is not None:
        key_rows, key_action = jax.random.split(key)
        index = jax.random.randint(key_rows, (rows,), 0, test_table.rows.shape[0], jnp.int32)
        drawn = test_table.batch(index, key=key_action)
        return drawn.obs, drawn.action

    def thinned(leaf: Array) -> Array:
        flat = leaf.reshape(-1, leaf.shape[-1])
        return flat[:: max(1, flat.shape[0] // rows)][:rows]

    return thinned(batch.query.obs), thinned(batch.query.action)


def step_keys(root: Key, step: Int[Array, ""]) -> tuple[Key, Key]:
    """The keys of an outer step: of its batch, and of the recovery policy's states."""
    key = jax.random.fold_in(root, step)
    return key, substream(key, Stream.RECOVERY_ROWS)


def _outer_steps(
    learners: Learners,
    draw: Callable[[Array, Key], MetaBatch],
    test_table: LogTable | None,
    state: MetaTrainState,
    root: Key,
    start: Int[Array, ""],
    stop: Int[Array, ""],
) -> tuple[MetaTrainState, Metrics]:
    """Outer steps `start` to `stop`; returns the mean of each metric over them.

    `draw(step, key)` is the batch of an outer step.
    """
    rows = learners.meta.settings.query_batch

    def outer_step(index: Array, state: MetaTrainState) -> tuple[MetaTrainState, Metrics]:
        key_batch, key_recovery = step_keys(root, index)
        batch = draw(index, key_batch)
        support, query = (
            with_recovery_actions(
                one, learners.meta.target, state.recovery.policy, state.meta.critic
            )
            for one in batch
        )
        meta, metrics = learners.meta.update(state.meta, support, query, learners.risk_term)
        recovery, recovery_metrics = learners.risk.update_recovery(
            state.recovery, meta.critic, *_recovery_rows(batch, test_table, rows, key_recovery)
        )
        return MetaTrainState(meta, recovery), metrics | recovery_metrics

    def body(index: Array, carry: tuple) -> tuple:
        state, totals = carry
        state, metrics = outer_step(index, state)
        return state, jax.tree.map(jnp.add, totals, metrics)

    shapes = jax.eval_shape(lambda s: outer_step(start, s)[1], state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state, totals = jax.lax.fori_loop(start, stop, body, (state, zeros))
    steps = (stop - start).astype(jnp.float32)
    return state, jax.tree.map(lambda total: total / steps, totals)


def meta_train_chunk(
    learners: Learners,
    tables: TrainTables,
    test_table: LogTable | None,
    state: MetaTrainState,
    root: Key,
    start: Int[Array, ""],
    stop: Int[Array, ""],
) -> tuple[MetaTrainState, Metrics]:
    """Outer steps `start` to `stop` on logs that are on the device; returns mean metrics."""
    plan, fraction = learners.meta.plan(tables.tasks), learners.sampling.violation_fraction

    def draw(step: Array, key: Key) -> MetaBatch:
        del step
        return sample_meta_batch(tables, plan, fraction, key=key)

    return _outer_steps(learners, draw, test_table, state, root, start, stop)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def _run_meta_train(
    axis: SeedAxis,
    learners: Learners,
    tables: TrainTables,
    test_tables: LogTable | None,
    state: MetaTrainState,
    roots: PyTree,
    start: Array,
    stop: Array,
) -> tuple[MetaTrainState, Metrics]:
    advance = partial(meta_train_chunk, learners)
    mapped = axis.map(advance, (None, None if test_tables is None else 0, 0, 0, None, None))
    return mapped(tables, test_tables, state, roots, start, stop)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=5)
def _run_on_rows(
    axis: SeedAxis,
    learners: Learners,
    layout: RowLayout,
    rows: MetaRows,
    test_tables: LogTable | None,
    state: MetaTrainState,
    roots: PyTree,
    start: Array,
    stop: Array,
) -> tuple[MetaTrainState, Metrics]:
    """On rows `[steps, ...]` that were gathered for the steps from `start` on."""

    def advance(
        own: MetaRows, test_table: LogTable | None, state: MetaTrainState, root: Key
    ) -> tuple[MetaTrainState, Metrics]:
        def draw(step: Array, key: Key) -> MetaBatch:
            return meta_batch(layout, jax.tree.map(lambda part: part[step - start], own), key=key)

        return _outer_steps(learners, draw, test_table, state, root, start, stop)

    mapped = axis.map(advance, (0, None if test_tables is None else 0, 0, 0))
    return mapped(rows, test_tables, state, roots)


@partial(jax.jit, static_argnums=(0, 1))
def _draw_rows(
    axis: SeedAxis, learners: Learners, tables: TrainTables, roots: PyTree, start: Array
) -> MetaRows:
    """Numbers of the rows of `STREAMED` outer steps from `start` on: `[steps, ...]` per seed."""
    plan, fraction = learners.meta.plan(tables.tasks), learners.sampling.violation_fraction

    def draw(root: Key) -> MetaRows:
        def one(step: Array) -> MetaRows:
            return sample_meta_rows(tables, plan, fraction, key=step_keys(root, step)[0])

        return jax.lax.map(one, start + jnp.arange(STREAMED))

    return axis.map(draw, (0,))(roots)


def _blocks(
    start: int, stop: int, read: Callable[[int], MetaRows]
) -> Iterator[tuple[int, int, MetaRows]]:
    """Blocks of outer steps with their rows, of which the next ones are read meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, start)
        for first in range(start, stop, STREAMED):
            last, rows = min(first + STREAMED, stop), coming.result()
            if last < stop:
                coming = reader.submit(read, last)
            yield first, last, rows


def meta_train(
    configs: Sequence[RunConfig],
    data: OfflineTasks,
    test_logs: Sequence[OfflineTasks] | None = None,
    loop: ChunkLoop | None = None,
    *,
    resident_gib: float = RESIDENT_GIB,
) -> list[Prior]:
    """Learns one prior per configuration; configurations may differ in their seeds alone.

    `test_logs` (one per configuration) are needed only for `meta.recovery_logs = "test"`. Training
    logs that take more than `resident_gib` as a table stay in their files; rows of some steps are
    read while those before are learned from. The prior is the same.
    """
    config, axis = configs[0], SeedAxis(len(configs))
    learners = prior_learners(config)
    normaliser = fit_normaliser([learned_obs(log, config.sampling) for log in data.train])
    policy = config.sampling.next_action
    tables = build_train_tables(
        data,
        normaliser,
        config.sampling,
        config.data_seed,
        resident_gib,
        split=learners.meta.plan(len(data.train)).support_steps > 0,
    )
    test_tables = None
    if config.meta.recovery_logs == "test":
        if not test_logs:
            raise ConfigurationError(
                'meta.recovery_logs is "test", but the data set has no log of the new robot, on '
                'which the recovery policy is to be trained. Add one, or take "train".'
            )
        test_tables = axis.stack(
            [
                build_log_table((log.only_log(),), data.spaces, normaliser, "uniform")
                for log in test_logs
            ]
        )
    state = axis.stack([_initial_state(one, learners, data) for one in configs])
    roots = axis.stack([root_key(one.seed, Stream.META_TRAIN) for one in configs])

    def advance(state: MetaTrainState, start: int, stop: int) -> tuple[MetaTrainState, Metrics]:
        return _run_meta_train(
            axis, learners, tables, test_tables, state, roots, jnp.int32(start), jnp.int32(stop)
        )

    files = LogFiles(logs=data.train, spaces=data.spaces, normaliser=normaliser, next_action=policy)

    def read(first: int) -> MetaRows:
        numbers = _draw_rows(axis, learners, tables, roots, jnp.int32(first))
        return jax.tree.map(lambda index: files.rows(np.asarray(index)), numbers)

    def advance_streamed(
        state: MetaTrainState, start: int, stop: int
    ) -> tuple[MetaTrainState, Metrics]:
        sums: list[Metrics] = []
        for first, last, rows in _blocks(start, stop, read):
            block = (jnp.int32(first), jnp.int32(last))
            state, metrics = _run_on_rows(
                axis, learners, files.layout, rows, test_tables, state, roots, *block
            )
            sums.append(jax.tree.map(lambda one, n=last - first: one * n, metrics))
        return state, jax.tree.map(lambda *ones: sum(ones) / (stop - start), *sums)

    loop = loop or ChunkLoop("meta_train")
    step = advance if tables.table is not None else advance_streamed
    state = loop.run(axis, state, config.meta.iterations, CHUNK, step)
    rehearsal = draw_rehearsal(data, config, normaliser)
    return [_prior(one, normaliser, rehearsal) for one in axis.unstack(state)]


def _initial_state(config: RunConfig, learners: Learners, data: OfflineTasks) -> MetaTrainState:
    critic, recovery = fresh_risk_networks(config, data.spaces)
    return MetaTrainState(learners.meta.init(critic), learners.risk.init_recovery(recovery))


def _prior(
    state: MetaTrainState, normaliser: Normaliser, rehearsal: Float[Array, "rows width"] | None
) -> Prior:
    model = RiskModel(state.meta.critic, state.recovery.policy, normaliser, rehearsal=rehearsal)
    return Prior(model, state.meta.log_step_sizes)
