"""Networks against plain NumPy, and the density of the squashed Gaussian against integration."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import constant_policy, randomly_filled

from safemesa.learners.recovery import RecoveryNetwork
from safemesa.networks.critics import RiskCritic, ValueCritic, largest, smallest
from safemesa.networks.mlp import MLP, EnsembleMLP
from safemesa.networks.normaliser import Normaliser, fit_normaliser, identity_normaliser
from safemesa.networks.policies import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    TanhGaussianPolicy,
    log_one_minus_tanh_squared,
)

KEY = jax.random.key(0)
INPUTS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def by_hand(network: MLP, x: np.ndarray) -> np.ndarray:
    """The network in float64: ReLU after every layer but the last."""
    weights = [np.asarray(weight, np.float64) for weight in network.weights]
    biases = [np.asarray(bias, np.float64) for bias in network.biases]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = np.maximum(x @ weight + bias, 0.0)
    return x @ weights[-1] + biases[-1]


def member(ensemble: EnsembleMLP, number: int) -> MLP:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[number], ensemble.members)


def test_mlp_shapes_and_initialisation():
    network, ensemble = jax.jit(
        lambda key: (MLP((3, 200, 100, 2), key=key), EnsembleMLP(2, (8, 8, 8), key=key))
    )(KEY)
    assert [weight.shape for weight in network.weights] == [(3, 200), (200, 100), (100, 2)]
    assert [bias.shape for bias in network.biases] == [(200,), (100,), (2,)]
    for weight, bias in zip(network.weights, network.biases, strict=True):
        # Xavier-uniform: within +-sqrt(6 / (in + out)), with the deviation bound / sqrt(3).
        bound = math.sqrt(6.0 / sum(weight.shape))
        values = np.asarray(weight)
        assert np.abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / math.sqrt(3.0), rel=0.1)
        assert not np.asarray(bias).any()
        assert weight.dtype == bias.dtype == jnp.float32
    # Neither layers nor members share a key: equal shapes must differ.
    first, second = member(ensemble, 0), member(ensemble, 1)
    assert not np.allclose(first.weights[0], first.weights[1])
    assert not np.allclose(first.weights[0], second.weights[0])


@pytest.mark.parametrize("sizes", [(3, 2), (3, 6, 4, 2)])
def test_mlp_is_affine_maps_with_relu_between(sizes):
    network = randomly_filled(lambda key: MLP(sizes, key=key), seed=2)
    call = jax.jit(lambda net, x: net(x))
    batched = jax.jit(jax.vmap(lambda net, x: net(x), in_axes=(None, 0)))(network, INPUTS)
    looped = np.stack([call(network, x) for x in INPUTS])
    assert looped.shape == (5, 2)
    np.testing.assert_allclose(batched, looped, rtol=1e-5, atol=1e-6)
    expected = by_hand(network, INPUTS)
    np.testing.assert_allclose(batched, expected, rtol=1e-5, atol=1e-6)
    assert (expected < 0.0).any(), "a ReLU on the last layer would not be seen"


def test_an_ensemble_is_its_members_one_by_one():
    ensemble = randomly_filled(lambda key: EnsembleMLP(3, (3, 6, 2), key=key))
    outputs = ensemble(jnp.asarray(INPUTS[0]))
    assert outputs.shape == (3, 2)
    expected = [by_hand(member(ensemble, number), INPUTS[0]) for number in range(3)]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("members", [1, 2, 3])
def test_the_gradient_of_an_extreme_goes_to_one_member_whatever_is_equal(members):
    values = jax.random.normal(jax.random.key(0), (50, members))
    values = values.at[:10].set(1.0)
    for function, plain in ((smallest, jnp.min), (largest, jnp.max)):
        np.testing.assert_array_equal(function(values), plain(values, axis=-1))
        gradient = jax.jit(jax.vmap(jax.grad(function)))(values)
        np.testing.assert_array_equal(gradient.sum(axis=1), 1.0)
        np.testing.assert_array_equal((gradient * values).sum(axis=1), plain(values, axis=-1))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_extreme_of_what_is_unknown_is_unknown(place):
    values = jnp.zeros(3).at[place].set(jnp.nan)
    assert jnp.isnan(smallest(values))
    assert jnp.isnan(largest(values))


def test_critics_see_the_observation_then_the_action():
    obs, action = jnp.asarray(INPUTS[0]), jnp.array([0.3, -0.9])
    joined = np.concatenate([obs, action])
    values = randomly_filled(lambda key: ValueCritic(3, 2, (6,), key=key))
    given = jax.jit(lambda net: net(obs, action))(values)
    expected = [by_hand(member(values.ensemble, number), joined)[0] for number in range(2)]
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)

    critic = randomly_filled(lambda key: RiskCritic(3, 2, (6,), critics=3, key=key))
    ask = jax.jit(lambda net: (net.logits(obs, action), net(obs, action)))
    logits, risk = ask(critic)
    expected = [by_hand(member(critic.ensemble, number), joined)[0] for number in range(3)]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert len(set(np.round(expected, 3))) == 3
    assert float(risk) == pytest.approx(1 / (1 + math.exp(-max(expected))), rel=1e-5)
    # The pessimistic member decides, whichever it is.
    for shift in (1, 2):
        rolled = jax.tree.map(lambda leaf, s=shift: np.roll(leaf, s, axis=0), critic)
        np.testing.assert_allclose(ask(rolled)[1], risk, rtol=1e-6)


squash_all = jax.jit(jax.vmap(TanhGaussianPolicy.squash, in_axes=(None, 0)))


@pytest.mark.parametrize(("mean", "log_std"), [(0.3, -0.4), (-1.0, 0.0)])
def test_the_density_of_actions_integrates_to_their_probabilities(mean, log_std):
    grid = np.linspace(-1.0, 1.0, 40_001)[1:-1]
    std = math.exp(log_std)
    noise = (np.arctanh(grid) - mean) / std
    moments = (jnp.array([mean], jnp.float32), jnp.array([log_std], jnp.float32))
    actions, log_density = squash_all(moments, jnp.asarray(noise[:, None], jnp.float32))
    np.testing.assert_allclose(actions[:, 0], grid, atol=1e-5)
    density = np.exp(np.asarray(log_density, np.float64))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-3)
    for bound in (-0.5, 0.1, 0.8):
        inside = grid <= bound
        expected = 0.5 * (1 + math.erf((math.atanh(bound) - mean) / (std * math.sqrt(2))))
        assert np.trapezoid(density[inside], grid[inside]) == pytest.approx(expected, abs=1e-3)


def test_the_log_density_obeys_the_change_of_variables():
    moments = (jnp.array([0.3, -1.2, 0.0]), jnp.array([-0.5, 0.2, 1.0]))
    noise = jnp.array([0.7, -0.4, 0.5])
    squash = TanhGaussianPolicy.squash
    jacobian = jax.jit(jax.jacfwd(lambda z: squash(moments, z)[0]))(noise)
    standard = -0.5 * np.sum(np.square(noise)) - 1.5 * math.log(2 * math.pi)
    expected = standard - np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    _, log_density = squash(moments, noise)
    assert float(log_density) == pytest.approx(expected, abs=1e-4)


def test_saturated_actions_have_finite_densities_and_gradients():
    x = np.linspace(-8.0, 8.0, 33)
    np.testing.assert_allclose(
        log_one_minus_tanh_squared(jnp.asarray(x, jnp.float32)),
        -2.0 * np.log(np.cosh(x)),
        rtol=1e-5,
        atol=1e-6,
    )

    def log_density(mean: jax.Array) -> jax.Array:
        return TanhGaussianPolicy.squash((mean, jnp.array([-1.0])), jnp.array([0.5]))[1]

    both = jax.jit(jax.value_and_grad(log_density))
    for mean in (30.0, -30.0):
        value, slope = both(jnp.array([mean]))
        # 1 - tanh(u)^2 is 4 exp(-2 |u|) out here.
        raw = abs(mean + 0.5 * math.exp(-1.0))
        gaussian = -0.125 + 1.0 - 0.5 * math.log(2 * math.pi)
        assert float(value) == pytest.approx(gaussian - 2 * math.log(2) + 2 * raw, rel=1e-5)
        # The density grows by 2 per unit towards the saturated side.
        assert float(slope[0]) == pytest.approx(2.0 * math.copysign(1.0, mean), rel=1e-5)


def test_the_mode_is_the_squashed_mean():
    policy = constant_policy([0.7, -0.2], [1.0, 2.0])
    np.testing.assert_allclose(policy.mode(jnp.ones(1)), np.tanh([0.7, -0.2]), rtol=1e-6)


draw_many = jax.jit(
    lambda policy, obs, keys: (
        policy.distribution(obs),
        jax.vmap(lambda key: policy.sample(obs, key=key))(keys),
    )
)


def spread_of(actions: jax.Array) -> np.ndarray:
    """A standard deviation before the squashing that saturated actions do not disturb."""
    raw = np.arctanh(np.clip(np.asarray(actions, np.float64), -0.9999999, 0.9999999))
    return np.median(np.abs(raw - np.median(raw, axis=0)), axis=0) / 0.67449


def test_log_standard_deviations_are_clipped():
    assert (LOG_STD_MIN, LOG_STD_MAX) == (-20.0, 2.0)
    given = [-100.0, 100.0, 0.3, -19.0]
    keys = jax.random.split(KEY, 2_000)
    policy = constant_policy([0.25] * 4, given)
    (mean, log_std), (actions, _) = draw_many(policy, jnp.ones(1), keys)
    np.testing.assert_array_equal(mean, 0.25)
    np.testing.assert_allclose(log_std, np.clip(given, -20.0, 2.0), rtol=1e-6)
    # The clip reaches the samples: e^-20 is no noise at all.
    np.testing.assert_allclose(actions[:, 0], math.tanh(0.25), rtol=1e-6)
    np.testing.assert_allclose(spread_of(actions)[1:3], np.exp([2.0, 0.3]), rtol=0.1)


def test_samples_follow_the_distribution_of_the_observation():
    policy = randomly_filled(lambda key: TanhGaussianPolicy(3, 2, (8,), key=key), scale=0.3)
    keys = jax.random.split(KEY, 2_000)
    (mean, log_std), (actions, log_density) = draw_many(policy, jnp.asarray(INPUTS[0]), keys)
    raw = np.arctanh(np.clip(np.asarray(actions, np.float64), -0.9999999, 0.9999999))
    np.testing.assert_allclose(np.median(raw, axis=0), mean, atol=0.1)
    np.testing.assert_allclose(spread_of(actions), np.exp(log_std), rtol=0.1)
    # The density that comes with an action is that action's own.
    noise = (raw - np.asarray(mean)) / np.exp(np.asarray(log_std))
    gaussian = -0.5 * noise**2 - np.asarray(log_std) - 0.5 * math.log(2 * math.pi)
    expected = np.sum(gaussian + 2.0 * np.log(np.cosh(raw)), axis=-1)
    inner = (np.abs(np.asarray(actions)) < 0.999).all(axis=1)
    assert inner.mean() > 0.5
    np.testing.assert_allclose(np.asarray(log_density)[inner], expected[inner], atol=1e-2)


def test_the_deterministic_policy_squashes_its_network():
    policy = randomly_filled(lambda key: RecoveryNetwork(3, 2, (8,), key=key))
    raw, action = jax.jit(lambda net, obs: (net.raw(obs), net(obs)))(policy, INPUTS[0])
    expected = by_hand(policy.network, INPUTS[0])
    np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(action, np.tanh(expected), rtol=1e-5, atol=1e-6)


def test_the_normaliser_is_fitted_on_all_rows_alike():
    rng = np.random.default_rng(0)
    logs = [
        # Unequal lengths and means: a mean of the logs' means would be far off.
        rng.normal(loc, scale, size=(rows, 2)).astype(np.float32)
        for loc, scale, rows in ((0.0, 1.0, 3), (50.0, 2.0, 400), (-20.0, 0.5, 1))
    ]
    pooled = np.concatenate(logs).astype(np.float64)
    normaliser = fit_normaliser(logs)
    np.testing.assert_allclose(normaliser.mean, pooled.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(normaliser.std, pooled.std(axis=0), rtol=1e-6)
    assert normaliser.mean.dtype == normaliser.std.dtype == jnp.float32
    scaled = normaliser(jnp.asarray(pooled, jnp.float32))
    np.testing.assert_allclose(np.mean(scaled, axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.std(scaled, axis=0), 1.0, rtol=1e-4)


def test_a_signal_far_from_zero_keeps_its_spread():
    """E[x^2] - E[x]^2 loses this one."""
    ticks = np.arange(64, dtype=np.float32)[:, None] / 64.0
    far = (np.float32(4096.0) + ticks).astype(np.float32)
    normaliser = fit_normaliser([far[:10], far[10:]])
    assert float(normaliser.std[0]) == pytest.approx(float(ticks.std()), rel=1e-5)


def test_a_constant_signal_is_centred_and_not_scaled():
    log = np.stack([np.full(7, 3.25), np.arange(7)], axis=1).astype(np.float32)
    normaliser = fit_normaliser([log[:2], log[2:]])
    assert normaliser.std[0] == 1.0
    scaled = normaliser(jnp.asarray(log))
    assert not np.asarray(scaled)[:, 0].any()
    assert np.isfinite(scaled).all()


@pytest.mark.parametrize("scale", [2e-6, 5e-7, 1e-9, 1e-12])
def test_a_small_signal_is_scaled_whatever_its_unit(scale):
    """Amperes of a sensor that gives nanoamperes vary too."""
    signal = np.random.default_rng(0).normal(2.0 * scale, scale, (200, 1)).astype(np.float32)
    scaled = np.asarray(fit_normaliser([signal])(jnp.asarray(signal)))
    np.testing.assert_allclose(scaled.std(), 1.0, rtol=1e-3)
    np.testing.assert_allclose(scaled.mean(), 0.0, atol=1e-3)


@pytest.mark.parametrize("value", [0.1, 0.7, -3e-5, 1e-9])
def test_rounding_of_a_signal_that_rests_is_not_scaled_up(value):
    resting = np.float32(value)
    flicker = [resting, np.nextafter(resting, np.float32(1.0)), resting * np.float32(1 - 3e-7)]
    assert fit_normaliser([np.array(flicker)[:, None]]).std[0] == 1.0


def test_what_double_precision_leaves_of_zero_is_not_scaled_up():
    noise = np.random.default_rng(0).normal(0.0, 1e-16, (50, 1)).astype(np.float32)
    assert fit_normaliser([noise]).std[0] == 1.0


def test_normalisers_keep_leading_axes():
    normaliser = Normaliser(jnp.array([1.0, -2.0]), jnp.array([2.0, 0.5]))
    obs = jnp.arange(12.0).reshape(2, 3, 2)
    expected = (np.asarray(obs) - [1.0, -2.0]) / [2.0, 0.5]
    np.testing.assert_allclose(normaliser(obs), expected, rtol=1e-6)
    np.testing.assert_allclose(normaliser(obs[0, 0]), expected[0, 0], rtol=1e-6)
    np.testing.assert_array_equal(identity_normaliser(2)(obs), obs)
