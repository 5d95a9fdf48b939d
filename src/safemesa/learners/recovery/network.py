"""A network that descends the critic: the recovery policy of MESA section 4.1, as in DDPG."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.spaces import Spaces
from safemesa.core.types import Key, PyTree
from safemesa.learners.config import RiskConfig
from safemesa.learners.recovery.base import AbstractRecovery
from safemesa.learners.recovery.settings import NetworkSettings
from safemesa.networks.critics import RiskCritic, largest
from safemesa.networks.mlp import MLP


@final
class RecoveryNetwork(AbstractRecovery):
    """A deterministic tanh network; it needs no critic to act and remembers nothing."""

    network: MLP
    learns: ClassVar[bool] = True

    def __init__(self, obs_size: int, action_size: int, hidden: Sequence[int], *, key: Key) -> None:
        self.network = MLP((obs_size, *hidden, action_size), key=key)

    @classmethod
    def make(
        cls, settings: NetworkSettings, risk: RiskConfig, spaces: Spaces, *, key: Key
    ) -> "AbstractRecovery":
        """Of the critic's hidden sizes."""
        del settings
        return cls(spaces.obs_size, spaces.action_size, risk.hidden, key=key)

    def raw(self, obs: Float[Array, " obs"]) -> Float[Array, " act"]:
        """The action before the squashing; training keeps it small (`recovery_penalty`)."""
        return self.network(obs)

    def __call__(self, obs: Float[Array, " obs"]) -> Float[Array, " act"]:
        """The action in (-1, 1)."""
        return jnp.tanh(self.raw(obs))

    def act(
        self, critic: RiskCritic, obs: Float[Array, " obs"], memory: PyTree
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The network's."""
        del critic
        return self(obs), memory

    def loss(
        self,
        critic: RiskCritic,
        obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
        settings: NetworkSettings,
        risk: RiskConfig,
    ) -> Float[Array, ""]:
        """Risk of its action, or the logit of that risk, with a penalty on saturation.

        Where a robot is nearly lost the sigmoid has no gradient; its logit has. `config.behaviour`
        weighs the squared distance to the action that was executed (Fujimoto and Gu 2021).
        """

        def single(one_obs: Float[Array, " obs"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
            raw = self.raw(one_obs)
            action = jnp.tanh(raw)
            if settings.objective == "logit":
                return largest(critic.logits(one_obs, action)), jnp.mean(jnp.square(raw))
            return critic(one_obs, action), jnp.mean(jnp.square(raw))

        danger, size = jax.vmap(single)(obs)
        del risk
        loss = jnp.mean(danger) + settings.penalty * jnp.mean(size)
        if settings.behaviour > 0.0:
            loss += settings.behaviour * jnp.mean(jnp.square(jax.vmap(self)(obs) - action))
        return loss

    def exported(self, spaces: Spaces) -> dict[str, Any]:
        """Its weights are beside the critic's."""
        del spaces
        return {"kind": "network"}
