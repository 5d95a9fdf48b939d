"""One pass over the transitions of a task: what can only be judged over many rows."""

from dataclasses import dataclass, field, replace

import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.doctor.cells import Places, Report
from safemesa.datasets.doctor.fingerprints import Fingerprints
from safemesa.datasets.doctor.signals import SignalScan
from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.assemble import Steps
from safemesa.datasets.importers.rows import join_rows, take_rows

RARE = 0.01
"""Repeated rows in fewer steps than this are faults; in more they are how the robot behaves."""
MIXED = 0.05
"""Share of violations that may end (or not end) their episode against the habit of the others."""
CONTINUITY = 1e-4
"""Relative rounding between a next observation and the following row's."""


@dataclass
class TaskScan:
    """What is known of one task; `add` is called with its transitions in order."""

    task: str
    spaces: Spaces
    files: list[str]
    role: str = "train"
    transitions: int = 0
    violations: int = 0
    violation_events: int = 0
    """Times that a violation begins; one that lasts for many rows counts once."""
    longest: int = 0
    repeated: int = 0
    ended: int = 0
    """Violations that terminate their episode."""
    passed: int = 0
    """Violations after which the episode goes on."""
    place: Finding | None = None
    """The first row."""
    too_long: Finding | None = None
    _passed_place: Finding | None = None
    _repeated_place: Finding | None = None
    _last: Steps | None = None
    signals: SignalScan = field(init=False)
    episodes: Fingerprints = field(init=False)

    def __post_init__(self) -> None:
        """Empty statistics."""
        self.signals = SignalScan(self.spaces)
        self.episodes = Fingerprints(self.spaces)

    def add(self, steps: Steps, report: Report) -> None:
        """Takes the next transitions, all finite; reports what can be judged at once."""
        if not len(steps):
            return
        places = Places(steps, self.files, report)
        self.place = self.place or places.finding("empty-log", 0)
        self.transitions += len(steps)
        self.violations += int((steps.cost == 1).sum())
        longest = int(steps.step.max()) + 1
        if longest > self.longest:
            self.longest = longest
            self.too_long = places.finding("episode-too-long", int(np.argmax(steps.step)))
        self._ends(steps, places)
        self._neighbours(steps, places)
        self.signals.add(steps, places)
        self.episodes.add(steps, report, self.files)
        self._last = take_rows(steps, np.array([len(steps) - 1]))

    def finish(self, report: Report) -> None:
        """Reports what needed the whole task."""
        if self._repeated_place is not None and self.repeated < RARE * self.signals.pairs:
            report(replace(self._repeated_place, count=self.repeated))
        if self._passed_place is not None and min(self.ended, self.passed) > (
            MIXED * self.violations
        ):
            detail = f"{self.ended} end their episode, {self.passed} do not"
            report(replace(self._passed_place, count=self.passed, detail=detail))
        self.signals.finish(report)

    def _ends(self, steps: Steps, places: Places) -> None:
        """Whether violations end episodes, and whether every episode ends once."""
        cost, ended = steps.cost == 1, (steps.terminated == 1) | (steps.truncated == 1)
        passed = cost & ~steps.last
        self.ended += int((cost & (steps.terminated == 1)).sum())
        self.passed += int(passed.sum())
        if self._passed_place is None and passed.any():
            index = int(np.argmax(passed))
            self._passed_place = places.finding("violation-ends-sometimes", index, "terminated")
        places.tell("no-end", steps.last & ~ended, "truncated")

    def _neighbours(self, steps: Steps, places: Places) -> None:
        """Each row with the one before: continuity, repetitions, frozen signals."""
        both = steps if self._last is None else join_rows([self._last, steps])
        offset = len(both) - len(steps)
        same = (both.episode[1:] == both.episode[:-1]) & (np.diff(both.step) == 1)
        bad = both.cost == 1
        goes_on = bad[1:] & bad[:-1] & (both.episode[1:] == both.episode[:-1])
        self.violation_events += int(bad[offset:].sum()) - int(goes_on.sum())
        obs, following = both.obs[1:], both.next_obs[:-1]
        apart = np.abs(obs - following) > CONTINUITY * (1.0 + np.abs(obs))
        # A pair is named by its second row, which is always in this block.
        first = np.zeros(1 - offset, np.bool_)
        second = np.concatenate([first, apart.any(axis=1) & same])
        places.tell("next-obs-mismatch", second, "next_obs")
        still = (both.obs[1:] == both.obs[:-1]) & same[:, None]
        repeated = still.all(axis=1) & (both.action[1:] == both.action[:-1]).all(axis=1)
        self.repeated += int(repeated.sum())
        if self._repeated_place is None and repeated.any():
            index = int(np.argmax(repeated)) + 1 - offset
            self._repeated_place = places.finding("repeated-row", index)
        self.signals.add_pairs(still, same, places, offset)
