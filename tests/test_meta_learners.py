"""Meta-learners against closed forms, and the rows that an outer step sees.

A critic without hidden layers is `sigmoid(w x + b)`: gradient and Hessian of its squared error are
written down in `handmade`, and with them every derivative of the inner loop.
"""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from handmade import (
    assert_trees_equal,
    inputs_of,
    logistic_critic,
    logistic_gradient,
    logistic_hessian,
    logistic_parameters,
    logistic_target,
    randomly_filled,
    risk_batch,
    sigmoid,
)

from safemesa.core.spaces import Spaces
from safemesa.core.types import RiskBatch
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.learners.config import RiskConfig, SamplingConfig
from safemesa.learners.meta import MAML, MetaSGD, MultiTask, Scratch, inner_loop, meta_learners
from safemesa.learners.meta.base import (
    adapted_loss,
    constant_step_sizes,
    critic_gradient,
    mean_over_tasks,
    outer_optimiser,
)
from safemesa.learners.meta.settings import MAMLSettings, MetaSettings, MetaSGDSettings
from safemesa.learners.risk import no_risk_term
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases.log_tables import (
    TrainTables,
    build_log_table,
    build_train_tables,
    sample_meta_batch,
)

GAMMA = 0.7
RISK = RiskConfig(gamma_risk=GAMMA)
CRITIC = logistic_critic((1.1, -0.6, 0.8, 0.2), obs_size=2)
TASKS, ROWS = 2, 8
KEY = jax.random.key(0)


def rows(shape: tuple[int, ...], seed: int, risky: float = 1.0) -> RiskBatch:
    """Rows that go on, reach a goal or violate; violations follow `risky` times the action."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, *shape, 2))
    action, next_action = rng.uniform(-1, 1, (2, *shape, 1))
    cost = risky * action[..., 0] + 0.3 * rng.normal(size=shape) > 0.1
    terminated = cost | (rng.uniform(size=shape) < 0.3)
    return risk_batch(obs, action, cost, next_obs, next_action, terminated)


def task(batch: RiskBatch, *index: int) -> RiskBatch:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], batch)


def bias_term(critic: RiskCritic, batch: RiskBatch, logits: jax.Array) -> jax.Array:
    """A guard's addition with the gradient 0.3 mean(cost) for the bias."""
    del logits
    return 0.3 * jnp.mean(batch.cost) * jnp.sum(critic.ensemble.members.biases[0])


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """Loss of one task after adaptation, with its gradients; `[w and b]` in float64."""

    loss: float
    gradient: np.ndarray
    rate_gradient: np.ndarray
    """By the logarithm of the rate of every entry; a tensor's is the sum over its entries."""

    @staticmethod
    def of(parameters, rates, support, query, *, first_order=False, term=0.0):
        visited = []
        for step in range(support.cost.shape[0]):
            batch = task(support, step)
            target = logistic_target(parameters[None], batch, GAMMA)
            slope = logistic_gradient(parameters, batch, target)
            slope[-1] += term * np.mean(batch.cost)
            visited.append((slope, logistic_hessian(parameters, batch, target)))
            parameters = parameters - rates * slope
        target = logistic_target(parameters[None], query, GAMMA)
        risk = sigmoid(inputs_of(query) @ parameters)
        added = term * np.mean(query.cost)
        loss = np.mean((risk - target) ** 2) + added * parameters[-1]
        gradient = logistic_gradient(parameters, query, target)
        gradient[-1] += added
        rate_gradient = np.zeros_like(gradient)
        for slope, hessian in reversed(visited):
            rate_gradient -= rates * slope * gradient
            if not first_order:
                gradient = gradient - hessian @ (rates * gradient)
        return ClosedForm(float(loss), gradient, rate_gradient)


update = jax.jit(
    lambda learner, state, support, query, term: learner.update(state, support, query, term),
    static_argnums=(0, 4),
)


def gradient_in(optimiser) -> object:
    """What Adam was given in its first step: its first moment is a tenth of it."""
    return jax.tree.map(lambda leaf: 10.0 * np.asarray(leaf), optax.tree.get(optimiser, "mu"))


