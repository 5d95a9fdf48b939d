"""CARL's model and planner against known answers: bowls, probes, loops."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import assert_trees_close, randomly_filled

from safemesa.core.errors import ConfigurationError
from safemesa.learners.carl.config import PLANNER_BUDGETS, CARLConfig, PlannerBudget
from safemesa.learners.carl.ensemble import (
    DynamicsEnsemble,
    ModelBatch,
    Scaling,
    disagreement,
    fit_scaling,
    model_loss,
)
from safemesa.learners.carl.learner import CARL, ModelState
from safemesa.learners.carl.planner import cross_entropy_method, imagined_costs
from safemesa.networks.normaliser import Normaliser

SMALL = CARLConfig(
    budget="mini", horizon=4, hidden=(24, 24), weight_decay=(1e-5, 1e-5, 1e-5), batch=64
)


def distance_to(target: float):
    def cost(actions: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return jnp.sum(jnp.square(actions - target), axis=(1, 2))

    return cost


# The search.


@pytest.mark.parametrize(("target", "found"), [(0.3, 0.3), (-0.8, -0.8), (2.0, 0.96)])
def test_the_search_finds_the_minimum_of_a_bowl(target: float, found: float) -> None:
    """Beyond the bounds it comes near them and slows down, as its variance is bounded there."""
    mean = cross_entropy_method(
        distance_to(target),
        jnp.zeros((3, 2)),
        replace(PLANNER_BUDGETS["paper"], iterations=20),
        0.1,
        key=jax.random.key(0),
    )
    np.testing.assert_allclose(mean, found, atol=0.03)
    assert np.abs(np.asarray(mean)).max() <= 1.0


@pytest.mark.parametrize("kept", [0, 2])
def test_the_search_equals_a_loop(kept: int) -> None:
    """The published algorithm, sequence by sequence, on the same noise."""
    budget = PlannerBudget(population=12, elites=4, iterations=3, particles=5, kept_elites=kept)
    key, start = jax.random.key(3), jnp.asarray([[0.2, -0.9]])

    def numpy_cost(sequence: np.ndarray) -> float:
        return float(np.sin(9.0 * sequence).sum() + (sequence**2).sum())

    def cost(actions: jax.Array, cost_key: jax.Array) -> jax.Array:
        del cost_key
        return jnp.sum(jnp.sin(9.0 * actions) + jnp.square(actions), axis=(1, 2))

    mean, variance = np.asarray(start, np.float64), np.full((1, 2), 0.25)
    elites: list[np.ndarray] = []
    for iteration in range(3):
        noise_key, _ = jax.random.split(jax.random.fold_in(key, iteration))
        noise = np.asarray(jax.random.truncated_normal(noise_key, -2, 2, (12, 1, 2), jnp.float32))
        room = np.minimum(((mean + 1) / 2) ** 2, ((1 - mean) / 2) ** 2)
        sequences = [mean + np.sqrt(np.minimum(room, variance)) * one for one in noise]
        if iteration > 0:
            sequences[:kept] = elites[:kept]
        elites = sorted(sequences, key=numpy_cost)[:4]
        mean = 0.1 * mean + 0.9 * np.mean(elites, axis=0)
        variance = 0.1 * variance + 0.9 * np.var(elites, axis=0)
    found = cross_entropy_method(cost, start, budget, 0.1, key=key)
    np.testing.assert_allclose(found, mean, atol=1e-5)


def test_the_search_stands_still_once_it_has_converged() -> None:
    """With one elite the variance shrinks to a tenth per iteration: 1e-3 after three."""

    def mean_after(iterations: int) -> jax.Array:
        budget = PlannerBudget(population=50, elites=1, iterations=iterations, particles=5)
        return cross_entropy_method(
            distance_to(0.5), jnp.zeros((1, 1)), budget, 0.1, key=jax.random.key(0)
        )

    assert mean_after(2) != mean_after(3)
    np.testing.assert_array_equal(mean_after(4), mean_after(9))


# The model.


def random_ensemble(members: int = 2, hidden: Sequence[int] = (6,)) -> DynamicsEnsemble:
    return randomly_filled(lambda key: DynamicsEnsemble(members, 2, 1, hidden, key=key), scale=0.4)


def random_scaling() -> Scaling:
    rng = np.random.default_rng(5)

    def normaliser(size: int) -> Normaliser:
        mean, std = rng.normal(size=size), rng.uniform(0.5, 2.0, size)
        return Normaliser(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))

    return Scaling(normaliser(3), normaliser(3))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def numpy_prediction(
    ensemble: DynamicsEnsemble, scaling: Scaling, member: int, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Standardised mean and log-variance of `(change of obs, reward)`, catastrophe logit."""
    y = (x - np.asarray(scaling.inputs.mean)) / np.asarray(scaling.inputs.std)
    layers = list(zip(ensemble.members.weights, ensemble.members.biases, strict=True))
    for number, (weight, bias) in enumerate(layers):
        y = y @ np.asarray(weight[member], np.float64) + np.asarray(bias[member], np.float64)
        if number < len(layers) - 1:
            y = y / (1.0 + np.exp(-y))
    most, least = np.asarray(ensemble.most_log_variance), np.asarray(ensemble.least_log_variance)
    targets = len(most)
    log_variance = most - softplus(most - y[targets : 2 * targets])
    log_variance = least + softplus(log_variance - least)
    return y[:targets], log_variance, float(y[-1])


