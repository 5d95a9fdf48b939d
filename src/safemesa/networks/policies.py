"""The task policy: a tanh-Gaussian with actions in (-1, 1)."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key
from safemesa.networks.mlp import MLP

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
_LOG_TWO = 0.6931471805599453
_HALF_LOG_TWO_PI = 0.9189385332046727


def log_one_minus_tanh_squared(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log(1 - tanh(x)^2)` without overflow or cancellation."""
    return 2.0 * (_LOG_TWO - x - jax.nn.softplus(-2.0 * x))


class TanhGaussianPolicy(eqx.Module):
    """A Gaussian squashed by tanh (SAC, Haarnoja et al. 2018, appendix C)."""

    network: MLP

    def __init__(self, obs_size: int, action_size: int, hidden: Sequence[int], *, key: Key) -> None:
        self.network = MLP((obs_size, *hidden, 2 * action_size), key=key)

    def distribution(
        self, obs: Float[Array, " obs"]
    ) -> tuple[Float[Array, " act"], Float[Array, " act"]]:
        """Mean and log standard deviation before the squashing."""
        mean, log_std = jnp.split(self.network(obs), 2)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)

    def sample(
        self, obs: Float[Array, " obs"], *, key: Key
    ) -> tuple[Float[Array, " act"], Float[Array, ""]]:
        """A reparameterised action and its log density."""
        mean, _ = moments = self.distribution(obs)
        return self.squash(moments, jax.random.normal(key, mean.shape, mean.dtype))

    @staticmethod
    def squash(
        moments: tuple[Float[Array, " act"], Float[Array, " act"]], noise: Float[Array, " act"]
    ) -> tuple[Float[Array, " act"], Float[Array, ""]]:
        """The action that standard-normal `noise` stands for, and its log density."""
        mean, log_std = moments
        raw = mean + jnp.exp(log_std) * noise
        gaussian = -0.5 * jnp.square(noise) - log_std - _HALF_LOG_TWO_PI
        return jnp.tanh(raw), jnp.sum(gaussian - log_one_minus_tanh_squared(raw))

    def mode(self, obs: Float[Array, " obs"]) -> Float[Array, " act"]:
        """The squashed mean, for evaluation without exploration."""
        return jnp.tanh(self.distribution(obs)[0])