def expected_of(rates, support, query, **options) -> ClosedForm:
    """The mean over tasks."""
    parameters = logistic_parameters(CRITIC)[0]
    each = [
        ClosedForm.of(parameters, rates, task(support, one), task(query, one), **options)
        for one in range(TASKS)
    ]
    return ClosedForm(
        *(
            np.mean([getattr(one, field.name) for one in each], axis=0)
            for field in dataclasses.fields(ClosedForm)
        )
    )


# --- The outer gradient ----------------------------------------------------------------------


@pytest.mark.parametrize("first_order", [False, True])
def test_the_gradient_of_maml(first_order):
    """Several inner steps on different rows, bootstraps in both losses, and a guard's term."""
    support, query = rows((TASKS, 3, ROWS), 0), rows((TASKS, ROWS), 1)
    settings = MAMLSettings(inner_rate=2.0, inner_steps=3, first_order=first_order, outer_rate=0.01)
    learner = MAML(settings=settings, risk=RISK)
    state = learner.init(CRITIC)
    new, metrics = update(learner, state, support, query, bias_term)

    rates = np.full(4, 2.0)
    expected = expected_of(rates, support, query, first_order=first_order, term=0.3)
    gradient = logistic_parameters(gradient_in(new.critic_optimiser))[0]
    np.testing.assert_allclose(gradient, expected.gradient, rtol=1e-3, atol=1e-5)
    assert float(metrics["query_loss"]) == pytest.approx(expected.loss, rel=1e-5)
    other = expected_of(rates, support, query, first_order=not first_order, term=0.3)
    assert np.abs(other.gradient - expected.gradient).max() > 0.02, "both orders must differ"
    step = logistic_parameters(new.critic) - logistic_parameters(CRITIC)
    np.testing.assert_allclose(step[0], -0.01 * np.sign(expected.gradient), rtol=1e-3)
    assert_trees_equal(new.log_step_sizes, state.log_step_sizes)


RATES = np.array([0.9, 0.9, 0.9, 2.5])
"""Three weights of one tensor and a bias."""


def meta_sgd(**config) -> MetaSGD:
    return MetaSGD(settings=MetaSGDSettings(inner_rate=0.9, **config), risk=RISK)


def with_bias_rate(state, rate: float):
    """Another rate for the bias than for the weights."""
    return eqx.tree_at(
        lambda one: one.log_step_sizes.ensemble.members.biases,
        state,
        (jnp.log(jnp.float32(rate)),),
    )


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradients_of_meta_sgd(steps):
    """After one step the slope of a log rate is `-rate <inner gradient, query gradient>`."""
    support, query = rows((TASKS, steps, ROWS), 2), rows((TASKS, ROWS), 3)
    learner = meta_sgd(inner_steps=steps)
    new, metrics = update(
        learner, with_bias_rate(learner.init(CRITIC), 2.5), support, query, no_risk_term
    )
    expected = expected_of(RATES, support, query)
    gradient = logistic_parameters(gradient_in(new.critic_optimiser))[0]
    np.testing.assert_allclose(gradient, expected.gradient, rtol=1e-3, atol=1e-5)
    slopes = jax.tree.leaves(gradient_in(new.step_size_optimiser))
    by_tensor = [expected.rate_gradient[:3].sum(), expected.rate_gradient[3]]
    np.testing.assert_allclose(slopes, by_tensor, rtol=1e-3, atol=1e-5)
    assert float(metrics["query_loss"]) == pytest.approx(expected.loss, rel=1e-5)
    learned = np.exp(jax.tree.leaves(new.log_step_sizes))
    assert float(metrics["mean_inner_rate"]) == pytest.approx(learned.mean(), rel=1e-5)


def test_rates_grow_where_adaptation_helps_and_shrink_but_stay_positive_where_it_harms():
    """One row over and over: adapting to its label helps, to the opposite label harms."""
    learner = meta_sgd(inner_steps=1, step_size_rate=0.5)
    one = risk_batch([0.5, -1.0], [0.3], 1.0, [0.0, 0.0], [0.0], 1.0)
    query = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (TASKS, ROWS, *leaf.shape)), one)
    support = jax.tree.map(lambda leaf: leaf[:, None], query)
    for cost, direction in ((support.cost, 1.0), (1.0 - support.cost, -1.0)):
        state = with_bias_rate(learner.init(CRITIC), 0.9)
        for step in range(4):
            before = np.array(jax.tree.leaves(state.log_step_sizes))
            given = support._replace(cost=cost)
            state, metrics = update(learner, state, given, query, no_risk_term)
            after = np.array(jax.tree.leaves(state.log_step_sizes))
            assert (np.sign(after - before) == direction).all(), (step, before, after)
            assert float(metrics["mean_inner_rate"]) > 0.0
        # So far down a rate itself, rather than its logarithm, would be below zero.
        assert (direction * (after - np.log(0.9)) > 1.5).all()


