"""Phase 3 on pure-JAX domains: a guarded SAC run as compiled chunks (MESA section 4.3)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.spaces import Spaces
from safemesa.core.types import Key, Metrics, PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import Replay, append, extend, make_replay
from safemesa.domains.base import AbstractJaxDomain
from safemesa.phases.agent import Agent, AgentState, ViolationIndex
from safemesa.phases.artefacts import RiskModel
from safemesa.phases.build import build_learners
from safemesa.phases.config import RunConfig
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.tables import scale_actions, unscale_actions

MAXIMUM_ROWS = 1_000_000
"""Capacity of the online replay."""


class Tally(NamedTuple):
    """Sums over the running episode."""

    length: Int[Array, ""]
    episode_return: Float[Array, ""]
    interventions: Int[Array, ""]
    risk: Float[Array, ""]


class EpisodeRecord(NamedTuple):
    """One row per step; meaningful where `done`."""

    done: Bool[Array, ""]
    env_steps: Int[Array, ""]
    length: Int[Array, ""]
    episode_return: Float[Array, ""]
    violation: Bool[Array, ""]
    success: Bool[Array, ""]
    interventions: Int[Array, ""]
    violation_under_recovery: Bool[Array, ""]
    risk_bias: Float[Array, ""]


class DeployState(eqx.Module):
    """Everything that Phase 3 changes."""

    agent: AgentState
    replay: Replay
    violations: ViolationIndex
    env: PyTree
    obs: Float[Array, " obs"]
    step: Int[Array, ""]
    episode: Int[Array, ""]
    tally: Tally


class Roots(NamedTuple):
    """Root keys of one run's Phase 3, one per purpose."""

    act: Key
    env: Key
    learn: Key
    reset: Key


def deploy_roots(key: Key) -> Roots:
    """Splits the phase's key."""
    act, env, learn, reset = jax.random.split(key, 4)
    return Roots(act, env, learn, reset)


def _empty_tally() -> Tally:
    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    return Tally(none, zero, none, zero)


def initial_state(
    agent: Agent,
    domain: AbstractJaxDomain,
    task: PyTree,
    model: RiskModel,
    test_log: OfflineTasks | None,
    roots: Roots,
    sac_key: Key,
) -> DeployState:
    """Fresh SAC networks, the adapted risk model, and a replay that begins with the test log."""
    rows = test_rows(agent, test_log) if test_log else np.zeros((0, agent.layout.width), np.float32)
    capacity = len(rows) + min(agent.config.episodes * agent.spaces.horizon, MAXIMUM_ROWS)
    replay = make_replay(capacity=capacity, width=agent.layout.width, protected=len(rows))
    replay = extend(replay, jnp.asarray(rows)) if len(rows) else replay
    cost = agent.layout.unpack(jnp.asarray(rows))["cost"]
    positions = np.flatnonzero(np.asarray(cost) > 0).astype(np.int32)
    violations = ViolationIndex(
        jnp.zeros(capacity, jnp.int32).at[: len(positions)].set(positions),
        jnp.asarray(len(positions), jnp.int32),
    )
    if not agent.config.keep_test_log:
        violations = ViolationIndex(jnp.zeros(capacity, jnp.int32), jnp.zeros((), jnp.int32))
    risk = agent.risk.init(model.critic, model.recovery)
    sac = agent.sac.init(key=sac_key)
    env, obs = domain.reset(task, key=jax.random.fold_in(roots.reset, 0))
    return DeployState(
        agent=AgentState(sac, risk, agent.guard.init(), model.normaliser),
        replay=replay,
        violations=violations,
        env=env,
        obs=obs,
        step=jnp.zeros((), jnp.int32),
        episode=jnp.zeros((), jnp.int32),
        tally=_empty_tally(),
    )


def test_rows(agent: Agent, test_log: OfflineTasks) -> Float[np.ndarray, "rows width"]:
    """The test log in the layout of the replay; its proposed action is the logged one."""
    columns = dict(test_log.only_log().columns)
    columns["action"] = scale_actions(np.asarray(columns["action"]), agent.spaces)
    columns["proposed_action"] = columns["action"]
    return np.asarray(agent.layout.pack(columns))


