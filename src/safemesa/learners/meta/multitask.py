"""Multi-task learning: one critic on the pooled training logs (MESA section 5, Multi-Task)."""

from dataclasses import dataclass, field
from typing import final

import jax

from safemesa.core.types import Metrics, RiskBatch
from safemesa.learners.meta.base import (
    AbstractMetaLearner,
    BatchPlan,
    MetaState,
    critic_gradient,
    outer_optimiser,
)
from safemesa.learners.meta.settings import MetaSettings
from safemesa.learners.risk import RiskTerm, no_risk_term


@final
@dataclass(frozen=True, kw_only=True)
class MultiTask(AbstractMetaLearner):
    """No inner loop: each row of a batch comes from a task drawn at random."""

    settings: MetaSettings = field(default_factory=MetaSettings)

    @property
    def inner_steps(self) -> int:
        """None; Phase 2 is Adam from the first step."""
        return 0

    @property
    def inner_rate(self) -> float:
        """No step is taken at it."""
        return 1.0

    def plan(self, tasks: int) -> BatchPlan:
        """One row from each of `query_batch` tasks drawn with replacement."""
        del tasks
        return BatchPlan(self.settings.query_batch, False, 0, 0, 1)

    def update(
        self,
        state: MetaState,
        support: RiskBatch,
        query: RiskBatch,
        risk_term: RiskTerm = no_risk_term,
    ) -> tuple[MetaState, Metrics]:
        """One Adam step on the pooled batch."""
        del support
        pooled = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), query)
        loss, grads = critic_gradient(
            state.critic, pooled, self.risk, risk_term, self.target, state.target_critic
        )
        critic, optimiser = outer_optimiser(self.settings).step(
            state.critic, grads, state.critic_optimiser
        )
        follower = self.follow(state, critic)
        new_state = MetaState(critic, state.log_step_sizes, optimiser, None, follower)
        return new_state, {"query_loss": loss}
