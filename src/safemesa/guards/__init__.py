"""Guards: how a safety critic is used in Phase 3. Importing this package registers all of them."""

from safemesa.guards.base import (
    AbstractGuard as AbstractGuard,
    Decision as Decision,
    Situation as Situation,
    let_run as let_run,
    let_run_unasked as let_run_unasked,
)
from safemesa.guards.csc import CSC as CSC
from safemesa.guards.lagrangian import Lagrangian as Lagrangian
from safemesa.guards.none import NoGuard as NoGuard
from safemesa.guards.penalty import RewardPenalty as RewardPenalty
from safemesa.guards.rcpo import RCPO as RCPO
from safemesa.guards.recovery_rl import RecoveryRL as RecoveryRL
from safemesa.guards.registry import asks_a_critic as asks_a_critic, guards as guards
from safemesa.guards.sqrl import SQRL as SQRL
from safemesa.guards.takeover import Takeover as Takeover
