"""Conservative safety critics: risk is raised where the policy leaves the data."""

from dataclasses import dataclass, field
from typing import final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key, PyTree, RiskBatch
from safemesa.guards.base import Decision, Situation
from safemesa.guards.duals import AbstractLagrangian
from safemesa.guards.rejection import first_safe
from safemesa.guards.settings import CSCSettings
from safemesa.networks.critics import RiskCritic

STRIDE = 2
"""Every second row estimates the conservative term: unbiased, and second-order steps through the
policy's actions at all rows would make a meta-iteration half as long again."""


@final
@dataclass(frozen=True, kw_only=True)
class CSC(AbstractLagrangian):
    """Bharadhwaj et al. 2021 (arXiv 2010.14497), on SAC: conservatism, sampling and a Lagrangian.

    Safety loss: `L_risk + alpha_c (E_D[Q(s, a)] - E_{s~D, a~pi}[Q(s, a)])`, CQL with the sign that
    raises risk off the data. It is in the inner and the outer loss of Phase 1, in Phase 2 and in
    Phase 3. `pi` is the uniform policy in Phases 1 and 2 and the task policy in Phase 3. Where `pi`
    is `r` times as dense as the data, the loss is least at `y + alpha_c (r - 1) / 2`; with the
    `alpha_c = 5` of published ports nearly every risk would be 0 or 1.

    Differences from the paper; no code of its authors is known:

    - Its policy step is a natural gradient within a KL bound, with a projected dual; here it is
      SAC's, with the dual of all guards (`DualAscent`), since every arm here learns by SAC.
    - The threshold of the sampling is `eps_risk` instead of one computed per iteration.
    """

    settings: CSCSettings = field(default_factory=CSCSettings)

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """The first of `samples` draws that is safe enough, else the least risky."""
        del state
        return first_safe(situation, self.settings.risk_limit, self.settings.samples, key=key)

    def risk_term(
        self, critic: RiskCritic, batch: RiskBatch, logits: Float[Array, "batch members"]
    ) -> Float[Array, ""]:
        """`alpha_c (E_D[Q] - E_pi[Q])`, summed over members."""
        logits_of_policy = jax.vmap(critic.logits)(
            batch.obs[::STRIDE], batch.policy_action[::STRIDE]
        )
        gap = jax.nn.sigmoid(logits[::STRIDE]) - jax.nn.sigmoid(logits_of_policy)
        return self.settings.conservatism * jnp.sum(jnp.mean(gap, axis=0))
