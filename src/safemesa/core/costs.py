"""The one way in which a cost enters: as a number that is known, or not at all."""

from typing import Any

import numpy as np

from safemesa.core.errors import ConfigurationError


def known_cost(value: Any, where: str) -> float:
    """A cost as a finite number.

    What is absent, masked, None, NaN, text or more than one number says nothing about the state,
    and is never taken for 0 or for 1.

    Raises:
        ConfigurationError: the cost is unknown; `where` names what gave it.
    """
    expected = (
        "a number: 1 where the state that is reached violates the constraint, else 0. An unknown "
        "cost is never taken for safe"
    )
    return known_number(value, where, expected)


def known_number(value: Any, where: str, expected: str) -> float:
    """A finite number, of whatever type of Python or NumPy.

    Raises:
        ConfigurationError: it is none; `where` names what gave it.
    """
    masked = value is np.ma.masked or np.ma.is_masked(value)
    try:
        number = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        number = np.asarray(None)
    if not masked and number.dtype.kind in "buif" and number.size == 1:
        known = float(number.reshape(()))
        if np.isfinite(known):
            return known
    given = "masked" if masked else f"{str(value)[:80]!r} ({type(value).__name__})"
    raise ConfigurationError(f"{where} is {given}, expected {expected}.")


def binary_cost(value: Any, where: str) -> float:
    """A cost that is 0 or 1.

    Raises:
        ConfigurationError: it is unknown, or another number.
    """
    cost = known_cost(value, where)
    if cost not in (0.0, 1.0):
        raise ConfigurationError(
            f"{where} is {cost:g}, expected 0 or 1. Compare it with a limit, such as `cost > 0`."
        )
    return cost
