"""What learners can be told. Free of JAX, so that `--help` is quick."""

import math
import sys
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
    """What every arm shares about the safety critic and the recovery policy."""

    gamma_risk: float = 0.8
    """Discount of future violations (Table 1)."""
    horizon: float | None = None
    """Seconds that the risk looks ahead: how long the robot needs to get out of trouble. Given, it
    sets gamma_risk to 1 - dt / horizon."""
    risk_limit: float = 0.1
    """`eps_risk`: the task policy's action runs while its risk is at most this."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layer sizes of critic and recovery policy."""
    critics: int = 1
    """Ensemble members; the risk is their maximum."""
    loss: str = "mse"
    """`mse` on the probability (paper) or `bce` on the logit."""
    learning_rate: float = 3e-4
    """Adam rate of critic and recovery policy in Phases 2 and 3; Phase 1 has `meta.outer_rate`."""
    recovery_penalty: float = 1e-3
    """Weight of mean(pre-tanh^2): without it the recovery policy saturates to a constant."""
    recovery_noise: float = 0.1
    """Standard deviation of the exploration noise on executed recovery actions."""
    violation_fraction: float | None = None
    """Share of violating rows in each batch; `None` draws uniformly. In Phase 3 it is the least
    share: the other rows are drawn as they come."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.horizon is not None and not 0.0 < self.horizon < math.inf:
            raise ConfigurationError(f"horizon is {self.horizon}; expected seconds above 0.")
        if not 0.0 < self.gamma_risk < 1.0:
            raise ConfigurationError(f"gamma_risk is {self.gamma_risk}; expected 0 < value < 1.")
        require_share(self, "risk_limit", "violation_fraction")
        require_rate(self, "learning_rate")
        require_at_least(self, 0.0, "recovery_penalty", "recovery_noise")
        require_at_least(self, 1, "critics", "hidden")
        if self.loss not in ("mse", "bce"):
            raise ConfigurationError(f"risk loss is {self.loss!r}; expected 'mse' or 'bce'.")


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
class RecoveryConfig:
    """Who drives where a guard takes over."""

    kind: str = "network"
    """`network` (descends the critic; the paper's), `fixed` (one action), or one of your own."""
    objective: str = "risk"
    """What the network descends: `risk` (the paper) or its `logit`, which has a gradient also where
    the risk is nearly 1."""
    behaviour: float = 0.0
    """Weight of the squared distance to the logged action: what a unit of it must lower the risk
    (its logit) by. Off the data no critic knows what an action does."""
    action: tuple[float, ...] = ()
    """The action of `fixed`, in physical units, such as a full brake."""

    def __post_init__(self) -> None:
        """Refuses unknown objectives and actions that are no numbers."""
        if self.objective not in ("risk", "logit"):
            raise ConfigurationError(
                f"recovery.objective is {self.objective!r}; expected 'risk' or 'logit'."
            )
        require_at_least(self, 0.0, "behaviour")
        require_at_least(self, -sys.float_info.max, "action")


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
class TakeoverConfig:
    """The guard `takeover`: when it takes over, and what runs then."""

    limit: float | None = None
    """Risk above which it takes over; `None`: found from the data after Phase 2, just above what
    the critic says of calm states that the recovery holds."""
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
        require_share(self, "limit", "calm_share")
        require_at_least(self, 0, "candidates", "charge")
        if self.told not in ("proposal", "executed"):
            raise ConfigurationError(
                f"takeover.told is {self.told!r}; expected 'proposal' or 'executed'."
            )


MULTIPLIER_RANGE = (1e-6, 1e6)
"""Dual variables stay within: one that is always pushed the same way would overflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """What guards can be told beside the risk limit; each reads the fields that concern it."""

    actor_multiplier: float = 100.0
    """Lagrangian, SQRL, CSC: where the weight of risk in the actor's loss starts."""
    reward_multiplier: float = 100.0
    """RCPO: where the weight of risk in the reward starts."""
    multiplier_rate: float = 3e-4
    """Adam rate of the logarithm of either multiplier; 0 keeps it where it starts."""
    violation_penalty: float = 1_000.0
    """Reward penalty: what a violation costs."""
    samples: int = 100
    """SQRL, CSC: actions that are drawn before the least risky of them runs."""
    conservatism: float = 0.05
    """CSC: weight `alpha_c` of the conservative term of the safety loss."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        low, high = MULTIPLIER_RANGE
        for name in ("actor_multiplier", "reward_multiplier"):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}; expected {low:g} to {high:g}."
                )
        require_at_least(self, 0.0, "multiplier_rate", "violation_penalty", "conservatism")
        require_at_least(self, 2, "samples")


@dataclass(frozen=True, kw_only=True, slots=True)
class MetaConfig:
    """Phase 1. Each meta-learner reads the fields that concern it."""

    iterations: int = 10_000
    """Outer steps (Table 1)."""
    tasks: int = 5
    """K: tasks per outer step, drawn without replacement (at most the number of tasks)."""
    support_batch: int = 256
    """Rows per inner step and task."""
    query_batch: int = 256
    """Rows of the outer loss per task; also multi-task's batch."""
    inner_steps: int = 1
    inner_rate: float = 1.0
    """alpha_1, or where Meta-SGD's learned rates start. Printed 1e-3 adapts nothing."""
    outer_rate: float = 3e-4
    """Adam rate of the outer step (multi-task: of its only step). Printed 1e-5 under-trains."""
    step_size_rate: float = 1e-3
    """Meta-SGD: Adam rate of the logarithms of the inner rates."""
    recovery_rate: float = 3e-4
    """Adam rate of the recovery policy in Phase 1 (the paper's beta; not printed)."""
    recovery_logs: str = "train"
    """Whose states train the recovery policy in Phase 1: `train` (ours) or `test` (Algorithm 1)."""
    first_order: bool = False
    """Ignore second derivatives of the inner loop."""
    gradient_clip: float = 40.0
    """Global norm at which outer gradients are clipped."""
    target_rate: float = 1.0
    """Polyak rate of the critic that bootstraps; 1 bootstraps from the critic itself (the paper). A
    critic that follows the recovery policy needs a slow one: without, both talk each other into
    believing that nothing is dangerous."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 1, "tasks", "support_batch", "query_batch", "inner_steps")
        require_at_least(self, 0, "iterations")
        require_rate(
            self, "inner_rate", "outer_rate", "step_size_rate", "recovery_rate", "gradient_clip"
        )
        require_share(self, "target_rate")
        if self.recovery_logs not in ("train", "test"):
            raise ConfigurationError(
                f"recovery_logs is {self.recovery_logs!r}; expected 'train' or 'test'."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SACConfig:
    """The task learner, equal in every arm."""

    hidden: tuple[int, ...] = (256, 256)
    """Hidden layer sizes of actor and critics."""
    learning_rate: float = 3e-4
    """Adam rate of actor, critics and temperature."""
    discount: float = 0.99
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
