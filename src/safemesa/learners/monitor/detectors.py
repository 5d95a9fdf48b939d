"""Tests for a change, one statistic per row: above a threshold is an alarm.

Scores are standard normal while the robot is healthy (`monitor/surprise.py`) and larger afterwards.
All detectors share what an alarm is: the statistic exceeds the threshold; the alarm lasts until the
statistic is back at 0 or below. So alarms are counted alike (`excursions`).
"""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from safemesa.core.errors import ConfigurationError


class Detector(Protocol):
    """A test for a change."""

    def statistic(self, scores: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """After each row, from the first on."""
        ...


@dataclass(frozen=True, kw_only=True)
class CUSUM:
    """Page's cumulative sum (Biometrika 1954): `S_t = max(0, S_{t-1} + x_t - k)`.

    For normal scores that rise by `2 k`, this is the sum of log-likelihood ratios divided by `2 k`:
    of all tests with the same average time between false alarms, none has a smaller worst delay.

    Attributes:
        reference: k, half the rise that is to be found soonest.
    """

    reference: float = 0.5

    def __post_init__(self) -> None:
        """Refuses references that find nothing."""
        _check_positive("reference", self.reference)

    def statistic(self, scores: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """The sum of all so far less the least sum so far, which is the recursion's result."""
        sums = np.cumsum(np.asarray(scores, np.float64) - self.reference)
        return sums - np.minimum(np.minimum.accumulate(sums), 0.0)


@dataclass(frozen=True, kw_only=True)
class WindowedZ:
    """The z-test of a window's mean: `sum of the last w scores / sqrt(w)`.

    Attributes:
        window: w, in rows.
    """

    window: int = 25

    def __post_init__(self) -> None:
        """Refuses windows without rows."""
        _check_positive("window", self.window)

    def statistic(self, scores: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """Before `window` rows, as if healthy rows of score 0 came first."""
        sums = np.concatenate([np.zeros(self.window), np.cumsum(scores, dtype=np.float64)])
        return (sums[self.window :] - sums[: -self.window]) / math.sqrt(self.window)


@dataclass(frozen=True, kw_only=True)
class EWMA:
    """An exponentially weighted mean (Roberts 1959), in units of its own standard deviation.

    Attributes:
        rate: Weight of the newest score.
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        """Refuses rates that average nothing."""
        if not 0.0 < self.rate <= 1.0:
            raise ConfigurationError(f"rate is {self.rate}; expected above 0, at most 1.")

    def statistic(self, scores: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """`m_t = (1 - r) m_{t-1} + r x_t`, divided by `sqrt(r / (2 - r))`."""
        keep, rate = 1.0 - self.rate, self.rate
        means = accumulate(scores.tolist(), lambda mean, x: keep * mean + rate * x, initial=0.0)
        return np.array(list(means))[1:] / math.sqrt(rate / (2.0 - rate))


@dataclass(frozen=True, kw_only=True)
class SingleRow:
    """Each score alone: what a threshold on the residual does."""

    def statistic(self, scores: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """The scores."""
        return np.asarray(scores, np.float64)


class Excursions(NamedTuple):
    """Stretches of rows in which a statistic is above 0: where each begins, and its peak."""

    first: Int[np.ndarray, " excursions"]
    peak: Float[np.ndarray, " excursions"]


def excursions(statistic: Float[np.ndarray, " rows"]) -> Excursions:
    """All excursions; those whose peak exceeds a threshold are its alarms."""
    above = np.concatenate([[False], statistic > 0.0, [False]])
    (edges,) = np.nonzero(above[1:] != above[:-1])
    first = edges[::2]
    if not len(first):
        return Excursions(first, np.zeros(0))
    # Between the end of one and the start of the next nothing is above 0.
    return Excursions(first, np.maximum.reduceat(statistic, first))


def first_alarm(statistic: Float[np.ndarray, " rows"], threshold: float) -> int | None:
    """The row after which the statistic exceeds a threshold for the first time."""
    above = statistic > threshold
    return int(np.argmax(above)) if above.any() else None


def _check_positive(name: str, value: float | int) -> None:
    if not value > 0 or not math.isfinite(value):
        raise ConfigurationError(f"{name} is {value}; expected a number above 0.")
