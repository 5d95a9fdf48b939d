"""The guards by name. Free of JAX: their classes are imported when they are asked for."""

from typing import TYPE_CHECKING

from safemesa.core.registry import PluginRegistry
from safemesa.guards.settings import (
    CSCSettings,
    GuardSettings,
    LagrangianSettings,
    LimitSettings,
    PenaltySettings,
    RCPOSettings,
    RecoveryRLSettings,
    SQRLSettings,
    TakeoverSettings,
)

if TYPE_CHECKING:
    from safemesa.guards.base import AbstractGuard

guards: "PluginRegistry[type[AbstractGuard]]" = PluginRegistry("guard", LimitSettings)

_HERE = "safemesa.guards"
guards.declare("recovery_rl", f"{_HERE}.recovery_rl:RecoveryRL", "Recovery RL", RecoveryRLSettings)
guards.declare("lagrangian", f"{_HERE}.lagrangian:Lagrangian", "Lagrangian", LagrangianSettings)
guards.declare("sqrl", f"{_HERE}.sqrl:SQRL", "SQRL", SQRLSettings)
guards.declare("rcpo", f"{_HERE}.rcpo:RCPO", "RCPO", RCPOSettings)
guards.declare("csc", f"{_HERE}.csc:CSC", "CSC", CSCSettings)
guards.declare("takeover", f"{_HERE}.takeover:Takeover", "takeover", TakeoverSettings)
guards.declare("penalty", f"{_HERE}.penalty:RewardPenalty", "reward penalty", PenaltySettings)
guards.declare("none", f"{_HERE}.none:NoGuard", "no guard", GuardSettings)


def asks_a_critic(name: str) -> bool:
    """Whether a guard uses a risk model; of one that is not known here, that is assumed."""
    return guards[name].uses_risk if name in guards or ":" in name else True
