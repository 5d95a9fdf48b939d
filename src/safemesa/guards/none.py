"""No guard: the task policy's action always runs (the Unconstrained comparison)."""

from dataclasses import dataclass, field
from typing import ClassVar, final

from safemesa.core.types import Key, PyTree
from safemesa.guards.base import AbstractGuard, Decision, Situation, let_run_unasked
from safemesa.guards.settings import GuardSettings


@final
@dataclass(frozen=True, kw_only=True)
class NoGuard(AbstractGuard):
    """Plain SAC; no risk model is trained or asked."""

    settings: GuardSettings = field(default_factory=GuardSettings)

    uses_risk: ClassVar[bool] = False

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """The proposal."""
        del state, key
        return let_run_unasked(situation)
