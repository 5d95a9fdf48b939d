"""What a perturbation is, and how tasks made of perturbations are written down.

A perturbation is a small frozen record. It is applied to a model that was just compiled, so to its
nominal values, and reaches the same result each time. MuJoCo's types appear as `Any`: MuJoCo is an
optional dependency, and these modules need only arrays with names.
"""

import abc
import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.core.registry import Registry

Model = Any
"""A `mujoco.MjModel`."""

Data = Any
"""A `mujoco.MjData`."""

Spec = Any
"""A `mujoco.MjSpec`."""


def check_number(name: str, value: Any, *, positive: bool = False) -> None:
    """Raises a ConfigurationError unless a value is a number, finite and not negative."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigurationError(f"{name} is {value!r}; it must be a number.")
    number = float(value)
    if not (math.isfinite(number) and (number > 0.0 if positive else number >= 0.0)):
        bound = "above 0" if positive else "0 or more"
        raise ConfigurationError(f"{name} is {value}; it must be finite and {bound}.")


def check_names(name: str, value: Any) -> None:
    """Raises a ConfigurationError unless a value is a tuple of strings, which one string is not."""
    if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
        raise ConfigurationError(
            f"{name} is {value!r}; it must be a tuple of names, such as ('torso',)."
        )


def unknown_part(kind: str, name: str | int, known: list[str]) -> ConfigurationError:
    """The error for a part that a model does not have; it lists those that it has."""
    return ConfigurationError(
        f"The model has no {kind} {name!r}. It has: {', '.join(filter(None, known)) or 'none'} "
        f"({len(known)} in all)."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractPerturbation:
    """One difference of a robot from the nominal one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractShapePerturbation(AbstractPerturbation, abc.ABC):
    """Changes the description of the robot before it is compiled; masses follow the shapes."""

    @abc.abstractmethod
    def reshape(self, spec: Spec) -> None:
        """Edits the specification in place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractModelPerturbation(AbstractPerturbation, abc.ABC):
    """Changes parameters of the compiled model; derived constants are updated afterwards."""

    @abc.abstractmethod
    def apply(self, model: Model) -> None:
        """Edits the model in place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractNoise(AbstractPerturbation):
    """Independent normal noise on every coordinate at every step."""

    std: float

    def __post_init__(self) -> None:
        """Checks the standard deviation."""
        check_number("std", self.std)


PERTURBATIONS: Registry[type[AbstractPerturbation]] = Registry("perturbation")


def perturbation_parameters(perturbation: AbstractPerturbation) -> dict[str, Any]:
    """A perturbation as plain JSON: its `kind` and its fields."""
    kinds = {PERTURBATIONS[name]: name for name in PERTURBATIONS}
    if type(perturbation) not in kinds:
        raise ConfigurationError(
            f"{perturbation!r} is no perturbation; known: {', '.join(PERTURBATIONS.names())}."
        )
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(perturbation).items()
    }
    return {"kind": kinds[type(perturbation)], **fields}


def perturbation_from_parameters(parameters: Any) -> AbstractPerturbation:
    """The inverse of `perturbation_parameters`.

    Raises:
        ConfigurationError: it is no dictionary, the kind is unknown, or its fields are others.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigurationError(
            f"A perturbation is written as {{'kind': ..., and its fields}}; given: {parameters!r}."
        )
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in parameters.items()
        if name != "kind"
    }
    kind = PERTURBATIONS[str(parameters.get("kind"))]
    try:
        return kind(**fields)
    except TypeError:
        expected = [field.name for field in dataclasses.fields(kind)]
        raise ConfigurationError(
            f"A perturbation of kind {parameters['kind']!r} has the fields {expected}; "
            f"given: {sorted(fields)}."
        ) from None