def test_the_loss_is_the_formula() -> None:
    ensemble, scaling = random_ensemble(), random_scaling()
    rng = np.random.default_rng(1)
    obs, next_obs = rng.normal(size=(2, 2, 4, 2)).astype(np.float32)
    action = rng.uniform(-1, 1, (2, 4, 1)).astype(np.float32)
    reward = rng.normal(size=(2, 4)).astype(np.float32)
    cost = np.asarray([[0, 1, 0, 0], [0, 0, 0, 1]], np.float32)
    decay = (0.1, 0.2)
    expected, catastrophe = 0.0, 0.0
    for member in range(2):
        terms = []
        for row in range(4):
            x = np.concatenate([obs[member, row], action[member, row]])
            mean, log_variance, logit = numpy_prediction(ensemble, scaling, member, x)
            change = np.append(next_obs[member, row] - obs[member, row], reward[member, row])
            y = (change - np.asarray(scaling.targets.mean)) / np.asarray(scaling.targets.std)
            terms.append((mean - y) ** 2 * np.exp(-log_variance) + log_variance)
            c = cost[member, row]
            # Six safe rows and two violations: those weigh three times as much.
            catastrophe += (3.0 if c else 1.0) * (softplus(logit) - c * logit) / 8
        expected += np.mean(terms)
    bounds = np.sum(ensemble.most_log_variance) - np.sum(ensemble.least_log_variance)
    weights = [np.asarray(weight) for weight in ensemble.members.weights]
    norms = sum(0.5 * rate * (w**2).sum() for rate, w in zip(decay, weights, strict=True))
    expected += 0.01 * bounds + norms + catastrophe
    batch = ModelBatch(*map(jnp.asarray, (obs, action, reward, cost, next_obs)))
    loss, metrics = jax.jit(model_loss, static_argnums=3)(ensemble, scaling, batch, decay)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(metrics["catastrophe_loss"]) == pytest.approx(catastrophe, rel=1e-5)


def test_variances_stay_within_their_bounds() -> None:
    ensemble = DynamicsEnsemble(2, 2, 1, (6,), key=jax.random.key(0))
    x = 1e4 * jax.random.normal(jax.random.key(1), (2, 100, 3))
    log_variance = np.asarray(ensemble(x).log_variance)
    assert log_variance.min() >= -10.0 - 1e-4
    assert log_variance.max() <= 0.5 + 1e-4
    assert log_variance.std() > 1.0


def test_scaling_counts_the_rows_that_are_there() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(3.0, 2.0, (7, 6)).astype(np.float32)
    columns[:, 2] = 0.25  # the action never varies
    weight = np.asarray([1, 1, 0, 1, 1, 1, 0], np.float32)
    obs, action, reward, next_obs = np.split(columns, [2, 3, 4], axis=1)
    batch = ModelBatch(obs, action, reward[:, 0], np.zeros(7, np.float32), next_obs)
    scaling = fit_scaling(jax.tree.map(jnp.asarray, batch), jnp.asarray(weight))
    seen = columns[weight > 0]
    target = np.concatenate([seen[:, 4:6] - seen[:, :2], seen[:, 3:4]], axis=1)
    np.testing.assert_allclose(scaling.inputs.mean, seen[:, :3].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scaling.inputs.std[:2], seen[:, :2].std(axis=0), rtol=1e-5)
    assert scaling.inputs.std[2] == 1.0
    np.testing.assert_allclose(scaling.targets.mean, target.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scaling.targets.std, target.std(axis=0), rtol=1e-5)


def probe_batch(key: jax.Array, shape: tuple[int, ...]) -> ModelBatch:
    """A robot on a line within [-1, 1]: the action moves and pays; a positive one violates."""
    key_obs, key_action = jax.random.split(key)
    obs = jax.random.uniform(key_obs, (*shape, 1), minval=-1.0)
    action = jax.random.uniform(key_action, (*shape, 1), minval=-1.0)
    cost = (action[..., 0] > 0.0).astype(jnp.float32)
    return ModelBatch(obs, action, 2.0 * action[..., 0] - 7.0, cost, obs + 0.3 * action)


