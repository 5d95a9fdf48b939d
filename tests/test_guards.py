"""Guards: who acts, on which risk, and that Recovery RL leaves the task learner alone."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import (
    assert_trees_equal,
    constant_critic,
    constant_policy,
    constant_recovery,
    logistic_critic,
    risk_batch,
)

from safemesa.core.spaces import Spaces
from safemesa.core.types import TaskBatch
from safemesa.guards import Decision, NoGuard, RecoveryRL, Situation, guards
from safemesa.learners.config import RiskConfig, SACConfig
from safemesa.learners.risk import RiskLearner
from safemesa.learners.sac import SAC
from safemesa.networks.critics import ValueCritic
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.config import DeployConfig
from safemesa.phases.deployment.guarded_sac import Agent, AgentState

CERTAIN, NEVER = constant_critic(200.0), constant_critic(-200.0)
COUNT = 2_000
ROWS = risk_batch([[0.5]] * 4, [[0.1]] * 4, [0, 1, 0, 1], [[0.5]] * 4, [[0.1]] * 4, [0, 1, 1, 0])


def guard_of(kind=RecoveryRL, **settings):
    return kind(settings=replace(kind().settings, **settings))


def never_ask(key: jax.Array) -> jax.Array:
    raise AssertionError("the proposal is given; no other is drawn")


@functools.partial(jax.jit, static_argnums=0)
def decide(guard, critic, recovery):
    """Decisions about `COUNT` proposals, each at its own observation and with its own noise."""
    obs = jnp.linspace(-2.0, 2.0, COUNT)[:, None]
    proposed = jnp.linspace(-1.0, 1.0, COUNT)[:, None]
    keys = jax.random.split(jax.random.key(0), COUNT)

    def select(one_obs: jax.Array, action: jax.Array, key: jax.Array) -> Decision:
        situation = Situation(critic, recovery, one_obs, action, never_ask)
        return guard.select_action(guard.init(), situation, key=key)

    decisions = jax.vmap(select)(obs, proposed, keys)
    return proposed, decisions


def test_without_risk_recovery_rl_equals_no_guard():
    recovery = constant_recovery(0.6)
    proposed, given = decide(guard_of(risk_limit=0.0), NEVER, recovery)
    _, plain = decide(guard_of(NoGuard), NEVER, recovery)
    np.testing.assert_array_equal(plain.action, proposed)
    np.testing.assert_array_equal(given.action, plain.action)
    assert not np.asarray(given.intervened).any()
    assert not np.asarray(plain.intervened).any()
    assert not np.asarray(given.risk).any()
    assert given.intervened.dtype == plain.intervened.dtype == jnp.bool_


def test_a_risk_that_is_no_number_is_recovered_from():
    _, given = decide(
        guard_of(risk_limit=0.9), constant_critic(float("nan")), constant_recovery(0.6)
    )
    assert np.asarray(given.intervened).all()


def test_no_guard_acts_on_no_risk_at_all():
    proposed, plain = decide(guard_of(NoGuard), CERTAIN, constant_recovery(0.6))
    np.testing.assert_array_equal(plain.action, proposed)
    assert not np.asarray(plain.intervened).any()


def test_at_certain_risk_only_the_recovery_policy_acts():
    recovery = constant_recovery(0.6)
    _, quiet = decide(guard_of(recovery_noise=0.0), CERTAIN, recovery)
    np.testing.assert_allclose(quiet.action, np.tanh(0.6), rtol=1e-6)
    assert np.asarray(quiet.intervened).all()
    np.testing.assert_array_equal(quiet.risk, 1.0)
    _, noisy = decide(guard_of(recovery_noise=0.1), CERTAIN, recovery)
    noise = np.asarray(noisy.action)[:, 0] - np.tanh(0.6)
    assert noise.mean() == pytest.approx(0.0, abs=4 * 0.1 / COUNT**0.5)
    assert noise.std() == pytest.approx(0.1, rel=0.1)


def test_noisy_recovery_actions_stay_within_their_bounds():
    _, wild = decide(guard_of(recovery_noise=50.0), CERTAIN, constant_recovery(0.6))
    action = np.asarray(wild.action)
    assert action.min() == -1.0
    assert action.max() == 1.0


@pytest.mark.parametrize(("limit", "intervenes"), [(0.5, False), (0.499, True)])
def test_an_action_exactly_at_the_limit_still_runs(limit, intervenes):
    _, given = decide(guard_of(risk_limit=limit), constant_critic(0.0), constant_recovery(0.6))
    np.testing.assert_array_equal(given.risk, 0.5)
    assert (np.asarray(given.intervened) == intervenes).all()


def test_the_risk_of_the_proposal_decides_and_is_reported():
    """Risk grows with the action; at raw -3 the recovery policy's own risk is always low."""
    critic, recovery = logistic_critic((0.0, 2.0, 0.0)), constant_recovery(-3.0)
    proposed, given = decide(guard_of(risk_limit=0.5, recovery_noise=0.0), critic, recovery)
    risk = 1 / (1 + np.exp(-2.0 * np.asarray(proposed)[:, 0]))
    np.testing.assert_allclose(given.risk, risk, rtol=1e-5)
    risky = np.asarray(proposed)[:, 0] > 0.0
    np.testing.assert_array_equal(given.intervened, risky)
    expected = np.where(risky[:, None], np.tanh(-3.0), proposed)
    np.testing.assert_allclose(given.action, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [NoGuard, RecoveryRL])
