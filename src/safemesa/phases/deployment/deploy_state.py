"""What Phase 3 changes, and what one step adds to it; compiled and host environments share it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.streams import Stream, root_key
from safemesa.core.types import Key, PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import Replay, append, extend, make_replay, next_position
from safemesa.domains.base import Step
from safemesa.learners.monitor.tracker import Tracker, track
from safemesa.phases.deployment.abstract_agent import AbstractAgent, Act, ViolationIndex

MAXIMUM_ROWS = 1_000_000
"""Capacity of the online replay."""


class Tally(NamedTuple):
    """Sums over the running episode."""

    length: Int[Array, ""]
    episode_return: Float[Array, ""]
    violations: Int[Array, ""]
    violations_under_recovery: Int[Array, ""]
    interventions: Int[Array, ""]
    risk: Float[Array, ""]


class EpisodeRecord(NamedTuple):
    """One row per step; meaningful where `done`.

    `violation` counts violating steps: at most one in Phase 3, where the first ends the episode.
    """

    done: Bool[Array, ""]
    env_steps: Int[Array, ""]
    length: Int[Array, ""]
    episode_return: Float[Array, ""]
    violation: Int[Array, ""]
    success: Bool[Array, ""]
    interventions: Int[Array, ""]
    violation_under_recovery: Int[Array, ""]
    risk_bias: Float[Array, ""]


class DeployState(eqx.Module):
    """Everything that Phase 3 changes.

    `env` is the state of a compiled environment, about to act on `obs`; on the host it is the `Act`
    that the environment is about to take, so that a resumed run takes that very action.
    """

    agent: PyTree
    replay: Replay
    violations: ViolationIndex
    env: PyTree
    obs: Float[Array, " obs"]
    step: Int[Array, ""]
    episode: Int[Array, ""]
    tally: Tally
    monitor: PyTree = ()
    """A `Tracker` of the robot's dynamics, or nothing."""


class Roots(NamedTuple):
    """Root keys of one run's Phase 3, one per purpose."""

    act: Key
    env: Key
    learn: Key
    reset: Key


def deploy_roots(seed: int) -> Roots:
    """Those of a run seed."""
    streams = (Stream.ACT, Stream.ENVIRONMENT, Stream.LEARN, Stream.RESET)
    return Roots(*(root_key(seed, stream) for stream in streams))


def reset_key(roots: Roots, episode: Int[Array, ""] | int) -> Key:
    """What an episode starts from: it does not depend on the run's past."""
    return jax.random.fold_in(roots.reset, episode)


def empty_tally() -> Tally:
    """An episode of no steps."""
    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    return Tally(none, zero, none, none, none, zero)


def initial_state(
    agent: AbstractAgent,
    model: Any,
    test_log: OfflineTasks | None,
    env: PyTree,
    obs: Float[Array, " obs"],
    key: Key,
) -> DeployState:
    """The state before the first step, with a replay that begins with what the agent brings."""
    rows = agent.first_rows(model, test_log)
    online = min(agent.config.maximum_steps(agent.spaces.horizon), MAXIMUM_ROWS)
    capacity = len(rows) + online
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
    return DeployState(
        agent=agent.initial(model, key=key),
        replay=replay,
        violations=violations,
        env=env,
        obs=obs,
        step=jnp.zeros((), jnp.int32),
        episode=jnp.zeros((), jnp.int32),
        tally=empty_tally(),
    )


def act_at(agent: AbstractAgent, state: DeployState, roots: Roots) -> Act:
    """What the agent does at the observation of the state."""
    key = jax.random.fold_in(roots.act, state.step)
    warmup = state.step < agent.warmup_steps
    if not isinstance(state.monitor, Tracker):
        return agent.act(state.agent, state.obs, warmup, key=key)
    return agent.act(
        state.agent, state.obs, warmup, key=key, limit_factor=state.monitor.limit_factor
    )


def observe(
    agent: AbstractAgent, state: DeployState, act: Act, result: Step
) -> tuple[DeployState, EpisodeRecord]:
    """Stores the transition and closes the books of an episode that it ends.

    `env` and `obs` of the state are left for the caller to replace.
    """
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
        state.violations.positions.at[position].set(next_position(state.replay)),
        state.violations.count + violated.astype(jnp.int32),
    )
    tally = Tally(
        state.tally.length + 1,
        state.tally.episode_return + result.reward,
        state.tally.violations + violated.astype(jnp.int32),
        state.tally.violations_under_recovery + (violated & act.intervened).astype(jnp.int32),
        state.tally.interventions + act.intervened.astype(jnp.int32),
        state.tally.risk + act.executed_risk,
    )
    done = result.terminated | result.truncated
    record = EpisodeRecord(
        done=done,
        env_steps=state.step + 1,
        length=tally.length,
        episode_return=tally.episode_return,
        violation=tally.violations,
        success=result.success,
        interventions=tally.interventions,
        violation_under_recovery=tally.violations_under_recovery,
        risk_bias=_risk_bias(tally, violated, agent.gamma_risk),
    )
    monitor = state.monitor
    if isinstance(monitor, Tracker):
        monitor, _ = track(monitor, state.obs, act.action, result.obs, state.step)
    new_state = replace(
        state,
        monitor=monitor,
        agent=agent.after(state.agent, act, tally.length, done),
        replay=append(state.replay, row),
        violations=violations,
        step=state.step + 1,
        episode=state.episode + done.astype(jnp.int32),
        tally=where(done, empty_tally(), tally),
    )
    return new_state, record


def where(condition: Bool[Array, ""], chosen: PyTree, other: PyTree) -> PyTree:
    """One of two trees of arrays."""
    return jax.tree.map(lambda one, two: jnp.where(condition, one, two), chosen, other)


def _risk_bias(tally: Tally, violated: Bool[Array, ""], gamma: float) -> Float[Array, ""]:
    """Mean over the episode of Q_risk of the executed action minus the discounted outcome."""
    length = tally.length.astype(jnp.float32)
    outcome = (1.0 - gamma**length) / (1.0 - gamma)
    return (tally.risk - violated.astype(jnp.float32) * outcome) / length


class Chunk(NamedTuple):
    """What one seed did in one chunk."""

    state: DeployState
    first_step: int
    episodes: list[dict[str, Any]]
    metrics: dict[str, float]


OnChunk = Callable[[int, Chunk], None]
"""Called per seed after each chunk with (seed index, what happened)."""


def episodes_of(records: EpisodeRecord) -> list[dict[str, Any]]:
    """The episodes that ended in a chunk, as plain values."""
    columns = {name: np.asarray(values) for name, values in records._asdict().items()}
    return [
        {name: values[row].item() for name, values in columns.items() if name != "done"}
        for row in np.flatnonzero(columns["done"])
    ]
