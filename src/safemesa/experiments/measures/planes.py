"""The plane that a robot moves in, for domains whose observation is a position."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractJaxDomain
from safemesa.domains.raster import Box
from safemesa.domains.registry import domain as find_domain
from safemesa.phases.collection.tasks import sample_test_task


@runtime_checkable
class Viewed(Protocol):
    """A domain that says which part of the plane its positions are seen in."""

    @property
    def view(self) -> Box:
        """What is shown."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plane:
    """A grid over the view of a planar domain.

    `blocked` is where the task's constraint is, `reached` where its goal is.
    """

    view: Box
    x: Float[np.ndarray, " columns"]
    y: Float[np.ndarray, " rows"]
    blocked: Bool[np.ndarray, "rows columns"]
    reached: Bool[np.ndarray, "rows columns"]

    @property
    def points(self) -> Float[np.ndarray, "points 2"]:
        """All positions, row by row."""
        return np.stack(np.meshgrid(self.x, self.y), axis=-1).reshape(-1, 2)

    @property
    def goal(self) -> Float[np.ndarray, " 2"] | None:
        """The middle of the goal; None where no cell of the view lies in it."""
        inside = self.points[self.reached.reshape(-1)]
        return inside.mean(axis=0) if len(inside) else None


def plane(name: str, seed: int, columns: int = 96, rows: int = 48) -> Plane | None:
    """A grid of cell centres over the domain's view, with the obstacles of a seed's test task.

    None where the observation is no position in the plane, or the domain is unknown. A cell is
    blocked where standing still costs: obstacles may differ between tasks.
    """
    try:
        domain = find_domain(name)
    except ConfigurationError:
        return None
    if not isinstance(domain, AbstractJaxDomain) or not isinstance(domain, Viewed):
        return None
    if domain.spaces.obs_size != 2:
        return None
    view = domain.view
    across, up = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
    x = (view.x[0] + across * (view.x[1] - view.x[0])).astype(np.float32)
    y = (view.y[0] + up * (view.y[1] - view.y[0])).astype(np.float32)
    points = jnp.asarray(np.stack(np.meshgrid(x, y), axis=-1))
    blocked, reached = _standing_still(domain, sample_test_task(domain, seed), points)
    return Plane(
        view=view, x=x, y=y, blocked=np.asarray(blocked), reached=np.asarray(reached & ~blocked)
    )


@partial(jax.jit, static_argnums=0)
def _standing_still(
    domain: AbstractJaxDomain, task: PyTree, points: Float[Array, "rows columns 2"]
) -> tuple[Bool[Array, "rows columns"], Bool[Array, "rows columns"]]:
    """Whether an action of zero violates the constraint, and whether it ends at the goal."""
    still, key = jnp.zeros(domain.spaces.action_size), jax.random.key(0)

    def outcome(point: Float[Array, " 2"]) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        step = domain.step(task, domain.state_at(point), still, key=key)[1]
        return step.cost > 0.5, step.success

    return jax.vmap(jax.vmap(outcome))(points)
