"""The guards by name."""

from safemesa.core.registry import Registry
from safemesa.guards.base import AbstractGuard

guards: Registry[type[AbstractGuard]] = Registry("guard")
