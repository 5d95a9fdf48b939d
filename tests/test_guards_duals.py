"""Lagrangian, SQRL, RCPO, CSC and the reward penalty: the laws that each must obey."""

import functools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import (
    assert_trees_close,
    constant_critic,
    constant_recovery,
    logistic_critic,
    risk_batch,
)

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.datasets.replay import Replay, extend, make_replay
from safemesa.guards import (
    CSC,
    RCPO,
    SQRL,
    Lagrangian,
    NoGuard,
    RecoveryRL,
    RewardPenalty,
    Situation,
)
from safemesa.guards.settings import LimitSettings, SQRLSettings
from safemesa.learners.config import RiskConfig, SACConfig
from safemesa.learners.meta import MAML, MAMLSettings, constant_step_sizes, inner_loop
from safemesa.learners.risk import RiskLearner, no_risk_term
from safemesa.learners.sac import SAC
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.config import DeployConfig
from safemesa.phases.deployment.guarded_sac import Agent, AgentState, ViolationIndex

NEVER = constant_critic(-200.0)
RISING = logistic_critic((0.0, 4.0, 0.0))
"""Risk rises with the action, and is one half at 0."""
ASKING = [RecoveryRL, Lagrangian, SQRL, RCPO, CSC]
SPACES = Spaces(
    obs_names=("position",),
    action_names=("push",),
    action_low=(-1.0,),
    action_high=(1.0,),
    horizon=9,
)
BATCH = 32


def guard_of(kind, risk_limit: float = 0.3, **settings):
    default = kind().settings
    if isinstance(default, LimitSettings):
        settings["risk_limit"] = risk_limit
    return kind(settings=replace(default, **settings))


def agent_of(guard, **deploy) -> Agent:
    """Small networks; the first actions are uniform."""
    return Agent(
        config=DeployConfig(**deploy),
        spaces=SPACES,
        sac=SAC(config=SACConfig(hidden=(8,), batch=BATCH), obs_size=1, action_size=1),
        risk=RiskLearner(config=RiskConfig(), target_rate=1.0, learning_rate=1e-3),
        guard=guard,
    )


def state_of(agent: Agent, critic: RiskCritic) -> AgentState:
    risk = agent.risk.init(critic, constant_recovery(0.6))
    normaliser = Normaliser(jnp.zeros(1), jnp.ones(1))
    return AgentState(agent.sac.init(key=jax.random.key(5)), risk, agent.guard.init(), normaliser)


def filled_replay(agent: Agent, rows: int = 64, **constant: float) -> Replay:
    """Random rows, half of them violations; `constant` columns have one value."""
    rng = np.random.default_rng(2)
    columns = {name: rng.uniform(-1, 1, (rows, 1)) for name in ("obs", "action", "next_obs")}
    columns |= {"proposed_action": columns["action"], "reward": rng.normal(size=rows)}
    columns |= {"cost": np.arange(rows) % 2, "terminated": np.arange(rows) % 2}
    columns |= {name: np.full(rows, value) for name, value in constant.items()}
    columns = {name: jnp.asarray(value, jnp.float32) for name, value in columns.items()}
    empty = make_replay(capacity=rows, width=agent.layout.width, protected=0)
    return extend(empty, agent.layout.pack(columns))


