"""Robots that change: from one task to the next, at once or in small stages.

A change is written as plain JSON in one of three ways:

- the parameters of a task of the domain, as `task_from_parameters` reads them;
- `{"times": {name: factor}}`: parameters of the present task, multiplied. A factor is a number, or
  nested lists of numbers of the parameter's own shape;
- `{"also": [perturbation, ...]}`: perturbations (`domains/perturbations.py`) beside the task's own,
  for any robot that MuJoCo simulates. They stay through later changes.

The last two may be given together. Nothing of it is observed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractDomain
from safemesa.domains.mujoco_robot import AbstractMujocoRobot, AlteredTask, altered
from safemesa.domains.perturb import (
    AbstractPerturbation,
    perturbation_from_parameters,
    perturbation_parameters,
)

TIMES, ALSO = "times", "also"

NEUTRAL = {"gain": 1.0, "factor": 1.0, "std": 0.0}
"""Fields of perturbations, by the value at which they change nothing."""


@runtime_checkable
class Changeable(Protocol):
    """An environment whose robot can change between two steps."""

    def change_task(self, task: PyTree) -> None:
        """Goes on from the same state with the dynamics of another task."""
        ...


def changed_task(domain: AbstractDomain, task: PyTree, change: Mapping[str, Any]) -> PyTree:
    """The task that a robot of `task` has after a change.

    Raises:
        ConfigurationError: the domain cannot read it.
    """
    given = dict(change)
    if not {TIMES, ALSO} & set(given):
        base, extra = altered(task)
        return _with_extra(domain.task_from_parameters(given), extra)
    if set(given) - {TIMES, ALSO}:
        raise ConfigurationError(
            f"a change of {domain.name} has the keys {sorted(given)}; expected the parameters of a "
            f"task alone, or {TIMES!r} and {ALSO!r} alone. Write two changes."
        )
    base, extra = altered(task)
    if TIMES in given:
        base = domain.task_from_parameters(_multiplied(domain, base, given[TIMES]))
    if ALSO in given:
        extra = (*extra, *_perturbations(domain, given[ALSO]))
    return _with_extra(base, extra)


def task_between(domain: AbstractDomain, first: PyTree, second: PyTree, share: float) -> PyTree:
    """A task on the way from one to another: every number has gone that share of its way.

    Args:
        domain: The domain of both.
        first: The task before.
        second: The task after, which may have more perturbations beside its own.
        share: In [0, 1]; at 0 and 1 the result is `first` and `second` themselves.

    Raises:
        ConfigurationError: they differ in something that is no number.
    """
    if share <= 0.0 or share >= 1.0:
        return first if share <= 0.0 else second
    (base, extra), (to_base, to_extra) = altered(first), altered(second)
    parameters, to_parameters = domain.task_parameters(base), domain.task_parameters(to_base)
    way = domain.task_from_parameters(_between(parameters, to_parameters, share, domain.name))
    begun = (*extra, *(_neutral(one) for one in to_extra[len(extra) :]))
    between = [
        _between(perturbation_parameters(one), perturbation_parameters(two), share, domain.name)
        for one, two in zip(begun, to_extra, strict=True)
    ]
    return _with_extra(way, tuple(perturbation_from_parameters(one) for one in between))


def changed_parameters(domain: AbstractDomain, task: PyTree) -> dict[str, Any]:
    """A task, with what was changed beside its own, as plain JSON."""
    base, extra = altered(task)
    parameters = domain.task_parameters(base)
    also = {ALSO: [perturbation_parameters(one) for one in extra]} if extra else {}
    return parameters | also


def _with_extra(base: PyTree, extra: tuple[AbstractPerturbation, ...]) -> PyTree:
    return AlteredTask(base, extra) if extra else base


def _perturbations(domain: AbstractDomain, given: Any) -> tuple[AbstractPerturbation, ...]:
    if not isinstance(domain, AbstractMujocoRobot):
        raise ConfigurationError(
            f"{domain.name} is not simulated by MuJoCo and knows no perturbations ({ALSO!r}). "
            "Give the parameters of a task."
        )
    if not isinstance(given, list) or not given:
        raise ConfigurationError(
            f"{ALSO!r} is {given!r}; expected a list of perturbations such as "
            "[{'kind': 'scale_damping', 'factor': 3.0}]."
        )
    return tuple(perturbation_from_parameters(one) for one in given)


def _multiplied(domain: AbstractDomain, task: PyTree, factors: Any) -> dict[str, Any]:
    parameters = domain.task_parameters(task)
    if not isinstance(factors, Mapping) or not factors or set(factors) - set(parameters):
        raise ConfigurationError(
            f"{TIMES!r} is {factors!r}; expected factors of some of {sorted(parameters)}, which "
            f"are the parameters of {domain.name}."
        )
    return parameters | {
        name: _times(parameters[name], factor, name) for name, factor in factors.items()
    }


def _times(value: Any, factor: Any, name: str) -> Any:
    if isinstance(value, list):
        factors = factor if isinstance(factor, list) else [factor] * len(value)
        if len(factors) == len(value):
            return [_times(*pair, name) for pair in zip(value, factors, strict=True)]
    elif _is_number(value) and _is_number(factor):
        return value * factor
    raise ConfigurationError(
        f"{TIMES!r} has {factor!r} for {name!r}, of which {value!r} is to be multiplied; expected "
        "a number, or lists of numbers of the same shape."
    )


def _between(first: Any, second: Any, share: float, name: str) -> Any:
    if first == second:
        return first
    if _is_number(first) and _is_number(second):
        return first + share * (second - first)
    if isinstance(first, Mapping) and isinstance(second, Mapping) and set(first) == set(second):
        return {key: _between(first[key], second[key], share, name) for key in first}
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [_between(*pair, share, name) for pair in zip(first, second, strict=True)]
    raise ConfigurationError(
        f"a gradual change of {name} leads from {first!r} to {second!r}; expected that they differ "
        "in numbers alone. Make it a change at once, without '+'."
    )


def _neutral(perturbation: AbstractPerturbation) -> AbstractPerturbation:
    names = {one.name for one in dataclasses.fields(perturbation)} & set(NEUTRAL)
    if not names:
        raise ConfigurationError(
            f"{perturbation!r} cannot come gradually: it has none of {sorted(NEUTRAL)}. Use "
            "'weaken_actuator' in place of 'disable_actuator', or make it a change at once."
        )
    return dataclasses.replace(perturbation, **{name: NEUTRAL[name] for name in names})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
