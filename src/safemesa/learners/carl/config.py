"""What CARL can be told. Free of JAX, so that `--help` is quick."""

import difflib
from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError
from safemesa.learners.config import require_at_least, require_rate, require_share

SOURCES = ("tasks", "logs")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannerBudget:
    """How much the planner and the model's online updates may compute."""

    population: int
    """Action sequences per iteration of the cross-entropy method."""
    elites: int
    """Best sequences, which the next Gaussian is fitted to."""
    iterations: int
    particles: int
    """Imagined roll-outs per sequence, shared equally among the networks."""
    kept_elites: int = 0
    """Best sequences of an iteration that the next one judges again."""
    replan_every: int = 1
    """Steps that a plan is followed before the next one is made."""
    updates_per_step: float = 5.0
    """Model updates after an episode of Phase 3, per step of that episode."""
    least_updates: int = 200
    most_updates: int = 2_000

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 1, "population", "elites", "iterations", "particles", "replan_every")
        require_at_least(self, 0, "kept_elites", "updates_per_step", "least_updates")
        if not self.kept_elites <= self.elites <= self.population:
            raise ConfigurationError(
                f"a planner keeps {self.kept_elites} of {self.elites} elites of "
                f"{self.population} sequences; expected kept_elites <= elites <= population."
            )
        if self.most_updates < self.least_updates:
            raise ConfigurationError(
                f"most_updates is {self.most_updates}; expected at least {self.least_updates}."
            )


PLANNER_BUDGETS = {
    # CARL's published HalfCheetah setting.
    "paper": PlannerBudget(population=500, elites=50, iterations=5, particles=20),
    # For accelerators.
    "lite": PlannerBudget(population=200, elites=20, iterations=3, particles=10),
    # For two cores.
    "mini": PlannerBudget(
        population=64,
        elites=8,
        iterations=2,
        particles=5,
        kept_elites=4,
        replan_every=2,
        updates_per_step=1.0,
        least_updates=50,
        most_updates=500,
    ),
}
"""Planners by name; `mini` and `lite` are checked against `paper` (`benchmarks/planners.py`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CARLConfig:
    """CARL (State): numbers of the published code where this says nothing else."""

    source: str = "logs"
    """What the model is pretrained on: `tasks` (CARL: driving in the training tasks) or `logs`
    (CARL-Offline: the training logs)."""
    use_test_log: bool = False
    """Whether the model also learns from the new robot's log before it is deployed."""
    budget: str = "paper"
    """Size of the planner: `paper`, `lite` (accelerators) or `mini` (two cores)."""
    horizon: int = 25
    """Steps that are planned ahead."""
    catastrophe_penalty: float = 1e4
    """Cost of each imagined step that a network holds for a violation (lambda)."""
    catastrophe_threshold: float = 0.5
    """Probability above which a network holds a step for a violation (beta)."""
    smoothing: float = 0.1
    """Share of the last Gaussian in the next one (alpha)."""
    networks: int = 5
    """Ensemble members."""
    hidden: tuple[int, ...] = (200, 200, 200)
    """Hidden layer sizes of each network."""
    weight_decay: tuple[float, ...] = (2.5e-4, 5e-4, 5e-4, 7.5e-4)
    """Of each layer's weights."""
    learning_rate: float = 1e-3
    """Adam rate of the model."""
    batch: int = 256
    """Rows per network and update."""
    log_updates: int = 20_000
    """Updates on the training logs (`source` is `logs`)."""
    source_episodes: int = 100
    """Episodes in the training tasks (`source` is `tasks`)."""
    source_epochs: float = 5.0
    """Passes over all data after each of these episodes."""
    test_log_updates: int = 1_000
    """Updates on the training data and the new robot's log, half and half (`use_test_log`)."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 1, "horizon", "networks", "hidden", "batch", "source_episodes")
        require_at_least(
            self, 0, "catastrophe_penalty", "weight_decay", "log_updates", "test_log_updates"
        )
        require_at_least(self, 0.0, "source_epochs")
        require_share(self, "catastrophe_threshold", "smoothing")
        require_rate(self, "learning_rate")
        if self.source not in SOURCES:
            raise ConfigurationError(f"carl.source is {self.source!r}; expected 'tasks' or 'logs'.")
        if len(self.weight_decay) != len(self.hidden) + 1:
            raise ConfigurationError(
                f"carl.weight_decay has {len(self.weight_decay)} numbers for {len(self.hidden)} "
                f"hidden layers; expected one per layer, {len(self.hidden) + 1}."
            )
        particles = self.planner.particles
        if particles % self.networks:
            raise ConfigurationError(
                f"{particles} particles (carl.budget {self.budget}) cannot be shared equally "
                f"among {self.networks} networks. Choose carl.networks as a divisor of them."
            )

    @property
    def planner(self) -> PlannerBudget:
        """The numbers of the named budget.

        Raises:
            ConfigurationError: unknown.
        """
        if self.budget not in PLANNER_BUDGETS:
            close = difflib.get_close_matches(self.budget, PLANNER_BUDGETS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"unknown carl.budget {self.budget!r}.{hint} Known: {', '.join(PLANNER_BUDGETS)}."
            )
        return PLANNER_BUDGETS[self.budget]
