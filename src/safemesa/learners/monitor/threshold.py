"""A detector's threshold for a stated rate of false alarms, from a healthy log.

Scores of neighbouring rows depend on each other, so no formula for independent scores holds. The
threshold is counted from the log itself, and how far a fresh log may differ from the statement
comes from resampling whole episodes (a block bootstrap).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from safemesa.core.errors import DatasetError
from safemesa.learners.monitor.detectors import excursions

LEAST_ALARMS = 10
"""A rate is stated only where the log is so long that so many false alarms belong to it: with
fewer, the interval would reach from next to nothing to twice the rate."""

RESAMPLES = 1_000
COVERAGE = 0.95


class Threshold(NamedTuple):
    """A threshold and what is known of its false alarms, in alarms per row.

    Attributes:
        value: An alarm is where the statistic exceeds it.
        rate: In the log that it comes from; at most what was asked.
        low: In a fresh healthy log of the same length the rate is between this
        high: and this, with a probability of 95 %.
        rows: Of the log.
        episodes: Of the log.
    """

    value: float
    rate: float
    low: float
    high: float
    rows: int
    episodes: int


def find_threshold(
    statistic: Float[np.ndarray, " rows"],
    episode: Int[np.ndarray, " rows"],
    rate: float,
    rng: np.random.Generator,
) -> Threshold:
    """The least threshold that a healthy log exceeds at most at a rate.

    Args:
        statistic: Of a healthy log, row after row, episodes one after the other.
        episode: Number of each row's episode, not falling.
        rate: Alarms per row that are allowed.
        rng: Resamples the episodes.

    Raises:
        DatasetError: the log is too short for the rate, or holds something not finite.
    """
    rows = len(statistic)
    if not np.isfinite(statistic).all():
        raise DatasetError("the statistic of a healthy log is not finite; expected numbers.")
    if not rate > 0.0 or rate * rows < LEAST_ALARMS:
        raise DatasetError(
            f"a healthy log of {rows} rows cannot show a rate of {rate:g} false alarms per row: "
            f"{rate * rows:.3g} belong to it, and at least {LEAST_ALARMS} are needed. Record "
            f"{_rows_needed(rate)} rows, or allow more alarms."
        )
    numbers, places = np.unique(episode, return_inverse=True)
    lengths = np.bincount(places)
    first, peak = excursions(statistic)
    order = np.argsort(-peak, kind="stable")
    peaks, owners = peak[order], places[first[order]]
    value = _least(peaks, np.ones(len(peaks)), rate * rows)
    rates = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        # One resample stands for the log that the threshold comes from, one for a fresh log.
        ours, fresh = (np.bincount(rng.integers(len(numbers), size=len(numbers)),
                                   minlength=len(numbers)) for _ in range(2))  # fmt: skip
        least = _least(peaks, ours[owners], rate * float(ours @ lengths))
        alarms = fresh[owners[: np.searchsorted(-peaks, -least, side="left")]].sum()
        rates[index] = alarms / float(fresh @ lengths)
    tail = 0.5 * (1.0 - COVERAGE)
    low, high = np.quantile(rates, [tail, 1.0 - tail])
    observed = float(np.sum(peaks > value)) / rows
    return Threshold(value, observed, float(low), float(high), rows, len(numbers))


def _rows_needed(rate: float) -> str:
    return f"{math.ceil(LEAST_ALARMS / rate)}" if rate > 0.0 else "infinitely many"


def _least(peaks: np.ndarray, weights: np.ndarray, allowed: float) -> float:
    """The least threshold that peaks (falling) exceed at most `allowed` times; 0 where none do."""
    beyond = np.searchsorted(np.cumsum(weights), allowed, side="right")
    return float(peaks[beyond]) if beyond < len(peaks) else 0.0
