"""The arithmetic floor: only the matrix products of an update, in one compiled program.

Every product of the forward and backward passes is there with its shapes; activations, losses,
optimisers, random numbers and the replay are not. A product's operands are the results of others,
or noise, so that none can be removed or hoisted; a test counts the products that were compiled.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

Weights = list[Array]


class Products:
    """Multiplies and counts floating-point operations."""

    def __init__(self) -> None:
        self.operations = 0

    def __call__(self, a: Array, b: Array) -> Array:
        """`a @ b`."""
        self.operations += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    def forward(self, x: Array, weights: Weights) -> list[Array]:
        """Inputs of all layers and the output."""
        values = [x]
        for weight in weights:
            values.append(self(values[-1], weight))
        return values

    def backward(
        self,
        values: list[Array],
        gradient: Array,
        weights: Weights,
        *,
        parameters: bool,
        inputs: bool,
    ) -> tuple[list[Array], list[Array]]:
        """Last layer first: gradients of the weights (if `parameters`), and of what each layer puts
        out, with the network's input at the end if `inputs`.
        """
        gradients, signals = [], [gradient]
        for layer in reversed(range(len(weights))):
            if parameters:
                gradients.append(self(values[layer].T, signals[-1]))
            if layer > 0 or inputs:
                signals.append(self(signals[-1], weights[layer].T))
        return gradients, signals


def network(key: Array, sizes: tuple[int, ...]) -> Weights:
    """Random weight matrices."""
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = itertools.pairwise(sizes)
    return [0.05 * jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]


def actor_critic_products(
    multiply: Products,
    obs_action: Array,
    next_obs: Array,
    sampler: Weights,
    actor: Weights,
    critics: list[Weights],
    action_size: int,
) -> list[Array]:
    """A target, a critic update and an actor update, as SAC and the risk learner both do."""
    results = []
    obs = obs_action[:, : next_obs.shape[1]]
    next_action = multiply.forward(next_obs, sampler)[-1][:, :action_size]
    proposal = jnp.concatenate([next_obs, next_action], axis=1)
    actor_values = multiply.forward(obs, actor)
    action = jnp.concatenate([obs, actor_values[-1][:, :action_size]], axis=1)
    gradient = jnp.zeros_like(actor_values[-1])
    for critic in critics:
        target = multiply.forward(proposal, critic)[-1]
        values = multiply.forward(obs_action, critic)
        results += multiply.backward(
            values, values[-1] - target, critic, parameters=True, inputs=False
        )[0]
        values = multiply.forward(action, critic)
        _, signals = multiply.backward(values, values[-1], critic, parameters=False, inputs=True)
        gradient = gradient + jnp.pad(
            signals[-1][:, -action_size:], ((0, 0), (0, gradient.shape[1] - action_size))
        )
    results += multiply.backward(actor_values, gradient, actor, parameters=True, inputs=False)[0]
    return results


def online_step_floor(sizes: tuple[int, int, int, int], steps: int) -> "Floor":
    """Of an online step with observation, action, hidden size and batch `sizes`."""
    obs_size, action_size, hidden, batch = sizes
    keys = jax.random.split(jax.random.key(0), 8)
    inner = (hidden, hidden)
    policy = network(keys[0], (obs_size, *inner, 2 * action_size))
    recovery = network(keys[1], (obs_size, *inner, action_size))
    critic_sizes = (obs_size + action_size, *inner, 1)
    values = [network(key, critic_sizes) for key in keys[2:4]]
    risks = [network(key, critic_sizes) for key in keys[4:6]]
    rows = jax.random.normal(keys[6], (2, batch, obs_size + action_size))
    multiply = Products()

    def step(rows: Array) -> list[Array]:
        x, next_obs = rows[0], rows[1, :, :obs_size]
        task = actor_critic_products(multiply, x, next_obs, policy, policy, values, action_size)
        # Of another batch: of two equal products the compiler would remove one.
        x, next_obs = x + 1e-3, next_obs + 1e-3
        safety = actor_critic_products(multiply, x, next_obs, policy, recovery, risks, action_size)
        return task + safety

    return _repeat(step, rows, steps, multiply)


def meta_iteration_floor(sizes: tuple[int, int, int, int], tasks: int, steps: int) -> "Floor":
    """Of an iteration of Phase 1: second-order MAML with one inner step per task, and
    a step of the recovery policy down the prior critic.
    """
    obs_size, action_size, hidden, batch = sizes
    keys = jax.random.split(jax.random.key(0), 3)
    critic = network(keys[0], (obs_size + action_size, hidden, hidden, 1))
    recovery = network(keys[2], (obs_size, hidden, hidden, action_size))
    # Rows and next rows differ: of two equal products the compiler would remove one.
    rows = jax.random.normal(keys[1], (2, batch, obs_size + action_size))
    multiply = Products()

    def task(rows: Array) -> list[Array]:
        x, next_x = rows
        target = multiply.forward(next_x, critic)[-1]
        support = multiply.forward(x, critic)
        signal = support[-1] - target
        inner, signals = multiply.backward(support, signal, critic, parameters=True, inputs=False)
        adapted = [w - 1e-3 * g for w, g in zip(critic, reversed(inner), strict=True)]
        target = multiply.forward(next_x, adapted)[-1]
        query = multiply.forward(x, adapted)
        outer, _ = multiply.backward(
            query, query[-1] - target, adapted, parameters=True, inputs=False
        )
        # Through the inner gradient: two products for each of its products.
        vector = list(reversed(outer))
        second = _hessian_vector_products(multiply, support, signals, critic, vector)
        return [a + b for a, b in zip(reversed(outer), second, strict=True)]

    def step(rows: Array) -> list[Array]:
        found = [task(rows + index * 1e-6) for index in range(tasks)]
        sums = [sum(some[1:], some[0]) for some in zip(*found, strict=True)]
        return sums + recovery_step(rows[0])

    def recovery_step(x: Array) -> list[Array]:
        values = multiply.forward(x[:, :obs_size], recovery)
        risks = multiply.forward(jnp.concatenate([x[:, :obs_size], values[-1]], axis=1), critic)
        _, signals = multiply.backward(risks, risks[-1], critic, parameters=False, inputs=True)
        action_gradient = signals[-1][:, -action_size:]
        found, _ = multiply.backward(
            values, action_gradient, recovery, parameters=True, inputs=False
        )
        return found

    return _repeat(step, rows, steps, multiply)


def _hessian_vector_products(
    multiply: Products,
    values: list[Array],
    signals: list[Array],
    weights: Weights,
    vector: list[Array],
) -> list[Array]:
    """The products of differentiating an inner gradient once more, along `vector`.

    `values` and `signals` are what the inner pass computed forwards and backwards; half the squared
    output is the loss.
    """
    tangents = [jnp.zeros_like(values[0])]
    for layer, weight in enumerate(weights):
        tangent = multiply(values[layer], vector[layer])
        if layer:
            tangent = tangent + multiply(tangents[-1], weight)
        tangents.append(tangent)
    results = []
    moved = tangents[-1]
    for layer, signal in zip(reversed(range(len(weights))), signals, strict=True):
        product = multiply(values[layer].T, moved)
        if layer:
            product = product + multiply(tangents[layer].T, signal)
        results.append(product)
        if layer:
            moved = multiply(moved, weights[layer].T) + multiply(signal, vector[layer].T)
    return list(reversed(results))


def _repeat(
    step: Callable[[Array], list[Array]], x: Array, steps: int, multiply: Products
) -> "Floor":
    """Compiles `steps` repetitions on slightly different inputs."""
    shapes = jax.eval_shape(step, x)
    operations, multiply.operations = multiply.operations, 0

    def many(x: Array) -> list[Array]:
        def body(index: Array, found: list[Array]) -> list[Array]:
            del found
            return step(x + index.astype(jnp.float32) * 1e-6)

        start = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
        return jax.lax.fori_loop(0, steps, body, start)

    return Floor(jax.jit(many).lower(x).compile(), x, operations)


@dataclass(frozen=True)
class Floor:
    """Matrix products, compiled.

    Attributes:
        operations: Floating-point operations of one step, by the shapes of its products.
    """

    compiled: jax.stages.Compiled
    x: Array
    operations: int

    def __call__(self) -> None:
        """All steps."""
        jax.block_until_ready(self.compiled(self.x))
