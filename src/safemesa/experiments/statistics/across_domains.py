"""Statistics over several domains at once (Agarwal et al. 2021): strata are the domains.

Runs are resampled within their domain, so that every domain keeps its weight. Values of different
domains must be comparable, such as shares of episodes or values over a baseline's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.statistics.across_seeds import (
    LEVEL,
    MINIMUM_FOR_INTERVAL,
    RESAMPLES,
    Values,
    mean,
    share_of_wins,
)

Strata = Mapping[str, Values]
"""Values of runs by domain."""

StratifiedStatistic = Callable[[list[np.ndarray]], np.ndarray]
"""Takes one array `[..., runs]` per stratum and reduces the last axis of each, and the strata."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Profile:
    """The share of runs whose value is above each threshold.

    Attributes:
        thresholds: Ascending.
        share: Mean over strata of their shares.
        low: Lower ends of pointwise bootstrap intervals; None where a stratum is too small.
        high: Their upper ends.
    """

    thresholds: Float[np.ndarray, " thresholds"]
    share: Float[np.ndarray, " thresholds"]
    low: Float[np.ndarray, " thresholds"] | None
    high: Float[np.ndarray, " thresholds"] | None


def mean_of_strata(strata: list[np.ndarray]) -> np.ndarray:
    """Mean over strata of their means."""
    return np.asarray(np.mean([mean(values) for values in strata], axis=0))


def stratified_interval(
    strata: Strata,
    statistic: StratifiedStatistic = mean_of_strata,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval, resampled within each stratum.

    None where a stratum has fewer than three runs.

    Raises:
        ConfigurationError: no strata, an empty one, or a value that is not finite.
    """
    drawn = _resample(_checked(strata), resamples, np.random.default_rng(seed))
    if drawn is None:
        return None
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(statistic(drawn), [tail, 1.0 - tail])
    return float(low), float(high)


def performance_profile(
    strata: Strata,
    thresholds: Sequence[float],
    *,
    level: float = LEVEL,
    resamples: int = 2_000,
    seed: int = 0,
) -> Profile:
    """Share of runs above each threshold, with pointwise intervals.

    Raises:
        ConfigurationError: as `stratified_interval`; or thresholds that do not ascend.
    """
    limits = np.asarray(thresholds, np.float64)
    if limits.ndim != 1 or limits.size == 0 or not (np.diff(limits) > 0.0).all():
        raise ConfigurationError("expected thresholds that ascend, and one at least.")
    samples = _checked(strata)

    def shares(values: list[np.ndarray]) -> np.ndarray:
        return np.stack(
            [mean_of_strata([(one > limit) * 1.0 for one in values]) for limit in limits], axis=-1
        )

    drawn = _resample(samples, resamples, np.random.default_rng(seed))
    low = high = None
    if drawn is not None:
        tail = 0.5 * (1.0 - level)
        low, high = np.quantile(shares(drawn), [tail, 1.0 - tail], axis=0)
    return Profile(thresholds=limits, share=shares(samples), low=low, high=high)


def improvement_interval(
    a: Strata,
    b: Strata,
    *,
    lower_is_better: bool = False,
    level: float = LEVEL,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, tuple[float, float] | None]:
    """Probability that a run of `a` beats one of `b`, averaged over domains, and its interval.

    Raises:
        ConfigurationError: as `stratified_interval`; or the domains differ.
    """
    if list(a) != list(b):
        raise ConfigurationError(f"cannot compare domains {list(a)} with {list(b)}.")
    first, second = _checked(a), _checked(b)

    def probability(ours: list[np.ndarray], theirs: list[np.ndarray]) -> np.ndarray:
        shares = [
            share_of_wins(x, y, lower_is_better=lower_is_better)
            for x, y in zip(ours, theirs, strict=True)
        ]
        return np.asarray(np.mean(shares, axis=0))

    rng = np.random.default_rng(seed)
    ours, theirs = _resample(first, resamples, rng), _resample(second, resamples, rng)
    interval = None
    if ours is not None and theirs is not None:
        tail = 0.5 * (1.0 - level)
        low, high = np.quantile(probability(ours, theirs), [tail, 1.0 - tail])
        interval = (float(low), float(high))
    return float(probability(first, second)), interval


def _resample(
    strata: list[np.ndarray], resamples: int, rng: np.random.Generator
) -> list[np.ndarray] | None:
    """Per stratum `[resamples, runs]`; None where one is too small for an interval."""
    if any(len(values) < MINIMUM_FOR_INTERVAL for values in strata):
        return None
    return [values[rng.integers(0, len(values), (resamples, len(values)))] for values in strata]


def _checked(strata: Strata) -> list[np.ndarray]:
    arrays = [np.asarray(values, np.float64) for values in strata.values()]
    if not arrays or any(
        one.ndim != 1 or one.size == 0 or not np.isfinite(one).all() for one in arrays
    ):
        raise ConfigurationError(
            f"cannot summarise {dict(strata)!r}: expected finite numbers, one per run, for one "
            "domain at least and one run of each."
        )
    return arrays
