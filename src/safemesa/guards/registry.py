"""The guards by name."""

from safemesa.core.registry import Registry
from safemesa.guards.base import AbstractGuard

guards: Registry[type[AbstractGuard]] = Registry("guard")


def asks_a_critic(name: str) -> bool:
    """Whether a guard uses a risk model; of one that is not registered here, that is assumed."""
    return name not in guards or guards[name].uses_risk
