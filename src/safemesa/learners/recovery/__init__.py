"""Who drives where a guard takes over. Importing this package registers all of them."""

from safemesa.learners.recovery.base import AbstractRecovery as AbstractRecovery
from safemesa.learners.recovery.fixed import FixedAction as FixedAction
from safemesa.learners.recovery.network import RecoveryNetwork as RecoveryNetwork
from safemesa.learners.recovery.registry import (
    make_recovery as make_recovery,
    recoveries as recoveries,
)
