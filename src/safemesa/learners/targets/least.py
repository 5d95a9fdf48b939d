"""The risk of the best of the actions at hand."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import RiskBatch
from safemesa.learners.targets.base import AbstractTarget, recovery_actions
from safemesa.learners.targets.registry import targets
from safemesa.networks.critics import RiskCritic


@final
@targets.register("least")
@dataclass(frozen=True, kw_only=True)
class LeastRisk(AbstractTarget):
    """`min(Q(s', recovery(s')), Q(s', a'))`: recovers where recovering is believed to help.

    For recoveries that are no learned network, which may be worse than the data in places.
    """

    asks_recovery: ClassVar[bool] = True

    def next_risk(self, critic: RiskCritic, batch: RiskBatch) -> Float[Array, " batch"]:
        """Of the less risky action."""
        recovered = jax.vmap(critic)(batch.next_obs, recovery_actions(batch))
        return jnp.minimum(recovered, jax.vmap(critic)(batch.next_obs, batch.next_action))
