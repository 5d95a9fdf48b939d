"""What a recovery is: who drives where a guard takes over.

A new recovery is one final class: subclass `AbstractRecovery`, and register it from your own code
(docs/add_a_recovery.md). One of ours is a file of this folder and an entry in `registry.py`.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.spaces import Spaces
from safemesa.core.types import Key, PyTree
from safemesa.learners.config import RiskConfig
from safemesa.networks.critics import RiskCritic


class AbstractRecovery(eqx.Module):
    """Arrays that act. Observations are normalised, actions in [-1, 1]; one example in.

    What does not learn overrides `make` and `act` alone.
    """

    learns: ClassVar[bool] = False
    """Whether `loss` trains it; its arrays are changed by nobody where it does not."""

    @classmethod
    @abc.abstractmethod
    def make(
        cls, settings: Any, risk: RiskConfig, spaces: Spaces, *, key: Key
    ) -> "AbstractRecovery":
        """A fresh one for a robot; `settings` are those of its kind."""

    @abc.abstractmethod
    def act(
        self, critic: RiskCritic, obs: Float[Array, " obs"], memory: PyTree
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The action, and what is to be known at the next step, taken over or not."""

    def begin(self) -> PyTree:
        """The memory before an episode's first step."""
        return ()

    def loss(
        self,
        critic: RiskCritic,
        obs: Float[Array, "batch obs"],
        action: Float[Array, "batch act"],
        settings: Any,
        risk: RiskConfig,
    ) -> Float[Array, ""]:
        """What learning lowers, given the critic as it is; `action` was executed at `obs`."""
        del critic, obs, action, settings, risk
        return jnp.zeros(())

    def exported(self, spaces: Spaces) -> dict[str, Any] | None:
        """What the shield's manifest says of it: a `kind` that the runtime knows, with its numbers.

        None: the runtime has no such kind, and `Shield.load` wants the recovery from its caller.
        """
        del spaces
        return None