def test_the_gradient_through_hidden_layers_against_finite_differences():
    """Terminated rows, since a bootstrap changes the loss but has no gradient."""
    support, query = (
        rows(shape, seed)._replace(terminated=jnp.ones(shape))
        for shape, seed in (((2, 32), 5), ((32,), 6))
    )
    critic = randomly_filled(lambda key: RiskCritic(2, 1, (5,), critics=2, key=key))
    direction = randomly_filled(lambda key: RiskCritic(2, 1, (5,), critics=2, key=key), seed=1)
    rates = constant_step_sizes(critic, 1.0)
    loss = jax.jit(
        jax.value_and_grad(
            lambda one: adapted_loss(
                one,
                rates,
                support,
                query,
                settings=MAMLSettings(inner_steps=2),
                risk=RISK,
                risk_term=no_risk_term,
            )
        )
    )
    gradient = jax.tree.leaves(loss(critic)[1])
    slope = sum(
        np.sum(np.asarray(one, np.float64) * np.asarray(other))
        for one, other in zip(gradient, jax.tree.leaves(direction), strict=True)
    )
    step = 2e-3
    ends = [
        loss(jax.tree.map(lambda a, b, s=sign: a + s * step * b, critic, direction))[0]
        for sign in (1.0, -1.0)
    ]
    assert slope == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=0.02)
    assert all(np.abs(leaf).max() > 0.0 for leaf in gradient), "every tensor takes part"


def test_an_inner_loop_descends_its_own_bootstrapped_loss():
    support = rows((3, ROWS), 7)
    adapt = jax.jit(lambda critic, rates: inner_loop(critic, rates, support, RISK))
    adapted = logistic_parameters(adapt(CRITIC, constant_step_sizes(CRITIC, 1.5)))[0]
    expected = logistic_parameters(CRITIC)[0]
    for step in range(3):
        batch = task(support, step)
        target = logistic_target(expected[None], batch, GAMMA)
        expected = expected - 1.5 * logistic_gradient(expected, batch, target)
    np.testing.assert_allclose(adapted, expected, rtol=1e-5)


# --- What training converges to --------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 2))
def train(learner, state, shape: tuple[int, ...]):
    """Tasks whose hidden sign says which sign of action violates, at once and finally."""

    def batch(key, shape: tuple[int, ...], sign):
        action = jax.random.uniform(key, (*shape, 1), minval=-1.0, maxval=1.0)
        zeros = jnp.zeros((*shape, 1))
        cost = (sign.reshape(-1, *(1,) * len(shape[1:])) * action[..., 0] > 0.0).astype(jnp.float32)
        return RiskBatch(zeros, action, cost, zeros, zeros, jnp.ones(shape), zeros)

    def body(number, state):
        key_sign, key_support, key_query = jax.random.split(jax.random.fold_in(KEY, number), 3)
        sign = jax.random.rademacher(key_sign, shape[:1], jnp.float32)
        query = batch(key_query, (shape[0], shape[-1]), sign)
        return learner.update(state, batch(key_support, shape, sign), query)[0]

    return jax.lax.fori_loop(0, 300, body, state)


@jax.jit
def risk_by_sign(critic: RiskCritic) -> jax.Array:
    """Risk of `[-0.5, 0.5]` of the critic as it is and adapted to the signs +1 and -1."""
    action = jnp.linspace(-1.0, 1.0, 32)[:, None]
    zeros, ones = jnp.zeros((1, 32, 1)), jnp.ones((1, 32))

    def ask(critic: RiskCritic) -> jax.Array:
        return jnp.stack([critic(jnp.zeros(1), jnp.full(1, push)) for push in (-0.5, 0.5)])

    def adapted(sign: jax.Array) -> jax.Array:
        cost = (sign * action[None, :, 0] > 0.0).astype(jnp.float32)
        support = RiskBatch(zeros, action[None], cost, zeros, zeros, ones, zeros)
        return ask(inner_loop(critic, constant_step_sizes(critic, 4.0), support, RISK))

    return jnp.concatenate([ask(critic)[None], jax.vmap(adapted)(jnp.array([1.0, -1.0]))])


