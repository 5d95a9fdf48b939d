"""Critics: value ensembles for the task, risk ensembles for safety."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key
from safemesa.networks.mlp import EnsembleMLP


def smallest(values: Float[Array, "*batch members"]) -> Float[Array, "*batch"]:
    """The least member, NaN if one is. The gradient goes to one member, also of equal ones.

    That of `jnp.min` is shared among all that equal the result: `0 / 0` where a compiler computes
    the members twice and rounds differently, so that none does. Training then ended in NaN.
    """
    result = values[..., 0]
    for member in range(1, values.shape[-1]):
        other = values[..., member]
        result = jnp.where((result <= other) | jnp.isnan(result), result, other)
    return result


def largest(values: Float[Array, "*batch members"]) -> Float[Array, "*batch"]:
    """The greatest member, as `smallest`."""
    return -smallest(-values)


class ValueCritic(eqx.Module):
    """Twin action values `Q(s, a)` of the task."""

    ensemble: EnsembleMLP

    def __init__(self, obs_size: int, action_size: int, hidden: Sequence[int], *, key: Key) -> None:
        self.ensemble = EnsembleMLP(2, (obs_size + action_size, *hidden, 1), key=key)

    def __call__(
        self, obs: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " 2"]:
        """Both values; the target and the actor use their minimum."""
        return self.ensemble(jnp.concatenate([obs, action]))[:, 0]


class RiskCritic(eqx.Module):
    """`Q_risk(s, a)` in (0, 1): the discounted probability of a future violation.

    The head is a logit so that saturation can be seen and a cross-entropy loss can be used.
    With several members the risk is their maximum (Recovery RL's pessimism).
    """

    ensemble: EnsembleMLP

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        hidden: Sequence[int],
        *,
        critics: int = 1,
        key: Key,
    ) -> None:
        self.ensemble = EnsembleMLP(critics, (obs_size + action_size, *hidden, 1), key=key)

    def shifted_to(self, risk: float) -> "RiskCritic":
        """With the last biases (zero when it is new) at the logit of a risk in (0, 1)."""
        bias = jnp.log(risk) - jnp.log1p(-risk)
        return eqx.tree_at(
            lambda critic: critic.ensemble.members.biases[-1],
            self,
            replace_fn=lambda biases: jnp.full_like(biases, bias),
        )

    def logits(
        self, obs: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " members"]:
        """One logit per member, for a normalised observation and an action in [-1, 1]."""
        return self.ensemble(jnp.concatenate([obs, action]))[:, 0]

    def __call__(self, obs: Float[Array, " obs"], action: Float[Array, " act"]) -> Float[Array, ""]:
        """The risk: the largest member's probability."""
        return jax.nn.sigmoid(largest(self.logits(obs, action)))
