"""The safety critic and the recovery policy: targets, losses, and what training converges to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from handmade import (
    assert_trees_close,
    assert_trees_equal,
    constant_critic,
    constant_recovery,
    inputs_of,
    logistic_critic,
    logistic_gradient,
    logistic_parameters,
    logistic_target,
    randomly_filled,
    risk_batch,
    sigmoid,
    with_layers,
)
from hypothesis import given, settings, strategies as st

from safemesa.core.types import RiskBatch
from safemesa.datasets.task_log import TaskLog
from safemesa.domains.probes import DELAYED
from safemesa.learners.config import RiskConfig
from safemesa.learners.recovery import RecoveryNetwork
from safemesa.learners.recovery.settings import NetworkSettings
from safemesa.learners.risk import (
    RecoveryState,
    RiskLearner,
    no_risk_term,
    risk_loss,
    risk_target,
    soft_update,
)
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases.log_tables import build_log_table

GAMMA = 0.7
KEY = jax.random.key(0)
target_of = jax.jit(risk_target, static_argnums=2)


def recovery_loss(policy, critic, obs, penalty):
    logged = jnp.zeros((len(obs), 1))
    return policy.loss(critic, obs, logged, NetworkSettings(penalty=penalty), RiskConfig())


update = jax.jit(RiskLearner.update, static_argnums=(0, 3))


def learner(
    target_rate: float = 1.0, learning_rate: float = 0.01, penalty: float = 1e-3, **config
) -> RiskLearner:
    return RiskLearner(
        config=RiskConfig(gamma_risk=GAMMA, **config),
        target_rate=target_rate,
        learning_rate=learning_rate,
        recovery=NetworkSettings(penalty=penalty),
    )


def state(number: int, count: int = 3) -> list[float]:
    return [float(number == other) for other in range(count)]


def random_batch(seed: int, rows: int = 6, obs_size: int = 2) -> RiskBatch:
    """Rows of every kind: going on, goal, violation with and without an end."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(rows) % 4
    return risk_batch(
        rng.normal(size=(rows, obs_size)),
        rng.uniform(-1, 1, (rows, 1)),
        kinds >= 2,
        rng.normal(size=(rows, obs_size)),
        rng.uniform(-1, 1, (rows, 1)),
        kinds % 2,
    )


# --- Targets ---------------------------------------------------------------------------------


def test_the_target_of_every_kind_of_row():
    """s0 -> s1 -> violation, a goal, and a violation that does not end its episode."""
    critic = logistic_critic((0.3, -0.8, 2.0, 0.9, 0.1), obs_size=3)
    next_risk = float(sigmoid(-0.8 + 0.9 * -0.5 + 0.1))
    batch = risk_batch(
        [state(0), state(1), state(1), state(0)],
        [[0.4], [0.4], [0.4], [0.4]],
        [0, 1, 0, 1],
        [state(1), state(2), state(2), state(1)],
        [[-0.5], [0.9], [0.9], [-0.5]],
        [0, 1, 1, 0],
    )
    expected = [GAMMA * next_risk, 1.0, 0.0, 1.0]
    np.testing.assert_allclose(target_of(critic, batch, GAMMA), expected, rtol=1e-6)


def test_the_chain_before_a_violation_has_the_printed_targets():
    """Once Q(s1) = 1, the target of s0 is gamma_risk: MESA section 2.2."""
    certain = constant_critic(50.0, obs_size=3)
    batch = risk_batch(
        [state(0), state(1)], [[0], [0]], [0, 1], [state(1), state(2)], [[0]] * 2, [0, 1]
    )
    np.testing.assert_allclose(target_of(certain, batch, GAMMA), [GAMMA, 1.0], rtol=1e-6)


def test_the_largest_member_bootstraps():
    batch = random_batch(0, rows=12)
    critic = logistic_critic((0.9, 0.2, 0.3, -0.1), (-0.9, 0.4, -0.2, 0.1), obs_size=2)
    expected = logistic_target(logistic_parameters(critic), batch, GAMMA)
    np.testing.assert_allclose(target_of(critic, batch, GAMMA), expected, rtol=1e-5)
    alive = (np.asarray(batch.cost) == 0.0) & (np.asarray(batch.terminated) == 0.0)
    by_member = inputs_of(batch, following=True)[alive] @ logistic_parameters(critic).T
    assert len(set(by_member.argmax(axis=-1))) == 2, "both members must be the largest somewhere"


