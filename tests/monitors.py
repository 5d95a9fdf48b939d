"""Dynamics monitors without training, for the tests of `safemesa.shield`."""

import math
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from shields import SPACES, make_source

from safemesa.core.spaces import Spaces
from safemesa.learners.carl.learner import ModelState
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.learners.monitor.tracker import Tracker, usual_of
from safemesa.networks.normaliser import fit_normaliser
from safemesa.phases.monitoring import Fitting, fresh_model, fresh_tracker
from safemesa.shield.export import Source

SMALL = MonitorConfig(enabled=True, networks=3, hidden=(16, 8), memory=500)


def drive(
    rng: np.random.Generator, count: int, gain: float = 1.0, spaces: Spaces = SPACES
) -> tuple[np.ndarray, np.ndarray]:
    """One episode of a robot that actions push, `gain` times as far as a healthy one.

    Observations `[count + 1, obs]` and actions `[count, act]`, in physical units (float32).
    """
    action = rng.uniform(spaces.action_low, spaces.action_high, (count, spaces.action_size))
    push = gain * spaces.to_unit(action)[:, np.arange(spaces.obs_size) % spaces.action_size]
    middle = np.linspace(-1.0, 2.0, spaces.obs_size)
    noise = 0.02 * rng.normal(size=(count, spaces.obs_size))
    obs = np.tile(middle, (count + 1, 1))
    for step in range(count):
        obs[step + 1] = 0.8 * obs[step] + 0.2 * middle + 0.3 * push[step] + noise[step]
    return obs.astype(np.float32), action.astype(np.float32)


def rows_of(obs: np.ndarray, action: np.ndarray, spaces: Spaces = SPACES) -> np.ndarray:
    """The steps of an episode as the monitor learns them."""
    return np.concatenate([obs[:-1], spaces.to_unit(action), obs[1:]], axis=1)


def make_tracker(
    config: MonitorConfig = SMALL, spaces: Spaces = SPACES, threshold: float = 15.0
) -> Tracker:
    """Of random networks: scores are normal by what is usual for these, whatever they expect."""
    obs, action = drive(np.random.default_rng(0), config.memory, spaces=spaces)
    rows = rows_of(obs, action, spaces)
    made = fresh_tracker(config, _random_model(config, spaces))
    model = made.model
    inputs = fit_normaliser([rows[:, : spaces.obs_size + spaces.action_size]])
    changes = np.pad(np.diff(obs, axis=0), ((0, 0), (0, 1)))
    scaling = replace(model.scaling, inputs=inputs, targets=fit_normaliser([changes]))
    model = replace(model, scaling=scaling)
    seen = Fitting(config=config, spaces=spaces).look(model, rows)
    return replace(
        made,
        model=model,
        usual=usual_of(seen, config.memory, config.outside),
        threshold=jnp.float32(threshold),
    )


def _random_model(config: MonitorConfig, spaces: Spaces) -> ModelState:
    """As `fresh_model`, without compiling anything."""
    rng = np.random.default_rng(1)
    shapes = eqx.filter_eval_shape(fresh_model, config, spaces, jax.random.key(0))

    def zeros(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jnp.zeros(leaf.shape, leaf.dtype)

    model = jax.tree.map(zeros, shapes)
    weights = [
        jnp.asarray(rng.normal(0.0, 0.5 / math.sqrt(one.shape[-2]), one.shape), jnp.float32)
        for one in model.ensemble.members.weights
    ]
    model = eqx.tree_at(lambda m: list(m.ensemble.members.weights), model, weights)
    bounds = [jnp.full(spaces.obs_size + 1, bound) for bound in (-10.0, 0.5)]
    return eqx.tree_at(
        lambda m: [m.ensemble.least_log_variance, m.ensemble.most_log_variance], model, bounds
    )


def monitored_source(tracker: Tracker | None = None, **source: Any) -> Source:
    """The made up risk model with a monitor."""
    return replace(make_source(**source), monitor=tracker or make_tracker())
