"""Takeover: the recovery drives where its own critic says that it could soon no longer save."""

from dataclasses import dataclass, field
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key
from safemesa.guards.base import AbstractGuard, Decision, Situation
from safemesa.guards.registry import guards
from safemesa.learners.config import TakeoverConfig
from safemesa.networks.critics import RiskCritic


@final
@guards.register("takeover")
@dataclass(frozen=True, kw_only=True)
class Takeover(AbstractGuard):
    """This software's own guard (arm `safemesa`): Recovery RL at a limit that the data decide.

    The critic's level is not known beforehand: of two critics that rank states equally well one may
    say a tenth of what the other says, and at the limit of the other it saves nothing or overrides
    everything. So the limit is the risk model's (`RiskModel.limit`). It is the guard's state.
    """

    takeover: TakeoverConfig = field(default_factory=TakeoverConfig)
    sections: ClassVar[tuple[str, ...]] = ("takeover",)

    def init(self) -> Float[Array, ""]:
        """The limit of the settings; where there is none everything is taken over."""
        return jnp.asarray(self.takeover.limit or 0.0, jnp.float32)

    def begin(self, limit: Float[Array, ""]) -> Float[Array, ""]:
        """The risk model's limit."""
        return jnp.asarray(limit, jnp.float32)

    def select_action(self, state: Float[Array, ""], situation: Situation, *, key: Key) -> Decision:
        """The proposal within the limit, else the nearest action that is, else the recovery's.

        "Nearest" is on the straight way from the proposal to the recovery's action.
        """
        limit, proposed = state, situation.proposed
        risk = situation.critic(situation.risk_obs, proposed)
        intervened = ~(risk <= limit)  # also where the risk is not a number
        noise = self.config.recovery_noise * jax.random.normal(key, proposed.shape)
        escape, memory = situation.recover()
        escape = jnp.clip(escape + noise, -1.0, 1.0)
        if self.takeover.candidates:
            escape = self._nearest(situation, escape, limit)
        action = jnp.where(intervened, escape, proposed)
        told = proposed if self.takeover.told == "proposal" else action
        kept = situation.remembered(memory, intervened)
        return Decision(action, told, risk, intervened, kept)

    def reward_term(
        self,
        state: Float[Array, ""],
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
        cost: Float[Array, " batch"],
    ) -> Float[Array, " batch"]:
        """The charge for what would be taken over."""
        del cost
        if self.takeover.charge == 0.0:
            return jnp.zeros(risk_obs.shape[0])
        above = ~(jax.vmap(critic)(risk_obs, action) <= state)
        return -self.takeover.charge * above

    def _nearest(
        self, situation: Situation, escape: Float[Array, " act"], limit: Float[Array, ""]
    ) -> Float[Array, " act"]:
        """The first step from the proposal to the recovery's action that is within the limit."""
        count = self.takeover.candidates
        parts = (jnp.arange(count, dtype=jnp.float32) + 1.0) / (count + 1.0)
        tried = situation.proposed + parts[:, None] * (escape - situation.proposed)
        risks = jax.vmap(situation.critic, (None, 0))(situation.risk_obs, tried)
        safe = risks <= limit
        return jnp.where(jnp.any(safe), tried[jnp.argmax(safe)], escape)
