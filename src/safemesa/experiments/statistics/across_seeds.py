"""Statistics of a few seeded runs: means, interquartile means, bootstrap intervals, paired tests.

NumPy only. All resampling takes its own generator from a seed, so a report is the same each time.
Intervals of fewer than `MINIMUM_FOR_INTERVAL` values are None: resampling two numbers says nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from safemesa.core.errors import ConfigurationError

LEVEL = 0.95
"""Coverage that every interval aims at."""

RESAMPLES = 10_000
"""Bootstrap resamples. The ends of an interval then vary by about 1 % of its width."""

EXACT_PAIRS = 14
"""Up to this many pairs the sign-flip test tries every assignment of signs."""

MINIMUM_FOR_INTERVAL = 3
"""Fewer values than this have no bootstrap interval."""

MINIMUM_FOR_VERDICT = 6
"""With five pairs the sign-flip test cannot get below p = 2/32."""

Values = Sequence[float | int] | Float[np.ndarray, " n"]
"""One number per run."""

Statistic = Callable[[Float[np.ndarray, "... n"]], Float[np.ndarray, "..."]]
"""Reduces the last axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What `n` runs of one arm say about one metric, in the metric's unit.

    Attributes:
        n: Number of runs.
        mean: Their mean.
        iqm: Their interquartile mean.
        standard_error: Sample standard deviation over sqrt(n); None for one run.
        low: Lower end of the bootstrap interval of the mean; None below three runs.
        high: Its upper end.
        iqm_low: Lower end of the bootstrap interval of the interquartile mean.
        iqm_high: Its upper end.
    """

    n: int
    mean: float
    iqm: float
    standard_error: float | None
    low: float | None
    high: float | None
    iqm_low: float | None
    iqm_high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """Differences `a - b` of runs that share their seed, in the metric's unit.

    Attributes:
        n: Number of pairs.
        mean: Mean difference.
        standard_error: Of the mean difference; None for one pair.
        low: Lower end of the bootstrap interval of the mean difference; None below three pairs.
        high: Its upper end.
        p_value: Of the exact sign-flip test that the differences are symmetric around zero.
        below: Pairs in which `a` is smaller than `b`.
        equal: Pairs in which they are equal.
    """

    n: int
    mean: float
    standard_error: float | None
    low: float | None
    high: float | None
    p_value: float
    below: int
    equal: int

    @property
    def resolved(self) -> bool:
        """Whether the test finds a difference; below six pairs it never can."""
        return self.p_value <= 1.0 - LEVEL


def mean(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Mean over the last axis."""
    return np.asarray(np.mean(values, axis=-1))