def test_a_truncated_row_bootstraps_and_a_terminated_one_does_not():
    columns = {
        "obs": np.array([[3.0], [2.0], [1.0], [1.0]], np.float32),
        "action": np.zeros((4, 1), np.float32),
        "reward": np.zeros(4, np.float32),
        "cost": np.array([0, 0, 1, 0], np.float32),
        "next_obs": np.array([[2.0], [1.0], [0.0], [2.0]], np.float32),
        "terminated": np.array([0, 0, 1, 1], bool),
        "truncated": np.array([0, 1, 0, 0], bool),
        "episode": np.array([0, 0, 1, 2], np.int32),
        "step": np.array([0, 1, 0, 0], np.int32),
    }
    log = TaskLog(name="log", role="train", columns=columns)
    table = build_log_table((log,), DELAYED.spaces, identity_normaliser(1), "logged")
    batch = table.batch(jnp.arange(4), key=KEY)
    risk = float(sigmoid(0.4))
    expected = [GAMMA * risk, GAMMA * risk, 1.0, 0.0]
    np.testing.assert_allclose(target_of(constant_critic(0.4), batch, GAMMA), expected, rtol=1e-6)


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=4),
    logit=st.floats(-200, 200, width=32),
)
def test_targets_are_risks(rows, logit):
    cost, terminated = np.array(rows).T
    zeros = np.zeros((4, 1))
    batch = risk_batch(zeros, zeros, cost, zeros, zeros, terminated)
    target = np.asarray(target_of(constant_critic(logit), batch, GAMMA))
    assert (target[cost] == 1.0).all()
    assert (target[terminated & ~cost] == 0.0).all()
    assert ((target >= 0.0) & (target <= np.float32(GAMMA)))[~cost].all()


def test_no_gradient_flows_through_the_target():
    batch = random_batch(1)
    critic = logistic_critic((0.1, 0.2, 0.3, -1.0), obs_size=2)
    grads = jax.jit(jax.grad(lambda c: jnp.sum(risk_target(c, batch, GAMMA))))(critic)
    assert not logistic_parameters(grads).any()


# --- One update ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    """Twin critics, a target network that differs from them, and a recovery policy."""
    online = logistic_critic((0.1, 0.2, 0.3, -1.0), (-0.5, 0.4, -0.2, 0.3), obs_size=2)
    target = logistic_critic((0.7, -0.2, 0.6, 0.5), (0.2, 0.1, -0.9, 0.4), obs_size=2)
    recovery = randomly_filled(lambda key: RecoveryNetwork(2, 1, (4,), key=key))
    fresh = learner().init(online, recovery)
    return type(fresh)(online, target, fresh.critic_optimiser, fresh.recovery)


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_every_member_descends_the_error_to_one_target(example, kind):
    """Against closed forms: `sigmoid(w x + b)` has no hidden layer."""
    batch = random_batch(2)
    target = logistic_target(logistic_parameters(example.target_critic), batch, GAMMA)
    rule = learner(target_rate=0.25, loss=kind)
    new, metrics = update(rule, example, batch, no_risk_term)
    # Adam's first moment after one step is a tenth of the gradient.
    moment = logistic_parameters(optax.tree.get(new.critic_optimiser, "mu"))
    old = logistic_parameters(example.critic)
    gradient = np.stack([logistic_gradient(one, batch, target, kind) for one in old])
    np.testing.assert_allclose(moment, 0.1 * gradient, rtol=1e-4, atol=1e-7)
    step = logistic_parameters(new.critic) - old
    np.testing.assert_allclose(step, -0.01 * np.sign(gradient), rtol=1e-3)

    p = sigmoid(inputs_of(batch) @ old.T)
    label = target[:, None]
    losses = (p - label) ** 2
    if kind == "bce":
        losses = -label * np.log(p) - (1 - label) * np.log1p(-p)
    assert float(metrics["critic_loss"]) == pytest.approx(losses.mean(axis=0).sum(), rel=1e-5)
    assert float(metrics["target_mean"]) == pytest.approx(target.mean(), rel=1e-5)


