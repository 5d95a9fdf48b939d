"""No guard: the task policy's action always runs (the Unconstrained comparison)."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key, PyTree, RiskBatch
from safemesa.guards.base import AbstractGuard, Decision, Propose
from safemesa.guards.registry import guards
from safemesa.learners.risk import no_risk_term
from safemesa.networks.critics import RiskCritic
from safemesa.networks.policies import DeterministicPolicy


@final
@guards.register("none")
@dataclass(frozen=True, kw_only=True)
class NoGuard(AbstractGuard):
    """Plain SAC; no risk model is trained or asked."""

    uses_risk: ClassVar[bool] = False

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
        """The proposal."""
        del state, critic, recovery, risk_obs, propose, key
        return Decision(proposed, jnp.zeros(()), jnp.zeros((), bool))

    def actor_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> Float[Array, " batch"]:
        """Nothing."""
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
