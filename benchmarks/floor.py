"""The arithmetic floor: only the matrix products of an update, in one compiled program.

Every product of the forward and backward passes is there with its shapes; activations, losses,
optimisers, random numbers and the replay are not. A product's operands are the results of others,
or noise, so that none can be removed or hoisted.
"""

import itertools
from collections.abc import Callable

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
    ) -> tuple[list[Array], Array]:
        """Gradients of the weights (if `parameters`) and of the input (if `inputs`)."""
        gradients = []
        for layer in reversed(range(len(weights))):
            if parameters:
                gradients.append(self(values[layer].T, gradient))
            if layer > 0 or inputs:
                gradient = self(gradient, weights[layer].T)
        return gradients, gradient


def network(key: Array, sizes: tuple[int, ...]) -> Weights:
    """Random weight matrices."""
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = itertools.pairwise(sizes)
    return [0.05 * jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]


def actor_critic_products(
    multiply: Products,
    obs: Array,
    obs_action: Array,
    sampler: Weights,
    actor: Weights,
    critics: list[Weights],
    action_size: int,
) -> list[Array]:
    """A target, a critic update and an actor update, as SAC and the risk learner both do."""
    results = []
    next_action = multiply.forward(obs, sampler)[-1][:, :action_size]
    proposal = jnp.concatenate([obs, next_action], axis=1)
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
        through = multiply.backward(values, values[-1], critic, parameters=False, inputs=True)[1]
        gradient = gradient + jnp.pad(
            through[:, -action_size:], ((0, 0), (0, gradient.shape[1] - action_size))
        )
    results += multiply.backward(actor_values, gradient, actor, parameters=True, inputs=False)[0]
    return results


def online_step_floor(
    sizes: tuple[int, int, int, int], steps: int
) -> tuple[Callable[[], None], float]:
    """`(run, operations per step)` for observation, action, hidden size and batch `sizes`."""
    obs_size, action_size, hidden, batch = sizes
    keys = jax.random.split(jax.random.key(0), 8)
    inner = (hidden, hidden)
    policy = network(keys[0], (obs_size, *inner, 2 * action_size))
    recovery = network(keys[1], (obs_size, *inner, action_size))
    critic_sizes = (obs_size + action_size, *inner, 1)
    values = [network(key, critic_sizes) for key in keys[2:4]]
    risks = [network(key, critic_sizes) for key in keys[4:6]]
    obs_action = jax.random.normal(keys[6], (batch, obs_size + action_size))
    multiply = Products()

    def step(x: Array) -> list[Array]:
        obs = x[:, :obs_size]
        task = actor_critic_products(multiply, obs, x, policy, policy, values, action_size)
        safety = actor_critic_products(multiply, obs, x, policy, recovery, risks, action_size)
        return task + safety

    return _repeat(step, obs_action, steps, multiply)


def meta_iteration_floor(
    sizes: tuple[int, int, int, int], tasks: int, steps: int
) -> tuple[Callable[[], None], float]:
    """The products of one second-order MAML iteration with one inner step per task."""
    obs_size, action_size, hidden, batch = sizes
    keys = jax.random.split(jax.random.key(0), 2)
    critic = network(keys[0], (obs_size + action_size, hidden, hidden, 1))
    rows = jax.random.normal(keys[1], (batch, obs_size + action_size))
    multiply = Products()

    def task(x: Array) -> list[Array]:
        target = multiply.forward(x, critic)[-1]
        support = multiply.forward(x, critic)
        inner, _ = multiply.backward(
            support, support[-1] - target, critic, parameters=True, inputs=False
        )
        adapted = [w - 1e-3 * g for w, g in zip(critic, reversed(inner), strict=True)]
        target = multiply.forward(x, adapted)[-1]
        query = multiply.forward(x, adapted)
        outer, _ = multiply.backward(
            query, query[-1] - target, adapted, parameters=True, inputs=False
        )
        # Reverse mode through the inner gradient: two products for each of its products.
        second = _hessian_vector_products(multiply, support, critic, list(reversed(outer)))
        return [a + b for a, b in zip(reversed(outer), second, strict=True)]

    def step(x: Array) -> list[Array]:
        def body(index: Array, total: list[Array]) -> list[Array]:
            found = task(x + index.astype(jnp.float32) * 1e-6)
            return [a + b for a, b in zip(total, found, strict=True)]

        zeros = [jnp.zeros_like(weight) for weight in critic]
        return jax.lax.fori_loop(0, tasks, body, zeros)

    run, operations = _repeat(step, rows, steps, multiply)
    return run, operations * tasks


def _hessian_vector_products(
    multiply: Products, values: list[Array], weights: Weights, vector: list[Array]
) -> list[Array]:
    """The products of differentiating an inner gradient once more, along `vector`.

    The inner gradient's matrices (weights from the loss backwards) are differentiated with respect
    to layer inputs, back-propagated signals and weights.
    """
    tangents = [jnp.zeros_like(values[0])]
    for layer, weight in enumerate(weights):
        tangent = multiply(values[layer], vector[layer])
        if layer:
            tangent = tangent + multiply(tangents[-1], weight)
        tangents.append(tangent)
    results = []
    signal, moved = values[-1], tangents[-1]
    for layer in reversed(range(len(weights))):
        product = multiply(values[layer].T, moved)
        if layer:
            product = product + multiply(tangents[layer].T, signal)
        results.append(product)
        if layer:
            moved = multiply(moved, weights[layer].T) + multiply(signal, vector[layer].T)
            signal = multiply(signal, weights[layer].T)
    return list(reversed(results))


def _repeat(
    step: Callable[[Array], list[Array]], x: Array, steps: int, multiply: Products
) -> tuple[Callable[[], None], float]:
    """Compiles `steps` repetitions on slightly different inputs."""
    shapes = jax.eval_shape(step, x)
    operations, multiply.operations = multiply.operations, 0

    @jax.jit
    def many(x: Array) -> list[Array]:
        def body(index: Array, found: list[Array]) -> list[Array]:
            del found
            return step(x + index.astype(jnp.float32) * 1e-6)

        start = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
        return jax.lax.fori_loop(0, steps, body, start)

    def run() -> None:
        jax.block_until_ready(many(x))

    return run, operations