def test_the_target_network_follows_by_its_rate(example):
    batch = random_batch(2)
    new, _ = update(learner(target_rate=0.25), example, batch, no_risk_term)
    expected = jax.tree.map(
        lambda old, online: np.asarray(old) + 0.25 * (np.asarray(online) - np.asarray(old)),
        example.target_critic,
        new.critic,
    )
    assert_trees_close(new.target_critic, expected, rtol=1e-6)
    assert not np.allclose(
        logistic_parameters(new.target_critic), logistic_parameters(example.target_critic)
    )


def test_soft_update_is_exact():
    old = {"a": jnp.array([0.5, -2.0]), "b": jnp.array(8.0)}
    new = {"a": jnp.array([1.5, 2.0]), "b": jnp.array(-8.0)}
    moved = soft_update(old, new, 0.25)
    assert_trees_equal(moved, {"a": np.array([0.75, -1.0]), "b": np.array(4.0)})
    # 0.1 + (0.3 - 0.1) is not 0.3: rate 1 must not be computed that way.
    assert_trees_equal(
        soft_update({"a": jnp.array(0.1)}, {"a": jnp.array(0.3)}, 1.0), {"a": np.float32(0.3)}
    )
    assert_trees_equal(soft_update(old, new, 0.0), old)
    # At rate 1 too the target has memory of its own, which donation needs.
    assert soft_update(old, new, 1.0)["a"] is not new["a"]


def test_rate_one_bootstraps_from_the_online_critic_and_can_be_donated(example):
    rule, batch = learner(target_rate=1.0), random_batch(2)
    donating = jax.jit(RiskLearner.update, static_argnums=0, donate_argnums=1)
    online, policy = jax.tree.map(jnp.copy, (example.critic, example.recovery.policy))
    new = rule.init(online, policy)
    assert_trees_equal(new.target_critic, new.critic)
    for _ in range(2):
        # Donating needs target and online critic in memory of their own.
        new, _ = donating(rule, new, batch)
        assert_trees_equal(new.target_critic, new.critic)


def test_a_compiled_update_equals_an_eager_one(example):
    rule, batch = learner(target_rate=0.25), random_batch(2)
    compiled, metrics = update(rule, example, batch, no_risk_term)
    eager, eager_metrics = rule.update(example, batch)
    assert_trees_close(compiled, eager, rtol=1e-4, atol=1e-6)
    assert_trees_close(metrics, eager_metrics, rtol=1e-5)


def bias_term(critic: RiskCritic, batch: RiskBatch, logits: jax.Array) -> jax.Array:
    del logits
    return jnp.sum(critic.ensemble.members.biases[0]) * jnp.mean(batch.cost)


def test_a_guards_term_is_added_to_the_safety_loss(example):
    rule, batch = learner(target_rate=0.25), random_batch(2)
    plain, metrics = update(rule, example, batch, no_risk_term)
    given, with_term = update(rule, example, batch, bias_term)
    share = float(np.mean(batch.cost))
    added = share * logistic_parameters(example.critic)[:, -1].sum()
    expected = float(metrics["critic_loss"]) + added
    assert float(with_term["critic_loss"]) == pytest.approx(expected, rel=1e-5)
    moments = [
        logistic_parameters(optax.tree.get(one.critic_optimiser, "mu")) for one in (plain, given)
    ]
    np.testing.assert_allclose(moments[1][:, -1] - moments[0][:, -1], 0.1 * share, rtol=1e-4)
    np.testing.assert_allclose(moments[1][:, :-1], moments[0][:, :-1], rtol=1e-4)


# --- What training converges to --------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 3))
def train(rule: RiskLearner, state, batch: RiskBatch, steps: int):
    return jax.lax.fori_loop(0, steps, lambda _, s: rule.update(s, batch)[0], state)


