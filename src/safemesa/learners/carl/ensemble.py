"""CARL's world model: an ensemble of probabilistic networks with a catastrophe head.

Each network reads an observation and an action and says, as a Gaussian, how the observation changes
and what the reward is, and with what probability the step violates (PETS, Chua et al. 2018; CARL,
Zhang et al. 2020, section 4). The reward is learned like everything else, because logs hold rewards
in every domain and formulas in few.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key, Metrics
from safemesa.networks.mlp import MLP
from safemesa.networks.normaliser import Normaliser

LARGEST_CLASS_WEIGHT = 100.0
"""Bound of the weight of violations in the catastrophe loss."""
BOUND_WEIGHT = 0.01
"""Weight of the distance between the learned bounds of the log-variances."""

MODEL_METRICS = ("model_likelihood", "model_squared_error", "catastrophe_loss")
"""What `model_loss` reports: the Gaussian loss, the error of its means, the weighted BCE."""


class ModelBatch(NamedTuple):
    """Rows that the model learns from: raw observations, actions in [-1, 1]."""

    obs: Float[Array, "... obs"]
    action: Float[Array, "... act"]
    reward: Float[Array, "..."]
    cost: Float[Array, "..."]
    next_obs: Float[Array, "... obs"]


class Prediction(NamedTuple):
    """What one network says of one input; targets are standardised `(change of obs, reward)`."""

    mean: Float[Array, "... targets"]
    log_variance: Float[Array, "... targets"]
    catastrophe_logit: Float[Array, "..."]


class Scaling(eqx.Module):
    """Standardises what goes into the model and what comes out of it.

    The published code leaves targets as they are. Where rewards are -50 and steps 0.05 that is a
    poor start for a network, and the bounds of its log-variances would mean nothing.
    """

    inputs: Normaliser
    targets: Normaliser


def model_input(batch: ModelBatch) -> Float[Array, "... in"]:
    """Observation and action, side by side."""
    return jnp.concatenate([batch.obs, batch.action], axis=-1)


def model_target(batch: ModelBatch) -> Float[Array, "... targets"]:
    """Change of the observation and reward, side by side."""
    return jnp.concatenate([batch.next_obs - batch.obs, batch.reward[..., None]], axis=-1)


def fit_scaling(rows: ModelBatch, weight: Float[Array, " rows"]) -> Scaling:
    """Means and standard deviations over rows whose weight is 1; those of weight 0 do not count."""
    count = jnp.maximum(jnp.sum(weight), 1.0)

    def fit(values: Float[Array, "rows signals"]) -> Normaliser:
        # Sums, because accelerators round products of matrices.
        mean = jnp.sum(weight[:, None] * values, axis=0) / count
        squares = weight[:, None] * jnp.square(values - mean[None])
        std = jnp.sqrt(jnp.sum(squares, axis=0) / count)
        # A signal that never varies keeps its scale.
        return Normaliser(mean, jnp.where(std < 1e-6, jnp.ones_like(std), std))

    return Scaling(fit(model_input(rows)), fit(model_target(rows)))


def unit_scaling(obs_size: int, action_size: int) -> Scaling:
    """Leaves everything as it is; what a model has before it has seen data."""

    def unit(size: int) -> Normaliser:
        return Normaliser(jnp.zeros(size), jnp.ones(size))

    return Scaling(unit(obs_size + action_size), unit(obs_size + 1))


@final
class DynamicsEnsemble(eqx.Module):
    """Networks `[members, ...]` of one shape, and bounds of their log-variances that all share."""

    members: MLP
    least_log_variance: Float[Array, " targets"]
    most_log_variance: Float[Array, " targets"]

    def __init__(
        self, count: int, obs_size: int, action_size: int, hidden: Sequence[int], *, key: Key
    ) -> None:
        targets = obs_size + 1
        sizes = (obs_size + action_size, *hidden, 2 * targets + 1)
        self.members = jax.vmap(
            lambda one: MLP(sizes, key=one, activation=jax.nn.swish, initialise=_initial_weights)
        )(jax.random.split(key, count))
        self.least_log_variance = jnp.full(targets, -10.0)
        self.most_log_variance = jnp.full(targets, 0.5)

    @property
    def count(self) -> int:
        """Number of networks."""
        return self.members.biases[0].shape[0]

    def __call__(self, x: Float[Array, "members rows in"]) -> Prediction:
        """Every network reads rows of its own: one batched product per layer."""
        out = jax.vmap(lambda member, rows: jax.vmap(member)(rows))(self.members, x)
        mean, raw, logit = jnp.split(out, [self.most_log_variance.size, out.shape[-1] - 1], axis=-1)
        # Between two learned bounds, smoothly, so that no variance runs away off the data.
        most, least = self.most_log_variance[None, None], self.least_log_variance[None, None]
        bounded = most - jax.nn.softplus(most - raw)
        return Prediction(mean, least + jax.nn.softplus(bounded - least), logit[..., 0])


def _initial_weights(key: Key, shape: tuple[int, int], dtype: Any) -> Float[Array, "in out"]:
    """Truncated normal of standard deviation `1 / (2 sqrt(fan_in))` before it is cut at two."""
    std = 0.5 / math.sqrt(shape[0])
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def model_loss(
    ensemble: DynamicsEnsemble, scaling: Scaling, batch: ModelBatch, weight_decay: Sequence[float]
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of all networks on rows `[members, batch]`.

    `sum_e mean_bd [(mean - y)^2 exp(-lv) + lv] + 0.01 (sum_d most - sum_d least)
    + sum_l wd_l / 2 |W_l|^2 + mean_eb w_b BCE(logit, c)`, where violations weigh as many times as
    they are rarer in this batch, at most 100.
    """
    target = scaling.targets(model_target(batch))
    said = ensemble(scaling.inputs(model_input(batch)))
    squared = jnp.square(said.mean - target)
    likelihood = jnp.mean(squared * jnp.exp(-said.log_variance) + said.log_variance, axis=(1, 2))
    bounds = jnp.sum(ensemble.most_log_variance) - jnp.sum(ensemble.least_log_variance)
    decay = sum(
        0.5 * rate * jnp.sum(jnp.square(weight))
        for rate, weight in zip(weight_decay, ensemble.members.weights, strict=True)
    )
    positives = jnp.sum(batch.cost)
    rarity = (batch.cost.size - positives) / jnp.maximum(positives, 1.0)
    class_weight = 1.0 + batch.cost * (jnp.minimum(rarity, LARGEST_CLASS_WEIGHT) - 1.0)
    logit = said.catastrophe_logit
    catastrophe = jnp.mean(class_weight * (jax.nn.softplus(logit) - batch.cost * logit))
    loss = jnp.sum(likelihood) + BOUND_WEIGHT * bounds + decay + catastrophe
    values = jnp.mean(likelihood), jnp.mean(squared), catastrophe
    return loss, dict(zip(MODEL_METRICS, values, strict=True))


def disagreement(
    ensemble: DynamicsEnsemble, scaling: Scaling, x: Float[Array, "rows in"]
) -> Float[Array, " rows"]:
    """How far the networks' means lie apart: their variance, averaged over standardised targets.

    The uncertainty that data would remove, unlike the variances that the networks predict.
    """
    rows = jnp.broadcast_to(x[None], (ensemble.count, *x.shape))
    return jnp.mean(jnp.var(ensemble(scaling.inputs(rows)).mean, axis=0), axis=-1)
