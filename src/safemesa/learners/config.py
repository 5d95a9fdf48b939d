"""What learners can be told. Free of JAX, so that `--help` is quick."""

import math
from dataclasses import dataclass
from typing import Any

from safemesa.core.errors import ConfigurationError


def require_at_least(config: Any, lowest: int | float, *names: str) -> None:
    """Refuses fields (numbers, or tuples of them) that are below `lowest` or not finite."""
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if any(not math.isfinite(number) or number < lowest for number in numbers):
            raise ConfigurationError(f"{name} is {value}; expected at least {lowest:g}.")


def require_rate(config: Any, *names: str) -> None:
    """Refuses learning rates that are not positive and finite."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value > 0.0):
            raise ConfigurationError(f"{name} is {value}; expected a positive number.")


def require_share(config: Any, *names: str) -> None:
    """Refuses fields that are neither None nor within [0, 1]."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0.0 <= value <= 1.0:
            raise ConfigurationError(f"{name} is {value}; expected a number from 0 to 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskConfig:
    """The safety critic, the same in every phase."""

    gamma_risk: float = 0.8
    """Discount of future violations (Table 1)."""
    horizon: float | None = None
    """Seconds that the risk looks ahead: how long the robot needs to get out of trouble. Given, it
    sets gamma_risk to 1 - dt / horizon."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layer sizes of critic and recovery policy."""
    critics: int = 1
    """Ensemble members; the risk is their maximum."""
    loss: str = "mse"
    """`mse` on the probability (paper) or `bce` on the logit."""
    initial: float | None = None
    """Risk that a critic begins with; None: about a half, as its networks come (paper). A slow copy
    bootstraps few times, and what a critic began with is still in its level. Begun near 0, it says
    what can happen within the steps that it has looked ahead so far."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.horizon is not None and not 0.0 < self.horizon < math.inf:
            raise ConfigurationError(f"horizon is {self.horizon}; expected seconds above 0.")
        if not 0.0 < self.gamma_risk < 1.0:
            raise ConfigurationError(f"gamma_risk is {self.gamma_risk}; expected 0 < value < 1.")
        require_at_least(self, 1, "critics", "hidden")
        if self.initial is not None and not 0.0 < self.initial < 1.0:
            raise ConfigurationError(f"risk.initial is {self.initial}; expected 0 < value < 1.")
        if self.loss not in ("mse", "bce"):
            raise ConfigurationError(f"risk loss is {self.loss!r}; expected 'mse' or 'bce'.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Which rows are learned from, and how batches of them are drawn."""

    violation_fraction: float | None = None
    """Share of violating rows in each batch; `None` draws uniformly. In Phase 3 it is the least
    share: the other rows are drawn as they come."""
    safe_starts: bool = False
    """Leave out rows that begin in a violation: nothing can be saved there, and where a collection
    goes on after violations they are half of the rows."""
    next_action: str = "uniform"
    """Policy whose risk Phases 1-2 learn: `uniform` over the action space, or `logged` (the next
    action of the log; where an episode ends there, a uniform one)."""

    def __post_init__(self) -> None:
        """Refuses impossible shares and unknown policies."""
        require_share(self, "violation_fraction")
        if self.next_action not in ("uniform", "logged"):
            raise ConfigurationError(
                f"sampling.next-action is {self.next_action!r}; expected 'uniform' or 'logged'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetConfig:
    """Whose risk the safety critic learns: what its target bootstraps with."""

    kind: str = "sampled"
    """`sampled` (a draw of the policy whose risk is learned; the paper's), `mixture` (recovers with
    a probability, else that draw), `least` (the less risky of both), or one of your own."""
    recovers: float = 0.75
    """rho of `mixture`: the probability that a step is the recovery's."""

    def __post_init__(self) -> None:
        """Refuses what is no probability."""
        require_share(self, "recovers")


@dataclass(frozen=True, kw_only=True, slots=True)
class RehearsalConfig:
    """Rows of the training logs that Phases 2 and 3 learn from beside the new robot's."""

    rows: int = 0
    """How many a prior carries, drawn without replacement; 0: none, as in the paper."""
    adapt_share: float = 0.5
    """Share of each batch of Phase 2 that is rehearsed."""
    worth: int = 20_000
    """In Phase 3 the fleet's rows weigh as much as so many rows of the robot: with n of these,
    n / (n + worth) of a safety batch are the robot's, so that its few first rows are not learned by
    heart."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 0, "rows")
        require_at_least(self, 1, "worth")
        require_share(self, "adapt_share")


@dataclass(frozen=True, kw_only=True, slots=True)
class SACConfig:
    """The task learner, equal in every arm."""

    hidden: tuple[int, ...] = (256, 256)
    """Hidden layer sizes of actor and critics."""
    learning_rate: float = 3e-4
    """Adam rate of actor, critics and temperature."""
    discount: float = 0.99
    """Discount of the task's rewards."""
    target_rate: float = 0.005
    """Polyak rate tau of the target critics."""
    temperature: float = 0.2
    """Entropy weight (its start value when it is learned)."""
    learn_temperature: bool = False
    """Learn the temperature towards a target entropy of minus the action size."""
    batch: int = 256
    """Rows of each task and safety batch of Phase 3."""
    warmup_steps: int = 100
    """Uniformly random (but guarded) actions at the start of Phase 3."""
    normalise_obs: bool = False
    """Give the task policy normalised observations (safety networks always get them)."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 1, "hidden", "batch")
        require_at_least(self, 0, "warmup_steps")
        require_rate(self, "learning_rate", "temperature")
        require_share(self, "discount", "target_rate")
