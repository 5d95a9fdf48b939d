"""Paired timing: in every round each subject runs once, so a busy machine slows all of them."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Something to time: `run` takes `steps` steps and returns when their results are there."""

    run: Callable[[], None]
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of the report. Values are None where nothing could be measured; `note` says why."""

    name: str
    value: float | None
    unit: str
    runs: int
    min: float | None
    max: float | None
    note: str | None = None

    def to_json(self) -> str:
        """The line as JSON, without an empty note."""
        fields = asdict(self)
        if self.note is None:
            del fields["note"]
        return json.dumps(fields)


def time_rounds(
    subjects: Mapping[str, Subject], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds per step of every subject and round.

    One uncounted run of each compiles and warms up. The order rotates from round to round, so
    that no subject always follows the same other one.
    """
    names = list(subjects)
    for name in names:
        subjects[name].run()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = clock()
            subjects[name].run()
            seconds[name].append((clock() - began) / subjects[name].steps)
    return seconds


def summarise(name: str, values: Sequence[float], unit: str, note: str | None = None) -> Line:
    """Median, smallest and largest of the values."""
    return Line(
        name=name,
        value=_rounded(statistics.median(values)),
        unit=unit,
        runs=len(values),
        min=_rounded(min(values)),
        max=_rounded(max(values)),
        note=note,
    )


def ratio(name: str, slower: Sequence[float], faster: Sequence[float]) -> Line:
    """How many times as long `slower` takes: the median over rounds of the paired ratios."""
    pairs = zip(slower, faster, strict=True)
    return summarise(name, [one / other for one, other in pairs], "ratio")


def milliseconds(name: str, seconds: Sequence[float]) -> Line:
    """A time per step."""
    return summarise(name, [1e3 * value for value in seconds], "ms")


def absent(name: str, unit: str, why: str) -> Line:
    """A line for what could not be measured."""
    return Line(name=name, value=None, unit=unit, runs=0, min=None, max=None, note=why)


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")