def test_terms_are_zero_and_nothing_is_dual(kind):
    guard = guard_of(kind)
    state = guard.init()
    assert jax.tree.leaves(state) == []
    rows = (state, CERTAIN, ROWS.obs, ROWS.action)
    np.testing.assert_array_equal(guard.actor_term(*rows), np.zeros(4))
    np.testing.assert_array_equal(guard.reward_term(*rows, ROWS.cost), np.zeros(4))
    assert guard.risk_term(CERTAIN, ROWS, jnp.zeros((4, 1))) == 0.0
    assert guard.update(state, CERTAIN, ROWS) == (state, {})


@pytest.mark.parametrize("kind", [NoGuard, RecoveryRL])
def test_zero_terms_leave_sac_bit_for_bit_as_it_is(kind):
    """The same program, so the same bits."""
    guard, sac = guard_of(kind), SAC(config=SACConfig(hidden=(4,)), obs_size=1, action_size=1)
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: sac.init(key=key))
    batch = TaskBatch(ROWS.obs, ROWS.action, ROWS.cost, ROWS.next_obs, ROWS.terminated)

    def guarded(state, batch):
        def actor_term(obs, action):
            return guard.actor_term(guard.init(), CERTAIN, obs, action)

        def reward_term(obs, action):
            return guard.reward_term(guard.init(), CERTAIN, obs, action, ROWS.cost)

        return sac.update(state, batch, key=key, actor_term=actor_term, reward_term=reward_term)

    plain = jax.make_jaxpr(lambda state, batch: sac.update(state, batch, key=key))(state, batch)
    assert str(jax.make_jaxpr(guarded)(state, batch)) == str(plain)


def test_guards_are_found_by_name():
    assert guards["none"] is NoGuard
    assert guards["recovery_rl"] is RecoveryRL
    assert (NoGuard.uses_risk, RecoveryRL.uses_risk) == (False, True)


# --- Behind the agent of Phase 3 -------------------------------------------------------------

SPACES = Spaces(
    obs_names=("position",),
    action_names=("push",),
    action_low=(-1.0,),
    action_high=(1.0,),
    horizon=9,
)


def agent_of(kind, **settings) -> Agent:
    if kind is RecoveryRL:
        settings["recovery_noise"] = 0.0
    return Agent(
        config=DeployConfig(),
        spaces=SPACES,
        sac=SAC(config=SACConfig(hidden=()), obs_size=1, action_size=1),
        risk=RiskLearner(config=RiskConfig(hidden=()), target_rate=1.0, learning_rate=1e-3),
        guard=guard_of(kind, **settings),
    )


def state_of(agent: Agent, critic, recovery) -> AgentState:
    """The normaliser doubles observations, for the safety networks alone."""
    policy = constant_policy([0.3], [0.0])
    value = jax.eval_shape(lambda key: ValueCritic(1, 1, (), key=key), jax.random.key(0))
    value = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), value)
    fresh = jax.eval_shape(lambda key: agent.sac.init(key=key), jax.random.key(0))
    sac = type(fresh)(policy, value, value, jnp.zeros(()), *[None] * 3)
    normaliser = Normaliser(jnp.zeros(1), jnp.full(1, 0.5))
    return AgentState(sac, agent.risk.init(critic, recovery), agent.guard.init(), normaliser)


@functools.partial(jax.jit, static_argnums=0)
def acts(agent: Agent, state: AgentState, warmup):
    obs = jnp.linspace(-2.0, 2.0, 500)[:, None]
    keys = jax.random.split(jax.random.key(1), 500)
    return obs, jax.vmap(lambda o, key: agent.act(state, o, warmup, key=key))(obs, keys)


@pytest.mark.parametrize("warmup", [False, True])
def test_an_agent_that_sees_no_risk_acts_as_without_a_guard(warmup):
    recovery = constant_recovery(0.6)
    given, plain = (
        acts(agent, state_of(agent, NEVER, recovery), jnp.asarray(warmup))[1]
        for agent in (agent_of(RecoveryRL), agent_of(NoGuard))
    )
    assert_trees_equal(given, plain)
    np.testing.assert_array_equal(given.action, given.proposed)
    assert np.asarray(given.action).std() > 0.3
    uniform = np.abs(np.asarray(given.action)).mean()
    assert bool(abs(uniform - 0.5) < 0.05) is warmup


def test_an_agent_asks_about_normalised_observations_and_keeps_both_actions():
    """Risk is one half where the normalised observation is 2, so where the raw one is 1."""
    agent = agent_of(RecoveryRL, risk_limit=0.5)
    critic = logistic_critic((3.0, 0.5, -6.0))
    state = state_of(agent, critic, constant_recovery(-3.0))
    obs, given = jax.device_get(acts(agent, state, jnp.asarray(False)))

    def risk_of(action):
        return 1 / (1 + np.exp(-(6.0 * obs + 0.5 * action - 6.0)))[:, 0]

    np.testing.assert_allclose(given.risk, risk_of(given.proposed), rtol=1e-4)
    np.testing.assert_allclose(given.executed_risk, risk_of(given.action), rtol=1e-4)
    np.testing.assert_array_equal(given.intervened, given.risk > 0.5)
    assert 0.1 < given.intervened.mean() < 0.5
    escaped = np.where(given.intervened[:, None], np.tanh(-3.0), given.proposed)
    np.testing.assert_allclose(given.action, escaped, rtol=1e-6)
