"""Does a recovery recover? It drives the test robot alone, from calm states and from before harm.

No Phase 3 is needed: a prior can be asked as well as what Phase 3 made of it. Where there is a
Phase 3, it is also asked when recovery must take over (`takeover_truth`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from safemesa.experiments.measures.log_metrics import exact_interval
from safemesa.experiments.measures.run_contents import replay_columns
from safemesa.experiments.recovery_skill.drivers import (
    AbstractDriver,
    hand_made,
    least_risk_driver,
    no_action,
    random_actions,
    recovery_driver,
)
from safemesa.experiments.recovery_skill.rollouts import Simulator, make_simulator
from safemesa.experiments.recovery_skill.skill_starts import (
    BEFORE,
    CALM,
    SkillSettings,
    Starts,
    find_starts,
    replay_starts,
)
from safemesa.experiments.recovery_skill.subjects import NamedModel, Subject
from safemesa.experiments.recovery_skill.takeover_truth import (
    MetStates,
    Truth,
    draw_states,
    takeover_truth,
)
from safemesa.phases.collection.tasks import sample_test_task
from safemesa.phases.progress import NoProgress, Progress
from safemesa.phases.storage.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Skill:
    """How one driver fared from one kind of start.

    Attributes:
        driver: Who drove.
        model: Whose recovery or critic that is; None for yardsticks, which learn nothing.
        states: `CALM` or `BEFORE`.
        n: Number of starts.
        violated: How many of them ended in a violation.
        steps_median: Median number of steps to these violations; None without one.
    """

    driver: str
    model: str | None
    states: str
    n: int
    violated: int
    steps_median: float | None

    @property
    def share(self) -> float:
        """Of the starts that ended in a violation."""
        return self.violated / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's, of at least 95 %."""
        return exact_interval(self.violated, self.n)


@dataclass(frozen=True, kw_only=True, eq=False)
class SkillReport:
    """What was found of one subject.

    Attributes:
        starts: Where the drivers started.
        skills: Yardsticks first, then the models in the order of the phases.
        met: The states of Phase 3 that were labelled; None where there was none to look at.
        truths: One per model; none without `met`.
    """

    subject: Subject
    starts: Starts
    skills: tuple[Skill, ...]
    met: MetStates | None
    truths: tuple[Truth, ...]


def measure_skill(
    subjects: Sequence[Subject], settings: SkillSettings, progress: Progress | None = None
) -> list[SkillReport]:
    """Asks all subjects; those with the same robot share its starts and yardsticks.

    Raises:
        ConfigurationError: a robot cannot be put into an observed state.
        DatasetError: no state to start from was found.
        CheckpointError: a run folder is damaged.
    """
    robots: dict[tuple[str, int], list[int]] = {}
    for index, one in enumerate(subjects):
        robots.setdefault((one.config.domain, one.seed), []).append(index)
    ticks = _Ticks(progress or NoProgress(), sum(1 + 2 * len(one.models) for one in subjects))
    reports: dict[int, SkillReport] = {}
    for group in robots.values():
        found = _of_one_robot([subjects[index] for index in group], settings, ticks)
        reports |= dict(zip(group, found, strict=True))
    ticks.progress.finish()
    return [reports[index] for index in range(len(subjects))]


