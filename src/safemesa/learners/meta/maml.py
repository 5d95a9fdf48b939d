"""Model-agnostic meta-learning of the safety critic (Finn et al. 2017; MESA Algorithm 1)."""

from dataclasses import dataclass
from typing import final

import jax
from jaxtyping import Array, Float

from safemesa.core.types import Metrics, RiskBatch
from safemesa.learners.meta.base import (
    AbstractMetaLearner,
    MetaState,
    adapted_loss,
    mean_over_tasks,
    outer_optimiser,
)
from safemesa.learners.risk import RiskTerm, no_risk_term
from safemesa.networks.critics import RiskCritic


@final
@dataclass(frozen=True, kw_only=True)
class MAML(AbstractMetaLearner):
    """One fixed inner rate; exact second order, or first order with `settings.first_order`."""

    def update(
        self,
        state: MetaState,
        support: RiskBatch,
        query: RiskBatch,
        risk_term: RiskTerm = no_risk_term,
    ) -> tuple[MetaState, Metrics]:
        """One Adam step on the mean over tasks of the query loss after adaptation."""

        def loss_of(critic: RiskCritic, *batches: RiskBatch) -> Float[Array, ""]:
            return adapted_loss(
                critic,
                state.log_step_sizes,
                *batches,
                settings=self.settings,
                risk=self.risk,
                risk_term=risk_term,
                target=self.target,
                bootstrap=state.target_critic,
            )

        def task_gradient(*batches: RiskBatch) -> tuple[Float[Array, ""], RiskCritic]:
            return jax.value_and_grad(loss_of)(state.critic, *batches)

        loss, grads = mean_over_tasks(task_gradient, support, query)
        critic, optimiser = outer_optimiser(self.settings).step(
            state.critic, grads, state.critic_optimiser
        )
        follower = self.follow(state, critic)
        new_state = MetaState(critic, state.log_step_sizes, optimiser, None, follower)
        return new_state, {"query_loss": loss}
