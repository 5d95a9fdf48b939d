"""Soft actor-critic (Haarnoja et al. 2018), with the places where a guard may add terms.

Update order and constants follow Recovery RL's setting: twin critics, fixed temperature 0.2,
tau 0.005, Adam 3e-4; truncation bootstraps, termination does not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key, Metrics, PyTree, TaskBatch
from safemesa.learners.config import SACConfig
from safemesa.learners.optimiser import Adam
from safemesa.learners.risk import soft_update
from safemesa.networks.critics import ValueCritic, smallest
from safemesa.networks.policies import TanhGaussianPolicy

PairTerm = Callable[[Float[Array, "batch obs"], Float[Array, "batch act"]], Float[Array, " batch"]]
"""A guard's addition at observations and actions: to the actor's loss or to the reward."""


def no_term(
    obs: Float[Array, "batch obs"], action: Float[Array, "batch act"]
) -> Float[Array, " batch"]:
    """The addition of a guard that leaves SAC as it is."""
    del action
    return jnp.zeros(obs.shape[0])


class SACState(eqx.Module):
    """Everything that SAC learns."""

    policy: TanhGaussianPolicy
    critic: ValueCritic
    target_critic: ValueCritic
    log_temperature: Float[Array, ""]
    policy_optimiser: PyTree
    critic_optimiser: PyTree
    temperature_optimiser: PyTree


@dataclass(frozen=True, kw_only=True, slots=True)
class SAC:
    """The learner: `init` and `update` are pure."""

    config: SACConfig
    obs_size: int
    action_size: int

    @property
    def optimiser(self) -> Adam:
        """One rule, one state per network."""
        return Adam(learning_rate=self.config.learning_rate)

    def init(self, *, key: Key) -> SACState:
        """Fresh networks; target critics start as copies."""
        key_policy, key_critic = jax.random.split(key)
        sizes = (self.obs_size, self.action_size, self.config.hidden)
        policy = TanhGaussianPolicy(*sizes, key=key_policy)
        critic = ValueCritic(*sizes, key=key_critic)
        log_temperature = jnp.log(jnp.asarray(self.config.temperature, jnp.float32))
        return SACState(
            policy=policy,
            critic=critic,
            target_critic=jax.tree.map(jnp.copy, critic),
            log_temperature=log_temperature,
            policy_optimiser=self.optimiser.init(policy),
            critic_optimiser=self.optimiser.init(critic),
            temperature_optimiser=self.optimiser.init(log_temperature),
        )

    def update(
        self,
        state: SACState,
        batch: TaskBatch,
        *,
        key: Key,
        actor_term: PairTerm = no_term,
        reward_term: PairTerm = no_term,
    ) -> tuple[SACState, Metrics]:
        """One step of critics, actor, temperature and target critics."""
        key_next, key_actor = jax.random.split(key)
        shape = (batch.obs.shape[0], self.action_size)
        temperature = jnp.exp(state.log_temperature)
        target = self._target(state, batch, jax.random.normal(key_next, shape), temperature)
        target = target + reward_term(batch.obs, batch.action)

        critic_loss, grads = jax.value_and_grad(value_loss)(state.critic, batch, target)
        critic, critic_optimiser = self.optimiser.step(state.critic, grads, state.critic_optimiser)

        def actor_loss(policy: TanhGaussianPolicy) -> tuple[Float[Array, ""], Array]:
            noise = jax.random.normal(key_actor, shape)
            action, log_density = _sample_batch(policy, batch.obs, noise)
            value = smallest(jax.vmap(critic)(batch.obs, action))
            terms = temperature * log_density - value + actor_term(batch.obs, action)
            return jnp.mean(terms), jnp.mean(log_density)

        (policy_loss, log_density), grads = jax.value_and_grad(actor_loss, has_aux=True)(
            state.policy
        )
        policy, policy_optimiser = self.optimiser.step(state.policy, grads, state.policy_optimiser)

        log_temperature, temperature_optimiser = self._update_temperature(state, log_density)
        metrics = {
            "value_loss": critic_loss,
            "actor_loss": policy_loss,
            "entropy": -log_density,
            "temperature": temperature,
        }
        new_state = SACState(
            policy=policy,
            critic=critic,
            target_critic=soft_update(state.target_critic, critic, self.config.target_rate),
            log_temperature=log_temperature,
            policy_optimiser=policy_optimiser,
            critic_optimiser=critic_optimiser,
            temperature_optimiser=temperature_optimiser,
        )
        return new_state, metrics

    def _target(
        self, state: SACState, batch: TaskBatch, noise: Array, temperature: Array
    ) -> Float[Array, " batch"]:
        """`r + (1 - terminated) gamma (min Q(s', a') - temperature log pi(a'|s'))`."""
        action, log_density = _sample_batch(state.policy, batch.next_obs, noise)
        value = smallest(jax.vmap(state.target_critic)(batch.next_obs, action))
        soft_value = value - temperature * log_density
        alive = 1.0 - batch.terminated
        return jax.lax.stop_gradient(batch.reward + alive * self.config.discount * soft_value)

    def _update_temperature(self, state: SACState, log_density: Array) -> tuple[Array, PyTree]:
        """Moves the temperature towards a policy entropy of minus the action size."""
        if not self.config.learn_temperature:
            return state.log_temperature, state.temperature_optimiser
        gradient = -(jax.lax.stop_gradient(log_density) - float(self.action_size))
        return self.optimiser.step(state.log_temperature, gradient, state.temperature_optimiser)


def _sample_batch(
    policy: TanhGaussianPolicy, obs: Float[Array, "batch obs"], noise: Float[Array, "batch act"]
) -> tuple[Float[Array, "batch act"], Float[Array, " batch"]]:
    """Reparameterised actions and log densities of a batch."""
    return jax.vmap(lambda one, z: policy.squash(policy.distribution(one), z))(obs, noise)


def value_loss(
    critic: ValueCritic, batch: TaskBatch, target: Float[Array, " batch"]
) -> Float[Array, ""]:
    """Squared error, mean over the batch and sum over the twins."""
    values = jax.vmap(critic)(batch.obs, batch.action)
    return jnp.sum(jnp.mean(jnp.square(values - target[:, None]), axis=0))
