"""Networks with chosen weights, built without compiling anything; what several tests share."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from safemesa.core.types import RiskBatch
from safemesa.learners.recovery import RecoveryNetwork
from safemesa.networks.critics import RiskCritic
from safemesa.networks.mlp import MLP
from safemesa.networks.policies import TanhGaussianPolicy

Network = TypeVar("Network")


def randomly_filled(
    build: Callable[[jax.Array], Network], seed: int = 0, scale: float = 0.7
) -> Network:
    """A network of `build(key)`'s shapes with normal weights and biases (fresh ones are zero)."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(build, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.0, scale, leaf.shape).astype(np.float32)), shapes
    )


def with_layers(
    build: Callable[[jax.Array], Network],
    of: Callable[[Network], MLP],
    layers: Sequence[tuple[Sequence, Sequence]],
) -> Network:
    """A network whose layers are `(weight [in, out], bias [out])`, with a members axis if any."""
    network = randomly_filled(build)
    given = [tuple(jnp.asarray(np.asarray(part, np.float32)) for part in layer) for layer in layers]
    old = of(network)
    expected = [
        (weight.shape, bias.shape) for weight, bias in zip(old.weights, old.biases, strict=True)
    ]
    assert [(weight.shape, bias.shape) for weight, bias in given] == expected
    return eqx.tree_at(
        lambda net: (of(net).weights, of(net).biases),
        network,
        (tuple(weight for weight, _ in given), tuple(bias for _, bias in given)),
    )


def logistic_critic(*members: Sequence[float], obs_size: int = 1) -> RiskCritic:
    """Members `sigmoid(w . [obs, action] + b)`, each given as `(*w, b)`: no hidden layer."""
    table = np.asarray(members, np.float32)
    action_size = table.shape[1] - 1 - obs_size
    return with_layers(
        lambda key: RiskCritic(obs_size, action_size, (), critics=len(table), key=key),
        lambda critic: critic.ensemble.members,
        [(table[:, :-1, None], table[:, -1:])],
    )


def constant_critic(logit: float, obs_size: int = 1, action_size: int = 1) -> RiskCritic:
    """The same risk everywhere."""
    return logistic_critic((*(0.0,) * (obs_size + action_size), logit), obs_size=obs_size)


def constant_recovery(raw: float, obs_size: int = 1) -> RecoveryNetwork:
    """The same single action `tanh(raw)` everywhere."""
    return with_layers(
        lambda key: RecoveryNetwork(obs_size, 1, (), key=key),
        lambda policy: policy.network,
        [(np.zeros((obs_size, 1)), [raw])],
    )


def constant_policy(mean: Sequence[float], log_std: Sequence[float]) -> TanhGaussianPolicy:
    """A task policy with one observation, which it ignores."""
    size = len(mean)
    return with_layers(
        lambda key: TanhGaussianPolicy(1, size, (), key=key),
        lambda policy: policy.network,
        [(np.zeros((1, 2 * size)), [*mean, *log_std])],
    )


def risk_batch(
    obs: Sequence,
    action: Sequence,
    cost: Sequence[float],
    next_obs: Sequence,
    next_action: Sequence,
    terminated: Sequence[float],
) -> RiskBatch:
    """A batch of float32 from plain lists; the policy's actions are those of the data."""
    columns = (obs, action, cost, next_obs, next_action, terminated, action)
    return RiskBatch(*(jnp.asarray(np.asarray(column, np.float32)) for column in columns))


def sigmoid(logit: np.ndarray | float) -> np.ndarray:
    """In float64."""
    return 1.0 / (1.0 + np.exp(-np.asarray(logit, np.float64)))


def assert_trees_close(given: object, expected: object, **tolerance: float) -> None:
    """`assert_allclose` on every leaf; both trees must have the same structure."""
    assert jax.tree.structure(given) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def assert_trees_equal(given: object, expected: object) -> None:
    """Bit for bit."""
    assert jax.tree.structure(given) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def logistic_parameters(critic: RiskCritic) -> np.ndarray:
    """The inverse of `logistic_critic`: `[members, w and b]` in float64; also of gradients."""
    layer = critic.ensemble.members
    joined = np.concatenate([layer.weights[0][..., 0], layer.biases[0]], axis=-1)
    return joined.astype(np.float64)


def inputs_of(batch: RiskBatch, following: bool = False) -> np.ndarray:
    """`[obs, action, 1]` of every row, or of what follows it."""
    obs, action = (batch.next_obs, batch.next_action) if following else (batch.obs, batch.action)
    return np.concatenate([obs, action, np.ones((len(obs), 1))], axis=-1).astype(np.float64)


def logistic_target(parameters: np.ndarray, batch: RiskBatch, gamma: float) -> np.ndarray:
    """`c + (1 - c)(1 - terminated) gamma max Q(s', a')` for `[members, w and b]`."""
    risk = sigmoid(inputs_of(batch, following=True) @ parameters.T).max(axis=-1)
    cost, terminated = np.asarray(batch.cost), np.asarray(batch.terminated)
    return cost + (1.0 - cost) * (1.0 - terminated) * gamma * risk


def logistic_gradient(
    parameters: np.ndarray, batch: RiskBatch, target: np.ndarray, kind: str = "mse"
) -> np.ndarray:
    """Gradient of the risk loss of one member `[w and b]` with constant targets."""
    x = inputs_of(batch)
    p = sigmoid(x @ parameters)
    slope = p - target if kind == "bce" else 2.0 * (p - target) * p * (1.0 - p)
    return (slope[:, None] * x).mean(axis=0)


def logistic_hessian(parameters: np.ndarray, batch: RiskBatch, target: np.ndarray) -> np.ndarray:
    """Second derivatives of the squared error of one member, with constant targets."""
    x = inputs_of(batch)
    p = sigmoid(x @ parameters)
    slope = p * (1.0 - p)
    curvature = 2.0 * slope * (slope + (p - target) * (1.0 - 2.0 * p))
    return np.einsum("n,ni,nj->ij", curvature, x, x) / len(x)
