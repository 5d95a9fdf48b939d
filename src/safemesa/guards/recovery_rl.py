"""Recovery RL: the recovery policy takes over where the task policy's action is too risky."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key, PyTree, RiskBatch
from safemesa.guards.base import AbstractGuard, Decision, Propose
from safemesa.guards.registry import guards
from safemesa.learners.risk import no_risk_term
from safemesa.networks.critics import RiskCritic
from safemesa.networks.policies import DeterministicPolicy


@final
@guards.register("recovery_rl")
@dataclass(frozen=True, kw_only=True)
class RecoveryRL(AbstractGuard):
    """Thananjeyan et al. 2021; MESA section 2.3. The task learner itself is unchanged."""

    uses_risk: ClassVar[bool] = True

    def init(self) -> PyTree:
        """No dual variables."""
        return ()

    def select_action(
        self,
        state: PyTree,
        critic: RiskCritic,
        recovery: DeterministicPolicy,
        risk_obs: Float[Array, " obs"],
        proposed: Float[Array, " act"],
        propose: Propose,
        *,
        key: Key,
    ) -> Decision:
        """The proposal if `Q_risk <= risk_limit`, otherwise a noisy recovery action."""
        del state, propose
        risk = critic(risk_obs, proposed)
        intervened = risk > self.config.risk_limit
        noise = self.config.recovery_noise * jax.random.normal(key, proposed.shape)
        escape = jnp.clip(recovery(risk_obs) + noise, -1.0, 1.0)
        return Decision(jnp.where(intervened, escape, proposed), risk, intervened)

    def actor_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> Float[Array, " batch"]:
        """Nothing: the task policy learns from relabelled actions instead."""
        del state, critic, action
        return jnp.zeros(risk_obs.shape[0])

    def reward_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> Float[Array, " batch"]:
        """Nothing."""
        del state, critic, action
        return jnp.zeros(risk_obs.shape[0])

    def risk_term(self, critic: RiskCritic, batch: RiskBatch) -> Float[Array, ""]:
        """Nothing."""
        return no_risk_term(critic, batch)

    def update(self, state: PyTree, critic: RiskCritic, batch: RiskBatch) -> PyTree:
        """Nothing to move."""
        del critic, batch
        return state
