"""Lagrangian relaxation: the actor pays for risk, at a price that is learned."""

from dataclasses import dataclass, field
from typing import final

from safemesa.core.types import Key, PyTree
from safemesa.guards.base import Decision, Situation, let_run
from safemesa.guards.duals import AbstractLagrangian
from safemesa.guards.settings import LagrangianSettings


@final
@dataclass(frozen=True, kw_only=True)
class Lagrangian(AbstractLagrangian):
    """The comparison LR of Recovery RL (Thananjeyan et al. 2021, section 5). All proposals run.

    Difference from the published code: there the price is constant (see `DualAscent`), which is
    `--guard-settings.multiplier-rate 0`.
    """

    settings: LagrangianSettings = field(default_factory=LagrangianSettings)

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """The proposal."""
        del state, key
        return let_run(situation)