def test_maml_learns_a_prior_that_one_step_turns_to_either_task():
    """Where tasks disagree both priors say one half, but multi-task's is not made for the step."""
    critic = randomly_filled(lambda key: RiskCritic(1, 1, (16,), key=key), scale=0.3)
    risks = {}
    for kind, settings, shape in (
        (MAML, MAMLSettings(inner_rate=4.0, outer_rate=1e-2), (4, 1, 32)),
        (MultiTask, MetaSettings(outer_rate=1e-2), (128, 0, 1)),
    ):
        learner = kind(settings=settings, risk=RISK)
        prior = train(learner, learner.init(critic), shape).critic
        risks[kind] = np.asarray(risk_by_sign(prior))
        np.testing.assert_allclose(risks[kind][0], 0.5, atol=0.2)
    np.testing.assert_allclose(risks[MAML][1:], [[0.0, 1.0], [1.0, 0.0]], atol=0.2)
    assert np.abs(risks[MultiTask][1:] - [[0.0, 1.0], [1.0, 0.0]]).max() > 0.25


# --- Other learners --------------------------------------------------------------------------


def test_multitask_is_adam_on_the_pooled_rows():
    learner = MultiTask(settings=MetaSettings(outer_rate=0.05, query_batch=12), risk=RISK)
    assert learner.plan(3) == (12, False, 0, 0, 1)
    assert learner.inner_steps == 0
    query = rows((12, 1), 8)
    support = jax.tree.map(lambda leaf: leaf[:, :0], query)
    pooled = jax.tree.map(lambda leaf: leaf[:, 0], query)
    state, expected = learner.init(CRITIC), logistic_parameters(CRITIC)[0]
    first = second = np.zeros(4)
    for count in (1, 2, 3):
        state, metrics = update(learner, state, support, query, bias_term)
        target = logistic_target(expected[None], pooled, GAMMA)
        gradient = logistic_gradient(expected, pooled, target)
        gradient[-1] += 0.3 * np.mean(pooled.cost)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**count), second / (1 - 0.999**count)
        expected = expected - 0.05 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        np.testing.assert_allclose(logistic_parameters(state.critic)[0], expected, rtol=1e-4)
    assert float(metrics["query_loss"]) > 0.0


def test_scratch_changes_nothing():
    learner = Scratch(risk=RISK)
    state = learner.init(CRITIC)
    assert state.critic is CRITIC
    batch = rows((2, 4), 0)
    new, metrics = learner.update(state, batch, batch)
    assert new is state
    assert metrics == {}
    assert not learner.uses_training_logs
    assert (learner.inner_steps, learner.plan(5).tasks) == (0, 0)


def test_learners_are_found_by_name():
    kinds = {"maml": MAML, "meta_sgd": MetaSGD, "multitask": MultiTask, "scratch": Scratch}
    for name, kind in kinds.items():
        assert meta_learners[name] is kind
    steps = {name: kind(risk=RISK).inner_steps for name, kind in kinds.items()}
    assert steps == {"maml": 1, "meta_sgd": 1, "multitask": 0, "scratch": 0}
    assert MAML(settings=MAMLSettings(inner_steps=4), risk=RISK).inner_steps == 4


# --- What they share -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_mean_over_tasks_is_the_same_in_sequence_and_side_by_side(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    support, query = rows((3, 1, ROWS), 9), rows((3, ROWS), 10)

    def gradients(support: RiskBatch, query: RiskBatch):
        first = jax.tree.map(lambda leaf: leaf[0], support)
        return tuple(critic_gradient(CRITIC, batch, RISK) for batch in (first, query))

    mean = functools.partial(mean_over_tasks, gradients)
    assert ("scan" in str(jax.make_jaxpr(mean)(support, query))) is (backend == "cpu")
    of_support, of_query = jax.jit(mean)(support, query)
    parameters = logistic_parameters(CRITIC)[0]
    for (loss, gradient), batches in (
        (of_support, [task(support, number, 0) for number in range(3)]),
        (of_query, [task(query, number) for number in range(3)]),
    ):
        targets = [logistic_target(parameters[None], batch, GAMMA) for batch in batches]
        pairs = list(zip(batches, targets, strict=True))
        expected = np.mean([logistic_gradient(parameters, *pair) for pair in pairs], axis=0)
        np.testing.assert_allclose(logistic_parameters(gradient)[0], expected, rtol=1e-4, atol=1e-6)
        losses = [
            np.mean((sigmoid(inputs_of(batch) @ parameters) - target) ** 2)
            for batch, target in pairs
        ]
        assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("kind", [MAML, MetaSGD, MultiTask])
