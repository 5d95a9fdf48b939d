"""The analytic risk of each probe against Monte-Carlo rollouts of the reference policy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safemesa.core.errors import ConfigurationError
from safemesa.domains.probe_base import AbstractProbe, ProbeState, ProbeTask
from safemesa.domains.probes import (
    ACTION,
    CERTAIN,
    DELAYED,
    NEVER,
    TASK,
    WALK,
    DelayedViolation,
    RandomWalk,
)
from safemesa.domains.registry import domain, probe_names

PROBES = [CERTAIN, NEVER, ACTION, DELAYED, TASK, WALK]
EVERY_PROBE = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
ROLLOUTS = 1500
POSITIVE = ProbeTask(jnp.float32(1.0))


@functools.partial(jax.jit, static_argnums=0)
def sampled_risk(probe, task, position, action, gamma, key):
    """Mean discounted first violation; runs on through truncation, as bootstrapping does."""

    def rollout(key):
        def body(carry, t):
            state, action, discount, alive = carry
            key_step, key_action = jax.random.split(jax.random.fold_in(key, t))
            state, step = probe.step(task, state, action, key=key_step)
            risk = jnp.where(alive, discount * step.cost, jnp.float32(0.0))
            action = probe.log_action(jnp.int32(0), step.obs, key=key_action)
            return (state, action, discount * gamma, alive & ~step.terminated), risk

        start = ProbeState(position, jnp.int32(0))
        carry = (start, action, jnp.float32(1.0), jnp.bool_(True))
        _, risks = jax.lax.scan(body, carry, jnp.arange(40))
        return risks.sum()

    return jax.vmap(rollout)(jax.random.split(key, ROLLOUTS)).mean()


@functools.partial(jax.jit, static_argnums=0)
def exact_risk(probe, task, obs, action, gamma):
    return probe.true_risk(task, obs, action, gamma)


@EVERY_PROBE
@pytest.mark.parametrize("gamma", [0.65, 0.95])
def test_the_analytic_risk_is_what_rollouts_show(probe, gamma):
    first, last = probe.starts
    for position in range(first, last + 1):
        for push in (-0.3, 0.3):
            for sign in (-1.0, 1.0):
                task = ProbeTask(jnp.float32(sign))
                here, action = jnp.float32(position), jnp.array([push], jnp.float32)
                sampled = sampled_risk(
                    probe, task, here, action, jnp.float32(gamma), jax.random.key(position)
                )
                exact = exact_risk(probe, task, here[None], action, jnp.float32(gamma))
                # Four standard errors of a mean of values within [0, 1], at their worst.
                np.testing.assert_allclose(exact, sampled, atol=4 * 0.5 / ROLLOUTS**0.5)


@EVERY_PROBE
def test_the_analytic_risk_solves_its_bellman_equation(probe):
    gamma, keys = 0.8, jax.random.split(jax.random.key(0), 400)
    # Midpoints, so that averages over the policy are exact for risks that depend on the sign.
    grid = (jnp.arange(10, dtype=jnp.float32)[:, None] - 4.5) / 5.0
    for position in range(1, probe.starts[1] + 1):
        obs = jnp.array([position], jnp.float32)

        def target(key, obs=obs):
            state = ProbeState(obs[0], jnp.int32(0))
            _, step = probe.step(POSITIVE, state, jnp.array([0.5], jnp.float32), key=key)
            following = jax.vmap(lambda a: probe.true_risk(POSITIVE, step.obs, a, gamma))(grid)
            bootstrap = jnp.where(step.terminated, 0.0, gamma * following.mean())
            return step.cost + (1.0 - step.cost) * bootstrap

        risk = probe.true_risk(POSITIVE, obs, jnp.array([0.5], jnp.float32), gamma)
        np.testing.assert_allclose(jax.jit(jax.vmap(target))(keys).mean(), risk, atol=0.08)


def risk_of(probe: AbstractProbe, position, push, gamma, sign=1.0) -> float:
    task, obs = ProbeTask(jnp.float32(sign)), jnp.array([position], jnp.float32)
    return float(probe.true_risk(task, obs, jnp.array([push], jnp.float32), gamma))


def test_printed_values():
    assert risk_of(CERTAIN, 1, 0.2, 0.8) == 1.0
    assert risk_of(NEVER, 1, 0.2, 0.8) == 0.0
    assert risk_of(ACTION, 1, 0.2, 0.8) == 1.0
    assert risk_of(ACTION, 1, -0.2, 0.8) == pytest.approx(0.8 / 1.2)
    # s0 -> s1 -> violation: Q(s1) = 1 and Q(s0) = gamma.
    assert risk_of(DELAYED, 1, 0.2, 0.8) == pytest.approx(1.0)
    assert risk_of(DELAYED, 2, 0.2, 0.8) == pytest.approx(0.8)
    assert risk_of(DELAYED, 4, 0.2, 0.8) == pytest.approx(0.8**3)
    fair = dataclasses.replace(WALK, slip=0.5)
    assert risk_of(fair, 1, 1.0, 1.0) == pytest.approx(1 - 1 / WALK.length)
    assert all(risk_of(probe, 0, 0.2, 0.8) == 1.0 for probe in PROBES)


def test_only_adaptation_tells_the_risk_of_the_hidden_task():
    risks = [risk_of(TASK, 1, push, 0.8, sign) for sign in (-1.0, 1.0) for push in (-0.5, 0.5)]
    assert risks == [1.0, 0.0, 0.0, 1.0]
    signs = [float(TASK.sample_task(np.random.default_rng(s), "test").sign) for s in range(300)]
    assert abs(np.mean(signs)) < 0.2
    # The mean risk over tasks, the best answer without data of the task, is 1/2 for any action.
    assert np.mean(risks[0::2]) == np.mean(risks[1::2]) == 0.5


@pytest.mark.parametrize("terminate", [True, False])
def test_a_violation_ends_the_episode_or_freezes_it(terminate):
    probe = dataclasses.replace(DELAYED, delay=1, terminate_on_violation=terminate)
    state, _ = probe.reset(POSITIVE, key=jax.random.key(0))
    for _ in range(2):
        state, step = probe.step(POSITIVE, state, jnp.zeros(1), key=jax.random.key(0))
        assert step.cost == 1.0
        assert bool(step.terminated) is terminate
        assert step.obs == 0.0


def test_an_episode_without_end_is_truncated():
    state = ProbeState(jnp.float32(1.0), jnp.int32(NEVER.horizon - 1))
    _, step = NEVER.step(POSITIVE, state, jnp.zeros(1), key=jax.random.key(0))
    assert step.truncated
    assert not step.terminated


@EVERY_PROBE
def test_probes_are_found_by_name_and_can_be_logged(probe):
    assert domain(probe.name) is probe
    assert probe.name in probe_names()
    task = probe.sample_task(np.random.default_rng(0), "train")
    back = probe.task_from_parameters(probe.task_parameters(task))
    assert back.sign == task.sign
    state, obs, mode, length = probe.log_start(task, key=jax.random.key(0))
    assert obs.shape == (probe.spaces.obs_size,)
    assert length <= probe.log_max_length
    action = probe.log_action(mode, obs, key=jax.random.key(1))
    state, step = probe.step(task, state, action, key=jax.random.key(2))
    assert [leaf.dtype for leaf in step] == [jnp.float32] * 3 + [jnp.bool_] * 3
    assert state.steps.dtype == jnp.int32


def test_nonsense_is_refused():
    with pytest.raises(ConfigurationError, match="delay is 0"):
        DelayedViolation(name="probe", gym_id="safemesa/Probe-v0", delay=0)
    with pytest.raises(ConfigurationError, match="length"):
        RandomWalk(name="probe", gym_id="safemesa/Probe-v0", length=1)
    with pytest.raises(ConfigurationError, match="slip"):
        RandomWalk(name="probe", gym_id="safemesa/Probe-v0", slip=1.5)
    for parameters in ({}, {"sign": 0}, {"sign": "up"}):
        with pytest.raises(ConfigurationError, match="sign"):
            TASK.task_from_parameters(parameters)
    with pytest.raises(ConfigurationError, match="'train' or 'test'"):
        TASK.sample_task(np.random.default_rng(0), "validation")
