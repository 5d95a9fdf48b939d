"""When a moving point first enters a box or a disc: collision tests in closed form."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def nonzero(values: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Zeros replaced by ones: their quotients are not used, but must not be NaN."""
    return jnp.where(values == 0.0, jnp.ones_like(values), values)


def time_to_box(
    start: Float[Array, " 2"], move: Float[Array, " 2"], half: Float[Array, " 2"]
) -> Float[Array, ""]:
    """When a point that starts at `start` and goes by `move` in unit time enters a box around 0.

    It is inside while it is between both pairs of sides. 0 if it starts inside, infinite if it
    never enters; times above 1 are later than the end of the move.
    """
    speed = nonzero(move)
    sides = jnp.stack([(-half - start) / speed, (half - start) / speed])
    between = jnp.abs(start) <= half
    enter = jnp.where(move == 0.0, jnp.where(between, -jnp.inf, jnp.inf), sides.min(axis=0)).max()
    leave = jnp.where(move == 0.0, jnp.inf, sides.max(axis=0)).min()
    return jnp.where((enter <= leave) & (leave >= 0.0), jnp.maximum(enter, 0.0), jnp.inf)


def time_to_disc(
    start: Float[Array, " 2"], move: Float[Array, " 2"], radius: float | Float[Array, ""]
) -> Float[Array, ""]:
    """When a point that starts at `start` and goes by `move` in unit time enters a disc around 0.

    The smaller root of |start + t move|^2 = radius^2; infinite if there is none or the point goes
    away from the disc.
    """
    squared = nonzero(jnp.sum(move**2))
    along = jnp.sum(start * move)
    under_root = along**2 - squared * (jnp.sum(start**2) - radius**2)
    time = (-along - jnp.sqrt(jnp.maximum(under_root, 0.0))) / squared
    return jnp.where((under_root >= 0.0) & (along < 0.0), jnp.maximum(time, 0.0), jnp.inf)
