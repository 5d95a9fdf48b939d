"""Who drives where a guard takes over. Names are imported when they are used."""

from typing import TYPE_CHECKING

from safemesa.core.lazy import lazy_names

if TYPE_CHECKING:
    from safemesa.learners.recovery.base import AbstractRecovery as AbstractRecovery
    from safemesa.learners.recovery.fixed import FixedAction as FixedAction
    from safemesa.learners.recovery.network import RecoveryNetwork as RecoveryNetwork
    from safemesa.learners.recovery.registry import (
        make_recovery as make_recovery,
        recoveries as recoveries,
    )
    from safemesa.learners.recovery.settings import RecoverySettings as RecoverySettings

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AbstractRecovery": f"{__name__}.base",
        "FixedAction": f"{__name__}.fixed",
        "RecoveryNetwork": f"{__name__}.network",
        "RecoverySettings": f"{__name__}.settings",
        "make_recovery": f"{__name__}.registry",
        "recoveries": f"{__name__}.registry",
    },
)
