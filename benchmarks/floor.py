"""The floor: the matrix products of an update and nothing else, in one compiled loop.

Every product has the shape that the update needs, and its operands are results of the products
before it, so none can be left out, shared or moved out of the loop: gradients are outputs of
networks, and adapted weights are gradients. Results of weight gradients are carried through the
loop. There are no biases, activations, losses, optimisers, random numbers or batches to gather.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.measure import Subject
from benchmarks.sizes import Sizes

Weights = list[Array]
"""One matrix `[in, out]` per layer; the last is `[out, in]`, which makes its gradient cheaper."""


@dataclass
class Multiplier:
    """Multiplies matrices and counts what that takes."""

    products: int = 0
    flop: int = 0
    results: list[Array] = field(default_factory=list)
    """Products that no other product needs."""

    def __call__(self, left: Array, right: Array) -> Array:
        """`left @ right`."""
        self.products += 1
        self.flop += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        return left @ right

    def apply(self, layer: Array, weight: Array, head: bool) -> Array:
        """Output of a layer."""
        return self(layer, weight.T if head else weight)

    def back(self, gradient: Array, weight: Array, head: bool) -> Array:
        """Gradient of a layer's input, given that of its output."""
        return self(gradient, weight if head else weight.T)

    def weight_gradient(self, layer: Array, gradient: Array, head: bool) -> Array:
        """Gradient of a layer's weight, given its input and the gradient of its output."""
        return self(gradient.T, layer) if head else self(layer.T, gradient)

    def forward(self, inputs: Array, weights: Weights) -> list[Array]:
        """Inputs of all layers and the output."""
        layers = [inputs]
        for index, weight in enumerate(weights):
            layers.append(self.apply(layers[-1], weight, index == len(weights) - 1))
        return layers

    def backward(
        self, layers: list[Array], weights: Weights, gradient: Array
    ) -> tuple[Weights, list[Array]]:
        """Gradients of all weights, and of the outputs of all layers."""
        last = len(weights) - 1
        weight_gradients, output_gradients = [], [gradient]
        for index in range(last, -1, -1):
            head = index == last
            gradient = output_gradients[0]
            weight_gradients.insert(0, self.weight_gradient(layers[index], gradient, head))
            if index > 0:
                output_gradients.insert(0, self.back(gradient, weights[index], head))
        return weight_gradients, output_gradients

    def train(self, inputs: Array, weights: Weights) -> None:
        """Forward and backward pass of a network."""
        layers = self.forward(inputs, weights)
        self.results += self.backward(layers, weights, layers[-1])[0]

    def input_gradient(self, inputs: Array, weights: Weights, columns: int) -> Array:
        """Forward pass, then the gradient of the last columns of the inputs alone."""
        last = len(weights) - 1
        gradient = self.forward(inputs, weights)[-1]
        for index in range(last, 0, -1):
            gradient = self.back(gradient, weights[index], index == last)
        return self(gradient, weights[0][-columns:].T)


def _join(obs: Array, action: Array, size: int) -> Array:
    """The input of a critic; a policy's output may hold means and standard deviations."""
    return jnp.concatenate([obs, action[:, :size]], axis=1)


def _train_policy(
    multiply: Multiplier, obs: Array, policy: Weights, critics: Sequence[Weights], actions: int
) -> None:
    """A policy's step down (or up) critics that stay as they are."""
    layers = multiply.forward(obs, policy)
    inputs = _join(obs, layers[-1], actions)
    gradients = [multiply.input_gradient(inputs, critic, actions) for critic in critics]
    repeats = layers[-1].shape[1] // actions
    gradient = jnp.concatenate([sum(gradients[1:], gradients[0])] * repeats, axis=1)
    multiply.results += multiply.backward(layers, policy, gradient)[0]


@dataclass(frozen=True, kw_only=True)
class Online:
    """Weights and inputs of the online step."""

    policy: Weights
    recovery: Weights
    values: list[Weights]
    value_targets: list[Weights]
    risks: list[Weights]
    risk_targets: list[Weights]
    rows: list[Array]
    """Observations and actions: task, safety and, one row, the one that is acted on."""
    next_obs: list[Array]


jax.tree_util.register_dataclass(
    Online,
    [
        "policy",
        "recovery",
        "values",
        "value_targets",
        "risks",
        "risk_targets",
        "rows",
        "next_obs",
    ],
    [],
)


def online_products(multiply: Multiplier, net: Online, sizes: Sizes) -> list[Array]:
    """Act, SAC's step, and the step of safety critics and recovery policy."""
    actions = sizes.action
    task, safety, one = net.rows
    updates = (
        (task, net.next_obs[0], net.values, net.value_targets, net.policy),
        (safety, net.next_obs[1], net.risks, net.risk_targets, net.recovery),
    )
    for rows, next_obs, critics, targets, policy in updates:
        following = multiply.forward(next_obs, net.policy)[-1]
        for target in targets:
            inputs = _join(next_obs, following, actions)
            multiply.results.append(multiply.forward(inputs, target)[-1])
        for critic in critics:
            multiply.train(rows, critic)
        _train_policy(multiply, rows[:, : sizes.obs], policy, critics, actions)
    obs = one[:, : sizes.obs]
    for policy in (net.policy, net.recovery):
        inputs = _join(obs, multiply.forward(obs, policy)[-1], actions)
        multiply.results += [multiply.forward(inputs, critic)[-1] for critic in net.risks]
    return multiply.results


