"""Soft actor-critic: targets and gradients by hand, terms of guards, and a task that it solves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from handmade import (
    assert_trees_close,
    assert_trees_equal,
    constant_policy,
    with_layers,
)

from safemesa.core.types import TaskBatch
from safemesa.learners.config import SACConfig
from safemesa.learners.sac import SAC, SACState
from safemesa.networks.critics import ValueCritic

KEY = jax.random.key(3)


def sac(**config) -> SAC:
    return SAC(config=SACConfig(**config), obs_size=1, action_size=2)


def task_batch(obs, action, reward, next_obs, terminated) -> TaskBatch:
    columns = (obs, action, reward, next_obs, terminated)
    return TaskBatch(*(jnp.asarray(np.asarray(column, np.float32)) for column in columns))


def linear_values(first: tuple[float, ...], second: tuple[float, ...]) -> ValueCritic:
    """Twins `w . [obs, action] + b`, each given as `(*w, b)`."""
    table = np.array([first, second])
    return with_layers(
        lambda key: ValueCritic(1, table.shape[1] - 2, (), key=key),
        lambda critic: critic.ensemble.members,
        [(table[:, :-1, None], table[:, -1:])],
    )


def parts(critic: ValueCritic) -> np.ndarray:
    """The inverse of `linear_values`; also of gradients."""
    layer = critic.ensemble.members
    return np.concatenate([layer.weights[0][..., 0], layer.biases[0]], -1).astype(np.float64)


def state_of(rule: SAC, nets: tuple, temperature: float) -> SACState:
    """A policy, twins and target twins with fresh optimisers."""
    log_temperature = jnp.log(jnp.float32(temperature))
    optimisers = [rule.optimiser.init(tree) for tree in (*nets[:2], log_temperature)]
    return SACState(*nets, log_temperature, *optimisers)


def gradient_in(optimiser) -> object:
    """What Adam was given in its first step: its first moment is a tenth of it."""
    return jax.tree.map(lambda leaf: 10.0 * np.asarray(leaf), optax.tree.get(optimiser, "mu"))


# --- One update by hand ----------------------------------------------------------------------

# Without hidden layers all gradients have a closed form; so small a rate leaves the networks as
# they are for the actor's step, which comes after the critics'.
EXACT = sac(hidden=(), discount=0.9, target_rate=0.25, learning_rate=1e-6, learn_temperature=True)
ROWS = 2048
MEAN = 0.4


@jax.jit
def update_with_terms(state, batch, actor, reward):
    return EXACT.update(
        state,
        batch,
        key=KEY,
        actor_term=lambda obs, action: actor * (action[:, 0] + obs[:, 0]),
        reward_term=lambda obs, action: reward * (action[:, 1] - obs[:, 0]),
    )


def exact_update(state: SACState, batch: TaskBatch, actor: float = 0.0, reward: float = 0.0):
    """Repeats the batch, so that all tests share one compilation, and updates with terms."""
    repeated = jax.tree.map(
        lambda leaf: np.tile(leaf, (ROWS // len(leaf), *(1,) * (leaf.ndim - 1))), batch
    )
    return update_with_terms(state, repeated, jnp.float32(actor), jnp.float32(reward))


BATCH = task_batch(
    obs=[[0.5], [-1.0], [2.0], [0.1]],
    action=[[0.3, 0.1], [-0.6, 0.9], [0.9, -0.3], [0.0, 0.4]],
    reward=[1.0, -2.0, 0.5, 3.0],
    next_obs=[[2.0], [-2.0], [2.0], [-2.0]],
    terminated=[0.0, 0.0, 1.0, 1.0],
)
BEFORE = state_of(
    EXACT,
    (
        # Nearly no noise and no entropy, so that every number follows from `tanh(MEAN)`.
        constant_policy([MEAN, -MEAN], [-20.0, -20.0]),
        linear_values((0.5, 1.0, 0.3, 0.2), (-0.3, -0.5, 0.8, 0.5)),
        # Which twin is the smaller one differs between states.
        linear_values((1.0, 0.5, -0.2, 0.0), (-1.0, 2.0, 0.1, 0.3)),
    ),
    temperature=1e-30,
)
ACTION = np.tanh([MEAN, -MEAN])


@pytest.fixture(scope="module")
def after():
    return exact_update(BEFORE, BATCH)


def values_of(critic: ValueCritic, obs, action) -> np.ndarray:
    """Both twins `[rows, 2]`, and a check that each is the smaller one somewhere."""
    rows = np.concatenate([obs, np.broadcast_to(action, (4, 2)), np.ones((4, 1))], axis=-1)
    values = rows @ parts(critic).T
    assert len(set(values.argmin(axis=-1))) == 2
    return values


def test_the_target_of_the_twins(after):
    """`r + (1 - terminated) gamma min Q_target(s', a')`: termination alone cuts the bootstrap."""
    new, metrics = after
    smaller = values_of(BEFORE.target_critic, BATCH.next_obs, ACTION).min(axis=-1)
    target = np.array([1.0 + 0.9 * smaller[0], -2.0 + 0.9 * smaller[1], 0.5, 3.0])
    errors = values_of(BEFORE.critic, BATCH.obs, BATCH.action) - target[:, None]
    assert float(metrics["value_loss"]) == pytest.approx((errors**2).mean(0).sum(), rel=1e-4)
    rows = np.concatenate([BATCH.obs, BATCH.action, np.ones((4, 1))], axis=-1)
    gradient = parts(gradient_in(new.critic_optimiser))
    np.testing.assert_allclose(gradient, 2.0 * errors.T @ rows / 4, rtol=1e-4, atol=1e-5)


def test_the_target_twins_follow_by_their_rate(after):
    old, new = parts(BEFORE.target_critic), parts(after[0].critic)
    np.testing.assert_allclose(parts(after[0].target_critic), old + 0.25 * (new - old), rtol=1e-5)


def test_the_actor_climbs_the_smaller_twin(after):
    new, metrics = after
    values = values_of(BEFORE.critic, BATCH.obs, ACTION)
    assert float(metrics["actor_loss"]) == pytest.approx(-values.min(-1).mean(), rel=1e-4)
    slopes = parts(BEFORE.critic)[values.argmin(axis=-1), 1:3].mean(axis=0)
    expected = -slopes * (1 - ACTION**2)
    gradient = gradient_in(new.policy_optimiser).network.biases[0]
    np.testing.assert_allclose(gradient[:2], expected, rtol=1e-3)
    moved = new.policy.network.biases[0] - BEFORE.policy.network.biases[0]
    np.testing.assert_array_equal(np.sign(moved[:2]), -np.sign(expected))


def test_the_actor_term_is_added_to_the_actors_loss_only(after):
    given, metrics = exact_update(BEFORE, BATCH, actor=3.0)
    for same in ("critic", "target_critic", "critic_optimiser", "log_temperature"):
        assert_trees_equal(getattr(given, same), getattr(after[0], same))
    added = float(metrics["actor_loss"] - after[1]["actor_loss"])
    assert added == pytest.approx(3.0 * (ACTION[0] + float(np.mean(BATCH.obs))), rel=1e-4)
    gradients = [
        gradient_in(one.policy_optimiser).network.biases[0][:2] for one in (after[0], given)
    ]
    expected = [3.0 * (1 - ACTION[0] ** 2), 0.0]
    np.testing.assert_allclose(gradients[1] - gradients[0], expected, atol=1e-3)


def test_the_reward_term_is_added_to_the_reward(after):
    given, metrics = exact_update(BEFORE, BATCH, reward=3.0)
    bonus = 3.0 * (BATCH.action[:, 1] - BATCH.obs[:, 0])
    rewarded = exact_update(BEFORE, BATCH._replace(reward=BATCH.reward + bonus))
    assert_trees_close((given, metrics), rewarded, rtol=1e-4, atol=1e-6)
    assert abs(float(metrics["value_loss"] - after[1]["value_loss"])) > 1.0


# --- Entropy and temperature -----------------------------------------------------------------

# The log standard deviation at which two actions have the entropy -2, but for the squashing.
BALANCE = -1.0 - 0.5 * np.log(2 * np.pi * np.e)


@pytest.mark.parametrize("offset", [1.0, 0.15, -0.15, -1.0])
def test_entropy_has_a_price_that_holds_it_at_minus_the_number_of_actions(offset):
    zero = linear_values((0.0,) * 4, (0.0,) * 4)
    policy = constant_policy([0.0, 0.0], [BALANCE + offset] * 2)
    before = state_of(EXACT, (policy, zero, zero), temperature=0.5)
    zeros = np.zeros((1, 1))
    new, metrics = exact_update(before, task_batch(zeros, [[0.0, 0.0]], [0.0], zeros, [0.0]))
    entropy = float(metrics["entropy"])
    # Squashing takes off E[log(1 - tanh(u)^2)], about the variance, for each action.
    variance = np.exp(2 * (BALANCE + offset))
    assert entropy == pytest.approx(2 * (offset - 1.0 - variance), abs=0.08)
    # With no reward and values of zero the target is `gamma temperature entropy`, on average.
    mean_target = -0.5 * parts(gradient_in(new.critic_optimiser))[:, -1]
    np.testing.assert_allclose(mean_target, 0.9 * 0.5 * entropy, atol=0.03)
    # The actor is paid for entropy at the same price, and widens.
    assert float(metrics["actor_loss"]) == pytest.approx(-0.5 * entropy, rel=1e-4)
    assert (gradient_in(new.policy_optimiser).network.biases[0][2:] < 0.0).all()
    # Too much entropy lowers the price, too little raises it.
    assert float(metrics["temperature"]) == pytest.approx(0.5)
    assert gradient_in(new.temperature_optimiser) == pytest.approx(entropy + 2.0, rel=1e-3)
    assert np.sign(float(new.log_temperature - before.log_temperature)) == -np.sign(offset)


# --- What training converges to --------------------------------------------------------------

SOLVER = sac(hidden=(16,), learning_rate=1e-2, temperature=0.05)


@functools.partial(jax.jit, donate_argnums=0)
def donating_updates(state: SACState, batches: TaskBatch, keys: jax.Array) -> SACState:
    def body(state, batch_and_key):
        batch, key = batch_and_key
        return SOLVER.update(state, batch, key=key)[0], None

    return jax.lax.scan(body, state, (batches, keys))[0]


def test_a_one_step_task_is_solved():
    """The reward is the first action, with the sign of obs; the second does not matter."""
    state = jax.jit(lambda key: SOLVER.init(key=key))(KEY)
    assert_trees_equal(state.target_critic, state.critic)
    assert float(state.log_temperature) == pytest.approx(np.log(0.05))
    rng = np.random.default_rng(0)
    for part in range(2):
        obs = np.sign(rng.normal(size=(150, 64, 1)))
        action = rng.uniform(-1, 1, (150, 64, 2))
        reward = (obs * action)[..., 0]
        batches = task_batch(obs, action, reward, obs, np.ones((150, 64)))
        # Donating needs twins and target twins in memory of their own.
        state = donating_updates(state, batches, jax.random.split(jax.random.key(part), 150))
    assert float(state.log_temperature) == pytest.approx(np.log(0.05)), "not to be learned"
    grid = np.linspace(-0.9, 0.9, 7)
    actions = np.stack([grid, grid[::-1] / 2], axis=-1).astype(np.float32)
    ask = jax.jit(
        lambda one: (state.policy.mode(one), jax.vmap(lambda a: state.critic(one, a))(actions))
    )
    for sign in (1.0, -1.0):
        mode, values = ask(np.full(1, sign, np.float32))
        assert sign * float(mode[0]) > 0.7
        np.testing.assert_allclose(values, np.stack([sign * grid] * 2, axis=-1), atol=0.12)
