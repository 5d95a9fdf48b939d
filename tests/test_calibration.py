"""Roll-outs of the policy whose risk is learned have its risk, which probes know exactly."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from safemesa.core.errors import ConfigurationError
from safemesa.domains.base import AbstractJaxDomain
from safemesa.domains.probe_base import AbstractProbe
from safemesa.domains.probes import ACTION, WALK
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.arms import configure
from safemesa.experiments.measures.risk_calibration import (
    HELD_OUT_SEED,
    calibration,
    held_out_tasks,
    monte_carlo_risk,
)
from safemesa.learners.config import RiskConfig
from safemesa.learners.recovery.fixed import FixedAction
from safemesa.learners.recovery.settings import FixedSettings
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases.adapt import scratch_prior
from safemesa.phases.collection.compiled import collect_test
from safemesa.phases.storage.artefacts import RiskModel

KEY = jax.random.key(0)


def braking(domain: AbstractProbe) -> RiskModel:
    """A model whose recovery always takes the action -1."""
    spaces = domain.spaces
    critic = RiskCritic(spaces.obs_size, spaces.action_size, (4,), key=KEY)
    recovery = FixedAction.make(FixedSettings(action=(-1.0,)), RiskConfig(), spaces, key=KEY)
    return RiskModel(critic, recovery, identity_normaliser(spaces.obs_size))


@settings(max_examples=5, deadline=None)
@given(share=st.sampled_from((0.0, 0.25, 0.5, 0.9, 1.0)), gamma=st.sampled_from((0.5, 0.8)))
def test_a_robot_that_recovers_but_stumbles_has_its_closed_form(share: float, gamma: float) -> None:
    """A uniform action violates every second time, the recovery's never:
    v = (1 - rho) (1 + gamma v) / 2 + rho gamma v."""
    domain = ACTION
    value = (1.0 - share) / 2.0 / (1.0 - gamma * (1.0 + share) / 2.0)
    count = 4096
    estimates = monte_carlo_risk(
        domain, domain.sample_task(np.random.default_rng(0), "test"),
        jnp.ones((2, domain.spaces.obs_size)), jnp.asarray([[0.5], [-0.5]]), gamma, count, KEY,
        braking(domain), share,
    )  # fmt: skip
    spread = 4.0 * 0.5 / np.sqrt(count)
    np.testing.assert_allclose(np.asarray(estimates), [1.0, gamma * value], atol=spread)


def test_without_recovery_the_truth_is_that_of_uniform_actions() -> None:
    """The recovery's coin takes no draw from the other actions."""
    domain = WALK
    task = domain.sample_task(np.random.default_rng(0), "test")
    asked = (domain, task, jnp.full((4, 1), 2.0), jnp.zeros((4, 1)), 0.9, 64, KEY)
    plain = monte_carlo_risk(*asked)
    never = monte_carlo_risk(*asked, braking(domain), 0.0)
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(never))


def test_truths_belong_to_each_model_and_risks_of_no_policy_are_refused() -> None:
    """The truth of `safemesa` falls below that of uniform actions; `least` has none."""
    domain = find_domain("navigation2")
    assert isinstance(domain, AbstractJaxDomain)
    config = configure("safemesa", "navigation2", "quick")
    config = replace(
        config, risk=replace(config.risk, hidden=(4,)), adapt=replace(config.adapt, batch=8)
    )
    tasks = held_out_tasks(domain, config.risk.gamma_risk, tasks=1, pairs=24, rollouts=32)
    log = collect_test(domain, config.data, HELD_OUT_SEED)
    prior = scratch_prior(replace(config, seed=HELD_OUT_SEED), log)
    first, last = calibration(domain, config, prior, tasks, steps=(0, 20))
    assert first.predicted.shape == first.true.shape == (1, 6)
    assert not np.array_equal(first.true, last.true)
    least = replace(config, target=replace(config.target, kind="least"))
    with pytest.raises(ConfigurationError, match="'least' is of none"):
        calibration(domain, least, prior, tasks, steps=(0,))
