"""Model-agnostic meta-learning of the safety critic (Finn et al. 2017; MESA Algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
from jaxtyping import Array, Float

from safemesa.core.types import Metrics, RiskBatch
from safemesa.learners.meta.base import (
    AbstractMetaLearner,
    BatchPlan,
    MetaState,
    adapted_loss,
    constant_step_sizes,
    mean_over_tasks,
    outer_optimiser,
)
from safemesa.learners.meta.registry import meta_learners
from safemesa.learners.risk import RiskTerm, no_risk_term
from safemesa.networks.critics import RiskCritic


@final
@meta_learners.register("maml")
@dataclass(frozen=True, kw_only=True)
class MAML(AbstractMetaLearner):
    """One fixed inner rate; exact second order, or first order with `config.first_order`."""

    uses_training_logs: ClassVar[bool] = True

    @property
    def inner_steps(self) -> int:
        """As many as in Phase 1."""
        return self.config.inner_steps

    def plan(self, tasks: int) -> BatchPlan:
        """K distinct tasks with disjoint support and query rows."""
        config = self.config
        return BatchPlan(
            min(config.tasks, tasks),
            True,
            config.inner_steps,
            config.support_batch,
            config.query_batch,
        )

    def init(self, critic: RiskCritic) -> MetaState:
        """Adam moments at zero; the inner rate is a constant."""
        rates = constant_step_sizes(critic, self.config.inner_rate)
        return MetaState(critic, rates, outer_optimiser(self.config).init(critic), None)

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
                config=self.config,
                risk=self.risk,
                risk_term=risk_term,
            )

        def task_gradient(*batches: RiskBatch) -> tuple[Float[Array, ""], RiskCritic]:
            return jax.value_and_grad(loss_of)(state.critic, *batches)

        loss, grads = mean_over_tasks(task_gradient, support, query)
        critic, optimiser = outer_optimiser(self.config).step(
            state.critic, grads, state.critic_optimiser
        )
        new_state = MetaState(critic, state.log_step_sizes, optimiser, None)
        return new_state, {"query_loss": loss}
