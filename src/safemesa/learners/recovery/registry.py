"""The recoveries by name."""

from safemesa.core.registry import Registry
from safemesa.core.spaces import Spaces
from safemesa.core.types import Key
from safemesa.learners.config import RecoveryConfig, RiskConfig
from safemesa.learners.recovery.base import AbstractRecovery

recoveries: Registry[type[AbstractRecovery]] = Registry("recovery")


def make_recovery(
    config: RecoveryConfig, risk: RiskConfig, spaces: Spaces, *, key: Key
) -> AbstractRecovery:
    """A fresh recovery of the kind that a configuration names.

    Raises:
        ConfigurationError: unknown, or its settings do not fit the robot.
    """
    return recoveries[config.kind].make(config, risk, spaces, key=key)