def interquartile_mean(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Mean of the middle half over the last axis (Agarwal et al. 2021, sec. 4.3).

    Where n/4 is no integer, the two values at the quartiles count by the part of them that is
    inside; where it is, this is the 25 % trimmed mean. (rliable rounds n/4 down instead.)
    """
    count = values.shape[-1]
    edges = np.arange(count + 1) / count
    inside = np.diff(np.clip(edges, 0.25, 0.75)) / 0.5
    return np.asarray(np.sort(values, axis=-1) @ inside)


def standard_error(values: Values) -> float | None:
    """Sample standard deviation (n - 1) over sqrt(n); None for one value."""
    sample = _sample(values)
    if len(sample) < 2:
        return None
    return float(np.std(sample, ddof=1) / math.sqrt(len(sample)))


def bootstrap_interval(
    values: Values,
    statistic: Statistic = mean,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a statistic (Efron 1979); None below three values.

    Of few values it covers less than `level`: of a normal mean, where 95 % are asked for, about
    90 % with 10 values, 80 % with 5 and 75 % with 3 (simulated).
    """
    sample = _sample(values)
    if len(sample) < MINIMUM_FOR_INTERVAL:
        return None
    rng = np.random.default_rng(seed)
    drawn = sample[rng.integers(0, len(sample), (resamples, len(sample)))]
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(statistic(drawn), [tail, 1.0 - tail])
    return float(low), float(high)


def summarise_metric(values: Values, *, seed: int = 0) -> Summary:
    """All that a results table says about one metric of one arm.

    Raises:
        ConfigurationError: no values, or one that is not finite.
    """
    sample = _sample(values)
    low, high = bootstrap_interval(sample, mean, seed=seed) or (None, None)
    iqm_low, iqm_high = bootstrap_interval(sample, interquartile_mean, seed=seed) or (None, None)
    return Summary(
        n=len(sample),
        mean=float(mean(sample)),
        iqm=float(interquartile_mean(sample)),
        standard_error=standard_error(sample),
        low=low,
        high=high,
        iqm_low=iqm_low,
        iqm_high=iqm_high,
    )


def paired_difference(a: Values, b: Values, *, seed: int = 0) -> PairedDifference:
    """Differences `a - b` of values in the same order of seeds.

    Resamples pairs, not values: the spread between seeds that both share cancels.

    Raises:
        ConfigurationError: no values, one that is not finite, or different numbers of them.
    """
    first, second = _sample(a), _sample(b)
    if len(first) != len(second):
        raise ConfigurationError(
            f"{len(first)} and {len(second)} values cannot be paired; expected one of each arm "
            "per seed. Pair the seeds that both arms have."
        )
    difference = first - second
    low, high = bootstrap_interval(difference, mean, seed=seed) or (None, None)
    return PairedDifference(
        n=len(difference),
        mean=float(mean(difference)),
        standard_error=standard_error(difference),
        low=low,
        high=high,
        p_value=sign_flip_test(difference, seed=seed),
        below=int(np.sum(difference < 0.0)),
        equal=int(np.sum(difference == 0.0)),
    )


def sign_flip_test(differences: Values, *, seed: int = 0) -> float:
    """Two-sided p-value that paired differences are symmetric around zero (Fisher 1935).

    The share of assignments of signs whose mean is at least as far from zero. All of them up to
    `EXACT_PAIRS` pairs, random ones beyond. Unlike the bootstrap it is exact for few pairs.
    """
    sample = _sample(differences)
    count = len(sample)
    if count <= EXACT_PAIRS:
        signs = 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        rng = np.random.default_rng(seed)
        # The given signs are one of the assignments, so that p is never zero.
        signs = rng.choice([-1.0, 1.0], (RESAMPLES, count))
        signs[0] = 1.0
    distance = np.abs(signs @ sample)
    # Sums of the same numbers in another order differ in their last digits.
    return float(np.mean(distance >= abs(np.sum(sample)) - 1e-9 * np.sum(np.abs(sample))))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the given order.

    Where those of at most 0.05 are believed, the chance that even one true hypothesis is among
    them is at most 5 %, however the tests depend on each other.
    """
    adjusted, largest = list(p_values), 0.0
    order = sorted(range(len(adjusted)), key=adjusted.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(adjusted) - rank) * adjusted[index]))
        adjusted[index] = largest
    return adjusted


def probability_of_improvement(
    a: Sequence[float | int] | Float[np.ndarray, " runs"],
    b: Sequence[float | int] | Float[np.ndarray, " others"],
    *,
    lower_is_better: bool = False,
) -> float:
    """Probability that a random run of `a` beats one of `b`; ties count half.

    The Mann-Whitney statistic over the number of pairs (Agarwal et al. 2021, sec. 4.3). Unpaired:
    the numbers of runs may differ.
    """
    return float(share_of_wins(_sample(a), _sample(b), lower_is_better=lower_is_better))


def share_of_wins(
    a: Float[np.ndarray, "*samples runs"],
    b: Float[np.ndarray, "*samples others"],
    *,
    lower_is_better: bool = False,
) -> Float[np.ndarray, "*samples"]:
    """Share of pairs in which `a` beats `b`, over the last axes; ties count half."""
    first, second = a[..., :, None], b[..., None, :]
    wins = first < second if lower_is_better else first > second
    ties = np.mean(first == second, axis=(-2, -1))
    return np.asarray(np.mean(wins, axis=(-2, -1)) + 0.5 * ties)


def binomial_interval(successes: int, trials: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a probability (1927); all of [0, 1] without trials.

    Raises:
        ConfigurationError: more successes than trials, or negative numbers.
    """
    if not 0 <= successes <= trials:
        raise ConfigurationError(
            f"{successes} successes of {trials} trials; expected 0 <= successes <= trials."
        )
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + 0.5 * level)
    share, correction = successes / trials, z * z / trials
    centre = (share + 0.5 * correction) / (1.0 + correction)
    spread = share * (1.0 - share) / trials + 0.25 * correction / trials
    half = z * math.sqrt(spread) / (1.0 + correction)
    # At the ends the formula is exact and rounding is not.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def _sample(values: Values) -> Float[np.ndarray, " n"]:
    """Checked float64 values."""
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise ConfigurationError(
            f"cannot summarise {values!r}: expected one finite number per run, and one run at "
            "least."
        )
    return sample
