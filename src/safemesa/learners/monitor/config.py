"""What a dynamics monitor can be told. Free of JAX, so that `--help` is quick."""

from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError
from safemesa.learners.config import require_at_least, require_rate, require_share


@dataclass(frozen=True, kw_only=True, slots=True)
class MonitorConfig:
    """Notices in Phase 3 that the robot has changed, and what is done then.

    By default an alarm is recorded and nothing else: what Phase 2 makes of a changed robot's few
    rows was worse than what it replaced, where that was measured (docs/changing_robots.md).
    """

    enabled: bool = False
    """Watch the robot's dynamics in Phase 3."""
    networks: int = 5
    """Ensemble members."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layer sizes of each network."""
    learning_rate: float = 1e-3
    """Adam rate of the ensemble."""
    batch: int = 128
    """Rows per network and update."""
    fleet_updates: int = 4_000
    """Updates on the training logs."""
    log_updates: int = 1_500
    """Updates on the new robot's log beside the training logs."""
    every: int = 500
    """Steps of Phase 3 after which the ensemble learns from them, as long as there is no alarm."""
    updates: int = 300
    """Updates each time."""
    worth: float = 1_000.0
    """Rows of this robot that weigh in a batch as much as all training logs."""
    memory: int = 3_000
    """Newest healthy rows that say what is usual."""
    outside: float = 0.99
    """Rows on which the ensemble disagrees more than on this share of the usual ones are outside of
    what it was trained on, and speak for no change."""
    reference: float = 1.0
    """Rise of the mean score, in standard deviations, that is held for no change (k of CUSUM)."""
    false_alarms_per_hour: float = 0.1
    """Of a healthy robot, in hours of robot time; the threshold follows from it."""
    fleet_robots: int = 20
    """Training robots, each in turn held out as a new one, from which the threshold is found."""
    fleet_steps: int = 10_000
    """Most rows of each of them."""
    tighten: float = 1.0
    """The risk limit is multiplied by it from an alarm on until the residual is calm; 1: it
    stays."""
    adapt_again: bool = False
    """Phase 2 runs again in the run, with the rows since the change."""
    forget: bool = False
    """The safety critic forgets what this robot did before the change."""
    wait: int = 500
    """Rows since the change with which Phase 2 runs again."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 2, "networks", "fleet_robots")
        require_at_least(self, 1, "hidden", "batch", "every")
        require_at_least(self, 0, "fleet_updates", "log_updates", "updates", "worth")
        # As many as make a scale (`learners/monitor/surprise.py`), of which a part is held out.
        require_at_least(self, 400, "wait", "memory", "fleet_steps")
        require_rate(self, "learning_rate")
        require_share(self, "outside", "tighten")
        for name in ("reference", "false_alarms_per_hour"):
            if not getattr(self, name) > 0.0:
                raise ConfigurationError(
                    f"monitor.{name} is {getattr(self, name)}; expected a number above 0."
                )
