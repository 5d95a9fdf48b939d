"""RCPO: the reward pays for risk, at a price that is learned."""

from dataclasses import dataclass, field
from typing import final

import jax
from jaxtyping import Array, Float

from safemesa.core.types import Key, Metrics, PyTree, RiskBatch
from safemesa.guards.base import AbstractGuard, Decision, Situation, let_run
from safemesa.guards.duals import DualAscent, Multiplier
from safemesa.guards.settings import RCPOSettings
from safemesa.networks.critics import RiskCritic


@final
@dataclass(frozen=True, kw_only=True)
class RCPO(AbstractGuard):
    """Reward-constrained policy optimisation (Tessler et al. 2019), as Recovery RL compares it.

    SAC's target is `y - lambda Q_risk(s, a)` at the actions of the replay, where the dual is taken
    too. All proposals run.

    Differences from the paper: its penalty is the cost itself, its constraint a Monte-Carlo
    estimate, its learner PPO. Here, as in Recovery RL's code, the penalty is the learned risk. It
    is subtracted in every Bellman step, so that discounted sums of it accumulate.
    """

    settings: RCPOSettings = field(default_factory=RCPOSettings)

    @property
    def _dual(self) -> DualAscent:
        settings = self.settings
        return DualAscent(
            start=settings.reward_multiplier,
            rate=settings.multiplier_rate,
            limit=self.settings.risk_limit,
        )

    def init(self) -> Multiplier:
        """`lambda`."""
        return self._dual.init()

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """The proposal."""
        del state, key
        return let_run(situation)

    def reward_term(
        self,
        state: Multiplier,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
        cost: Float[Array, " batch"],
    ) -> Float[Array, " batch"]:
        """`-lambda Q_risk(s, a)`."""
        del cost
        return -state.value * jax.vmap(critic)(risk_obs, action)

    def update(
        self, state: Multiplier, critic: RiskCritic, batch: RiskBatch
    ) -> tuple[Multiplier, Metrics]:
        """`lambda` rises where the replay's actions are riskier than the limit."""
        return self._dual.update(state, jax.vmap(critic)(batch.obs, batch.action))
