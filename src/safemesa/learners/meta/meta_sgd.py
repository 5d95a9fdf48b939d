"""Meta-SGD: MAML that also learns its inner rates, one per tensor (Li et al. 2017)."""

from dataclasses import dataclass, field, replace
from typing import final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Metrics, PyTree, RiskBatch
from safemesa.learners.meta.base import (
    AbstractMetaLearner,
    MetaState,
    adapted_loss,
    mean_over_tasks,
    outer_optimiser,
)
from safemesa.learners.meta.settings import MetaSGDSettings
from safemesa.learners.optimiser import Adam
from safemesa.learners.risk import RiskTerm, no_risk_term
from safemesa.networks.critics import RiskCritic


@final
@dataclass(frozen=True, kw_only=True)
class MetaSGD(AbstractMetaLearner):
    """Inner rates are exponentials of learned numbers, so they stay positive."""

    settings: MetaSGDSettings = field(default_factory=MetaSGDSettings)

    @property
    def step_size_optimiser(self) -> Adam:
        """Works on the logarithms of the rates."""
        return Adam(learning_rate=self.settings.step_size_rate)

    def init(self, critic: RiskCritic) -> MetaState:
        """All rates start at `settings.inner_rate`."""
        state = super().init(critic)
        optimiser = self.step_size_optimiser.init(state.log_step_sizes)
        return replace(state, step_size_optimiser=optimiser)

    def update(
        self,
        state: MetaState,
        support: RiskBatch,
        query: RiskBatch,
        risk_term: RiskTerm = no_risk_term,
    ) -> tuple[MetaState, Metrics]:
        """One Adam step on the critic and one on the rates, from the same outer loss."""

        def loss_of(parameters: tuple[RiskCritic, PyTree], *batches: RiskBatch) -> Array:
            return adapted_loss(
                *parameters,
                *batches,
                settings=self.settings,
                risk=self.risk,
                risk_term=risk_term,
                target=self.target,
                bootstrap=state.target_critic,
            )

        def task_gradient(*batches: RiskBatch) -> tuple[Float[Array, ""], PyTree]:
            return jax.value_and_grad(loss_of)((state.critic, state.log_step_sizes), *batches)

        loss, (grads, rate_grads) = mean_over_tasks(task_gradient, support, query)
        critic, optimiser = outer_optimiser(self.settings).step(
            state.critic, grads, state.critic_optimiser
        )
        rates, rate_optimiser = self.step_size_optimiser.step(
            state.log_step_sizes, rate_grads, state.step_size_optimiser
        )
        mean_rate = jnp.mean(jnp.exp(jnp.stack(jax.tree.leaves(rates))))
        metrics = {"query_loss": loss, "mean_inner_rate": mean_rate}
        follower = self.follow(state, critic)
        return MetaState(critic, rates, optimiser, rate_optimiser, follower), metrics
