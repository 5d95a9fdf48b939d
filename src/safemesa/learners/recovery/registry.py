"""The recoveries by name. Free of JAX: their classes are imported when they are asked for."""

from typing import TYPE_CHECKING

from safemesa.core.registry import PluginRegistry
from safemesa.core.spaces import Spaces
from safemesa.learners.config import RiskConfig
from safemesa.learners.recovery.settings import FixedSettings, NetworkSettings, RecoverySettings

if TYPE_CHECKING:
    from safemesa.core.types import Key
    from safemesa.learners.recovery.base import AbstractRecovery

recoveries: "PluginRegistry[type[AbstractRecovery]]" = PluginRegistry("recovery", RecoverySettings)

_HERE = "safemesa.learners.recovery"
recoveries.declare("network", f"{_HERE}.network:RecoveryNetwork", "network", NetworkSettings)
recoveries.declare("fixed", f"{_HERE}.fixed:FixedAction", "fixed action", FixedSettings)


def make_recovery(
    settings: RecoverySettings, risk: RiskConfig, spaces: Spaces, *, key: "Key"
) -> "AbstractRecovery":
    """A fresh recovery of the kind that the settings name.

    Raises:
        ConfigurationError: unknown, or its settings do not fit the robot.
    """
    return recoveries[settings.kind].make(settings, risk, spaces, key=key)
