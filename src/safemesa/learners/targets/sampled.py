"""The risk of the policy that drew the next action."""

from dataclasses import dataclass
from typing import final

import jax
from jaxtyping import Array, Float

from safemesa.core.types import RiskBatch
from safemesa.learners.targets.base import AbstractTarget
from safemesa.learners.targets.registry import targets
from safemesa.networks.critics import RiskCritic


@final
@targets.register("sampled")
@dataclass(frozen=True, kw_only=True)
class Sampled(AbstractTarget):
    """`Q(s', a')` (MESA section 2.2): the logs' or a uniform policy's; online the task's."""

    @property
    def recovery_share(self) -> float:
        """None is."""
        return 0.0

    def next_risk(self, critic: RiskCritic, batch: RiskBatch) -> Float[Array, " batch"]:
        """Of the next action."""
        return jax.vmap(critic)(batch.next_obs, batch.next_action)
