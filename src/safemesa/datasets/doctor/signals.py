"""What each signal of a task does: its range, how it changes, and whether it freezes or jumps."""

from dataclasses import dataclass, replace

import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.doctor.cells import Places, Report
from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.assemble import Steps

SAMPLE_PER_BLOCK = 512
LARGEST_SAMPLE = 32_768
SMALLEST_SAMPLE = 100
"""Rows without which nothing is said about what is usual."""
FROZEN_STEPS = 20
"""Steps that a signal must stand still to count as frozen."""
CHANGING = 0.9
"""Share of steps in which a signal must change for standing still to be suspicious."""
JUMP = 5.0
"""Times the 99 % quantile of a step, in the median of the signals, that a reset must exceed."""
SENTINEL_TIMES = 3
SENTINEL_DISTANCE = 10.0
"""Times the spread of all other values that a stand-in for a missing value lies away."""


@dataclass
class Extreme:
    """The smallest or largest value of a signal, how often it occurs, and first where."""

    value: float
    count: int = 0
    place: Finding | None = None


class SignalScan:
    """Takes the steps of a task in order. `rows` is a bounded sample of obs and action."""

    def __init__(self, spaces: Spaces) -> None:
        """Nothing is known yet."""
        width = spaces.obs_size
        self.spaces = spaces
        self.changes = np.zeros(width, np.int64)
        """Steps in which each signal changed."""
        self.pairs = 0
        """Pairs of rows that follow each other within an episode."""
        self.low = [Extreme(value=np.inf) for _ in range(width)]
        self.high = [Extreme(value=-np.inf) for _ in range(width)]
        self.action_low = np.full(spaces.action_size, np.inf)
        self.action_high = np.full(spaces.action_size, -np.inf)
        self.alike = np.zeros(width, np.int64)
        """A number per signal; those that were equal in every row so far share it."""
        self._run = np.zeros(width, np.int64)
        self._longest_run = np.zeros(width, np.int64)
        self._run_places: list[Finding | None] = [None] * width
        self._rows: list[np.ndarray] = []
        self._jumps: list[np.ndarray] = []
        self._candidates: list[tuple[np.ndarray, Finding]] = []
        self._sampled = 0
        self._rng = np.random.default_rng(0)

    @property
    def rows(self) -> np.ndarray:
        """A sample of obs and action side by side, `[n, o + a]`."""
        width = self.spaces.obs_size + self.spaces.action_size
        return np.concatenate(self._rows) if self._rows else np.zeros((0, width))

    def add(self, steps: Steps, places: Places) -> None:
        """Ranges, equal signals, jumps and a sample."""
        self.action_low = np.minimum(self.action_low, steps.action.min(axis=0))
        self.action_high = np.maximum(self.action_high, steps.action.max(axis=0))
        lowest, highest = steps.obs.min(axis=0), steps.obs.max(axis=0)
        for index in range(self.spaces.obs_size):
            self._extend(self.low[index], steps, index, float(lowest[index]), -1, places)
            self._extend(self.high[index], steps, index, float(highest[index]), 1, places)
        self.alike = _refined(self.alike, steps.obs)
        jump = np.abs(steps.next_obs - steps.obs)
        if self._sampled < LARGEST_SAMPLE:
            count = min(SAMPLE_PER_BLOCK, len(steps))
            chosen = self._rng.choice(len(steps), count, replace=False)
            self._rows.append(np.concatenate([steps.obs, steps.action], axis=1)[chosen])
            self._jumps.append(jump[chosen])
            self._sampled += count
        typical = _typical(self._jumps[0])
        size = np.median(jump / typical, axis=1)
        for index in np.argsort(size)[-3:]:
            # A copy: a view would keep the whole block.
            place = places.finding("state-jump", int(index))
            self._candidates.append((jump[index].copy(), place))

    def add_pairs(self, still: np.ndarray, same: np.ndarray, places: Places, offset: int) -> None:
        """Runs in which a signal stands still.

        `still[i]` and `same[i]` compare a row with the one before: equal within an episode, and
        of one episode; `offset` rows of them are older than the block of `places`.
        """
        self.pairs += int(same.sum())
        self.changes += (~still & same[:, None]).sum(axis=0)
        if not len(still):
            return
        position = np.arange(1, len(still) + 1)[:, None]
        broken = np.maximum.accumulate(np.where(still, 0, position), axis=0)
        run = position - broken + np.where(broken == 0, self._run, 0)
        longest = run.max(axis=0)
        for index in np.flatnonzero(longest > self._longest_run):
            end = int(np.argmax(run[:, index])) + 1 - offset
            self._longest_run[index] = longest[index]
            detail = f"for {int(longest[index]) + 1} rows"
            begin = max(end - int(longest[index]), 0)
            name = self.spaces.obs_names[index]
            self._run_places[index] = places.finding("stuck-signal", begin, name, detail)
        self._run = run[-1]

    def finish(self, report: Report) -> None:
        """Reports what is unusual for this task."""
        for index, place in enumerate(self._run_places):
            frozen = self._longest_run[index] >= FROZEN_STEPS
            if place is not None and frozen and self.changes[index] >= CHANGING * self.pairs:
                report(place)
        if self._sampled < SMALLEST_SAMPLE:
            return
        rows = self.rows
        typical = _typical(np.concatenate(self._jumps))
        for jump, place in self._candidates:
            size = float(np.median(jump / typical))
            if size > JUMP:
                report(replace(place, detail=f"{size:.0f} times a large step"))
        for index in range(self.spaces.obs_size):
            for extreme in (self.low[index], self.high[index]):
                self._judge_sentinel(extreme, rows[:, index], report)

    def _extend(
        self, known: Extreme, steps: Steps, index: int, value: float, sign: int, places: Places
    ) -> None:
        """Moves an extreme outwards, or counts it again."""
        if sign * (value - known.value) < 0:
            return
        values = steps.obs[:, index]
        if sign * (value - known.value) > 0:
            at = int(np.argmax(values == value))
            known.place = places.finding("sentinel-value", at, self.spaces.obs_names[index])
            known.value, known.count = value, 0
        if value == known.value:
            known.count += int((values == value).sum())

    def _judge_sentinel(self, extreme: Extreme, sample: np.ndarray, report: Report) -> None:
        if extreme.count < SENTINEL_TIMES:
            return
        others = sample[sample != extreme.value]
        if len(others) < SMALLEST_SAMPLE:
            return
        low, middle, high = np.quantile(others, [0.01, 0.5, 0.99])
        far = abs(extreme.value - middle) > SENTINEL_DISTANCE * (high - low) > 0
        if far and extreme.place is not None:
            detail = f"{extreme.value:.6g}; others lie in [{low:.4g}, {high:.4g}]"
            report(replace(extreme.place, count=extreme.count, detail=detail))


def _refined(alike: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Splits groups of signals by their columns; no two signals are compared."""
    groups: dict[tuple[int, bytes], int] = {}
    found = [
        # Adding 0 makes -0 and 0 the same bytes.
        groups.setdefault((int(group), (column + 0.0).tobytes()), len(groups))
        for group, column in zip(alike, np.ascontiguousarray(values.T), strict=True)
    ]
    return np.asarray(found, np.int64)


def _typical(jumps: np.ndarray) -> np.ndarray:
    """A large step of each signal; without end for signals that never move."""
    typical = np.quantile(jumps, 0.99, axis=0)
    return np.where(typical > 0, typical, np.inf)
