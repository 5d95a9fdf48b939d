"""Batches of Phase 3 that are given a share of violations, and who must not be misled by it."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from safemesa.core.types import Key, Metrics, PyTree, RiskBatch
from safemesa.datasets.replay import Replay, extend, make_replay
from safemesa.domains.registry import domain
from safemesa.guards import AbstractGuard, Decision, Situation, let_run
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases.build import fresh_risk_networks
from safemesa.phases.deployment.guarded_sac import Agent, AgentState, ViolationIndex, build_agent
from safemesa.phases.rehearsal import rehearsal_layout
from safemesa.phases.storage.artefacts import RiskModel

SHARE, ROWS, VIOLATIONS = 0.5, 200, 4


@dataclass(frozen=True, kw_only=True)
class Counting(AbstractGuard):
    """Reports the share of violations in what its dual variables would answer to."""

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        del state, key
        return let_run(situation)

    def update(self, state: PyTree, critic: RiskCritic, batch: RiskBatch) -> tuple[PyTree, Metrics]:
        del critic
        return state, {"shown": jnp.mean(batch.cost)}


def an_agent(fraction: float | None) -> tuple[Agent, AgentState]:
    config = tiny_config("rrl")
    config = replace(
        config,
        sampling=replace(config.sampling, violation_fraction=fraction),
        sac=replace(config.sac, batch=64),
    )
    spaces = domain("navigation2").spaces
    agent = replace(build_agent(config, spaces), guard=Counting())
    critic, recovery = fresh_risk_networks(config, spaces)
    model = RiskModel(critic, recovery, identity_normaliser(spaces.obs_size))
    return agent, agent.initial(model, key=jax.random.key(0))


def a_replay(agent: Agent, cost: np.ndarray) -> Replay:
    rows = np.zeros((len(cost), agent.layout.width), np.float32)
    rows[:, agent.layout.places["cost"]] = cost
    return extend(make_replay(capacity=ROWS, width=agent.layout.width), jnp.asarray(rows))


def index_of(cost: np.ndarray) -> ViolationIndex:
    positions = np.flatnonzero(cost).astype(np.int32)
    padded = jnp.zeros(ROWS, jnp.int32).at[: len(positions)].set(positions)
    return ViolationIndex(padded, jnp.asarray(len(positions), jnp.int32))


def costs() -> np.ndarray:
    cost = np.zeros(ROWS, np.float32)
    cost[::50] = 1.0
    assert cost.sum() == VIOLATIONS
    return cost


@pytest.mark.parametrize("fraction", [None, SHARE])
def test_dual_variables_see_violations_as_often_as_they_happen(fraction: float | None) -> None:
    agent, state = an_agent(fraction)
    cost = costs()
    learn = jax.jit(lambda key: agent.learn(state, a_replay(agent, cost), index_of(cost), key=key))
    shown = [float(learn(jax.random.key(seed))[1]["shown"]) for seed in range(20)]
    assert np.mean(shown) == pytest.approx(VIOLATIONS / ROWS, abs=0.02)


def test_the_critic_sees_the_share_that_was_asked_for() -> None:
    agent, _ = an_agent(SHARE)
    cost = costs()
    replay = a_replay(agent, cost)
    drawn, balanced = agent._risk_rows(replay, index_of(cost), jax.random.key(0))
    assert cost[np.asarray(balanced)].mean() == pytest.approx(SHARE, abs=0.05)
    assert cost[np.asarray(drawn)].mean() < 0.2


def test_violations_that_were_overwritten_are_drawn_no_more() -> None:
    """The index still names their places, which hold safe rows now."""
    agent, _ = an_agent(SHARE)
    safe = np.zeros(ROWS, np.float32)
    drawn, balanced = agent._risk_rows(a_replay(agent, safe), index_of(costs()), jax.random.key(0))
    np.testing.assert_array_equal(drawn, balanced)


def test_rows_of_the_fleet_are_rehearsed_as_they_were_learned() -> None:
    """With the logged next action, or a random one, whatever the task policy would do there."""
    agent, state = an_agent(None)
    spaces = agent.spaces
    layout = rehearsal_layout(spaces)
    logged = np.arange(400) % 2 == 0
    fleet = np.zeros((400, layout.width), np.float32)
    fleet[:, layout.places["next_action"]] = 0.25
    fleet[:, layout.places["next_action_logged"]] = logged
    own = agent._risk_batch(
        state, state.sac.policy, jnp.full((400, agent.layout.width), 2.0), jax.random.key(1)
    )

    def mixed(online: int) -> RiskBatch:
        key = jax.random.key(2)
        return agent._with_fleet(own, jnp.asarray(fleet), jnp.asarray(online), key=key)

    first = mixed(0)
    actions = np.asarray(first.next_action)
    np.testing.assert_array_equal(np.asarray(first.obs), 0.0)
    np.testing.assert_array_equal(actions[logged], 0.25)
    # Of a uniform distribution from -1 to 1, to five standard errors.
    drawn = actions[~logged].ravel()
    assert abs(drawn.mean()) < 5.0 / np.sqrt(3.0 * drawn.size)
    assert abs(np.square(drawn).mean() - 1.0 / 3.0) < 5.0 * np.sqrt(4.0 / 45.0 / drawn.size)
    worth = int(agent.rehearsal.worth)
    assert np.mean(np.asarray(mixed(worth).obs)[:, 0] == 2.0) == pytest.approx(0.5, abs=0.13)
    np.testing.assert_array_equal(np.asarray(mixed(10**9).obs), 2.0)
