"""What a guard is: how a safety critic is used in Phase 3.

A new guard is one final class: subclass `AbstractGuard`, and register it from your own code
(docs/add_a_guard.md). One of ours is a file of this folder and an entry in `guards/registry.py`.
All methods are pure and work on one run; `risk_obs` are normalised observations.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from safemesa.core.types import Key, Metrics, PyTree, RiskBatch
from safemesa.guards.settings import GuardSettings, LimitSettings
from safemesa.learners.recovery import AbstractRecovery
from safemesa.learners.risk import no_risk_term
from safemesa.networks.critics import RiskCritic

Propose = Callable[[Key], Float[Array, " act"]]
"""Draws an action of the task policy (uniform during warm-up) at the current observation."""


class Situation(NamedTuple):
    """What the task policy wants to do, and whom a guard may ask about it."""

    critic: RiskCritic
    recovery: AbstractRecovery
    risk_obs: Float[Array, " obs"]
    proposed: Float[Array, " act"]
    """The task policy's action, in [-1, 1]."""
    propose: Propose
    """Draws further ones."""
    memory: PyTree = ()
    """What the recovery remembers of the steps before, if it drove them."""
    limit_factor: Float[Array, ""] | None = None
    """By which the risk limit is multiplied, where one decides what is executed; None: it stays."""

    def tightened(self, limit: Float[Array, ""] | float) -> Float[Array, ""] | float:
        """A risk limit as it is at present."""
        return limit if self.limit_factor is None else limit * self.limit_factor

    def recover(self) -> tuple[Float[Array, " act"], PyTree]:
        """The recovery's action, and its memory should it be taken."""
        return self.recovery.act(self.critic, self.risk_obs, self.memory)

    def remembered(self, memory: PyTree, intervened: Bool[Array, ""]) -> PyTree:
        """The memory of a recovery that drives, or a fresh one where it does not."""
        return jax.tree.map(
            lambda new, fresh: jnp.where(intervened, new, fresh), memory, self.recovery.begin()
        )


class Decision(NamedTuple):
    """What is executed, and what of it the task learner remembers."""

    action: Float[Array, " act"]
    """Runs, and enters the safety critic's data."""
    task_action: Float[Array, " act"]
    """Enters SAC's data: the proposal where the guard relabels, otherwise `action` again."""
    risk: Float[Array, ""]
    """The critic's value of the proposal; 0 where none is asked."""
    intervened: Bool[Array, ""]
    """Whether the proposal was refused."""
    memory: PyTree | None = None
    """What the recovery is to remember (`Situation.remembered`); None where it did not drive."""


@dataclass(frozen=True, kw_only=True)
class AbstractGuard(abc.ABC):
    """A use of the critic. Subclasses are frozen dataclasses whose one field are their settings.

    Every guard says what is executed; all else is nothing unless it is overridden.
    """

    settings: GuardSettings = field(default_factory=LimitSettings)
    """What flags `--guard-settings.*` say; a subclass that can be told other things has a default
    of another type (`guards/settings.py`)."""
    uses_risk: ClassVar[bool] = True
    """False when Phase 3 needs no risk model at all."""

    @abc.abstractmethod
    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """Chooses the executed action in [-1, 1], given the task policy's proposal."""

    def init(self) -> PyTree:
        """Dual variables and the like; an empty tuple if there are none."""
        return ()

    @property
    def calm_share(self) -> float | None:
        """The quantile of the fleet's calm states that `begin` is told; None: it need not be."""
        return None

    def begin(self, limit: Float[Array, ""], level: Float[Array, ""]) -> PyTree:
        """The state before Phase 3; `init()` where a guard has its limit from the settings.

        `limit` is the risk model's, `level` what its critic says of the fleet's calm states (1
        where the model rehearses none, or `calm_share` is None).
        """
        del limit, level
        return self.init()

    def limit_of(self, state: PyTree) -> Float[Array, ""] | None:
        """The limit of a guard that moves it; None where it is the settings'."""
        del state
        return None

    def follow(
        self, state: PyTree, calm_risk: Float[Array, " batch"], calm: Float[Array, " batch"]
    ) -> PyTree:
        """After each update of the critic: what it now says of some rows of the fleet.

        `calm_risk` is the risk of the recovery's action; only rows with `calm` 1 are calm.
        """
        del calm_risk, calm
        return state

    def actor_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
    ) -> Float[Array, " batch"]:
        """Added to SAC's actor loss, per row; `action` is the actor's own, with its gradient."""
        del state, critic, action
        return jnp.zeros(risk_obs.shape[0])

    def reward_term(
        self,
        state: PyTree,
        critic: RiskCritic,
        risk_obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
        cost: Float[Array, " batch"],
    ) -> Float[Array, " batch"]:
        """Added to the target of SAC's critics, per row; `action` is `Decision.task_action`."""
        del state, critic, action, cost
        return jnp.zeros(risk_obs.shape[0])

    def risk_term(
        self, critic: RiskCritic, batch: RiskBatch, logits: Float[Array, "batch members"]
    ) -> Float[Array, ""]:
        """Added to the safety loss in all phases, in Phase 1 to the inner and to the outer one.

        `logits` are the critic's at the rows of the batch.
        """
        return no_risk_term(critic, batch, logits)

    def update(self, state: PyTree, critic: RiskCritic, batch: RiskBatch) -> tuple[PyTree, Metrics]:
        """Moves dual variables after each update of the critic, and reports them."""
        del critic, batch
        return state, {}


def let_run(situation: Situation) -> Decision:
    """The proposal, whatever its risk."""
    risk = situation.critic(situation.risk_obs, situation.proposed)
    return Decision(situation.proposed, situation.proposed, risk, jnp.zeros((), bool))


def let_run_unasked(situation: Situation) -> Decision:
    """The proposal, without a critic."""
    zero = jnp.zeros(())
    return Decision(situation.proposed, situation.proposed, zero, jnp.zeros((), bool))
