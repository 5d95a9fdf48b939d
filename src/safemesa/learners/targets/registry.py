"""The targets by name."""

from safemesa.core.registry import Registry
from safemesa.learners.config import TargetConfig
from safemesa.learners.targets.base import AbstractTarget

targets: Registry[type[AbstractTarget]] = Registry("target")


def make_target(config: TargetConfig) -> AbstractTarget:
    """The target that a configuration names.

    Raises:
        ConfigurationError: unknown.
    """
    return targets[config.kind](config=config)
