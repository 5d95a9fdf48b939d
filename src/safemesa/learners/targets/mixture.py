"""The risk of a robot that recovers, but stumbles."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
from jaxtyping import Array, Float

from safemesa.core.types import RiskBatch
from safemesa.learners.targets.base import AbstractTarget, recovery_actions
from safemesa.learners.targets.registry import targets
from safemesa.networks.critics import RiskCritic


@final
@targets.register("mixture")
@dataclass(frozen=True, kw_only=True)
class Mixture(AbstractTarget):
    """`rho Q(s', recovery(s')) + (1 - rho) Q(s', a')`: each step recovers with probability rho.

    The risk of a policy that can be rolled out. At rho = 0 it is `Sampled`; at rho = 1 the recovery
    policy is assumed perfect, and off the data a critic believes too much of it. A robot that
    stumbles now and then teaches a recovery that keeps a margin.
    """

    asks_recovery: ClassVar[bool] = True

    @property
    def recovery_share(self) -> float:
        """That is rho."""
        return self.config.recovers

    def next_risk(self, critic: RiskCritic, batch: RiskBatch) -> Float[Array, " batch"]:
        """Of recovery action and next action, each with its probability."""
        rho = self.config.recovers
        recovered = jax.vmap(critic)(batch.next_obs, recovery_actions(batch))
        stumbled = jax.vmap(critic)(batch.next_obs, batch.next_action)
        return rho * recovered + (1.0 - rho) * stumbled
