"""Batches of Phase 3: their violations, who must not be misled by them, and who drives on."""

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import logistic_critic
from tiny import tiny_config

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import Key, Metrics, PyTree, RiskBatch
from safemesa.datasets.replay import Replay, extend, make_replay
from safemesa.domains.registry import domain
from safemesa.guards import AbstractGuard, Decision, Situation, let_run
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases.build import fresh_risk_networks
from safemesa.phases.config import DeployConfig
from safemesa.phases.deployment.guarded_sac import Agent, AgentState, ViolationIndex, build_agent
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


@pytest.mark.parametrize("who", ["policy", "uniform", "safer"])
def test_whose_further_actions_phase_3_supposes(who: str) -> None:
    """Of a task policy that is sure of an action near 1, and a critic that fears high actions."""
    config = tiny_config("rrl")
    config = replace(config, deploy=replace(config.deploy, next_action=who))
    spaces = domain("navigation2").spaces
    agent = build_agent(config, spaces)
    _, recovery = fresh_risk_networks(config, spaces)
    critic = logistic_critic((0.0,) * spaces.obs_size + (1.0, 0.0) + (0.0,))
    model = RiskModel(critic, recovery, identity_normaliser(spaces.obs_size))
    state = agent.initial(model, key=jax.random.key(0))
    certain = eqx.tree_at(
        lambda policy: policy.network.biases[-1],
        state.sac.policy,
        replace_fn=lambda bias: bias.at[:2].set(0.5).at[2:].set(-20.0),
    )
    rows = jnp.zeros((4000, agent.layout.width))
    batch = agent._risk_batch(state, certain, rows, jax.random.key(1))
    proposed, drawn = np.asarray(batch.policy_action), np.asarray(batch.next_action)
    assert np.ptp(proposed, axis=0).max() < 1e-3
    first = float(proposed[0, 0])
    if who == "policy":
        assert np.allclose(drawn, proposed, atol=1e-3)
        return
    is_proposal = np.isclose(drawn[:, 0], first, atol=1e-3)
    if who == "safer":
        # A random action is the less feared one where its first number is the lower one.
        assert drawn[:, 0].max() < first + 1e-3
        assert is_proposal.mean() == pytest.approx((1.0 - first) / 2.0, abs=0.03)
        places = (drawn[~is_proposal, 0] + 1.0) / (1.0 + first)
    else:
        places = (drawn.ravel() + 1.0) / 2.0
    # Kolmogorov and Smirnov's distance from the uniform distribution: its 99.9 % quantile.
    ranks = (np.arange(places.size) + 0.5) / places.size
    assert np.max(np.abs(np.sort(places) - ranks)) < 1.95 / np.sqrt(places.size)


def test_phase_3_refuses_further_actions_of_nobody() -> None:
    with pytest.raises(ConfigurationError, match=r"deploy\.next-action is 'mine'; expected"):
        DeployConfig(next_action="mine")
