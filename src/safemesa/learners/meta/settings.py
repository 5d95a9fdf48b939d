"""What meta-learners can be told: one record each. Free of JAX, so that `--help` is quick."""

from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError
from safemesa.learners.config import require_at_least, require_rate, require_share


@dataclass(frozen=True, kw_only=True)
class NoPhase1Settings:
    """What a meta-learner that starts Phase 2 from fresh networks can be told: nothing."""


@dataclass(frozen=True, kw_only=True)
class MetaSettings(NoPhase1Settings):
    """Phase 1, whichever meta-learner learns."""

    iterations: int = 10_000
    """Outer steps (Table 1)."""
    query_batch: int = 256
    """Rows of the outer loss per task; multi-task: rows of a batch."""
    outer_rate: float = 3e-4
    """Adam rate of the outer step (multi-task: of its only step). Printed 1e-5 under-trains."""
    gradient_clip: float = 40.0
    """Global norm at which outer gradients are clipped."""
    target_rate: float = 1.0
    """Polyak rate of the critic that bootstraps; 1 bootstraps from the critic itself (the paper). A
    critic that follows the recovery policy needs a slow one: without, both talk each other into
    believing that nothing is dangerous."""
    recovery_rate: float = 3e-4
    """Adam rate of the recovery policy in Phase 1 (the paper's beta; not printed)."""
    recovery_logs: str = "train"
    """Whose states train the recovery policy in Phase 1: `train` (ours) or `test` (Algorithm 1)."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 1, "query_batch")
        require_at_least(self, 0, "iterations")
        require_rate(self, "outer_rate", "recovery_rate", "gradient_clip")
        require_share(self, "target_rate")
        if self.recovery_logs not in ("train", "test"):
            raise ConfigurationError(
                f"recovery_logs is {self.recovery_logs!r}; expected 'train' or 'test'."
            )


@dataclass(frozen=True, kw_only=True)
class MAMLSettings(MetaSettings):
    """Phase 1 by MAML: inner steps on a support set, an outer step on a query set."""

    tasks: int = 5
    """K: tasks per outer step, drawn without replacement (at most the number of tasks)."""
    support_batch: int = 256
    """Rows per inner step and task."""
    inner_steps: int = 1
    """Gradient steps on the support rows, in Phase 1 and first thing in Phase 2."""
    inner_rate: float = 1.0
    """alpha_1, or where Meta-SGD's learned rates start. Printed 1e-3 adapts nothing."""
    first_order: bool = False
    """Ignore second derivatives of the inner loop."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        require_at_least(self, 1, "tasks", "support_batch", "inner_steps")
        require_rate(self, "inner_rate")


@dataclass(frozen=True, kw_only=True)
class MetaSGDSettings(MAMLSettings):
    """Phase 1 by Meta-SGD: MAML whose inner rates are learned."""

    step_size_rate: float = 1e-3
    """Adam rate of the logarithms of the inner rates."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        super().__post_init__()
        require_rate(self, "step_size_rate")
