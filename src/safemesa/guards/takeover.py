"""Takeover: the recovery drives where its own critic says that it could soon no longer save."""

from dataclasses import dataclass, field
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import Key, Metrics, RiskBatch
from safemesa.guards.base import AbstractGuard, Decision, Situation
from safemesa.guards.settings import TakeoverSettings
from safemesa.networks.critics import RiskCritic

FOLLOW_RATE = 0.02
"""Of the logarithm of the level: an e-fold down takes a thousand updates, and the noise of batches
of 64 calm rows stays near a hundredth."""


class TakeoverState(eqx.Module):
    """The limit that was found, and the critic's level on calm states that it goes with."""

    found: Float[Array, ""]
    ratio: Float[Array, ""]
    """Of the limit to the level, where it was found."""
    level: Float[Array, ""]
    """The quantile `calm_share` of the risk of the recovery's action in the fleet's calm states."""

    @property
    def limit(self) -> Float[Array, ""]:
        """Follows the level down, and never rises above what was found.

        A level falls because the critic has learned; it rises where the task policy, whose stumbles
        are feared, is dangerous, and that is no reason to let more of it pass.
        """
        return jnp.minimum(self.found, self.ratio * self.level)


@final
@dataclass(frozen=True, kw_only=True)
class Takeover(AbstractGuard):
    """This software's own guard (arm `safemesa`): Recovery RL at a limit that the data decide.

    The critic's level is not known beforehand: of two critics that rank states equally well one may
    say a tenth of what the other says, and at the limit of the other it saves nothing or overrides
    everything. So the limit is the risk model's (`RiskModel.limit`), and while the critic goes on
    learning it follows what the critic says of the fleet's calm states down.
    """

    settings: TakeoverSettings = field(default_factory=TakeoverSettings)

    def init(self) -> TakeoverState:
        """The limit of the settings.

        Raises:
            ConfigurationError: they have none, and no risk model has brought one.
        """
        if self.settings.risk_limit is None:
            raise ConfigurationError(
                "the guard takeover has no limit: the risk model has none, and "
                "--guard-settings.risk-limit is None. Adapt the prior, which finds it, or give one."
            )
        found = jnp.asarray(self.settings.risk_limit, jnp.float32)
        return TakeoverState(found, found, jnp.ones(()))

    @property
    def calm_share(self) -> float:
        return self.settings.calm_share

    def begin(self, limit: Float[Array, ""], level: Float[Array, ""]) -> TakeoverState:
        """The risk model's limit."""
        found, level = (jnp.asarray(x, jnp.float32) for x in (limit, level))
        level = jnp.maximum(level, 1e-12)
        return TakeoverState(found, found / level, level)

    def limit_of(self, state: TakeoverState) -> Float[Array, ""]:
        """As it is now."""
        return state.limit

    def follow(
        self, state: TakeoverState, calm_risk: Float[Array, " batch"], calm: Float[Array, " batch"]
    ) -> TakeoverState:
        """Moves the level towards the quantile.

        Stochastic approximation of a quantile (Robbins and Monro 1951), in the logarithm.
        """
        if not self.settings.follow or self.settings.risk_limit is not None:
            return state
        above = (calm_risk > state.level).astype(jnp.float32) - (1.0 - self.settings.calm_share)
        count = jnp.maximum(jnp.sum(calm), 1.0)
        factor = jnp.exp(FOLLOW_RATE * jnp.sum(calm * above) / count)
        return TakeoverState(state.found, state.ratio, jnp.minimum(state.level * factor, 1.0))

    def select_action(self, state: TakeoverState, situation: Situation, *, key: Key) -> Decision:
        """The proposal within the limit, else the nearest action that is, else the recovery's.

        "Nearest" is on the straight way from the proposal to the recovery's action.
        """
        limit, proposed = situation.tightened(state.limit), situation.proposed
        risk = situation.critic(situation.risk_obs, proposed)
        intervened = ~(risk <= limit)  # also where the risk is not a number
        noise = self.settings.recovery_noise * jax.random.normal(key, proposed.shape)
        escape, memory = situation.recover()
        escape = jnp.clip(escape + noise, -1.0, 1.0)
        if self.settings.candidates:
            escape = self._nearest(situation, escape, limit)
        action = jnp.where(intervened, escape, proposed)
        told = proposed if self.settings.told == "proposal" else action
        kept = situation.remembered(memory, intervened)
        return Decision(action, told, risk, intervened, kept)

    def update(
        self, state: TakeoverState, critic: RiskCritic, batch: RiskBatch
    ) -> tuple[TakeoverState, Metrics]:
        """Reports the limit, which `follow` moves."""
        del critic, batch
        return state, {"risk_limit": state.limit}

    def reward_term(
        self,
        state: TakeoverState,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
        cost: Float[Array, " batch"],
    ) -> Float[Array, " batch"]:
        """The charge for what would be taken over."""
        del cost
        if self.settings.charge == 0.0:
            return jnp.zeros(risk_obs.shape[0])
        above = ~(jax.vmap(critic)(risk_obs, action) <= state.limit)
        return -self.settings.charge * above.astype(jnp.float32)

    def _nearest(
        self, situation: Situation, escape: Float[Array, " act"], limit: Float[Array, ""] | float
    ) -> Float[Array, " act"]:
        """The first step from the proposal to the recovery's action that is within the limit."""
        count = self.settings.candidates
        parts = (jnp.arange(count, dtype=jnp.float32) + 1.0) / (count + 1.0)
        way = (escape - situation.proposed)[None]
        tried = situation.proposed[None] + parts[:, None] * way
        risks = jax.vmap(situation.critic, (None, 0))(situation.risk_obs, tried)
        safe = risks <= limit
        return jnp.where(jnp.any(safe), tried[jnp.argmax(safe)], escape)