def environment_step(
    agent: Agent, domain: AbstractJaxDomain, task: PyTree, roots: Roots, state: DeployState
) -> tuple[DeployState, EpisodeRecord]:
    """Acts once, stores the transition, and starts the next episode where one has ended."""
    act = agent.act(
        state.agent,
        state.obs,
        state.step < agent.sac.config.warmup_steps,
        key=jax.random.fold_in(roots.act, state.step),
    )
    action = unscale_actions(act.action, agent.spaces)
    env, result = domain.step(
        task, state.env, action, key=jax.random.fold_in(roots.env, state.step)
    )
    row = agent.layout.pack(
        {
            "obs": state.obs,
            "proposed_action": act.proposed,
            "action": act.action,
            "next_obs": result.obs,
            "reward": result.reward,
            "cost": result.cost,
            "terminated": result.terminated,
        }
    )
    violated = result.cost > 0.5
    position = jnp.minimum(state.violations.count, state.violations.positions.shape[0] - 1)
    # The slot after the last violation is free, so it may be written before it is counted.
    violations = ViolationIndex(
        state.violations.positions.at[position].set(_next_position(state.replay)),
        state.violations.count + violated.astype(jnp.int32),
    )
    tally = Tally(
        state.tally.length + 1,
        state.tally.episode_return + result.reward,
        state.tally.interventions + act.intervened.astype(jnp.int32),
        state.tally.risk + act.executed_risk,
    )
    done = result.terminated | result.truncated
    episode = state.episode + done.astype(jnp.int32)
    record = EpisodeRecord(
        done=done,
        env_steps=state.step + 1,
        length=tally.length,
        episode_return=tally.episode_return,
        violation=violated,
        success=result.success,
        interventions=tally.interventions,
        violation_under_recovery=violated & act.intervened,
        risk_bias=_risk_bias(tally, violated, agent.risk.config.gamma_risk),
    )
    fresh_env, fresh_obs = domain.reset(task, key=jax.random.fold_in(roots.reset, episode))

    def choose(fresh: PyTree, ongoing: PyTree) -> PyTree:
        return jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, ongoing)

    new_state = replace(
        state,
        replay=append(state.replay, row),
        violations=violations,
        env=choose(fresh_env, env),
        obs=choose(fresh_obs, result.obs),
        step=state.step + 1,
        episode=episode,
        tally=choose(_empty_tally(), tally),
    )
    return new_state, record


def _next_position(replay: Replay) -> Int[Array, ""]:
    """Where the next row will be written."""
    ring = replay.capacity - replay.protected
    return replay.protected + (replay.written - replay.protected) % ring


def _risk_bias(tally: Tally, violated: Bool[Array, ""], gamma: float) -> Float[Array, ""]:
    """Mean over the episode of Q_risk of the executed action minus the discounted outcome."""
    length = tally.length.astype(jnp.float32)
    outcome = (1.0 - gamma**length) / (1.0 - gamma)
    return (tally.risk - violated.astype(jnp.float32) * outcome) / length


