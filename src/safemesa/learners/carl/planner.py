"""CARL's planner: the cross-entropy method over action sequences, judged in imagination.

PETS (Chua et al. 2018) with trajectory sampling "TS-infinity": a particle keeps its network for the
whole horizon. Actions are in [-1, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key
from safemesa.learners.carl.config import CARLConfig, PlannerBudget
from safemesa.learners.carl.ensemble import DynamicsEnsemble, Scaling

SequenceCost = Callable[[Float[Array, "population horizon act"], Key], Float[Array, " population"]]

NOT_A_NUMBER_COST = 1e6
"""Cost of an imagined roll-out that left the numbers."""
CONVERGED = 1e-3
"""Largest variance below which the search stands still."""


def cross_entropy_method(
    cost: SequenceCost,
    mean: Float[Array, "horizon act"],
    budget: PlannerBudget,
    smoothing: float,
    *,
    key: Key,
) -> Float[Array, "horizon act"]:
    """The mean of the last Gaussian over sequences in [-1, 1], started at `mean`.

    Variances start at `(high - low)^2 / 16` and are bounded so that two standard deviations stay
    within the bounds, where samples are cut. `budget.kept_elites` compete in the next iteration.
    """
    shape = (budget.population, *mean.shape)
    kept_rows = (jnp.arange(budget.population) < budget.kept_elites)[:, None, None]

    def iteration(index: Array, carry: tuple) -> tuple:
        mean, variance, kept = carry
        key_noise, key_cost = jax.random.split(jax.random.fold_in(key, index))
        room = jnp.minimum(jnp.square((mean + 1.0) / 2.0), jnp.square((1.0 - mean) / 2.0))
        spread = jnp.sqrt(jnp.minimum(room, variance))
        noise = jax.random.truncated_normal(key_noise, -2.0, 2.0, shape, jnp.float32)
        samples = mean[None] + spread[None] * noise
        samples = jnp.where(kept_rows & (index > 0), kept, samples)
        _, order = jax.lax.top_k(-cost(samples, key_cost), budget.elites)
        elites = samples[order]
        new_mean = smoothing * mean + (1.0 - smoothing) * jnp.mean(elites, axis=0)
        new_variance = smoothing * variance + (1.0 - smoothing) * jnp.var(elites, axis=0)
        searching = jnp.max(variance) >= CONVERGED
        return (
            jnp.where(searching, new_mean, mean),
            jnp.where(searching, new_variance, variance),
            kept.at[: budget.elites].set(elites),
        )

    start = (mean, jnp.full(mean.shape, 0.25), jnp.zeros(shape))
    return jax.lax.fori_loop(0, budget.iterations, iteration, start)[0]


def imagined_costs(
    ensemble: DynamicsEnsemble,
    scaling: Scaling,
    obs: Float[Array, " obs"],
    actions: Float[Array, "population horizon act"],
    config: CARLConfig,
    penalty: Float[Array, ""],
    *,
    key: Key,
) -> Float[Array, " population"]:
    """Cost of each sequence: the mean over particles of `sum_t -r_t + penalty 1{p_t > beta}`.

    `p_t` is the particle's own network's probability that step t violates. An imagined violation
    does not end the roll-out. With the penalty switched off (0) the plan is for the return alone.
    """
    members, population = ensemble.count, actions.shape[0]
    copies = config.planner.particles // members
    rows, horizon = population * copies, actions.shape[1]
    repeated = jnp.repeat(jnp.moveaxis(actions, 1, 0), copies, axis=1)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        state, cost = carry
        action, step_key = inputs
        shared = jnp.broadcast_to(action[None], (members, *action.shape))
        said = ensemble(scaling.inputs(jnp.concatenate([state, shared], axis=-1)))
        reward_scale = scaling.targets.std[-1], scaling.targets.mean[-1]
        reward = said.mean[..., -1] * reward_scale[0] + reward_scale[1]
        flagged = jax.nn.sigmoid(said.catastrophe_logit) > config.catastrophe_threshold
        noise = jax.random.normal(step_key, state.shape)
        change = said.mean[..., :-1] + jnp.exp(0.5 * said.log_variance[..., :-1]) * noise
        std, mean = scaling.targets.std[None, None, :-1], scaling.targets.mean[None, None, :-1]
        state = state + change * std + mean
        return (state, cost - reward + penalty * flagged.astype(jnp.float32)), None

    state = jnp.broadcast_to(obs[None, None], (members, rows, obs.size))
    start = (state, jnp.zeros((members, rows)))
    keys = jax.random.split(key, horizon)
    (_, cost), _ = jax.lax.scan(step, start, (repeated, keys))
    cost = jnp.where(jnp.isnan(cost), NOT_A_NUMBER_COST, cost)
    return jnp.mean(cost.reshape(members, population, copies), axis=(0, 2))


def plan(
    ensemble: DynamicsEnsemble,
    scaling: Scaling,
    obs: Float[Array, " obs"],
    mean: Float[Array, "horizon act"],
    config: CARLConfig,
    penalty: Float[Array, ""],
    *,
    key: Key,
) -> Float[Array, "horizon act"]:
    """Actions from `obs` on; `mean` is where the search starts, such as the last plan, shifted."""

    def cost(actions: Array, cost_key: Key) -> Array:
        return imagined_costs(ensemble, scaling, obs, actions, config, penalty, key=cost_key)

    return cross_entropy_method(cost, mean, config.planner, config.smoothing, key=key)