@pytest.fixture(scope="module")
def learned() -> tuple[CARL, ModelState]:
    """A model of the probe after 600 updates."""
    carl = CARL(config=SMALL, obs_size=1, action_size=1)

    @jax.jit
    def fit(state: ModelState) -> ModelState:
        def body(index: jax.Array, state: ModelState) -> ModelState:
            shape = (SMALL.networks, SMALL.batch)
            return carl.update(state, probe_batch(jax.random.key(index), shape))[0]

        return jax.lax.fori_loop(0, 600, body, state)

    state = carl.init(key=jax.random.key(0))
    scaling = fit_scaling(probe_batch(jax.random.key(9), (1000,)), jnp.ones(1000))
    return carl, fit(replace(state, scaling=scaling))


def test_the_model_learns_a_probe(learned: tuple[CARL, ModelState]) -> None:
    """Change of the observation, reward and which actions violate."""
    _, state = learned
    action = np.asarray([-0.9, -0.3, 0.3, 0.9], np.float32)
    x = jnp.stack([jnp.full(4, 0.2), jnp.asarray(action)], axis=-1)
    rows = jnp.broadcast_to(x[None], (5, 4, 2))
    said = state.ensemble(state.scaling.inputs(rows))
    scale = state.scaling.targets
    mean = said.mean * scale.std[None, None] + scale.mean[None, None]
    np.testing.assert_allclose(mean[..., 0], np.tile(0.3 * action, (5, 1)), atol=0.03)
    np.testing.assert_allclose(mean[..., 1], np.tile(2 * action - 7, (5, 1)), atol=0.2)
    probability = jax.nn.sigmoid(said.catastrophe_logit)
    assert np.asarray(probability[:, :2]).max() < 0.1
    assert np.asarray(probability[:, 2:]).min() > 0.9


def test_networks_disagree_off_their_data(learned: tuple[CARL, ModelState]) -> None:
    _, state = learned
    on_data = jnp.stack([jnp.linspace(-0.8, 0.8, 9), jnp.linspace(0.8, -0.8, 9)], axis=-1)
    near = disagreement(state.ensemble, state.scaling, on_data)
    far = disagreement(state.ensemble, state.scaling, on_data + 4.0)
    assert float(jnp.min(far)) > 10.0 * float(jnp.max(near))


def test_violations_may_be_absent_from_a_batch() -> None:
    carl = CARL(config=SMALL, obs_size=1, action_size=1)
    batch = probe_batch(jax.random.key(0), (5, 8))
    state, metrics = jax.jit(carl.update)(
        carl.init(key=jax.random.key(0)), batch._replace(cost=jnp.zeros((5, 8)))
    )
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((state, metrics)))


# Planning through the model.


def test_the_cost_of_a_plan_equals_a_roll_out_by_hand() -> None:
    """Every particle of every sequence on its own, in float64, on the same noise."""
    config = replace(SMALL, networks=5, catastrophe_threshold=0.4)
    ensemble, scaling = random_ensemble(members=5), random_scaling()
    obs = np.asarray([0.4, -0.2])
    actions = np.random.default_rng(2).uniform(-1, 1, (3, 4, 1)).astype(np.float32)
    for budget, copies in (("mini", 1), ("lite", 2)):
        config, key = replace(config, budget=budget), jax.random.key(8)
        noise = [
            np.asarray(jax.random.normal(step, (5, 3 * copies, 2)), np.float64)
            for step in jax.random.split(key, 4)
        ]
        mean_of_target = np.asarray(scaling.targets.mean, np.float64)
        std_of_target = np.asarray(scaling.targets.std, np.float64)
        expected, flags = np.zeros(3), 0
        for sequence in range(3):
            for member in range(5):
                for copy in range(copies):
                    state = obs
                    for step in range(4):
                        x = np.concatenate([state, actions[sequence, step]])
                        mean, log_variance, logit = numpy_prediction(ensemble, scaling, member, x)
                        change = (
                            mean[:2]
                            + np.exp(0.5 * log_variance[:2])
                            * (noise[step][member, sequence * copies + copy])
                        )
                        flagged = 1.0 / (1.0 + np.exp(-logit)) > 0.4
                        flags += flagged
                        reward = mean[2] * std_of_target[2] + mean_of_target[2]
                        expected[sequence] += -reward + 50.0 * flagged
                        state = state + change * std_of_target[:2] + mean_of_target[:2]
        assert 0 < flags < 60 * copies
        found = imagined_costs(
            ensemble,
            scaling,
            jnp.asarray(obs, jnp.float32),
            jnp.asarray(actions),
            config,
            jnp.float32(50.0),
            key=key,
        )
        np.testing.assert_allclose(found, expected / (5 * copies), rtol=2e-4)


