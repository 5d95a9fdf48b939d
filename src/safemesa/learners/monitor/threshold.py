"""A detector's threshold for a stated rate of false alarms, from a healthy log.

Scores of neighbouring rows depend on each other, so no formula for independent scores holds. The
threshold is counted from the log itself, and how far a fresh log may differ from the statement
comes from resampling whole episodes (a block bootstrap). Where the log is too short for the rate,
`extrapolate_threshold` goes on along the tail that it shows.
"""

import math
from collections.abc import Callable, Sequence
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
        rate: In the log that it comes from, at most what was asked; of an extrapolation, that.
        low: In a fresh healthy log of the same length the rate is between this
        high: and this, with a probability of 95 %.
        rows: Of the log.
        episodes: Of the log; of an extrapolation, the robots.
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


TAIL_PEAKS = 50
"""The tail of excursions is fitted to so many of the highest, at most a fifth of them."""

LEAST_PEAKS = 20
"""No tail is fitted to fewer."""

FURTHEST = 1_000.0
"""A rate that is so many times lower than the tail's own is not told from it."""


def extrapolate_threshold(
    statistics: Sequence[Float[np.ndarray, " _"]], rate: float, rng: np.random.Generator
) -> Threshold:
    """A threshold for a rate that healthy logs are too short to show.

    Peaks of CUSUM's excursions have an exponential tail where scores are bounded and depend on few
    before them (Siegmund, Sequential Analysis, 1985, ch. 2): above a level u they exceed h with
    probability `exp(-(h - u) / m)`, with m the mean excess. The interval comes from resampling
    whole logs, so it knows how robots differ, as far as there are robots; it does not know whether
    the tail is exponential.

    Args:
        statistics: Of healthy logs, one per robot.
        rate: Alarms per row that are allowed.
        rng: Resamples the logs.

    Raises:
        DatasetError: there are too few logs or excursions for a tail, the rate is too far beyond
            them, or something is not finite.
    """
    if len(statistics) < 2 or not all(np.isfinite(one).all() for one in statistics):
        raise DatasetError(
            f"a tail needs finite statistics of at least 2 healthy logs; given: {len(statistics)}."
        )
    lengths = np.array([len(one) for one in statistics])
    peaks = [excursions(one).peak for one in statistics]
    value, beyond = _tail(np.concatenate(peaks), rate * lengths.sum())
    rates = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(peaks), size=len(peaks))
        try:
            again, _ = _tail(
                np.concatenate([peaks[index] for index in chosen]), rate * lengths[chosen].sum()
            )
        except DatasetError:
            continue
        # One resample stands for the logs that the threshold comes from, the tail for a fresh one.
        rates.append(beyond(again) / lengths.sum())
    if len(rates) < RESAMPLES // 2:
        raise DatasetError(
            "most resamples of the healthy logs have too few excursions for a tail. Give logs of "
            "more robots, or longer ones."
        )
    edge = 0.5 * (1.0 - COVERAGE)
    low, high = np.quantile(rates, [edge, 1.0 - edge])
    return Threshold(value, rate, float(low), float(high), int(lengths.sum()), len(lengths))


def _tail(
    peaks: Float[np.ndarray, " peaks"], allowed: float
) -> tuple[float, Callable[[float], float]]:
    """The level that the tail exceeds `allowed` times, and how often it exceeds any level."""
    count = min(TAIL_PEAKS, len(peaks) // 5)
    if count < LEAST_PEAKS or not allowed > 0.0:
        raise DatasetError(
            f"healthy logs with {len(peaks)} excursions show no tail; expected at least "
            f"{5 * LEAST_PEAKS}. Record longer logs."
        )
    if count / allowed > FURTHEST:
        raise DatasetError(
            f"{allowed:.2g} false alarms are allowed in the healthy logs, and their tail is fitted "
            f"to {count}: more than {FURTHEST:g} times as many. Record longer logs, or allow more."
        )
    ordered = np.sort(peaks)[::-1]
    start = float(ordered[count])
    mean = float(np.mean(ordered[:count] - start))
    level = start + mean * math.log(count / allowed)
    if mean == 0.0:
        raise DatasetError("the highest excursions of the healthy logs are all alike.")
    return level, lambda value: count * math.exp(-(value - start) / mean)


def _rows_needed(rate: float) -> str:
    return f"{math.ceil(LEAST_ALARMS / rate)}" if rate > 0.0 else "infinitely many"


def _least(peaks: np.ndarray, weights: np.ndarray, allowed: float) -> float:
    """The least threshold that peaks (falling) exceed at most `allowed` times; 0 where none do."""
    beyond = np.searchsorted(np.cumsum(weights), allowed, side="right")
    return float(peaks[beyond]) if beyond < len(peaks) else 0.0
