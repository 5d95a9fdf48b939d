"""What a guard is: how a safety critic is used in Phase 3.

A new guard is one final class in one file of this folder: subclass `AbstractGuard`, register it by
name, import it in `guards/__init__.py`. All methods are pure and work on one run; `risk` functions
take normalised observations.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from jaxtyping import Array, Bool, Float

from safemesa.core.types import Key, PyTree, RiskBatch
from safemesa.learners.config import RiskConfig
from safemesa.networks.critics import RiskCritic
from safemesa.networks.policies import DeterministicPolicy

Propose = Callable[[Key], Float[Array, " act"]]
"""Draws an action of the task policy (uniform during warm-up) at the current observation."""


class Decision(NamedTuple):
    """What is executed. `risk` is the critic's value of the proposal (0 where none is asked)."""

    action: Float[Array, " act"]
    risk: Float[Array, ""]
    intervened: Bool[Array, ""]


@dataclass(frozen=True, kw_only=True)
class AbstractGuard(abc.ABC):
    """A use of the critic. Subclasses are frozen dataclasses with the field `config`."""

    config: RiskConfig
    uses_risk: ClassVar[bool]
    """False when Phase 3 needs no risk model at all."""

    @abc.abstractmethod
    def init(self) -> PyTree:
        """Dual variables and the like; an empty tuple if there are none."""

    @abc.abstractmethod
    def select_action(
        self,
        state: PyTree,
        critic: RiskCritic,
        recovery: DeterministicPolicy,
        risk_obs: Float[Array, " obs"],
        proposed: Float[Array, " act"],
        propose: Propose,
        *,
        key: Key,
    ) -> Decision:
        """Chooses the executed action in [-1, 1], given the task policy's proposal."""

    @abc.abstractmethod
    def actor_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> Float[Array, " batch"]:
        """Added to SAC's actor loss, per row."""

    @abc.abstractmethod
    def reward_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> Float[Array, " batch"]:
        """Added to the target of SAC's critics, per row."""

    @abc.abstractmethod
    def risk_term(self, critic: RiskCritic, batch: RiskBatch) -> Float[Array, ""]:
        """Added to the safety loss in all phases."""

    @abc.abstractmethod
    def update(self, state: PyTree, critic: RiskCritic, batch: RiskBatch) -> PyTree:
        """Moves dual variables after each update of the critic."""