def _network(rng: np.random.Generator, sizes: Sizes, inputs: int, outputs: int) -> Weights:
    """Weights that keep the scale of what passes."""
    widths = (inputs, *sizes.hidden, outputs)
    weights = [
        jnp.asarray(rng.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in), jnp.float32)
        for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
    ]
    return [*weights[:-1], weights[-1].T]


def _rows(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return jnp.asarray(rng.normal(size=(rows, columns)), jnp.float32)


def online_problem(sizes: Sizes) -> Online:
    """Random weights and inputs."""
    rng = np.random.default_rng(0)
    inputs = sizes.obs + sizes.action

    def critics(count: int) -> list[Weights]:
        return [_network(rng, sizes, inputs, 1) for _ in range(count)]

    return Online(
        policy=_network(rng, sizes, sizes.obs, 2 * sizes.action),
        recovery=_network(rng, sizes, sizes.obs, sizes.action),
        values=critics(2),
        value_targets=critics(2),
        risks=critics(sizes.risk_critics),
        risk_targets=critics(sizes.risk_critics),
        rows=[_rows(rng, count, inputs) for count in (sizes.batch, sizes.batch, 1)],
        next_obs=[_rows(rng, sizes.batch, sizes.obs) for _ in range(2)],
    )


@dataclass(frozen=True, kw_only=True)
class Meta:
    """Weights and inputs of one outer step; inputs have a leading task axis."""

    critic: Weights
    recovery: Weights
    support: Array
    support_next: Array
    query: Array
    query_next: Array


jax.tree_util.register_dataclass(
    Meta, ["critic", "recovery", "support", "support_next", "query", "query_next"], []
)


def task_products(multiply: Multiplier, critic: Weights, batches: Sequence[Array]) -> list[Array]:
    """MAML's exact gradient on one task: inner step, query loss, and back through both.

    `batches` are support, next support, query and next query inputs.
    """
    support, support_next, query, query_next = batches
    multiply.results.append(multiply.forward(support_next, critic)[-1])
    layers = multiply.forward(support, critic)
    adapted, gradients = multiply.backward(layers, critic, layers[-1])
    multiply.results.append(multiply.forward(query_next, adapted)[-1])
    query_layers = multiply.forward(query, adapted)
    outer = multiply.backward(query_layers, adapted, query_layers[-1])[0]
    return _back_through_gradient(multiply, critic, layers, gradients, outer)


def _back_through_gradient(
    multiply: Multiplier,
    critic: Weights,
    layers: list[Array],
    gradients: Sequence[Array],
    outer: Weights,
) -> list[Array]:
    """Products of the Hessian of the inner loss with `outer`, the gradient after adaptation.

    The inner gradient of layer i is `layers[i].T @ gradients[i]`, and `gradients[i - 1]` is
    `gradients[i] @ critic[i].T`; this is their transpose, first up and then down the network.
    """
    last = len(critic) - 1
    into_layers = [layers[0]]
    upward = multiply.apply(layers[0], outer[0], False)
    for index in range(1, len(critic)):
        head = index == last
        multiply.results.append(multiply.weight_gradient(upward, gradients[index], head))
        into_layers.append(multiply.back(gradients[index], outer[index], head))
        through_weight = multiply.apply(upward, critic[index], head)
        upward = through_weight + multiply.apply(layers[index], outer[index], head)
    downward = upward
    for index in range(last, -1, -1):
        head = index == last
        multiply.results.append(multiply.weight_gradient(layers[index], downward, head))
        if index > 0:
            downward = multiply.back(downward, critic[index], head) + into_layers[index]
    return multiply.results


def recovery_products(multiply: Multiplier, meta: Meta, sizes: Sizes) -> list[Array]:
    """The recovery policy's step of the same iteration."""
    obs = meta.query_next[0, :, : sizes.obs]
    _train_policy(multiply, obs, meta.recovery, [meta.critic], sizes.action)
    return multiply.results


def meta_problem(sizes: Sizes) -> Meta:
    """Random weights and inputs."""
    rng = np.random.default_rng(0)
    inputs = sizes.obs + sizes.action
    batches = [
        jnp.asarray(rng.normal(size=(sizes.tasks, sizes.batch, inputs)) / 16, jnp.float32)
        for _ in range(4)
    ]
    return Meta(
        critic=_network(rng, sizes, inputs, 1),
        recovery=_network(rng, sizes, sizes.obs, sizes.action),
        support=batches[0],
        support_next=batches[1],
        query=batches[2],
        query_next=batches[3],
    )


def _online_step(problem: Online, sizes: Sizes, multiply: Multiplier) -> list[Array]:
    return online_products(multiply, problem, sizes)


def _shifted(tree: object, index: Array) -> object:
    """Inputs that differ from step to step, so that no product is a constant of the loop."""
    return jax.tree.map(lambda leaf: leaf + 1e-6 * index.astype(jnp.float32), tree)


def online_step(index: Array, problem: Online, sizes: Sizes) -> tuple[Multiplier, list[Array]]:
    """One online step's products."""
    multiply = Multiplier()
    rows, next_obs = _shifted((problem.rows, problem.next_obs), index)
    return multiply, online_products(multiply, replace(problem, rows=rows, next_obs=next_obs), sizes)