def test_outer_gradients_are_clipped_by_their_norm(kind):
    of_kind = {MAML: MAMLSettings, MetaSGD: MetaSGDSettings, MultiTask: MetaSettings}
    settings = of_kind[kind](gradient_clip=0.25, outer_rate=0.01)
    state = kind(settings=settings, risk=RISK).init(CRITIC)
    gradient = logistic_critic((3.0, 0.0, 4.0, 0.0), obs_size=2)
    for scale, norm in ((1.0, 0.25), (0.01, 0.05)):
        scaled = jax.tree.map(lambda leaf, s=scale: s * leaf, gradient)
        _, moments = outer_optimiser(settings).step(CRITIC, scaled, state.critic_optimiser)
        given = logistic_parameters(gradient_in(moments))[0]
        np.testing.assert_allclose(given, norm * np.array([0.6, 0.0, 0.8, 0.0]), rtol=1e-4)


# --- Rows of an outer step -------------------------------------------------------------------

SPACES = Spaces(
    obs_names=("task", "row"),
    action_names=("push",),
    action_low=(-2.0,),
    action_high=(6.0,),
    horizon=50,
)
EPISODES = ((4, 9, 1, 6), (5, 5), (3, 1, 1, 1, 7, 2))
"""Lengths of the episodes of three tasks."""


def log(number: int) -> TaskLog:
    """Rows that say where they are from; every fourth violates, and every fifth terminates."""
    lengths = EPISODES[number]
    size = sum(lengths)
    index = np.arange(size)
    columns = {
        "obs": np.stack([np.full(size, number), index], axis=1).astype(np.float32),
        "action": (8.0 * (index[:, None] + 0.5) / size - 2.0).astype(np.float32),
        "reward": np.zeros(size, np.float32),
        "cost": (index % 4 == 0).astype(np.float32),
        "next_obs": np.stack([np.full(size, number), index + 1], axis=1).astype(np.float32),
        "terminated": index % 5 == 0,
        "truncated": np.zeros(size, bool),
        "episode": (10 + np.repeat(np.arange(len(lengths)), lengths)).astype(np.int32),
        "step": np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
    }
    return TaskLog(name=f"log-{number}", role="train", columns=columns)


DATA = OfflineTasks(domain="test", spaces=SPACES, train=tuple(map(log, range(3))))


@pytest.fixture(scope="module")
def tables() -> TrainTables:
    return build_train_tables(DATA, identity_normaliser(2), SamplingConfig(next_action="logged"), 0)


def draws(tables: TrainTables, learner, fraction: float | None, count: int):
    """`count` outer steps' rows: leaves have a leading axis of steps."""
    plan = learner.plan(tables.tasks)
    draw = jax.jit(lambda key: sample_meta_batch(tables, plan, fraction, key=key))
    return jax.device_get(jax.lax.map(draw, jax.random.split(KEY, count)))


def test_support_and_query_of_a_task_share_no_episode(tables):
    learner = MAML(
        settings=MAMLSettings(tasks=2, support_batch=6, query_batch=8, inner_steps=2), risk=RISK
    )
    steps = 400
    support, query = draws(tables, learner, None, steps)
    assert support.obs.shape == (steps, 2, 2, 6, 2)
    assert query.obs.shape == (steps, 2, 8, 2)
    seen = {"support": set(), "query": set()}
    tasks_drawn = []
    for step in range(steps):
        tasks = query.obs[step, :, 0, 0].astype(int).tolist()
        assert len(set(tasks)) == 2, "tasks of an outer step are distinct"
        tasks_drawn += tasks
        for place, number in enumerate(tasks):
            episode = DATA.train[number].columns["episode"]
            rows_of = {
                "support": support.obs[step, place].reshape(-1, 2),
                "query": query.obs[step, place],
            }
            assert all((obs[:, 0] == number).all() for obs in rows_of.values())
            drawn = {name: obs[:, 1].astype(int) for name, obs in rows_of.items()}
            assert not set(episode[drawn["support"]]) & set(episode[drawn["query"]])
            for name, indices in drawn.items():
                seen[name] |= {(number, index) for index in indices.tolist()}
    every = {(number, row) for number, one in enumerate(EPISODES) for row in range(sum(one))}
    # All data serve both purposes, because the halves of a task change places.
    assert seen["support"] == every
    assert seen["query"] == every
    share = np.bincount(tasks_drawn, minlength=3) / len(tasks_drawn)
    np.testing.assert_allclose(share, 1 / 3, atol=0.05)


