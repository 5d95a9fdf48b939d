"""Where drivers start: calm states and states before harm, of the robot that is asked about."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.streams import Stream, generator, root_key
from safemesa.core.types import PyTree
from safemesa.datasets.task_log import TaskLog
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.domains.host import AbstractHostDomain
from safemesa.experiments.measures.run_contents import replay_columns
from safemesa.phases.collection.compiled import collect_log
from safemesa.phases.collection.host import random_log

CALM, BEFORE = "calm", "before"
"""The two kinds of starts."""

BLOCK_ROWS, BLOCKS = 4_000, 15
"""The random policy is logged in blocks of so many rows: as many as it takes, up to this number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkillSettings:
    """What is asked, and how often."""

    starts: int = 60
    """States of either kind to start from."""
    horizon: int = 100
    """Steps for which no violation may come."""
    before: int = 8
    """Steps before a logged violation at which the second kind of start lies."""
    labels: int = 200
    """States of Phase 3 of which it is found out whether recovery still saves them; 0: none."""
    states: str = "random"
    """Where starts come from: a log of the `random` policy, made for it, or the run's `replay`."""
    candidates: int = 0
    """Actions of which the one of least risk is tried as a driver of its own; 0: it is not."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        least = {"starts": 1, "horizon": 1, "before": 0, "labels": 0, "candidates": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}; expected {lowest} or more."
                )
        if self.states not in ("random", "replay"):
            raise ConfigurationError(f"states is {self.states!r}; expected 'random' or 'replay'.")

    @property
    def calm_steps(self) -> int:
        """Steps of the log after a calm state that do not violate."""
        return max(2 * self.before, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Starts:
    """Observations to start from; `source` says in words where they are from."""

    calm: Float[np.ndarray, "calm obs"]
    before: Float[np.ndarray, "before obs"]
    source: str

    def of(self, kind: str) -> Float[np.ndarray, "n obs"]:
        """Those of a kind."""
        return self.calm if kind == CALM else self.before


def find_starts(domain: AbstractDomain, task: PyTree, seed: int, settings: SkillSettings) -> Starts:
    """Starts from a log of the random policy on the test robot, made as long as it takes.

    They depend on these arguments alone, so that all arms of a seed start from the same states.

    Raises:
        ConfigurationError: the domain cannot be simulated.
        DatasetError: no state of either kind was met.
    """
    rng = generator(seed, Stream.SKILL_STARTS)
    found: dict[str, list[np.ndarray]] = {CALM: [], BEFORE: []}
    rows = 0
    for block in range(BLOCKS):
        log = _random_log(domain, task, seed, block, settings.calm_steps)
        rows += log.transitions
        for kind, numbers in start_rows(log, settings, rng).items():
            found[kind].append(np.asarray(log.columns["obs"])[numbers])
        if all(sum(map(len, parts)) >= settings.starts for parts in found.values()):
            break
    pools = {kind: np.concatenate(parts) for kind, parts in found.items()}
    source = f"{rows} steps of the random policy"
    return _drawn(pools, settings, rng, source)


def replay_starts(folder: Path, seed: int, settings: SkillSettings) -> Starts | None:
    """Starts from the episodes of a run; None where it holds too few of one kind.

    Raises:
        CheckpointError: metrics or replay are missing or damaged.
    """
    log, rng = _as_log(replay_columns(folder)), generator(seed, Stream.SKILL_STARTS)
    rows = start_rows(log, settings, rng)
    if min(map(len, rows.values())) < settings.starts:
        return None
    pools = {kind: np.asarray(log.columns["obs"])[numbers] for kind, numbers in rows.items()}
    return _drawn(pools, settings, rng, f"{log.transitions} steps of the run's replay")


def _as_log(columns: Mapping[str, np.ndarray]) -> TaskLog:
    names = ("obs", "cost", "terminated", "episode")
    return TaskLog(name="replay", role="test", columns={name: columns[name] for name in names})


def _drawn(
    pools: Mapping[str, np.ndarray], settings: SkillSettings, rng: np.random.Generator, source: str
) -> Starts:
    if not any(map(len, pools.values())):
        raise DatasetError(
            f"no state to start from in {source}: none comes {settings.before} steps before a "
            f"violation, and after none {settings.calm_steps} steps are safe. Try another --before."
        )
    chosen = {
        kind: pool[np.sort(rng.permutation(len(pool))[: settings.starts])]
        for kind, pool in pools.items()
    }
    return Starts(calm=chosen[CALM], before=chosen[BEFORE], source=source)


def start_rows(
    log: TaskLog, settings: SkillSettings, rng: np.random.Generator
) -> dict[str, Int[np.ndarray, " rows"]]:
    """Numbers of the rows of a log that can be started from, by kind; none begins in a violation.

    A state before harm is left exactly `before` steps ahead of the step that violates; there is one
    per violation. After a calm one the log goes on, or ends by itself, without a violation for
    `calm_steps`; of an episode's calm states those are taken that are as far apart, in an order
    that `rng` decides.
    """
    left = log.steps_to_violation
    begins = np.zeros(log.transitions, np.bool_)
    begins[log.safe_starts] = True
    episode = np.asarray(log.columns["episode"])
    last = np.flatnonzero(np.append(episode[1:] != episode[:-1], True))
    end = last[np.searchsorted(last, np.arange(log.transitions))]
    known = np.asarray(log.columns["terminated"])[end] > 0.5
    known |= end - np.arange(log.transitions) >= settings.calm_steps - 1
    calm = np.flatnonzero(begins & known & (left >= settings.calm_steps))
    return {
        CALM: _apart(calm, episode, settings.calm_steps, rng),
        BEFORE: np.flatnonzero(begins & (left == settings.before)),
    }


def _apart(
    rows: Int[np.ndarray, " rows"],
    episode: Int[np.ndarray, " n"],
    steps: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " some"]:
    """Rows of which no two of one episode are within `steps`."""
    taken: dict[int, list[int]] = {}
    for row in rng.permutation(rows).tolist():
        others = taken.setdefault(int(episode[row]), [])
        if all(abs(row - other) >= steps for other in others):
            others.append(row)
    return np.sort(np.asarray([row for some in taken.values() for row in some], np.int64))


def _random_log(domain: AbstractDomain, task: PyTree, seed: int, block: int, extra: int) -> TaskLog:
    """A block of the random policy's rollouts, each of which goes on for `extra` steps."""
    if isinstance(domain, AbstractHostDomain):
        return random_log(
            replace(domain, log_length=domain.log_length + extra),
            task,
            BLOCK_ROWS,
            seed=BLOCKS * seed + block,
            stream=Stream.SKILL_LOG,
            name="starts",
            role="test",
            terminate_on_violation=True,
        )
    if not isinstance(domain, AbstractJaxDomain):
        raise ConfigurationError(f"{domain.name} cannot be simulated; no recovery can be asked.")
    key = jax.random.fold_in(root_key(seed, Stream.SKILL_LOG), block)
    return collect_log(
        domain, task, BLOCK_ROWS, key=key, name="starts", role="test", extra_steps=extra
    )
