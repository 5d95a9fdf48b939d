"""One seed, or several side by side: the same phase code with or without a leading axis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from safemesa.core.types import PyTree


@dataclass(frozen=True)
class SeedAxis:
    """Stacks the states of `count` runs; with one run there is no axis at all.

    On accelerators several seeds in one process cost little more than one. On a CPU run one
    process per core instead.
    """

    count: int

    def stack(self, trees: Sequence[PyTree]) -> PyTree:
        """One tree per run to one tree."""
        if self.count == 1:
            return trees[0]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def unstack(self, tree: PyTree) -> list[PyTree]:
        """The inverse of `stack`."""
        if self.count == 1:
            return [tree]
        return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(self.count)]

    def map(self, function: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable:
        """`vmap` over the runs for the arguments whose entry of `in_axes` is 0."""
        return function if self.count == 1 else jax.vmap(function, in_axes=in_axes)
