"""When a moving point first enters a box or a disc: exact collision tests in closed form."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def nonzero(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Zeros replaced by ones: their quotients are not used, but must not be NaN."""
    return jnp.where(values == 0.0, jnp.ones_like(values), values)


def time_to_box(
    relative: Float[Array, "n 2"], move: Float[Array, " 2"], half: Float[Array, " 2"]
) -> Float[Array, " n"]:
    """When points that start at `relative` and go by `move` in unit time enter a box around 0."""
    speed = nonzero(move)
    sides = jnp.stack([(-half - relative) / speed, (half - relative) / speed])
    inside = jnp.abs(relative) <= half
    still = jnp.where(inside, -jnp.inf, jnp.inf)
    enter = jnp.where(move == 0.0, still, jnp.min(sides, axis=0)).max(axis=-1)
    leave = jnp.where(move == 0.0, jnp.inf, jnp.max(sides, axis=0)).min(axis=-1)
    return jnp.where((enter <= leave) & (leave >= 0.0), jnp.maximum(enter, 0.0), jnp.inf)


def time_to_disc(
    relative: Float[Array, "*n 2"], move: Float[Array, " 2"], radius: float
) -> Float[Array, " *n"]:
    """When points that start at `relative` and go by `move` in unit time enter a disc around 0.

    The smaller root of |relative + t move|^2 = radius^2, where it exists and is not in the past.
    """
    squared = nonzero(jnp.sum(move**2))
    along = jnp.sum(relative * move, axis=-1)
    gap = jnp.sum(relative**2, axis=-1) - radius**2
    under_root = along**2 - squared * gap
    time = (-along - jnp.sqrt(jnp.maximum(under_root, 0.0))) / squared
    return jnp.where((under_root >= 0.0) & (along < 0.0), jnp.maximum(time, 0.0), jnp.inf)
