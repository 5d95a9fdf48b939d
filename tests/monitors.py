"""Dynamics monitors without training, for the tests of `safemesa.shield`."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from shields import SPACES, make_source

from safemesa.core.spaces import Spaces
from safemesa.learners.carl.ensemble import fit_scaling
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.learners.monitor.tracker import Tracker, usual_of
from safemesa.phases.monitoring import (
    Fitting,
    _model_batch,
    fresh_model,
    fresh_tracker,
    monitor_layout,
)
from safemesa.shield.export import Source

SMALL = MonitorConfig(enabled=True, networks=3, hidden=(16, 8), memory=500)


def drive(rng: np.random.Generator, count: int, gain: float = 1.0, spaces: Spaces = SPACES):
    """One episode of a robot that the actions push, `gain` times as far as usual.

    Observations `[count + 1, obs]` and actions `[count, act]`, in physical units (float32).
    """
    low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
    action = rng.uniform(low, high, (count, spaces.action_size)).astype(np.float32)
    middle = np.linspace(-1.0, 2.0, spaces.obs_size)
    obs = np.zeros((count + 1, spaces.obs_size), np.float32)
    obs[0] = middle
    for step in range(count):
        push = gain * spaces.to_unit(action[step])[np.arange(spaces.obs_size) % spaces.action_size]
        noise = 0.02 * rng.normal(size=spaces.obs_size)
        obs[step + 1] = obs[step] + 0.2 * (middle - obs[step]) + 0.3 * push + noise
    return obs, action


def rows_of(obs: np.ndarray, action: np.ndarray, spaces: Spaces = SPACES) -> np.ndarray:
    """Packed rows of the monitor."""
    return np.concatenate([obs[:-1], spaces.to_unit(action), obs[1:]], axis=1)


def make_tracker(
    config: MonitorConfig = SMALL, spaces: Spaces = SPACES, threshold: float = 15.0
) -> Tracker:
    """Of random networks: what is usual for them makes scores normal all the same."""
    rng = np.random.default_rng(0)
    rows = rows_of(*drive(rng, config.memory, spaces=spaces), spaces)
    model = fresh_model(config, spaces, jax.random.key(0))
    batch = _model_batch(monitor_layout(spaces), jnp.asarray(rows))
    model = replace(model, scaling=fit_scaling(batch, jnp.ones(len(rows))))
    # Networks that expect what is usual, and the noise of that.
    seen = Fitting(config=config, spaces=spaces).look(model, rows)
    return replace(
        fresh_tracker(config, model),
        usual=usual_of(seen, config.memory, config.outside),
        threshold=jnp.float32(threshold),
    )


def monitored_source(tracker: Tracker | None = None, **source: Any) -> Source:
    """The made up risk model with a monitor."""
    return replace(make_source(**source), monitor=tracker or make_tracker())
