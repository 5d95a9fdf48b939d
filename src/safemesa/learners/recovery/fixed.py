"""One action for every state: a full brake, motors off, the wheel straight."""

from typing import Any, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.core.types import Key, PyTree
from safemesa.learners.config import RiskConfig
from safemesa.learners.recovery.base import AbstractRecovery
from safemesa.learners.recovery.settings import FixedSettings
from safemesa.networks.critics import RiskCritic


@final
class FixedAction(AbstractRecovery):
    """An action in [-1, 1] that learns nothing; `recovery.action` gives it in physical units."""

    action: Float[Array, " act"]

    @classmethod
    def make(
        cls, settings: FixedSettings, risk: RiskConfig, spaces: Spaces, *, key: Key
    ) -> "AbstractRecovery":
        """From its physical values.

        Raises:
            ConfigurationError: they are no action of the robot.
        """
        del risk, key
        low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
        given = np.asarray(settings.action, np.float64)
        if given.shape != low.shape or not ((low <= given) & (given <= high)).all():
            raise ConfigurationError(
                f"recovery.action is {list(settings.action)}; expected {low.size} numbers from "
                f"{low.tolist()} to {high.tolist()}, for {', '.join(spaces.action_names)}."
            )
        return cls(jnp.asarray(spaces.to_unit(given)))

    def act(
        self, critic: RiskCritic, obs: Float[Array, " obs"], memory: PyTree
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The action."""
        del critic, obs
        return self.action, memory

    def exported(self, spaces: Spaces) -> dict[str, Any]:
        """The action in physical units."""
        low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
        physical = low + 0.5 * (np.asarray(self.action, np.float64) + 1.0) * (high - low)
        return {"kind": "fixed", "action": np.clip(physical, low, high).tolist()}
