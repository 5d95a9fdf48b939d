"""What guards can be told: one record per guard. Free of JAX, so that `--help` is quick."""

from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError
from safemesa.learners.config import require_at_least, require_share

MULTIPLIER_RANGE = (1e-6, 1e6)
"""Dual variables stay within: one that is always pushed the same way would overflow."""


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """What the guard can be told. This one, nothing."""


@dataclass(frozen=True, kw_only=True)
class LimitSettings(GuardSettings):
    """What a guard that compares risks with a limit can be told."""

    risk_limit: float = 0.1
    """`eps_risk`: the task policy's action runs while its risk is at most this."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_share(self, "risk_limit")


@dataclass(frozen=True, kw_only=True)
class RecoveryRLSettings(LimitSettings):
    """What Recovery RL can be told."""

    recovery_noise: float = 0.1
    """Standard deviation of the exploration noise on executed recovery actions."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        require_at_least(self, 0.0, "recovery_noise")


@dataclass(frozen=True, kw_only=True)
class TakeoverSettings(GuardSettings):
    """When the guard `takeover` takes over, and what runs then."""

    risk_limit: float | None = None
    """Risk above which it takes over; `None`: found from the data after Phase 2, just above what
    the critic says of calm states that the recovery holds."""
    recovery_noise: float = 0.1
    """Standard deviation of the exploration noise on executed recovery actions."""
    calm_share: float = 0.95
    """The limit that is found lies above the risk of this share of the calm states."""
    follow: bool = True
    """In Phase 3 the limit follows the critic's level on the fleet's calm states down."""
    candidates: int = 0
    """Actions on the way from the proposal to the recovery's that are tried first; the nearest to
    the proposal that is safe enough runs. 0: the recovery's at once."""
    told: str = "proposal"
    """What the task learner remembers of a step that was taken over: its `proposal` (relabelled, as
    in Recovery RL) or the `executed` action."""
    charge: float = 0.0
    """What a proposal above the limit costs the task learner, in units of reward."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_share(self, "risk_limit", "calm_share")
        require_at_least(self, 0, "candidates", "charge", "recovery_noise")
        if self.told not in ("proposal", "executed"):
            raise ConfigurationError(
                f"the guard's told is {self.told!r}; expected 'proposal' or 'executed'."
            )


def _require_multiplier(settings: GuardSettings, name: str) -> None:
    low, high = MULTIPLIER_RANGE
    if not low <= getattr(settings, name) <= high:
        raise ConfigurationError(
            f"{name} is {getattr(settings, name)}; expected {low:g} to {high:g}."
        )


@dataclass(frozen=True, kw_only=True)
class LagrangianSettings(LimitSettings):
    """What an actor that pays for risk can be told."""

    actor_multiplier: float = 100.0
    """Where the weight of risk in the actor's loss starts."""
    multiplier_rate: float = 3e-4
    """Adam rate of the logarithm of the multiplier; 0 keeps it where it starts."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        _require_multiplier(self, "actor_multiplier")
        require_at_least(self, 0.0, "multiplier_rate")


@dataclass(frozen=True, kw_only=True)
class SQRLSettings(LagrangianSettings):
    """What SQRL can be told."""

    samples: int = 100
    """Actions that are drawn before the least risky of them runs."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        require_at_least(self, 2, "samples")


@dataclass(frozen=True, kw_only=True)
class CSCSettings(SQRLSettings):
    """What conservative safety critics can be told."""

    conservatism: float = 0.05
    """Weight `alpha_c` of the conservative term of the safety loss."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        require_at_least(self, 0.0, "conservatism")


@dataclass(frozen=True, kw_only=True)
class RCPOSettings(LimitSettings):
    """What a reward that pays for risk can be told."""

    reward_multiplier: float = 100.0
    """Where the weight of risk in the reward starts."""
    multiplier_rate: float = 3e-4
    """Adam rate of the logarithm of the multiplier; 0 keeps it where it starts."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        _require_multiplier(self, "reward_multiplier")
        require_at_least(self, 0.0, "multiplier_rate")


@dataclass(frozen=True, kw_only=True)
class PenaltySettings(GuardSettings):
    """What a reward penalty can be told."""

    violation_penalty: float = 1_000.0
    """What a violation costs."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 0.0, "violation_penalty")
