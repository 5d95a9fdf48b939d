"""Dual variables: a price of risk that rises while the constraint is violated."""

import math
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Metrics, PyTree, RiskBatch
from safemesa.guards.base import AbstractGuard
from safemesa.guards.settings import MULTIPLIER_RANGE, LagrangianSettings
from safemesa.learners.optimiser import Adam
from safemesa.networks.critics import RiskCritic


class Multiplier(eqx.Module):
    """A dual variable, kept positive by its logarithm."""

    log_value: Float[Array, ""]
    optimiser: PyTree

    @property
    def value(self) -> Float[Array, ""]:
        """The dual variable itself."""
        return jnp.exp(self.log_value)


@dataclass(frozen=True, kw_only=True, slots=True)
class DualAscent:
    """Minimises `log(nu) mean(limit - risk)` by Adam: nu rises where the risk exceeds the limit.

    This is the dual of Recovery RL's comparisons as it was meant. In their code, and in MESA's, the
    Lagrangian and SQRL read a schedule instead, which without a further flag is the constant start
    value, so that the learned multiplier acts on nothing; `rate = 0` is that. Their rate is 3e-5,
    which moves nu by less than a factor of two in 20 000 updates.
    """

    start: float
    rate: float
    limit: float
    """`eps_risk`."""

    def init(self) -> Multiplier:
        """At its start value."""
        log_value = jnp.log(jnp.asarray(self.start, jnp.float32))
        return Multiplier(log_value, Adam(learning_rate=self.rate).init(log_value))

    def update(self, dual: Multiplier, risk: Float[Array, " batch"]) -> tuple[Multiplier, Metrics]:
        """One step of Adam, given risks whose mean should not exceed the limit."""
        mean = jnp.mean(risk)
        log_value, optimiser = Adam(learning_rate=self.rate).step(
            dual.log_value, self.limit - mean, dual.optimiser
        )
        low, high = (math.log(bound) for bound in MULTIPLIER_RANGE)
        dual = Multiplier(jnp.clip(log_value, low, high), optimiser)
        return dual, {"multiplier": dual.value, "constrained_risk": mean}


@dataclass(frozen=True, kw_only=True)
class AbstractLagrangian(AbstractGuard):
    """An actor that pays for risk at a learned price; subclasses say what is executed.

    Actor: `E[alpha log pi - min Q + nu (Q_risk(s, a) - eps_risk)]` with reparameterised `a ~ pi`.
    The dual sees the policy's own actions at states of the safety critic's replay as they come,
    also where the critic's batches are given a share of violations. The loss is not divided by
    `1 + nu`: Adam's step does not depend on the scale of a loss.
    """

    settings: LagrangianSettings = field(default_factory=LagrangianSettings)

    @property
    def _dual(self) -> DualAscent:
        settings = self.settings
        return DualAscent(
            start=settings.actor_multiplier,
            rate=settings.multiplier_rate,
            limit=self.settings.risk_limit,
        )

    def init(self) -> Multiplier:
        """`nu`."""
        return self._dual.init()

    def actor_term(
        self,
        state: Multiplier,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> Float[Array, " batch"]:
        """`nu (Q_risk - eps_risk)`; its gradient reaches the actor through the action alone."""
        return state.value * (jax.vmap(critic)(risk_obs, action) - self.settings.risk_limit)

    def update(
        self, state: Multiplier, critic: RiskCritic, batch: RiskBatch
    ) -> tuple[Multiplier, Metrics]:
        """`nu` rises where the policy's actions are riskier than the limit."""
        return self._dual.update(state, jax.vmap(critic)(batch.obs, batch.policy_action))
