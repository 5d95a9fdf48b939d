"""Guards: how a safety critic is used in Phase 3. Importing this package registers all of them."""

from safemesa.guards.base import AbstractGuard as AbstractGuard, Decision as Decision
from safemesa.guards.none import NoGuard as NoGuard
from safemesa.guards.recovery_rl import RecoveryRL as RecoveryRL
from safemesa.guards.registry import guards as guards
