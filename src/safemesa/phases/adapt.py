"""Phase 2: the prior becomes the risk model of the new robot (MESA section 4.2).

The meta-learner takes its inner steps at its own rates first, then Adam goes on; the target
critic starts at the prior and follows at `adapt.target_rate`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, root_key, substream
from safemesa.core.types import Key, Metrics, PyTree, RiskBatch
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.sampling import RowIndex, make_row_index, sample_rows
from safemesa.learners.meta.base import inner_loop
from safemesa.learners.meta.registry import meta_learners
from safemesa.learners.risk import RiskState, soft_update, with_recovery_actions
from safemesa.networks.normaliser import fit_normaliser
from safemesa.phases.build import Learners, adaptation_learners
from safemesa.phases.config import RunConfig
from safemesa.phases.log_tables import LogTable, build_log_table, chosen_rows, learned_obs
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.rehearsal import rehearsal_layout
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.storage.artefacts import Prior, RiskModel, prior_template
from safemesa.phases.takeover_limit import find_limit

CHUNK = 500
"""Steps between checkpoints and progress reports."""


def adaptation_steps(config: RunConfig) -> int:
    """Gradient steps of Phase 2: more for a meta-learner that starts from fresh networks."""
    return config.adapt.steps if uses_training_logs(config) else config.adapt.scratch_steps


def uses_training_logs(config: RunConfig) -> bool:
    """Whether the arm has a Phase 1."""
    return meta_learners[config.meta_learner].uses_training_logs


class AdaptTables(eqx.Module):
    """What Phase 2 learns from: the new robot's log, and rows of the fleet's if there are any."""

    table: LogTable
    index: RowIndex
    rehearsal: LogTable | None = None

    def draw(self, rows: int, fraction: float | None, *, key: Key) -> RiskBatch:
        """Rows of the new robot's log."""
        key_rows, key_action = jax.random.split(key)
        chosen = sample_rows(self.index, 0, rows, fraction, key=key_rows)
        return self.table.batch(chosen, key=key_action)

    def rehearse(self, rows: int, *, key: Key) -> RiskBatch:
        """Rows of the fleet's logs."""
        assert self.rehearsal is not None
        key_rows, key_action = jax.random.split(key)
        count = self.rehearsal.rows.shape[0]
        chosen = jax.random.randint(key_rows, (rows,), 0, count, jnp.int32)
        return self.rehearsal.batch(chosen, key=key_action)


def inner_adaptation(
    learners: Learners,
    prior: Prior,
    state: RiskState,
    tables: AdaptTables,
    key: Key,
) -> RiskState:
    """The inner step that Phase 1 optimised: same rate, same number of rows, same bootstrap."""
    meta = learners.meta
    batch = tables.draw(meta.settings.support_batch, learners.sampling.violation_fraction, key=key)
    batch = with_recovery_actions(batch, meta.target, state.recovery.policy, state.target_critic)
    support = jax.tree.map(lambda leaf: leaf[None], batch)
    critic = inner_loop(
        state.critic,
        prior.log_step_sizes,
        support,
        meta.risk,
        risk_term=learners.risk_term,
        target=meta.target,
        bootstrap=None if meta.settings.target_rate == 1.0 else state.target_critic,
    )
    target = soft_update(state.target_critic, critic, learners.risk.target_rate)
    recovery, _ = learners.risk.update_recovery(state.recovery, critic, batch.obs, batch.action)
    return replace(state, critic=critic, target_critic=target, recovery=recovery)


