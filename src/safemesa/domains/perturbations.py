"""Ways in which one robot differs from the next: faults, wear, payloads, other ground, noise."""

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from safemesa.core.errors import ConfigurationError
from safemesa.domains.perturbation_base import (
    PERTURBATIONS,
    AbstractModelPerturbation,
    AbstractNoise,
    Model,
    check_names,
    check_number,
    unknown_part,
)

BROKEN = np.array([0.8, 0.1, 0.1, 1.0])
"""Colour of what an actuator without any power moves."""

MOTOR_GAINS = (0, 1)
"""`mjGAIN_FIXED` and `mjGAIN_AFFINE`: actuators whose force scales with their gain and bias."""


@PERTURBATIONS.register("weaken_actuator")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class WeakenActuator(AbstractModelPerturbation):
    """Scales the force of one actuator. Images show it in red.

    Attributes:
        actuator: Its name, that of the joint it moves, or its index.
        gain: 0 disables it, 1 changes nothing.
    """

    actuator: str | int
    gain: float

    def __post_init__(self) -> None:
        """Checks the kinds of both, and the gain."""
        _check_actuator(self.actuator)
        check_number("gain", self.gain)

    def apply(self, model: Model) -> None:
        """Scales gain and bias, hence the force whatever its control law."""
        index = _actuator_index(model, self.actuator)
        if model.actuator_gaintype[index] not in MOTOR_GAINS:
            raise ConfigurationError(
                f"Actuator {self.actuator!r} is a muscle or has its own gain; only motors and "
                "servos can be weakened."
            )
        model.actuator_gainprm[index] *= self.gain
        model.actuator_biasprm[index] *= self.gain
        _paint(model, index, 1.0 - min(self.gain, 1.0))


@PERTURBATIONS.register("disable_actuator")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class DisableActuator(AbstractModelPerturbation):
    """Removes all force of one actuator. Images show it in red.

    Attributes:
        actuator: Its name, that of the joint it moves, or its index.
    """

    actuator: str | int

    def __post_init__(self) -> None:
        """Checks the kind."""
        _check_actuator(self.actuator)

    def apply(self, model: Model) -> None:
        """The number of actuators stays as it is."""
        WeakenActuator(actuator=self.actuator, gain=0.0).apply(model)


@PERTURBATIONS.register("scale_mass")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleMass(AbstractModelPerturbation):
    """Scales mass and inertia of the named bodies, or of all where none is named."""

    factor: float
    bodies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks factor and names; no mass cannot be simulated."""
        check_number("factor", self.factor, positive=True)
        check_names("bodies", self.bodies)

    def apply(self, model: Model) -> None:
        """A payload that has the robot's own distribution of mass."""
        rows = _rows(self.bodies, model.body, model.nbody, "body")
        model.body_mass[rows] *= self.factor
        model.body_inertia[rows] *= self.factor


@PERTURBATIONS.register("scale_friction")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleFriction(AbstractModelPerturbation):
    """Scales sliding, torsional and rolling friction of the named geoms, or of all.

    A contact has the larger friction of its two geoms: to make the floor slippery, scale all.
    """

    factor: float
    geoms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks factor and names."""
        check_number("factor", self.factor)
        check_names("geoms", self.geoms)

    def apply(self, model: Model) -> None:
        """Pairs of geoms with a friction of their own are scaled only where no geom is named."""
        model.geom_friction[_rows(self.geoms, model.geom, model.ngeom, "geom")] *= self.factor
        if not self.geoms:
            model.pair_friction[:] *= self.factor


@PERTURBATIONS.register("scale_damping")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleDamping(AbstractModelPerturbation):
    """Scales the damping of the named joints, or of all: worn or dirty bearings."""

    factor: float
    joints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks factor and names."""
        check_number("factor", self.factor)
        check_names("joints", self.joints)

    def apply(self, model: Model) -> None:
        """All degrees of freedom of a joint, and the higher orders that newer MuJoCo has."""
        chosen = np.zeros(model.njnt, bool)
        chosen[_rows(self.joints, model.joint, model.njnt, "joint")] = True
        rows = chosen[model.dof_jntid]
        model.dof_damping[rows] *= self.factor
        higher_orders = getattr(model, "dof_dampingpoly", None)
        if higher_orders is not None:
            higher_orders[rows] *= self.factor


@PERTURBATIONS.register("scale_gravity")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleGravity(AbstractModelPerturbation):
    """Scales gravity."""

    factor: float

    def __post_init__(self) -> None:
        """Checks the factor."""
        check_number("factor", self.factor)

    def apply(self, model: Model) -> None:
        """All three coordinates."""
        model.opt.gravity[:] *= self.factor


@PERTURBATIONS.register("action_noise")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ActionNoise(AbstractNoise):
    """Noise on actions, in physical units; what results is clipped to the action space."""


@PERTURBATIONS.register("observation_noise")
@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ObservationNoise(AbstractNoise):
    """Noise on observations; costs and rewards are judged without it."""


def _check_actuator(value: Any) -> None:
    """Names and indices; 0.7 would be taken for 0, and True for 1."""
    if isinstance(value, bool) or not isinstance(value, str | numbers.Integral):
        raise ConfigurationError(
            f"actuator is {value!r}; it must be its name, that of the joint it moves, or its index."
        )


def _rows(
    names: tuple[str, ...], accessor: Callable[[Any], Any], count: int, kind: str
) -> list[int]:
    """Indices of the named parts of a model, or of all."""
    known = [accessor(index).name for index in range(count)]
    for name in names:
        if name not in known:
            raise unknown_part(kind, name, known)
    return [known.index(name) for name in names] if names else list(range(count))


def _actuator_index(model: Model, given: str | int) -> int:
    """The index of an actuator; many of Gymnasium's have no name, but move a joint that has one."""
    names = []
    for index in range(model.nu):
        joint = _joint_of(model, index)
        names.append(model.actuator(index).name or (model.joint(joint).name if joint >= 0 else ""))
    if isinstance(given, str) and given in filter(None, names):
        return names.index(given)
    if not isinstance(given, str) and 0 <= given < model.nu:
        return int(given)
    raise unknown_part("actuator", given, names)


def _joint_of(model: Model, actuator: int) -> int:
    """The joint that an actuator moves, or -1."""
    joint_transmission = 0
    is_joint = model.actuator_trntype[actuator] == joint_transmission
    return int(model.actuator_trnid[actuator, 0]) if is_joint else -1


def _paint(model: Model, actuator: int, share: float) -> None:
    """Mixes red into the colour of the body that an actuator on a joint moves."""
    joint = _joint_of(model, actuator)
    if joint >= 0:
        geoms = model.geom_bodyid == model.jnt_bodyid[joint]
        model.geom_rgba[geoms] = (1.0 - share) * model.geom_rgba[geoms] + share * BROKEN
