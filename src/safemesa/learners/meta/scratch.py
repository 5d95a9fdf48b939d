"""No Phase 1: fresh networks that see the test log alone (Recovery RL, RRL)."""

from dataclasses import dataclass, field
from typing import ClassVar, final

from safemesa.core.types import Metrics, RiskBatch
from safemesa.learners.meta.base import (
    AbstractMetaLearner,
    BatchPlan,
    MetaState,
    constant_step_sizes,
)
from safemesa.learners.meta.settings import NoPhase1Settings
from safemesa.learners.risk import RiskTerm, no_risk_term
from safemesa.networks.critics import RiskCritic


@final
@dataclass(frozen=True, kw_only=True)
class Scratch(AbstractMetaLearner):
    """The prior is the initialisation."""

    settings: NoPhase1Settings = field(default_factory=NoPhase1Settings)

    uses_training_logs: ClassVar[bool] = False

    @property
    def inner_steps(self) -> int:
        """None."""
        return 0

    def plan(self, tasks: int) -> BatchPlan:
        """No rows."""
        del tasks
        return BatchPlan(0, False, 0, 0, 0)

    def init(self, critic: RiskCritic) -> MetaState:
        """The critic as it is."""
        return MetaState(critic, constant_step_sizes(critic, 1.0), None, None)

    def update(
        self,
        state: MetaState,
        support: RiskBatch,
        query: RiskBatch,
        risk_term: RiskTerm = no_risk_term,
    ) -> tuple[MetaState, Metrics]:
        """Changes nothing."""
        del support, query, risk_term
        return state, {}
