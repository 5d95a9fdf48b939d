"""Navigation 1 and 2 against closed forms, the paper's rates, and laws that hold everywhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from safemesa.core.errors import ConfigurationError
from safemesa.domains.navigation import (
    NAVIGATION1,
    NAVIGATION2,
    LinearDynamics,
    Navigation,
    NavigationState,
)
from safemesa.domains.registry import domain, domain_names, probe_names

DOMAINS = [NAVIGATION1, NAVIGATION2]
BY_NAME = pytest.mark.parametrize("navigation", DOMAINS, ids=lambda navigation: navigation.name)
IDENTITY = LinearDynamics(a=jnp.eye(2), b=jnp.eye(2))

jit_step = jax.jit(Navigation.step, static_argnums=0)
jit_reset = jax.jit(Navigation.reset, static_argnums=0)


def quiet(navigation: Navigation, **changes) -> Navigation:
    return dataclasses.replace(navigation, noise=0.0, **changes)


def state_at(x: float, y: float, steps: int = 0) -> NavigationState:
    return NavigationState(jnp.array([x, y], jnp.float32), jnp.int32(steps))


def go(navigation, state, action, task=IDENTITY, seed=0):
    action = jnp.asarray(action, jnp.float32)
    return jit_step(navigation, task, state, action, key=jax.random.key(seed))


def test_a_step_follows_the_linear_dynamics_and_rewards_the_state_before_it():
    task = LinearDynamics(a=jnp.array([[0.9, 0.1], [0.0, 1.1]]), b=jnp.diag(jnp.array([0.5, 1.5])))
    state, step = go(quiet(NAVIGATION1), state_at(-3.0, 4.0), [0.5, -1.0], task)
    np.testing.assert_allclose(state.position, [-2.7 + 0.4 + 0.25, 4.4 - 1.5], rtol=1e-6)
    np.testing.assert_array_equal(step.obs, state.position)
    assert step.reward == -5.0
    assert (step.cost, step.terminated, step.truncated, step.success) == (0, False, False, False)
    assert state.steps == 1


def test_noise_has_the_printed_spread():
    start, keys = state_at(-50.0, 0.0), jax.random.split(jax.random.key(0), 4000)
    step = jax.jit(jax.vmap(lambda key: NAVIGATION1.step(IDENTITY, start, jnp.zeros(2), key=key)))
    states, _ = step(keys)
    np.testing.assert_allclose(states.position.std(axis=0), 0.05, rtol=0.1)
    np.testing.assert_allclose(states.position.mean(axis=0), [-50.0, 0.0], atol=0.01)


@pytest.mark.parametrize(
    ("navigation", "x", "y", "inside"),
    [
        (NAVIGATION1, 0.0, 5.0, True),
        (NAVIGATION1, 0.0, 4.99, False),
        (NAVIGATION1, 0.0, 10.01, False),
        (NAVIGATION1, 150.0, -7.0, True),
        (NAVIGATION1, -80.0, 0.0, True),
        (NAVIGATION1, -79.9, 0.0, False),
        (NAVIGATION2, -30.0, 7.5, True),
        (NAVIGATION2, -20.0, -7.5, True),
        (NAVIGATION2, -25.0, 7.6, False),
        (NAVIGATION2, -30.1, 0.0, False),
    ],
)
def test_obstacles_are_closed_boxes(navigation, x, y, inside):
    assert bool(navigation.violates(np.array([x, y], np.float32))) is inside
    assert bool(navigation.violates(jnp.array([x, y], jnp.float32))) is inside


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_violates_takes_any_batch(as_array):
    points = np.random.default_rng(0).uniform(-100.0, 20.0, (3, 4, 2)).astype(np.float32)
    together = NAVIGATION1.violates(as_array(points))
    assert together.shape == (3, 4)
    for index in np.ndindex(3, 4):
        assert bool(together[index]) == bool(NAVIGATION1.violates(points[index]))


@pytest.mark.parametrize("terminate", [True, False])
def test_a_violation_costs_and_freezes_and_ends_the_episode_if_asked(terminate):
    navigation = quiet(NAVIGATION2, terminate_on_violation=terminate)
    state, step = go(navigation, state_at(-30.5, 0.0), [1.0, 0.0])
    assert step.cost == 1.0
    assert bool(step.terminated) is terminate
    assert not step.truncated
    frozen, again = go(navigation, state, [-1.0, 0.0])
    np.testing.assert_array_equal(frozen.position, state.position)
    assert again.cost == 1.0


@pytest.mark.parametrize("terminate", [True, False])
def test_the_goal_ends_the_step_after_arrival(terminate):
    navigation = quiet(NAVIGATION1, terminate_on_violation=terminate)
    state, arriving = go(navigation, state_at(-1.5, 0.0), [0.7, 0.0])
    assert not arriving.terminated
    assert not arriving.success
    _, arrived = go(navigation, state, [1.0, 0.0])
    assert arrived.terminated
    assert arrived.success
    assert arrived.cost == 0.0
    assert arrived.reward > -1.0


def test_the_horizon_truncates_and_a_termination_takes_precedence():
    navigation = quiet(NAVIGATION2)
    _, before = go(navigation, state_at(-50.0, 0.0, steps=98), [0.0, 0.0])
    assert not before.truncated
    _, last = go(navigation, state_at(-50.0, 0.0, steps=99), [0.0, 0.0])
    assert last.truncated
    assert not last.terminated
    _, violating = go(navigation, state_at(-30.5, 0.0, steps=99), [1.0, 0.0])
    assert violating.terminated
    assert not violating.truncated


def rollout(navigation, task, key):
    """One rollout of the data collection; `valid` marks the transitions that exist."""
    key_start, key = jax.random.split(key)
    state, _, mode, length = navigation.log_start(task, key=key_start)

    def body(carry, t):
        state, alive = carry
        key_action, key_step = jax.random.split(jax.random.fold_in(key, t))
        action = navigation.log_action(mode, state.position, key=key_action)
        state, step = navigation.step(task, state, action, key=key_step)
        valid = alive & (t < length)
        return (state, valid & ~step.terminated), (valid, step.cost)

    times = jnp.arange(navigation.log_max_length, dtype=jnp.int32)
    _, (valid, cost) = jax.lax.scan(body, (state, jnp.bool_(True)), times)
    return mode, valid, cost


def tasks_of(navigation, count, split="train", seed=0):
    rng = np.random.default_rng(seed)
    tasks = [navigation.sample_task(rng, split) for _ in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)


@pytest.mark.parametrize(
    ("navigation", "low", "high", "spread"),
    [(NAVIGATION1, 0.050, 0.070, 0.016), (NAVIGATION2, 0.098, 0.122, 0.029)],
    ids=["navigation1", "navigation2"],
)
def test_the_data_collection_violates_as_often_as_the_papers(navigation, low, high, spread):
    def of_task(task, key):
        keys = jax.random.split(key, 400)
        mode, valid, cost = jax.vmap(rollout, (None, None, 0))(navigation, task, keys)
        shares = [(valid & (mode == block)[:, None]).mean() for block in range(blocks)]
        rate = jnp.mean(cost, where=valid)
        return rate, jnp.stack(shares)

    blocks = len(navigation.log_blocks)
    keys = jax.random.split(jax.random.key(1), 48)
    rates, shares = jax.jit(jax.vmap(of_task))(tasks_of(navigation, 48), keys)
    assert low < rates.mean() < high
    np.testing.assert_allclose(rates.std(), spread, rtol=0.4)
    np.testing.assert_allclose(shares.mean(0) / shares.mean(0).sum(), 1 / blocks, atol=0.03)


@BY_NAME
def test_log_starts_and_actions_stay_in_their_block(navigation):
    keys = jax.random.split(jax.random.key(0), 2000)
    log_start = jax.jit(jax.vmap(lambda key: navigation.log_start(IDENTITY, key=key)))
    log_action = jax.jit(jax.vmap(lambda mode, obs, key: navigation.log_action(mode, obs, key=key)))
    _, obs, mode, length = log_start(keys)
    actions = log_action(mode, obs, keys)
    assert length.max() == navigation.log_max_length
    for index, block in enumerate(navigation.log_blocks):
        of_block = np.asarray(mode) == index
        assert 0.8 < of_block.mean() * len(navigation.log_blocks) < 1.2
        assert (np.asarray(length)[of_block] == block.length).all()
        for axis, interval in enumerate((block.x, block.y)):
            values = np.asarray(obs)[of_block, axis]
            assert values.min() >= interval[0]
            assert values.max() <= interval[1]
            low, high = block.action[axis] or (-1.0, 1.0)
            chosen = np.asarray(actions)[of_block, axis]
            assert chosen.min() >= low
            assert chosen.max() <= high
            # A clipped normal sits on each bound in 16 % of the draws, a uniform draw never.
            assert bool((chosen == 1.0).mean() > 0.1) is (block.action[axis] is None)


def test_ranges_of_tasks():
    for split, lowest in (("train", 0.5), ("test", 0.55)):
        tasks = tasks_of(NAVIGATION1, 400, split)
        gains = np.asarray(jax.vmap(jnp.diag)(tasks.b))
        np.testing.assert_array_equal(tasks.a, np.broadcast_to(np.eye(2), (400, 2, 2)))
        assert lowest <= gains[:, 0].min() < lowest + 0.02
        assert 0.5 <= gains[:, 1].min() < 0.52
        assert 1.48 < gains.max() <= 1.5
        assert np.count_nonzero(tasks.b) == 800
    drifting = tasks_of(dataclasses.replace(NAVIGATION1, a_range=0.01), 200)
    drift = np.asarray(jax.vmap(jnp.diag)(drifting.a))
    assert 0.99 <= drift.min() < 0.9905
    assert 1.0095 < drift.max() <= 1.01
    with pytest.raises(ConfigurationError, match="'train' or 'test'"):
        NAVIGATION1.sample_task(np.random.default_rng(0), "validation")


def test_the_weakest_test_task_can_be_solved():
    task = LinearDynamics(a=jnp.eye(2), b=jnp.diag(jnp.array([0.55, 0.5])))

    def episode(key):
        key_reset, key = jax.random.split(key)

        def body(state, t):
            homing = -state.position / jnp.diag(task.b)
            return NAVIGATION1.step(task, state, homing, key=jax.random.fold_in(key, t))

        state, _ = NAVIGATION1.reset(task, key=key_reset)
        _, steps = jax.lax.scan(body, state, jnp.arange(100))
        return steps.success.any(), steps.cost.sum()

    success, cost = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 200))
    assert success.all()
    assert cost.sum() == 0.0


@BY_NAME
def test_start_states_and_their_reproducibility(navigation):
    keys = jax.random.split(jax.random.key(0), 2000)
    state, obs = jax.jit(jax.vmap(lambda key: navigation.reset(IDENTITY, key=key)))(keys)
    np.testing.assert_array_equal(obs, state.position)
    np.testing.assert_allclose(obs.mean(axis=0), [-50.0, 0.0], atol=0.1)
    np.testing.assert_allclose(obs.std(axis=0), 1.0, atol=0.1)
    assert not navigation.violates(obs).any()
    again, _ = jit_reset(navigation, IDENTITY, key=keys[7])
    np.testing.assert_array_equal(again.position, obs[7])
    other, same = (navigation.sample_task(np.random.default_rng(s), "test") for s in (4, 3))
    np.testing.assert_array_equal(
        same.b, navigation.sample_task(np.random.default_rng(3), "test").b
    )
    assert not np.array_equal(same.b, other.b)


def test_vmap_agrees_with_a_loop():
    tasks = tasks_of(NAVIGATION2, 6)
    keys = jax.random.split(jax.random.key(0), 6)
    actions = jax.random.uniform(jax.random.key(1), (6, 2), minval=-2.0, maxval=2.0)

    @jax.jit
    @jax.vmap
    def reset_and_step(task, action, key):
        state, _ = NAVIGATION2.reset(task, key=key)
        return state, NAVIGATION2.step(task, state, action, key=key)

    states, batched = reset_and_step(tasks, actions, keys)
    for i in range(6):
        task, state = jax.tree.map(lambda leaf, i=i: leaf[i], (tasks, states))
        single = jit_step(NAVIGATION2, task, state, actions[i], key=keys[i])
        for one, many in zip(jax.tree.leaves(single), jax.tree.leaves(batched), strict=True):
            np.testing.assert_allclose(one, many[i], rtol=1e-6)


coordinate = st.floats(-120.0, 160.0, width=32)
command = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60)
@given(x=coordinate, y=coordinate, action=st.tuples(command, command), seed=st.integers(0, 99))
def test_laws_of_a_step(x, y, action, seed):
    for navigation in DOMAINS:
        before = state_at(x, y)
        state, step = go(navigation, before, action, seed=seed)
        _, clipped = go(navigation, before, np.clip(action, -1.0, 1.0), seed=seed)
        for one, other in zip(step, clipped, strict=True):
            np.testing.assert_array_equal(one, other)
        assert np.isfinite(step.obs).all()
        assert bool(step.cost) == bool(navigation.violates(step.obs))
        assert bool(step.terminated) == (bool(step.cost) or bool(step.success))
        assert not (step.terminated and step.truncated)
        assert step.success == (step.reward > -1.0)
        if navigation.violates(before.position):
            np.testing.assert_array_equal(state.position, before.position)
        else:
            assert np.abs(np.asarray(step.obs - before.position)).max() < 1.0 + 8 * 0.05
        dtypes = [leaf.dtype for leaf in step]
        assert dtypes == [jnp.float32] * 3 + [jnp.bool_] * 3


@BY_NAME
def test_task_parameters_are_plain_and_invertible(navigation):
    task = navigation.sample_task(np.random.default_rng(0), "train")
    parameters = navigation.task_parameters(task)
    assert isinstance(parameters["b"][0][0], float)
    back = navigation.task_from_parameters(parameters)
    for one, other in zip(task, back, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"a": [[1, 0], [0, 1]]},
        {"a": [[1, 0], [0, 1]], "b": [1.0, 1.0]},
        {"a": [[1, 0], [0, 1]], "b": [[1.0], [1.0, 2.0]]},
        {"a": [[1, 0], [0, 1]], "b": "gain"},
        {"a": [[1, 0], [0, float("nan")]], "b": [[1, 0], [0, 1]]},
    ],
)
def test_bad_task_parameters_are_refused(parameters):
    with pytest.raises(ConfigurationError, match="navigation1 task"):
        NAVIGATION1.task_from_parameters(parameters)


def test_domains_are_found_by_name():
    assert domain_names()[:2] == ("navigation1", "navigation2")
    assert domain("navigation2") is NAVIGATION2
    assert hash(NAVIGATION1) != hash(NAVIGATION2)
    with pytest.raises(ConfigurationError, match="Did you mean 'navigation1'"):
        domain("navigation_1")
    assert not set(domain_names()) & set(probe_names())
