"""Guards: how a safety critic is used in Phase 3. Names are imported when they are used."""

from typing import TYPE_CHECKING

from safemesa.core.lazy import lazy_names

if TYPE_CHECKING:
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
    from safemesa.guards.settings import (
        GuardSettings as GuardSettings,
        LimitSettings as LimitSettings,
    )
    from safemesa.guards.sqrl import SQRL as SQRL
    from safemesa.guards.takeover import Takeover as Takeover

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(
            ("AbstractGuard", "Decision", "Situation", "let_run", "let_run_unasked"),
            f"{__name__}.base",
        ),
        **dict.fromkeys(("asks_a_critic", "guards"), f"{__name__}.registry"),
        **dict.fromkeys(("GuardSettings", "LimitSettings"), f"{__name__}.settings"),
        "CSC": f"{__name__}.csc",
        "Lagrangian": f"{__name__}.lagrangian",
        "NoGuard": f"{__name__}.none",
        "RCPO": f"{__name__}.rcpo",
        "RecoveryRL": f"{__name__}.recovery_rl",
        "RewardPenalty": f"{__name__}.penalty",
        "SQRL": f"{__name__}.sqrl",
        "Takeover": f"{__name__}.takeover",
    },
)