class _Ticks:
    """Counts what is done: one for the yardsticks of a subject, and two for each of its models."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done = progress, 0
        progress.start("skill", total, 0)

    def __call__(self) -> None:
        self.done += 1
        self.progress.update(self.done)


def _of_one_robot(
    subjects: Sequence[Subject], settings: SkillSettings, tick: Callable[[], None]
) -> Iterator[SkillReport]:
    """Reports of subjects with the same robot."""
    domain, seed = subjects[0].domain, subjects[0].seed
    task = sample_test_task(domain, seed)
    simulator = make_simulator(domain, task)
    shared: tuple[Starts, list[Skill]] | None = None
    try:
        for subject in subjects:
            own = _own_starts(subject, settings)
            if own is not None:
                starts, yardsticks = own, _yardsticks(simulator, subject, own, settings)
            else:
                if shared is None:
                    common = find_starts(domain, task, seed, settings)
                    shared = common, _yardsticks(simulator, subject, common, settings)
                starts, yardsticks = shared
            tick()
            learned = [_learned(simulator, subject, one, starts, settings, tick)
                       for one in subject.models]  # fmt: skip
            met, truths = _truths(simulator, subject, settings, tick)
            yield SkillReport(
                subject=subject,
                starts=starts,
                skills=(*yardsticks, *(skill for some in learned for skill in some)),
                met=met,
                truths=truths,
            )
    finally:
        simulator.close()


def _own_starts(subject: Subject, settings: SkillSettings) -> Starts | None:
    """Starts from the subject's own replay, where they are asked for and there are enough."""
    if settings.states != "replay" or not _met_any(subject):
        return None
    return replay_starts(subject.path, subject.seed, settings)


def _met_any(subject: Subject) -> bool:
    """Whether an episode of Phase 3 ended."""
    folder = RunFolder(subject.path)
    return subject.replay and folder.metrics.path.is_file() and bool(folder.metrics.read())


def _yardsticks(
    simulator: Simulator, subject: Subject, starts: Starts, settings: SkillSettings
) -> list[Skill]:
    """Drivers that learn nothing."""
    spaces = subject.domain.spaces
    drivers = {"no action": no_action(spaces), "random actions": random_actions(spaces)}
    known = hand_made(subject.domain)
    if known is not None:
        drivers[known[0]] = known[1]
    return [
        skill
        for name, driver in drivers.items()
        for skill in skills_of(simulator, driver, name, None, starts, settings, subject.seed)
    ]


def _learned(
    simulator: Simulator,
    subject: Subject,
    named: NamedModel,
    starts: Starts,
    settings: SkillSettings,
    tick: Callable[[], None],
) -> list[Skill]:
    """The recovery of a model and, where it is asked for, its critic's action of least risk."""
    spaces = subject.domain.spaces
    drivers: dict[str, AbstractDriver] = {"recovery": recovery_driver(named.model, spaces)}
    if settings.candidates:
        drivers["least risk"] = least_risk_driver(named.model, spaces, settings.candidates)
    found = [
        skill
        for name, driver in drivers.items()
        for skill in skills_of(simulator, driver, name, named.name, starts, settings, subject.seed)
    ]
    tick()
    return found


def skills_of(
    simulator: Simulator,
    driver: AbstractDriver,
    name: str,
    model: str | None,
    starts: Starts,
    settings: SkillSettings,
    seed: int,
) -> list[Skill]:
    """How one driver fares from either kind of start; nothing is said of a kind without any."""
    found = []
    for kind in (CALM, BEFORE):
        obs = starts.of(kind)
        if not len(obs):
            continue
        driven = simulator.drive(driver, obs, settings.horizon, seed=seed)
        lengths = driven.violated_at[driven.violated] + 1
        found.append(
            Skill(
                driver=name,
                model=model,
                states=kind,
                n=len(obs),
                violated=len(lengths),
                steps_median=float(np.median(lengths)) if len(lengths) else None,
            )
        )
    return found


def _truths(
    simulator: Simulator, subject: Subject, settings: SkillSettings, tick: Callable[[], None]
) -> tuple[MetStates | None, tuple[Truth, ...]]:
    """The states of Phase 3, labelled for each model."""
    if not settings.labels or not _met_any(subject):
        for _ in subject.models:
            tick()
        return None, ()
    columns = replay_columns(subject.path)
    met = draw_states(columns, settings.labels, settings.before, subject.seed)
    truths = []
    for named in subject.models:
        truths.append(
            takeover_truth(
                simulator, named, met, subject.domain.spaces, settings.horizon, subject.seed
            )
        )
        tick()
    return met, tuple(truths)
