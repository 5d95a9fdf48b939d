"""Standardisation of observations with statistics that are fixed once."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ROUNDING = 8.0 * float(np.finfo(np.float32).eps)
"""Noise that float32 leaves on a signal that rests, as a share of its value: some last bits."""

ROUNDING_RANGE = (1e-14, 1e-6)
"""Noise is at least what double precision leaves of differences between numbers of order one; what
varies by more than the upper end is always a signal."""


class Normaliser(eqx.Module):
    """`(obs - mean) / std`, per signal; part of the risk model and never updated after the fit."""

    mean: Float[Array, " obs"]
    std: Float[Array, " obs"]

    def __call__(self, obs: Float[Array, "... obs"]) -> Float[Array, "... obs"]:
        """Standardises; leading axes are kept."""
        shape = (1,) * (obs.ndim - 1) + self.mean.shape
        return (obs - self.mean.reshape(shape)) / self.std.reshape(shape)


def fit_normaliser(logs: list[np.ndarray]) -> Normaliser:
    """Fits to observation columns `[rows, obs]` of several logs, weighting every row alike.

    Works on memory maps a log at a time. A signal that varies by no more than rounding keeps its
    scale (std 1).
    """
    count = sum(len(log) for log in logs)
    mean = sum(np.sum(log, axis=0, dtype=np.float64) for log in logs) / count
    square = sum(np.sum(np.square(log - mean), axis=0, dtype=np.float64) for log in logs) / count
    std = np.sqrt(square)
    rounding = np.clip(ROUNDING * np.abs(mean), *ROUNDING_RANGE)
    std = np.where(std < rounding, 1.0, std)
    return Normaliser(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def identity_normaliser(obs_size: int) -> Normaliser:
    """Leaves observations as they are."""
    return Normaliser(jnp.zeros(obs_size), jnp.ones(obs_size))