@pytest.mark.parametrize(("kind", "target_rate"), [("mse", 1.0), ("bce", 0.05)])
def test_training_finds_the_risk_of_a_chain(kind, target_rate):
    """s0 -> s1 -> violation; s2 -> goal; s3 -> s3 for ever, cut by truncation.

    Q(s1) = 1, Q(s0) = gamma, Q(s2) = 0 and Q(s3) = gamma Q(s3) = 0.
    """
    batch = risk_batch(
        [state(n, 5) for n in range(4)],
        [[0.3]] * 4,
        [0, 1, 0, 0],
        [state(n, 5) for n in (1, 4, 4, 3)],
        [[0.3]] * 4,
        [0, 1, 1, 0],
    )
    critic = randomly_filled(lambda key: RiskCritic(5, 1, (16,), critics=2, key=key))
    recovery = randomly_filled(lambda key: RecoveryNetwork(5, 1, (), key=key))
    rule = learner(target_rate, learning_rate=0.02, loss=kind, critics=2)
    trained = train(rule, rule.init(critic, recovery), batch, 800)
    risk = jax.jit(jax.vmap(trained.critic))(batch.obs, batch.action)
    np.testing.assert_allclose(risk, [GAMMA, 1.0, 0.0, 0.0], atol=0.03)


def test_both_losses_have_the_same_minimiser():
    """Three labels, of which one is bootstrapped, at one input: the best risk is their mean."""
    labels = jnp.array([1.0, 0.0, 0.35])
    best = float(np.mean(labels))
    zeros = np.zeros((3, 1))
    batch = risk_batch(zeros, zeros, [0] * 3, zeros, zeros, [0] * 3)

    def slope(logit: float, kind: str) -> float:
        gradient = jax.grad(lambda critic: risk_loss(critic, batch, labels, kind))
        return float(logistic_parameters(gradient(constant_critic(logit)))[0, -1])

    minimum = float(np.log(best / (1 - best)))
    for kind in ("mse", "bce"):
        assert slope(minimum, kind) == pytest.approx(0.0, abs=1e-6)
        assert slope(minimum - 0.5, kind) < -0.01
        assert slope(minimum + 0.5, kind) > 0.01
    # Why cross-entropy is an option: far from its label, the squared error no longer learns.
    assert abs(slope(-20.0, "mse")) < 1e-6
    assert slope(-20.0, "bce") == pytest.approx(-best, rel=1e-4)


def test_cross_entropy_is_stable_at_large_logits():
    batch = risk_batch([[0.0]] * 2, [[0.0]] * 2, [0] * 2, [[0.0]] * 2, [[0.0]] * 2, [0] * 2)
    labels = jnp.array([1.0, 0.0])
    for logit in (100.0, -100.0):
        assert float(risk_loss(constant_critic(logit), batch, labels, "bce")) == 50.0


# --- Recovery policy -------------------------------------------------------------------------

# |action - obs / 2| as a logit: one hidden unit for each side of the kink.
VALLEY = with_layers(
    lambda key: RiskCritic(1, 1, (2,), key=key),
    lambda critic: critic.ensemble.members,
    [([[[-0.5, 0.5], [1.0, -1.0]]], [[0.0, 0.0]]), ([[[4.0], [4.0]]], [[-2.0]])],
)


@functools.partial(jax.jit, static_argnums=(0, 4))
def train_recovery(rule, state: RecoveryState, critic, obs, steps: int) -> RecoveryState:
    def step(_, state: RecoveryState) -> RecoveryState:
        return rule.update_recovery(state, critic, obs, jnp.zeros_like(obs))[0]

    return jax.lax.fori_loop(0, steps, step, state)


def test_the_recovery_policy_finds_the_least_risky_action():
    assert float(VALLEY(jnp.array([1.0]), jnp.array([0.5]))) == pytest.approx(float(sigmoid(-2)))
    assert float(VALLEY(jnp.array([1.0]), jnp.array([0.0]))) == pytest.approx(0.5)
    policy = randomly_filled(lambda key: RecoveryNetwork(1, 1, (16,), key=key))
    rule = learner(learning_rate=3e-3, penalty=0.0)
    obs = jnp.linspace(-1.5, 1.5, 16)[:, None]
    before = recovery_loss(policy, VALLEY, obs, 0.0)
    trained = train_recovery(rule, rule.init_recovery(policy), VALLEY, obs, 1500).policy
    np.testing.assert_allclose(jax.vmap(trained)(obs), 0.5 * obs, atol=0.06)
    assert recovery_loss(trained, VALLEY, obs, 0.0) < before