NO_INDEX = ViolationIndex(jnp.zeros(64, jnp.int32), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def some_steps(agent: Agent, state: AgentState, replay: Replay):
    """Four updates, and what is done after each: also during the warm-up."""

    def step(state: AgentState, index: jax.Array):
        key_act, key_learn = jax.random.split(jax.random.fold_in(jax.random.key(8), index))
        state, _ = agent.learn(state, replay, NO_INDEX, key=key_learn)
        act = agent.act(state, jnp.full(1, 0.3), index < 2, key=key_act)
        return state, (act, state.sac)

    return jax.lax.scan(step, state, jnp.arange(4, dtype=jnp.int32))[1]


@functools.cache
def without_guard():
    agent = agent_of(guard_of(NoGuard), learn_risk=False)
    return some_steps(agent, state_of(agent, NEVER), filled_replay(agent))


@pytest.mark.parametrize("kind", ASKING)
def test_with_a_critic_that_returns_zero_every_guard_is_no_guard_step_for_step(kind):
    """Actions and SAC's networks, through warm-up and learning; the critic is kept at zero."""
    agent = agent_of(guard_of(kind, risk_limit=0.0), learn_risk=False)
    given = some_steps(agent, state_of(agent, NEVER), filled_replay(agent))
    assert_trees_close(given, without_guard(), rtol=1e-5, atol=1e-6)
    assert np.asarray(given[0].action).std() > 0.0


# --- Rejection sampling -----------------------------------------------------------------------

DRAWS = 4_000


def decide(guard, critic: RiskCritic):
    """Decisions about uniform proposals, each with its own further draws, in NumPy."""
    return jax.device_get(_decide(guard, critic))


@functools.partial(jax.jit, static_argnums=0)
def _decide(guard, critic: RiskCritic):

    def one(key: jax.Array):
        key_first, key_select = jax.random.split(key)

        def propose(draw_key: jax.Array) -> jax.Array:
            return jax.random.uniform(draw_key, (1,), minval=-1.0, maxval=1.0)

        proposed = propose(key_first)
        situation = Situation(critic, constant_recovery(0.6), jnp.zeros(1), proposed, propose)
        return proposed, guard.select_action(guard.init(), situation, key=key_select)

    return jax.vmap(one)(jax.random.split(jax.random.key(1), DRAWS))


@pytest.mark.parametrize("kind", [SQRL, CSC])
def test_the_masked_policy_is_the_policy_given_that_it_is_safe(kind):
    """Safe are the actions below -0.2118 at a limit of 0.3; uniform draws stay uniform there."""
    proposed, given = decide(guard_of(kind, samples=60), RISING)
    edge = np.log(0.3 / 0.7) / 4.0
    action = np.sort(given.action[:, 0])
    assert action[-1] <= edge + 1e-6
    expected = np.linspace(-1.0, edge, DRAWS)
    assert np.abs(action - expected).max() < 1.63 / DRAWS**0.5 * (edge + 1.0)  # KS at 1 %
    np.testing.assert_array_equal(given.intervened, proposed[:, 0] > edge)
    kept = ~given.intervened
    np.testing.assert_array_equal(given.action[kept], proposed[kept])
    np.testing.assert_allclose(given.risk, 1 / (1 + np.exp(-4.0 * proposed[:, 0])), rtol=1e-5)


@pytest.mark.parametrize("kind", [SQRL, CSC])
def test_where_no_draw_is_safe_the_least_risky_runs(kind):
    """The least of n uniform draws from [-1, 1] has the mean -1 + 2 / (n + 1)."""
    _, given = decide(guard_of(kind, risk_limit=0.0, samples=9), RISING)
    assert given.intervened.all()
    mean, spread = given.action.mean(), given.action.std() / DRAWS**0.5
    assert mean == pytest.approx(-0.8, abs=float(4 * spread))


@pytest.mark.parametrize("kind", [SQRL, CSC, Lagrangian, RCPO, RewardPenalty, NoGuard])
def test_what_runs_is_what_the_task_learner_remembers(kind):
    """Only Recovery RL relabels (its own tests say so)."""
    _, given = decide(guard_of(kind), RISING)
    np.testing.assert_array_equal(given.task_action, given.action)


@pytest.mark.parametrize("kind", [Lagrangian, RCPO, RewardPenalty])
def test_guards_that_only_teach_let_every_proposal_run(kind):
    proposed, given = decide(guard_of(kind, risk_limit=0.0), RISING)
    np.testing.assert_array_equal(given.action, proposed)
    assert not given.intervened.any()


def test_sampling_also_masks_the_random_actions_of_the_warm_up():
    agent = agent_of(guard_of(SQRL, samples=60))
    state = state_of(agent, RISING)
    keys = jax.random.split(jax.random.key(3), 300)
    warmup = jnp.asarray(True)
    act = jax.jit(jax.vmap(lambda key: agent.act(state, jnp.zeros(1), warmup, key=key)))(keys)
    assert float(act.executed_risk.max()) <= 0.3
    assert np.unique(np.asarray(act.action)).size == 300
    assert 0.4 < float(act.intervened.mean()) < 0.8


# --- What the task learner pays ---------------------------------------------------------------

OBS, ACTION = jnp.zeros((5, 1)), jnp.linspace(-1.0, 1.0, 5)[:, None]


@pytest.mark.parametrize("kind", [Lagrangian, SQRL, CSC])
def test_the_actor_pays_nu_times_the_excess_of_risk(kind):
    guard = guard_of(kind, actor_multiplier=7.0)
    term = guard.actor_term(guard.init(), RISING, OBS, ACTION)
    risk = 1 / (1 + np.exp(-4.0 * np.asarray(ACTION)[:, 0]))
    np.testing.assert_allclose(term, 7.0 * (risk - 0.3), rtol=1e-5)
    slope = jax.grad(lambda a: jnp.sum(guard.actor_term(guard.init(), RISING, OBS, a)))(ACTION)
    np.testing.assert_allclose(slope[:, 0], 7.0 * 4.0 * risk * (1.0 - risk), rtol=1e-4)
    cost = jnp.ones(5)
    assert not np.asarray(guard.reward_term(guard.init(), RISING, OBS, ACTION, cost)).any()


def test_where_risk_is_the_same_everywhere_the_lagrangians_actor_learns_as_sacs():
    """Half risk: the loss differs by a constant, the gradient not at all."""
    results = []
    for kind in (Lagrangian, NoGuard):
        agent = agent_of(guard_of(kind), learn_risk=False)
        state = state_of(agent, constant_critic(0.0))
        results.append(some_steps(agent, state, filled_replay(agent))[1].policy)
    assert_trees_close(*results, rtol=1e-5, atol=1e-6)


def test_the_lagrangian_turns_the_actor_away_from_risk():
    """From the same networks, a few hundred updates against risk that rises with the action."""
    agent = agent_of(guard_of(Lagrangian, actor_multiplier=1_000.0), learn_risk=False)
    start, replay = state_of(agent, RISING), filled_replay(agent)

    @jax.jit
    def learn(state: AgentState) -> AgentState:
        def body(index: jax.Array, state: AgentState) -> AgentState:
            key = jax.random.fold_in(jax.random.key(0), index)
            return agent.learn(state, replay, NO_INDEX, key=key)[0]

        return jax.lax.fori_loop(0, 300, body, state)

    before = float(start.sac.policy.mode(jnp.zeros(1))[0])
    after = float(learn(start).sac.policy.mode(jnp.zeros(1))[0])
    assert after < min(before, 0.0) - 0.3


def test_rcpo_takes_lambda_times_the_risk_from_the_reward():
    guard = guard_of(RCPO, reward_multiplier=7.0)
    term = guard.reward_term(guard.init(), RISING, OBS, ACTION, jnp.zeros(5))
    np.testing.assert_allclose(
        term, -7.0 / (1 + np.exp(-4.0 * np.asarray(ACTION)[:, 0])), rtol=1e-5
    )
    assert not np.asarray(guard.actor_term(guard.init(), RISING, OBS, ACTION)).any()


@pytest.mark.parametrize(("cost", "expected"), [(1.0, 50.0**2), (0.0, 0.0)])
def test_the_reward_penalty_reaches_the_targets_of_violating_rows_alone(cost, expected):
    """With values, rewards and a future of zero, the target is the penalty; there are twins."""
    agent = agent_of(guard_of(RewardPenalty, violation_penalty=50.0))
    state = state_of(agent, NEVER)
    zero = jax.tree.map(jnp.zeros_like, state.sac.critic)
    state = eqx.tree_at(lambda one: one.sac.critic, state, zero)
    replay = filled_replay(agent, cost=cost, reward=0.0, terminated=1.0)
    _, metrics = jax.jit(agent.learn)(state, replay, NO_INDEX, key=jax.random.key(0))
    assert float(metrics["value_loss"]) == pytest.approx(2 * expected)


# --- Dual variables ---------------------------------------------------------------------------

DUALS = {Lagrangian: "actor", SQRL: "actor", CSC: "actor", RCPO: "reward"}


def batch_of(action: float, policy_action: float):
    rows = risk_batch([[0.0]] * 4, [[action]] * 4, [0] * 4, [[0.0]] * 4, [[0.0]] * 4, [0] * 4)
    return rows._replace(policy_action=jnp.full((4, 1), policy_action))


def moved(guard, batch, updates: int = 3) -> float:
    state = guard.init()
    for _ in range(updates):
        state, metrics = guard.update(state, RISING, batch)
    assert float(metrics["multiplier"]) == float(state.value)
    return float(state.value)


@pytest.mark.parametrize("kind", DUALS)
def test_a_dual_variable_rises_while_the_constraint_is_violated_and_falls_else(kind):
    guard = guard_of(kind, multiplier_rate=0.1, **{f"{DUALS[kind]}_multiplier": 5.0})
    on_data = kind is RCPO
    risky, safe = (0.5, -0.5) if on_data else (-0.5, 0.5)
    high = moved(guard, batch_of(action=risky, policy_action=-risky))
    low = moved(guard, batch_of(action=safe, policy_action=-safe))
    # Three steps of Adam under one sign are three times its rate, on the logarithm.
    assert high == pytest.approx(5.0 * np.exp(0.3), rel=1e-3)
    assert low == pytest.approx(5.0 * np.exp(-0.3), rel=1e-3)


@pytest.mark.parametrize("kind", DUALS)
def test_without_a_rate_the_price_is_constant(kind):
    guard = guard_of(kind, multiplier_rate=0.0, **{f"{DUALS[kind]}_multiplier": 5.0})
    assert moved(guard, batch_of(0.9, 0.9)) == pytest.approx(5.0)


def test_a_price_that_always_rises_does_not_overflow():
    guard = guard_of(RCPO, multiplier_rate=4.0, reward_multiplier=5.0)
    assert moved(guard, batch_of(0.9, 0.9), updates=6) == pytest.approx(1e6, rel=1e-4)


def test_the_price_that_has_risen_is_the_one_that_is_paid():
    guard = guard_of(RCPO, multiplier_rate=0.1)
    state, _ = guard.update(guard.init(), RISING, batch_of(0.9, 0.9))
    before = guard.reward_term(guard.init(), RISING, OBS, ACTION, jnp.zeros(5))
    after = guard.reward_term(state, RISING, OBS, ACTION, jnp.zeros(5))
    np.testing.assert_allclose(after, np.exp(0.1) * np.asarray(before), rtol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"samples": 1}, {"actor_multiplier": 0.0}, {"multiplier_rate": -1.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        SQRLSettings(**wrong)


# --- Conservatism -----------------------------------------------------------------------------


def apart(rows: int = 8):
    """Data at the action -0.5, the policy at +0.5; plain learning raises the risk of the data."""
    column = [[0.0]] * rows
    batch = risk_batch(column, [[-0.5]] * rows, [1] * rows, column, column, [1] * rows)
    return batch._replace(policy_action=jnp.full((rows, 1), 0.5))


def gap(critic: RiskCritic) -> float:
    """Risk of the policy's action minus risk of the data's."""
    return float(critic(jnp.zeros(1), jnp.full(1, 0.5)) - critic(jnp.zeros(1), jnp.full(1, -0.5)))


SLOPING = logistic_critic((0.0, 0.3, 0.1), (0.0, -0.4, 0.0))


def test_one_step_raises_risk_at_the_policys_actions_relative_to_the_datas():
    """Adam's step, as in Phases 2 and 3, with the term and without."""
    rule = RiskLearner(config=RiskConfig(), target_rate=1.0, learning_rate=1e-2)
    start = rule.init(SLOPING, constant_recovery(0.0))
    update = jax.jit(rule.update, static_argnums=2)
    conservative = update(start, apart(), guard_of(CSC, conservatism=5.0).risk_term)[0]
    plain = update(start, apart(), no_risk_term)[0]
    assert gap(conservative.critic) > gap(start.critic) + 1e-3 > gap(plain.critic) + 2e-3


def test_the_inner_step_of_phase_1_is_conservative_too():
    support = jax.tree.map(lambda leaf: leaf[None], apart())
    rates = constant_step_sizes(SLOPING, 0.1)

    def adapted(term) -> RiskCritic:
        return jax.jit(
            lambda critic: inner_loop(critic, rates, support, RiskConfig(), risk_term=term)
        )(SLOPING)

    term = guard_of(CSC, conservatism=5.0).risk_term
    assert gap(adapted(term)) > gap(adapted(no_risk_term)) + 1e-2


def test_the_outer_loss_of_phase_1_holds_the_term_after_adaptation():
    """With inner steps of no length, the two outer losses differ by the term of the prior."""
    learner = MAML(settings=MAMLSettings(inner_rate=1e-30), risk=RiskConfig())
    query = jax.tree.map(lambda leaf: leaf[None], apart())
    support = jax.tree.map(lambda leaf: leaf[:, None], query)
    critic = SLOPING
    guard = guard_of(CSC, conservatism=5.0)
    update = jax.jit(learner.update, static_argnums=3)
    losses = [
        float(update(learner.init(critic), support, query, term)[1]["query_loss"])
        for term in (guard.risk_term, no_risk_term)
    ]
    logits = jax.vmap(critic.logits)(apart().obs, apart().action)
    term = float(guard.risk_term(critic, apart(), logits))
    assert abs(term) > 1e-3
    assert losses[0] - losses[1] == pytest.approx(term, rel=1e-4)


def test_the_least_conservative_loss_is_where_the_docstring_says():
    """One state, data and policy on two actions: `y + alpha (r - 1) / 2` at each of them."""
    alpha, target = 0.1, 0.5
    data, policy = jnp.asarray([1, 1, 1, -1] * 2), jnp.asarray([1, 1, -1, -1] * 2)
    rows = risk_batch(
        [[0.0]] * 16,
        np.repeat(data, 2)[:, None],
        [0] * 16,
        [[0.0]] * 16,
        [[0.0]] * 16,
        [1] * 16,
    )
    rows = rows._replace(policy_action=jnp.repeat(policy, 2)[:, None].astype(jnp.float32))
    guard = guard_of(CSC, conservatism=alpha)
    config = RiskConfig(gamma_risk=0.5)
    rule = RiskLearner(config=config, target_rate=1.0, learning_rate=1e-2)
    start = rule.init(logistic_critic((0.0, 0.3, 0.1)), constant_recovery(0.0))
    rows = rows._replace(cost=jnp.full(16, target))

    @jax.jit
    def learn(state):
        return jax.lax.fori_loop(
            0, 2_000, lambda _, one: rule.update(one, rows, guard.risk_term)[0], state
        )

    critic = learn(start).critic
    for action, density in ((1.0, 2 / 3), (-1.0, 2.0)):
        risk = float(critic(jnp.zeros(1), jnp.full(1, action)))
        assert risk == pytest.approx(target + alpha * (density - 1.0) / 2.0, abs=2e-3)
