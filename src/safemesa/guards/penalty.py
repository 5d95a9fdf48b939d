"""Reward penalty: no critic and no constraint, a violation costs reward."""

from dataclasses import dataclass, field
from typing import ClassVar, final

from jaxtyping import Array, Float

from safemesa.core.types import Key, PyTree
from safemesa.guards.base import AbstractGuard, Decision, Situation, let_run_unasked
from safemesa.guards.settings import PenaltySettings
from safemesa.networks.critics import RiskCritic


@final
@dataclass(frozen=True, kw_only=True)
class RewardPenalty(AbstractGuard):
    """`r - violation_penalty c`: the comparison RP of Recovery RL (Thananjeyan et al. 2021).

    The control for every other guard: it needs neither logs nor a critic. Returns in
    `metrics.jsonl` are the domain's own, without the penalty.
    """

    settings: PenaltySettings = field(default_factory=PenaltySettings)

    uses_risk: ClassVar[bool] = False

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """The proposal."""
        del state, key
        return let_run_unasked(situation)

    def reward_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
        cost: Float[Array, " batch"],
    ) -> Float[Array, " batch"]:
        """The penalty where the transition violates."""
        del state, critic, risk_obs, action
        return -self.settings.violation_penalty * cost