def test_the_recovery_gradient_is_the_slope_of_the_risk_plus_the_penalty():
    raw, penalty = 0.8, 0.05
    critic = logistic_critic((0.0, -1.5, 0.2))
    value, grads = jax.value_and_grad(recovery_loss)(
        constant_recovery(raw), critic, jnp.zeros((3, 1)), penalty
    )
    risk = float(sigmoid(-1.5 * np.tanh(raw) + 0.2))
    assert float(value) == pytest.approx(risk + penalty * raw**2, rel=1e-5)
    slope = risk * (1 - risk) * -1.5 * (1 - np.tanh(raw) ** 2) + 2 * penalty * raw
    assert float(grads.network.biases[0][0]) == pytest.approx(slope, rel=1e-4)


def test_the_penalty_calls_a_saturated_recovery_policy_back():
    """Risk falls with the action for ever, but a policy at raw 5 no longer tells states apart."""
    critic, obs = logistic_critic((0.0, -1.5, 0.0)), jnp.zeros((1, 1))
    trained = {
        penalty: train_recovery(
            rule := learner(learning_rate=0.05, penalty=penalty),
            rule.init_recovery(constant_recovery(5.0)),
            critic,
            obs,
            600,
        )
        for penalty in (0.0, 1e-3)
    }
    raw = {penalty: float(one.policy.network.biases[0][0]) for penalty, one in trained.items()}
    assert raw[0.0] > 5.0
    # It settles where both slopes cancel: risk (1 - risk) 1.5 (1 - tanh^2) = 2e-3 raw.
    risk = float(sigmoid(-1.5 * np.tanh(raw[1e-3])))
    pull = risk * (1 - risk) * 1.5 * (1 - np.tanh(raw[1e-3]) ** 2)
    assert 1.0 < raw[1e-3] < 4.0
    assert pull == pytest.approx(2e-3 * raw[1e-3], rel=0.05)


def test_an_update_trains_the_recovery_policy_on_the_new_critic(example):
    rule, batch = learner(target_rate=0.25, learning_rate=0.3), random_batch(2)
    new, metrics = update(rule, example, batch, no_risk_term)
    expected, loss = rule.update_recovery(example.recovery, new.critic, batch.obs, batch.action)
    assert_trees_close(new.recovery, expected, rtol=1e-4, atol=1e-6)
    assert float(metrics["recovery_loss"]) == pytest.approx(float(loss["recovery_loss"]), rel=1e-5)
    stale = recovery_loss(example.recovery.policy, example.critic, batch.obs, 1e-3)
    assert abs(float(stale) - float(loss["recovery_loss"])) > 1e-3


def test_a_recovery_leaves_the_logs_only_for_as_much_risk_as_it_is_told():
    """Risk falls with the action, logit by 2 a unit: at weight w the action is logged + 1 / w."""
    slope = logistic_critic((0.0, -2.0, 0.0))
    obs, logged = jnp.zeros((4, 1)), jnp.full((4, 1), 0.1)
    for weight in (2.0, 10.0):
        config = NetworkSettings(objective="logit", behaviour=weight, penalty=0.0)
        rule = RiskLearner(
            config=RiskConfig(),
            target_rate=1.0,
            learning_rate=0.02,
            recovery=config,
        )
        state = rule.init_recovery(constant_recovery(0.0))
        state = jax.lax.fori_loop(
            0, 600, lambda _, s, r=rule: r.update_recovery(s, slope, obs, logged)[0], state
        )
        expected = 0.1 + 1.0 / weight
        np.testing.assert_allclose(state.policy(jnp.zeros(1)), [expected], atol=0.01)


def test_a_critic_begins_with_the_risk_that_it_is_told():
    """Near 0 with the noise of its weights; without a setting, about a half."""
    sizes = {"obs_size": 2, "action_size": 1, "hidden": (16,), "critics": 2, "key": KEY}
    plain = RiskCritic(**sizes)
    shifted = plain.shifted_to(0.01)
    obs, action = jnp.array([0.3, -0.2]), jnp.array([0.1])
    change = shifted.logits(obs, action) - plain.logits(obs, action)
    np.testing.assert_allclose(change, np.log(0.01 / 0.99), rtol=1e-5)
    np.testing.assert_allclose(shifted(jnp.zeros(2), jnp.zeros(1)), 0.01, rtol=1e-5)
