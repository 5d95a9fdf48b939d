"""Phase 1: the prior, from the logs of the training tasks (MESA section 4.1)."""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.types import Key, Metrics, PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.learners.meta import MetaState
from safemesa.learners.risk import RecoveryState
from safemesa.networks.normaliser import Normaliser, fit_normaliser
from safemesa.phases.build import Learners, build_learners, fresh_risk_networks, phase_key
from safemesa.phases.config import RunConfig
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.storage.artefacts import Prior, RiskModel
from safemesa.phases.tables import (
    LogTable,
    MetaBatch,
    TrainTables,
    build_log_table,
    build_train_tables,
    sample_meta_batch,
)

CHUNK = 500
"""Outer steps between checkpoints and progress reports."""


class MetaTrainState(eqx.Module):
    """Everything that Phase 1 changes. `totals` sums the metrics of the current chunk."""

    meta: MetaState
    recovery: RecoveryState


def _recovery_obs(
    batch: MetaBatch, test_table: LogTable | None, rows: int, key: Key
) -> Float[Array, "rows obs"]:
    """States that the recovery policy learns on: of the query rows, or of the test log."""
    if test_table is not None:
        index = jax.random.randint(key, (rows,), 0, test_table.rows.shape[0], jnp.int32)
        return test_table.batch(index, key=key).obs
    obs = batch.query.obs.reshape(-1, batch.query.obs.shape[-1])
    return obs[:: max(1, obs.shape[0] // rows)][:rows]


def meta_train_chunk(
    learners: Learners,
    tables: TrainTables,
    test_table: LogTable | None,
    state: MetaTrainState,
    root: Key,
    start: Int[Array, ""],
    stop: Int[Array, ""],
) -> tuple[MetaTrainState, Metrics]:
    """Outer steps `start` to `stop`; returns the mean of each metric over them."""
    config = learners.meta.config
    plan = learners.meta.plan(tables.tasks)

    def outer_step(index: Array, state: MetaTrainState) -> tuple[MetaTrainState, Metrics]:
        key_batch, key_recovery = jax.random.split(jax.random.fold_in(root, index))
        fraction = learners.meta.risk.violation_fraction
        batch = sample_meta_batch(tables, plan, fraction, key=key_batch)
        meta, metrics = learners.meta.update(
            state.meta, batch.support, batch.query, learners.guard.risk_term
        )
        obs = _recovery_obs(batch, test_table, config.query_batch, key_recovery)
        recovery, recovery_metrics = learners.prior_recovery.update_recovery(
            state.recovery, meta.critic, obs
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


def meta_train(
    configs: Sequence[RunConfig],
    data: OfflineTasks,
    test_logs: Sequence[OfflineTasks] | None = None,
    loop: ChunkLoop | None = None,
) -> list[Prior]:
    """Learns one prior per configuration; configurations may differ in their seeds alone.

    `test_logs` (one per configuration) are needed only for `meta.recovery_logs = "test"`.
    """
    config, axis = configs[0], SeedAxis(len(configs))
    learners = build_learners(config, data.spaces)
    normaliser = fit_normaliser([np.asarray(log.columns["obs"]) for log in data.train])
    tables = build_train_tables(data, normaliser, config.data.next_action, config.data_seed)
    test_tables = None
    if config.meta.recovery_logs == "test" and test_logs:
        test_tables = axis.stack(
            [
                build_log_table((log.only_log(),), data.spaces, normaliser, "uniform")
                for log in test_logs
            ]
        )
    state = axis.stack([_initial_state(one, learners, data) for one in configs])
    roots = axis.stack([phase_key(one.seed, "meta_train") for one in configs])

    def advance(state: MetaTrainState, start: int, stop: int) -> tuple[MetaTrainState, Metrics]:
        return _run_meta_train(
            axis, learners, tables, test_tables, state, roots, jnp.int32(start), jnp.int32(stop)
        )

    loop = loop or ChunkLoop("meta_train")
    state = loop.run(axis, state, config.meta.iterations, CHUNK, advance)
    return [_prior(one, normaliser) for one in axis.unstack(state)]


def _initial_state(config: RunConfig, learners: Learners, data: OfflineTasks) -> MetaTrainState:
    critic, recovery = fresh_risk_networks(config, data.spaces)
    return MetaTrainState(
        learners.meta.init(critic), learners.prior_recovery.init_recovery(recovery)
    )


def _prior(state: MetaTrainState, normaliser: Normaliser) -> Prior:
    model = RiskModel(state.meta.critic, state.recovery.policy, normaliser)
    return Prior(model, state.meta.log_step_sizes)