def test_fewer_tasks_than_an_outer_step_wants_are_all_used(tables):
    for kind, settings in ((MAML, MAMLSettings), (MetaSGD, MetaSGDSettings)):
        learner = kind(settings=settings(tasks=5, support_batch=4, query_batch=4), risk=RISK)
        assert learner.plan(3) == (3, True, 1, 4, 4)
        assert learner.plan(9).tasks == 5
        draw = functools.partial(sample_meta_batch, tables, learner.plan(3), None)
        support, query = jax.eval_shape(lambda key, draw=draw: draw(key=key), KEY)
        assert support.obs.shape == (3, 1, 4, 2)
        assert query.obs.shape == (3, 4, 2)


@pytest.mark.parametrize("fraction", [None, 0.3])
def test_multitask_pools_all_rows_of_all_tasks(tables, fraction):
    learner = MultiTask(settings=MetaSettings(query_batch=40), risk=RISK)
    support, query = draws(tables, learner, fraction, 100)
    assert query.obs.shape == (100, 40, 1, 2)
    assert support.obs.shape == (100, 40, 0, 2)
    number, row = query.obs[:, :, 0].reshape(-1, 2).astype(int).T
    every = {(number, row) for number, one in enumerate(EPISODES) for row in range(sum(one))}
    assert set(zip(number.tolist(), row.tolist(), strict=True)) == every
    np.testing.assert_allclose(np.bincount(number) / number.size, 1 / 3, atol=0.05)
    np.testing.assert_array_equal(query.cost.ravel(), row % 4 == 0)
    violations = query.cost.sum(axis=(1, 2))
    if fraction is None:
        share = np.mean([np.mean(np.arange(sum(one)) % 4 == 0) for one in EPISODES])
        assert violations.mean() / 40 == pytest.approx(share, abs=0.03)
    else:
        # The share is that of the whole batch: one row cannot be 0.3 of a violation.
        assert (violations == round(0.3 * 40)).all()


def test_the_next_action_is_the_logged_one_within_an_episode():
    only = DATA.train[0]
    size = only.transitions
    ends = np.cumsum(EPISODES[0]) - 1
    inside = np.setdiff1d(np.arange(size), ends)
    scaled = SPACES.to_unit(only.columns["action"])
    np.testing.assert_allclose(scaled[:, 0], 2 * (np.arange(size) + 0.5) / size - 1, atol=1e-6)
    np.testing.assert_allclose(
        SPACES.from_unit(jnp.asarray(scaled)), only.columns["action"], atol=1e-6
    )
    batches = {}
    for policy in ("logged", "uniform"):
        table = build_log_table((only,), SPACES, identity_normaliser(2), policy)
        index = jnp.tile(jnp.arange(size, dtype=jnp.int32), 200)
        batch = jax.device_get(jax.jit(lambda key, t=table, i=index: t.batch(i, key=key))(KEY))
        np.testing.assert_array_equal(batch.action[:size], scaled)
        np.testing.assert_array_equal(batch.obs[:size], only.columns["obs"])
        np.testing.assert_array_equal(batch.next_obs[:size], only.columns["next_obs"])
        np.testing.assert_array_equal(batch.terminated[:size], only.columns["terminated"])
        batches[policy] = batch.next_action.reshape(200, size)
    np.testing.assert_allclose(
        batches["logged"][:, inside], np.tile(scaled[inside + 1, 0], (200, 1)), atol=1e-6
    )
    for drawn in (batches["logged"][:, ends], batches["uniform"]):
        assert (np.abs(drawn) <= 1.0).all()
        np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=5 / np.sqrt(3 * 200))
        np.testing.assert_allclose(drawn.std(), 1 / np.sqrt(3), rtol=0.05)