def deploy_chunk(
    agent: Agent,
    domain: AbstractJaxDomain,
    chunk: int,
    learning: bool,
    task: PyTree,
    roots: Roots,
    state: DeployState,
    steps: Int[Array, ""],
) -> tuple[DeployState, EpisodeRecord, Metrics]:
    """Up to `steps` (at most `chunk`) environment steps, each with one update if `learning`.

    Stops early when all episodes are done. Records are `[chunk]`; metrics are those of the last
    update.
    """

    def one_step(state: DeployState) -> tuple[DeployState, EpisodeRecord, Metrics]:
        index = state.step
        state, record = environment_step(agent, domain, task, roots, state)
        if not learning:
            return state, record, {}
        learned, metrics = agent.learn(
            state.agent, state.replay, state.violations, key=jax.random.fold_in(roots.learn, index)
        )
        return replace(state, agent=learned), record, metrics

    def body(carry: tuple) -> tuple:
        index, state, records, _ = carry
        state, record, metrics = one_step(state)
        records = jax.tree.map(lambda all_, one: all_.at[index].set(one), records, record)
        return index + 1, state, records, metrics

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        index, state, _, _ = carry
        return (index < steps) & (state.episode < agent.config.episodes)

    _, record_shape, metrics_shape = jax.eval_shape(one_step, state)
    records = jax.tree.map(lambda leaf: jnp.zeros((chunk, *leaf.shape), leaf.dtype), record_shape)
    metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics_shape)
    start = (jnp.zeros((), jnp.int32), state, records, metrics)
    _, state, records, metrics = jax.lax.while_loop(unfinished, body, start)
    if learning and agent.guard.uses_risk:
        key = jax.random.fold_in(roots.learn, state.step)
        logit = agent.median_violation_logit(state.agent, state.replay, state.violations, key=key)
        metrics = metrics | {"median_violation_logit": logit}
    return state, records, metrics


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), donate_argnums=7)
def _run_deploy(
    axis: SeedAxis,
    agent: Agent,
    domain: AbstractJaxDomain,
    chunk: int,
    learning: bool,
    tasks: PyTree,
    roots: Roots,
    state: DeployState,
    steps: Array,
) -> tuple[DeployState, EpisodeRecord, Metrics]:
    advance = partial(deploy_chunk, agent, domain, chunk, learning)
    return axis.map(advance, (0, 0, 0, None))(tasks, roots, state, steps)


class Chunk(NamedTuple):
    """What one seed did in one chunk."""

    state: DeployState
    first_step: int
    episodes: list[dict[str, Any]]
    metrics: dict[str, float]


OnChunk = Callable[[int, Chunk], None]
"""Called per seed after each chunk with (seed index, what happened)."""


def deploy(
    axis: SeedAxis,
    agent: Agent,
    domain: AbstractJaxDomain,
    tasks: Sequence[PyTree],
    roots: Sequence[Roots],
    states: Sequence[DeployState],
    on_chunk: OnChunk,
) -> list[DeployState]:
    """Runs all episodes of all seeds, from wherever `states` are."""
    config = agent.config
    # Copied, because chunks donate their state and callers keep what they passed.
    state = jax.tree.map(jnp.copy, axis.stack(states))
    stacked_tasks, stacked_roots = axis.stack(tasks), axis.stack(roots)
    chunk = config.chunk_steps
    while True:
        per_seed = axis.unstack(state)
        if all(int(one.episode) >= config.episodes for one in per_seed):
            return per_seed
        first = [int(one.step) for one in per_seed]
        # Finished seeds stand still; the others have taken the same number of steps.
        done = max(first)
        learning = done >= agent.learning_starts
        steps = chunk if learning else min(chunk, agent.learning_starts - done)
        state, records, metrics = _run_deploy(
            axis,
            agent,
            domain,
            chunk,
            learning,
            stacked_tasks,
            stacked_roots,
            state,
            jnp.int32(steps),
        )
        parts = zip(axis.unstack(state), axis.unstack(records), axis.unstack(metrics), strict=True)
        for seed, (one, record, values) in enumerate(parts):
            if int(one.step) > first[seed]:
                numbers = {name: float(value) for name, value in values.items()}
                on_chunk(seed, Chunk(one, first[seed], _episodes(record), numbers))


def _episodes(records: EpisodeRecord) -> list[dict[str, Any]]:
    """The episodes that ended in a chunk, as plain values."""
    columns = {name: np.asarray(values) for name, values in records._asdict().items()}
    return [
        {name: values[row].item() for name, values in columns.items() if name != "done"}
        for row in np.flatnonzero(columns["done"])
    ]


def build_agent(config: RunConfig, spaces: Spaces) -> Agent:
    """The agent of a configuration; arms that differ in Phase 1 alone share it, compiled."""
    learners = build_learners(config, spaces)
    return Agent(
        config=config.deploy,
        spaces=spaces,
        sac=learners.sac,
        risk=learners.deployment,
        guard=learners.guard,
    )
