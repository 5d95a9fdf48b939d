"""Fully connected networks: one example in, callers `vmap`."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Key

_xavier = jax.nn.initializers.glorot_uniform()


class MLP(eqx.Module):
    """A fully connected network; weights are `[in, out]` so that a batch is a plain product.

    ReLU, Xavier-uniform weights and zero biases, as in Recovery RL's networks, if not told
    otherwise.
    """

    weights: tuple[Float[Array, "in out"], ...]
    biases: tuple[Float[Array, " out"], ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        key: Key,
        activation: Callable[[Array], Array] = jax.nn.relu,
        initialise: Callable[..., Any] = _xavier,
    ) -> None:
        self.activation = activation
        keys = jax.random.split(key, len(sizes) - 1)
        self.weights = tuple(
            initialise(layer_key, (fan_in, fan_out), jnp.float32)
            for layer_key, fan_in, fan_out in zip(keys, sizes[:-1], sizes[1:], strict=True)
        )
        self.biases = tuple(jnp.zeros(size) for size in sizes[1:])

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """Applies the network to one example."""
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if layer < last:
                x = self.activation(x)
        return x


class EnsembleMLP(eqx.Module):
    """Independent networks of one shape, stacked along a leading `members` axis."""

    members: MLP

    def __init__(self, count: int, sizes: Sequence[int], *, key: Key) -> None:
        self.members = jax.vmap(lambda member_key: MLP(sizes, key=member_key))(
            jax.random.split(key, count)
        )

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, "members out"]:
        """Applies every member to the same example."""
        if self.members.biases[0].shape[0] == 1:
            # Batched products of one matrix cost XLA transposes: a tenth of a meta-iteration on one
            # core, a fifth on two. For twins they are as fast as separate products.
            return jax.tree.map(lambda leaf: leaf[0], self.members)(x)[None]
        return jax.vmap(lambda member: member(x))(self.members)
