"""Paired timing on noisy machines: candidates take turns, and ratios are of neighbours."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Clock = Callable[[], float]

CLOCK: Clock = time.perf_counter
"""What times unless a caller says otherwise."""


@dataclass(frozen=True)
class Measurement:
    """One named number with its spread over repetitions."""

    name: str
    value: float
    unit: str
    runs: int
    min: float
    max: float

    def line(self) -> str:
        """The measurement as a JSON line."""
        numbers = {"value": self.value, "min": self.min, "max": self.max}
        rounded = {name: float(f"{number:.4g}") for name, number in numbers.items()}
        return json.dumps(
            {
                "name": self.name,
                "value": rounded["value"],
                "unit": self.unit,
                "runs": self.runs,
                "min": rounded["min"],
                "max": rounded["max"],
            }
        )


def take_turns(
    candidates: Mapping[str, Callable[[], None]],
    runs: int,
    clock: Clock | None = None,
) -> dict[str, list[float]]:
    """Seconds per call: every candidate once (warm-up), then `runs` rounds in turns."""
    clock = clock or CLOCK
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(runs):
        for name, run in candidates.items():
            began = clock()
            run()
            seconds[name].append(clock() - began)
    return seconds


def summary(name: str, values: Sequence[float], unit: str) -> Measurement:
    """Median, minimum and maximum."""
    return Measurement(name, statistics.median(values), unit, len(values), min(values), max(values))


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> Measurement:
    """Median of the ratios of neighbouring repetitions: drift of the machine cancels."""
    return summary(name, [a / b for a, b in zip(above, below, strict=True)], "ratio")
