"""What recoveries can be told: one record each. Free of JAX, so that `--help` is quick."""

import sys
from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError
from safemesa.learners.config import require_at_least


@dataclass(frozen=True, kw_only=True)
class RecoverySettings:
    """Who drives where a guard takes over."""

    kind: str = "network"
    """`network` (descends the critic; the paper's), `fixed` (one action), or one of your own, also
    as module:attribute."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(RecoverySettings):
    """The recovery policy: a network that descends the critic."""

    objective: str = "risk"
    """What the network descends: `risk` (the paper) or its `logit`, which has a gradient also where
    the risk is nearly 1."""
    penalty: float = 1e-3
    """Weight of mean(pre-tanh^2): without it the recovery policy saturates to a constant."""
    behaviour: float = 0.0
    """Weight of the squared distance to the logged action: what a unit of it must lower the risk
    (its logit) by. Off the data no critic knows what an action does."""

    def __post_init__(self) -> None:
        """Refuses unknown objectives."""
        require_at_least(self, 0.0, "penalty", "behaviour")
        if self.objective not in ("risk", "logit"):
            raise ConfigurationError(
                f"recovery.objective is {self.objective!r}; expected 'risk' or 'logit'."
            )


@dataclass(frozen=True, kw_only=True)
class FixedSettings(RecoverySettings):
    """A recovery that is one action."""

    kind: str = "fixed"
    """`network` (descends the critic; the paper's), `fixed` (one action), or one of your own, also
    as module:attribute."""
    action: tuple[float, ...] = ()
    """The action, in physical units, such as a full brake."""

    def __post_init__(self) -> None:
        """Refuses actions that are no numbers."""
        require_at_least(self, -sys.float_info.max, "action")
