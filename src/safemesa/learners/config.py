"""What learners can be told. Free of JAX, so that `--help` is quick."""

from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskConfig:
    """What every arm shares about the safety critic and the recovery policy."""

    gamma_risk: float = 0.8
    """Discount of future violations (Table 1)."""
    risk_limit: float = 0.1
    """`eps_risk`: the task policy's action runs while its risk is at most this."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layer sizes of critic and recovery policy."""
    critics: int = 1
    """Ensemble members; the risk is their maximum."""
    loss: str = "mse"
    """`mse` on the probability (paper) or `bce` on the logit."""
    learning_rate: float = 3e-4
    """Adam rate of critic and recovery policy in Phases 2 and 3 (and of multi-task's Phase 1)."""
    recovery_penalty: float = 1e-3
    """Weight of mean(pre-tanh^2): without it the recovery policy saturates to a constant."""
    recovery_noise: float = 0.1
    """Standard deviation of the exploration noise on executed recovery actions."""
    violation_fraction: float | None = None
    """Share of violating rows in each batch; `none` draws uniformly."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if not 0.0 < self.gamma_risk < 1.0:
            raise ConfigurationError(f"gamma_risk is {self.gamma_risk}; expected 0 < value < 1.")
        if not 0.0 <= self.risk_limit <= 1.0:
            raise ConfigurationError(f"risk_limit is {self.risk_limit}; expected 0 to 1.")
        if self.loss not in ("mse", "bce"):
            raise ConfigurationError(f"risk loss is {self.loss!r}; expected 'mse' or 'bce'.")
        if self.critics < 1:
            raise ConfigurationError(f"critics is {self.critics}; expected at least 1.")


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