def test_a_roll_out_that_leaves_the_numbers_is_the_worst() -> None:
    ensemble, scaling = random_ensemble(members=5), random_scaling()
    cost = imagined_costs(
        ensemble,
        scaling,
        jnp.asarray([jnp.nan, 0.0]),
        jnp.zeros((2, 3, 1)),
        SMALL,
        jnp.float32(1.0),
        key=jax.random.key(0),
    )
    np.testing.assert_array_equal(cost, 1e6)


def test_caution_outweighs_the_reward(learned: tuple[CARL, ModelState]) -> None:
    """The reward asks for the largest action; positive ones violate."""
    carl, state = learned
    carl = replace(carl, config=replace(SMALL, budget="paper"))
    act = jax.jit(carl.act, static_argnames="cautious")
    greedy, _ = act(state, carl.no_plan(), jnp.zeros(1), cautious=False, key=jax.random.key(1))
    careful, planned = act(
        state, carl.no_plan(), jnp.zeros(1), cautious=True, key=jax.random.key(1)
    )
    assert float(greedy[0]) > 0.8
    assert -0.5 < float(careful[0]) < 0.0
    assert float(planned.actions[:-1].max()) < 0.05


def test_a_plan_is_followed_until_it_is_old(learned: tuple[CARL, ModelState]) -> None:
    """`mini` plans every second step; what is left of a plan is shifted and starts the next."""
    carl, state = learned
    act = jax.jit(carl.act, static_argnames="cautious")

    def act_at(planned, seed):
        return act(state, planned, jnp.zeros(1), cautious=True, key=jax.random.key(seed))

    _, first = act_at(carl.no_plan(), 0)
    assert first.age == 1
    assert first.actions[-1] == 0.0
    second_action, second = act_at(first, 1)
    np.testing.assert_array_equal(second_action, first.actions[0])
    np.testing.assert_array_equal(second.actions[:-2], first.actions[1:-1])
    assert second.age == 0
    third_action, third = act_at(second, 2)
    assert third_action != second.actions[0]
    assert third.age == 1


def test_vmap_equals_a_loop_and_jit_equals_eager(learned: tuple[CARL, ModelState]) -> None:
    carl, state = learned
    keys = jax.random.split(jax.random.key(4), 2)
    obs = jnp.asarray([[-0.5], [0.5]])

    def act(obs: jax.Array, key: jax.Array) -> jax.Array:
        return carl.act(state, carl.no_plan(), obs, cautious=True, key=key)[0]

    mapped, compiled = jax.jit(jax.vmap(act))(obs, keys), jax.jit(act)
    looped = [compiled(one, key) for one, key in zip(obs, keys, strict=True)]
    np.testing.assert_allclose(mapped, jnp.stack(looped), atol=1e-5)
    np.testing.assert_allclose(looped[1], act(obs[1], keys[1]), atol=1e-5)


def test_an_update_under_vmap_is_the_update(learned: tuple[CARL, ModelState]) -> None:
    carl, state = learned
    batches = jax.vmap(lambda key: probe_batch(key, (5, 16)))(jax.random.split(jax.random.key(4)))
    together = jax.jit(jax.vmap(carl.update, in_axes=(None, 0)))(state, batches)
    update = jax.jit(carl.update)
    for number in range(2):
        batch, result = jax.tree.map(lambda leaf, n=number: leaf[n], (batches, together))
        assert_trees_close(result, update(state, batch), rtol=1e-3, atol=1e-4)


def test_updates_follow_the_length_of_an_episode() -> None:
    carl = CARL(config=CARLConfig(budget="paper"), obs_size=1, action_size=1)
    steps = [3, 100, 1000]
    assert [int(carl.updates_after(jnp.int32(n))) for n in steps] == [200, 500, 2000]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget": "minni"}, "Did you mean 'mini'"),
        ({"source": "log"}, "'tasks' or 'logs'"),
        ({"hidden": (8, 8)}, "one per layer, 3"),
        ({"networks": 3, "budget": "mini"}, "cannot be shared equally"),
        ({"catastrophe_threshold": 1.5}, "catastrophe_threshold"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"horizon": 0}, "horizon"),
    ],
)
def test_impossible_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CARLConfig(**values)


def test_an_impossible_planner_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="kept_elites <= elites <= population"):
        PlannerBudget(population=4, elites=8, iterations=1, particles=5)
