"""Which runs each figure of the paper needs. Free of JAX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.arms import configure
from safemesa.experiments.grid.grid_folder import GridRun
from safemesa.phases.config import RunConfig

PAPER_ARMS = ("mesa", "multitask", "rrl", "carl", "carl_offline", "unconstrained")
"""The algorithms that Figures 4 and 5 compare."""

TEST_SHARES = (1, 2, 4, 8, 16)
"""Figure 6a: the test log is divided by these."""

Change = Callable[[RunConfig], RunConfig]


def _unchanged(config: RunConfig) -> RunConfig:
    return config


def _one_episode(config: RunConfig) -> RunConfig:
    """For what is shown before Phase 3."""
    return replace(config, deploy=replace(config.deploy, episodes=1, steps=None))


def _share(part: int) -> Change:
    def change(config: RunConfig) -> RunConfig:
        size = max(1, config.data.test_transitions // part)
        return replace(config, data=replace(config.data, test_transitions=size))

    return change


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """An arm on a domain, with a setting that the figure varies."""

    arm: str
    domain: str
    variant: str = ""
    change: Change = _unchanged


@dataclass(frozen=True, kw_only=True, slots=True)
class FigurePlan:
    """A figure of the paper.

    Attributes:
        title: What it shows.
        conditions: Its runs, seeds aside.
    """

    title: str
    conditions: tuple[Condition, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(dict.fromkeys(one.domain for one in self.conditions))

    def runs(self, preset: str, seeds: Sequence[int], data_seed: int = 0) -> tuple[GridRun, ...]:
        """All runs, seed by seed: what is there when time is up is whole pairs."""
        return tuple(
            GridRun(
                config=replace(
                    one.change(configure(one.arm, one.domain, preset)),
                    seed=seed,
                    data_seed=data_seed,
                ),
                variant=one.variant,
            )
            for seed in seeds
            for one in self.conditions
        )


def _compared(*domains: str) -> tuple[Condition, ...]:
    return tuple(Condition(arm=arm, domain=domain) for domain in domains for arm in PAPER_ARMS)


PLANS: dict[str, FigurePlan] = {
    "figure2": FigurePlan(
        title="Risk over the maze while the prior adapts to the test log",
        conditions=tuple(
            Condition(arm=arm, domain="maze", variant="figure2", change=_one_episode)
            for arm in ("mesa", "multitask")
        ),
    ),
    "figure3": FigurePlan(title="The domains", conditions=()),
    "figure4": FigurePlan(title="Navigation", conditions=_compared("navigation1", "navigation2")),
    "figure5": FigurePlan(
        title="Locomotion", conditions=_compared("cartpole", "halfcheetah", "ant")
    ),
    "figure6a": FigurePlan(
        title="Size of the test log",
        conditions=tuple(
            Condition(
                arm="mesa",
                domain="halfcheetah",
                variant="" if part == 1 else f"test-1of{part}",
                change=_share(part),
            )
            for part in TEST_SHARES
        ),
    ),
    "figure6b": FigurePlan(
        title="Partial joint failures",
        conditions=tuple(
            Condition(arm=arm, domain="halfcheetah_partial") for arm in ("mesa", "multitask")
        ),
    ),
}


def find_plan(name: str) -> FigurePlan:
    """The plan of a figure.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if name not in PLANS:
        raise ConfigurationError(f"unknown figure {name!r}; expected one of {', '.join(PLANS)}.")
    return PLANS[name]
