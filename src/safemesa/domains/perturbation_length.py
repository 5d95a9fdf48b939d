"""Longer and shorter links."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from safemesa.core.errors import ConfigurationError
from safemesa.domains.perturbation_base import (
    PERTURBATIONS,
    AbstractShapePerturbation,
    Spec,
    check_number,
    unknown_part,
)

CAPSULE, CYLINDER = 3, 5
"""`mjGEOM_CAPSULE` and `mjGEOM_CYLINDER`, whose second size is half their length."""


@PERTURBATIONS.register("scale_length")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleLength(AbstractShapePerturbation):
    """Scales the link between a body's joint and the next ones, not how thick it is.

    The body keeps its joint with its parent; its geoms and sites and the joints of its children
    move away from there by the factor, and its capsules and cylinders become longer by it. Where
    the model takes masses from geoms, as Gymnasium's robots do, they follow. Where the robot starts
    is left as it is, so a longer leg may start inside the floor.
    """

    body: str
    factor: float

    def __post_init__(self) -> None:
        """Checks factor and name; no length cannot be simulated."""
        if not isinstance(self.body, str):
            raise ConfigurationError(f"body is {self.body!r}; it must be the name of a body.")
        check_number("factor", self.factor, positive=True)

    def reshape(self, spec: Spec) -> None:
        """Geoms given by their ends and by centre and half-length alike."""
        bodies = {body.name: body for body in spec.bodies}
        if self.body not in bodies:
            raise unknown_part("body", self.body, list(bodies))
        body = bodies[self.body]
        # A body that hangs in the world moves freely: what its joints are at has no meaning.
        is_root = body in spec.worldbody.bodies
        pivot = np.zeros(3) if is_root else _pivot(body)
        for item in (*body.geoms, *body.sites):
            item.pos = self._scaled(item.pos, pivot)
        for child in body.bodies:
            offset = _rotated(child, _pivot(child))
            child.pos = self._scaled(child.pos + offset, pivot) - offset
        for geom in body.geoms:
            # Ends that are not given are NaN, and stay so.
            geom.fromto = np.concatenate(
                [self._scaled(end, pivot) for end in geom.fromto.reshape(2, 3)]
            )
            if int(geom.type) in (CAPSULE, CYLINDER):
                geom.size[1] *= self.factor

    def _scaled(self, position: np.ndarray, pivot: np.ndarray) -> np.ndarray:
        return pivot + self.factor * (np.asarray(position) - pivot)


def _pivot(body: Any) -> np.ndarray:
    """Where the joints of a body are, in its own frame; its origin where it has none."""
    return np.array(body.joints[-1].pos) if body.joints else np.zeros(3)


def _rotated(body: Any, vector: np.ndarray) -> np.ndarray:
    """A vector in the frame of a body, as its parent sees it."""
    if not vector.any():
        return vector
    quaternion = 0
    if int(body.alt.type) != quaternion:
        raise ConfigurationError(
            f"Body {body.name!r} is rotated by angles; its parent cannot be scaled. "
            "Write its rotation as `quat`."
        )
    scalar, axis = body.quat[0], body.quat[1:]
    return vector + 2.0 * np.cross(axis, np.cross(axis, vector) + scalar * vector)