def adapt_chunk(
    learners: Learners,
    rows: int,
    rehearsed: int,
    tables: AdaptTables,
    state: RiskState,
    root: Key,
    start: Int[Array, ""],
    stop: Int[Array, ""],
) -> tuple[RiskState, Metrics]:
    """Adam steps `start` to `stop`; returns the metrics of the last.

    Of the `rows` of a batch `rehearsed` are the fleet's.
    """

    def step(number: Array, state: RiskState) -> tuple[RiskState, Metrics]:
        key = jax.random.fold_in(root, number)
        fraction = learners.sampling.violation_fraction
        batch = tables.draw(rows - rehearsed, fraction, key=key)
        if rehearsed:
            fleet = tables.rehearse(rehearsed, key=substream(key, Stream.FLEET_ROWS))
            batch = jax.tree.map(lambda *parts: jnp.concatenate(parts), batch, fleet)
        return learners.risk.update(state, batch, learners.risk_term)

    shapes = jax.eval_shape(lambda s: step(start, s)[1], state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.fori_loop(start, stop, lambda i, carry: step(i, carry[0]), (state, zeros))


@partial(jax.jit, static_argnums=(0, 1))
def _run_inner_step(
    axis: SeedAxis,
    learners: Learners,
    prior: Prior,
    state: RiskState,
    tables: AdaptTables,
    keys: PyTree,
) -> RiskState:
    step = axis.map(partial(inner_adaptation, learners), (0,) * 4)
    return step(prior, state, tables, keys)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run_adapt(
    axis: SeedAxis,
    learners: Learners,
    rows: int,
    rehearsed: int,
    tables: AdaptTables,
    state: RiskState,
    roots: PyTree,
    start: Array,
    stop: Array,
) -> tuple[RiskState, Metrics]:
    mapped = axis.map(partial(adapt_chunk, learners, rows, rehearsed), (0, 0, 0, None, None))
    return mapped(tables, state, roots, start, stop)


def scratch_prior(config: RunConfig, test_log: OfflineTasks) -> Prior:
    """Fresh networks, normalised by the only log that this arm may see."""
    template = prior_template(config, test_log.spaces)
    obs = learned_obs(test_log.only_log(), config.sampling)
    return replace(template, model=replace(template.model, normaliser=fit_normaliser([obs])))


def adapt(
    configs: Sequence[RunConfig],
    priors: Sequence[Prior],
    test_logs: Sequence[OfflineTasks],
    loop: ChunkLoop | None = None,
    *,
    steps: int | None = None,
    roots: Sequence[Key] | None = None,
) -> list[RiskModel]:
    """Specialises each prior to its test log; `steps` overrides the configured number.

    `roots` are the keys of runs that do it again.
    """
    snapshots = adapt_with_snapshots(configs, priors, test_logs, (), loop, steps=steps, roots=roots)
    return snapshots[-1]


def adapt_with_snapshots(
    configs: Sequence[RunConfig],
    priors: Sequence[Prior],
    test_logs: Sequence[OfflineTasks],
    at: Sequence[int],
    loop: ChunkLoop | None = None,
    *,
    steps: int | None = None,
    roots: Sequence[Key] | None = None,
) -> list[list[RiskModel]]:
    """As `adapt`, but also returns the models after each number of steps in `at`.

    The result has one entry per number in `at`, then the final models.
    """
    config, axis = configs[0], SeedAxis(len(configs))
    spaces = test_logs[0].spaces
    learners = adaptation_learners(config)
    total = adaptation_steps(config) if steps is None else steps
    tables, indices = [], []
    for prior, data in zip(priors, test_logs, strict=True):
        log = data.only_log()
        tables.append(
            build_log_table((log,), spaces, prior.model.normaliser, config.sampling.next_action)
        )
        rows = chosen_rows(log, config.sampling)
        indices.append(make_row_index([rows], [np.asarray(log.columns["cost"])]))
    prior = axis.stack([replace(one, model=replace(one.model, rehearsal=None)) for one in priors])
    rehearsed, rehearsal = _rehearsal(axis, config, priors, spaces)
    everything = AdaptTables(axis.stack(tables), _stack_indices(axis, indices), rehearsal)
    given = [root_key(one.seed, Stream.ADAPT) for one in configs] if roots is None else roots
    keys_of_runs = axis.stack(given)
    state = axis.stack([learners.risk.init(one.model.critic, one.model.recovery) for one in priors])
    inner = min(learners.meta.inner_steps, total)

    def advance(state: RiskState, start: int, stop: int) -> tuple[RiskState, Metrics]:
        while start < min(inner, stop):
            keys = axis.map(lambda root, n=start: jax.random.fold_in(root, n), (0,))(keys_of_runs)
            state = _run_inner_step(axis, learners, prior, state, everything, keys)
            start += 1
        if start == stop:
            return state, {}  # no step of Adam was taken, so there is no loss to tell
        return _run_adapt(
            axis,
            learners,
            config.adapt.batch,
            rehearsed,
            everything,
            state,
            keys_of_runs,
            jnp.int32(start),
            jnp.int32(stop),
        )

    def models(state: RiskState) -> list[RiskModel]:
        return [
            _with_limit(
                replace(start.model, critic=one.critic, recovery=one.recovery.policy),
                config,
                data,
            )
            for one, start, data in zip(axis.unstack(state), priors, test_logs, strict=True)
        ]

    loop = loop or ChunkLoop("adapt")
    if not at:
        return [models(loop.run(axis, state, total, CHUNK, advance))]
    taken, done = [], 0
    for stop in (*(min(number, total) for number in at), total):
        if stop > done:
            state, _ = advance(state, done, stop)
            done = stop
        taken.append(models(state))
    return taken


def _rehearsal(
    axis: SeedAxis, config: RunConfig, priors: Sequence[Prior], spaces: Spaces
) -> tuple[int, LogTable | None]:
    """Rows of a batch that are the fleet's, and these rows, where the priors carry any."""
    rows = [one.model.rehearsal for one in priors]
    carried = [one for one in rows if one is not None]
    wanted = round(config.rehearsal.adapt_share * config.adapt.batch)
    if len(carried) < len(rows) or not wanted:
        return 0, None
    layout = rehearsal_layout(spaces)
    return wanted, axis.stack([LogTable(one, layout) for one in carried])


def _with_limit(model: RiskModel, config: RunConfig, data: OfflineTasks) -> RiskModel:
    """The model with the limit of the guard `takeover`; other guards have that of the settings."""
    if config.guard != "takeover":
        return model
    limit = config.risk_limit
    if limit is None:
        limit = find_limit(model, config, data.only_log(), data.spaces).limit
    return replace(model, limit=jnp.asarray(limit, jnp.float32))


def _stack_indices(axis: SeedAxis, indices: list[RowIndex]) -> RowIndex:
    """Stacks after padding: test logs differ in their numbers of rows."""
    if axis.count == 1:
        return indices[0]

    most = max(index.rows.shape[1] for index in indices)

    def padded(index: RowIndex) -> RowIndex:
        missing = most - index.rows.shape[1]
        return replace(index, rows=jnp.pad(index.rows, ((0, 0), (0, missing))))

    return axis.stack([padded(index) for index in indices])
