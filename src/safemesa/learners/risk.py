"""The safety critic and the recovery policy: one loss and one update for every arm.

`Q_risk(s, a)` is the discounted probability of a future violation (MESA section 2.2). The paper
labels the state that is left; here `cost` labels the state that is reached, so our risk is the
paper's divided by `gamma_risk`, and a certain violation has risk 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Metrics, PyTree, RiskBatch
from safemesa.learners.config import RiskConfig
from safemesa.learners.optimiser import Adam
from safemesa.learners.recovery.base import AbstractRecovery
from safemesa.learners.recovery.settings import NetworkSettings, RecoverySettings
from safemesa.learners.targets import AbstractTarget, Sampled
from safemesa.networks.critics import RiskCritic

RiskTerm = Callable[[RiskCritic, RiskBatch, Float[Array, "batch members"]], Float[Array, ""]]
"""A guard's addition to the safety loss, in all phases (for example CSC's conservatism).

It is called with the critic, the batch, and the critic's logits at the rows of the batch, which
the loss has computed anyway.
"""


def no_risk_term(
    critic: RiskCritic, batch: RiskBatch, logits: Float[Array, "batch members"]
) -> Float[Array, ""]:
    """The addition of a guard that does not change the safety loss."""
    del critic, batch, logits
    return jnp.zeros(())


SAMPLED = Sampled()


def risk_target(
    critic: RiskCritic, batch: RiskBatch, gamma_risk: float, target: AbstractTarget = SAMPLED
) -> Float[Array, " batch"]:
    """`y = c + (1 - c)(1 - terminated) gamma_risk Q(s', a')` (MESA section 2.2).

    `critic` is the one that bootstraps (a target network, or an adapted critic in MAML's outer
    loss); `target` says with which action. Truncation does not mask. No gradient flows through it.
    """
    next_risk = target.next_risk(critic, batch)
    alive = (1.0 - batch.cost) * (1.0 - batch.terminated)
    return jax.lax.stop_gradient(batch.cost + alive * gamma_risk * next_risk)


def risk_loss(
    critic: RiskCritic,
    batch: RiskBatch,
    target: Float[Array, " batch"],
    kind: str = "mse",
    risk_term: RiskTerm = no_risk_term,
) -> Float[Array, ""]:
    """Mean over the batch and sum over members of the squared error or the cross-entropy.

    To which a guard's `risk_term` is added.
    """
    logits = jax.vmap(critic.logits)(batch.obs, batch.action)
    label = target[:, None]
    if kind == "bce":
        losses = jax.nn.softplus(logits) - label * logits
    else:
        losses = jnp.square(jax.nn.sigmoid(logits) - label)
    return jnp.sum(jnp.mean(losses, axis=0)) + risk_term(critic, batch, logits)


def with_recovery_actions(
    batch: RiskBatch, target: AbstractTarget, recovery: AbstractRecovery, critic: RiskCritic
) -> RiskBatch:
    """The batch with the recovery's actions at its next observations, where they are asked for.

    Leading axes are kept. A recovery that remembers is asked as at the start of an episode.
    """
    if not target.asks_recovery:
        return batch
    flat = batch.next_obs.reshape(-1, batch.next_obs.shape[-1])
    actions = jax.vmap(lambda obs: recovery.act(critic, obs, recovery.begin())[0])(flat)
    shape = (*batch.next_obs.shape[:-1], actions.shape[-1])
    return batch._replace(recovery_action=jax.lax.stop_gradient(actions).reshape(shape))


class RecoveryState(eqx.Module):
    """The recovery policy and its optimiser; `()` where nothing of it learns."""

    policy: AbstractRecovery
    optimiser: PyTree


class RiskState(eqx.Module):
    """Everything about risk that learning changes; saved as it is."""

    critic: RiskCritic
    target_critic: RiskCritic
    critic_optimiser: PyTree
    recovery: RecoveryState


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskLearner:
    """Updates critic, target critic and recovery policy from one batch (Phases 2 and 3)."""

    config: RiskConfig
    target_rate: float
    """Polyak rate of the target critic; 1 bootstraps from the online critic."""
    learning_rate: float
    target: AbstractTarget = SAMPLED
    recovery: RecoverySettings = field(default_factory=NetworkSettings)

    @property
    def optimiser(self) -> Adam:
        """One rule for critic and recovery alike."""
        return Adam(learning_rate=self.learning_rate)

    def init_recovery(self, policy: AbstractRecovery) -> RecoveryState:
        """A recovery policy with a fresh optimiser."""
        return RecoveryState(policy, self.optimiser.init(policy) if policy.learns else ())

    def init(self, critic: RiskCritic, recovery: AbstractRecovery) -> RiskState:
        """Fresh optimisers; the target starts as a copy of the critic."""
        copy = jax.tree.map(jnp.copy, critic)
        return RiskState(critic, copy, self.optimiser.init(critic), self.init_recovery(recovery))

    def update_recovery(
        self,
        state: RecoveryState,
        critic: RiskCritic,
        obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> tuple[RecoveryState, Metrics]:
        """One Adam step of the recovery policy down its loss, where it learns.

        `action` was executed at `obs`.
        """
        if not state.policy.learns:
            return state, {}
        loss, grads = jax.value_and_grad(
            lambda policy: policy.loss(critic, obs, action, self.recovery, self.config)
        )(state.policy)
        policy, optimiser = self.optimiser.step(state.policy, grads, state.optimiser)
        return RecoveryState(policy, optimiser), {"recovery_loss": loss}

    def update(
        self, state: RiskState, batch: RiskBatch, risk_term: RiskTerm = no_risk_term
    ) -> tuple[RiskState, Metrics]:
        """One step of the critic, its target and the recovery policy on one batch."""
        batch = with_recovery_actions(
            batch, self.target, state.recovery.policy, state.target_critic
        )
        target = risk_target(state.target_critic, batch, self.config.gamma_risk, self.target)

        def loss_of(critic: RiskCritic) -> Float[Array, ""]:
            return risk_loss(critic, batch, target, self.config.loss, risk_term)

        loss, grads = jax.value_and_grad(loss_of)(state.critic)
        critic, critic_optimiser = self.optimiser.step(state.critic, grads, state.critic_optimiser)
        target_critic = soft_update(state.target_critic, critic, self.target_rate)
        recovery, metrics = self.update_recovery(state.recovery, critic, batch.obs, batch.action)
        metrics |= {"critic_loss": loss, "target_mean": jnp.mean(target)}
        return RiskState(critic, target_critic, critic_optimiser, recovery), metrics


def soft_update(target: PyTree, online: PyTree, rate: float) -> PyTree:
    """Polyak averaging: `target + rate (online - target)`; exactly `online` at rate 1."""
    if rate == 1.0:
        return jax.tree.map(jnp.copy, online)
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, online)
