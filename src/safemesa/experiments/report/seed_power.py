"""How many paired seeds a difference takes to be found: the power of the paired t-test.

The test that tables use is the sign-flip test; with normal differences its power is close to that
of the t-test, for which power can be computed (Cohen 1988, ch. 2), from some ten pairs on. Of fewer
it has less, and below `MINIMUM_FOR_VERDICT` none, which is the least number given. NumPy only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.report.result_rows import BASELINE, PairedRow, group_runs, paired_rows
from safemesa.experiments.runs.run_records import RunRecord
from safemesa.experiments.statistics.across_seeds import LEVEL, MINIMUM_FOR_VERDICT, holm

POWER = 0.8
"""Probability of finding a difference that is there."""

GAP = 0.25
"""The difference to find, as a share of the baseline's mean."""

SPREAD_LEVEL = 0.9
"""Coverage of the interval of pairs that comes from not knowing the spread."""

MOST_PAIRS = 1_000_000
"""Beyond this no number is given."""

NODES = 200
"""Of the quadrature; twice as many change a power by less than 1e-11."""

_normal = NormalDist()


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerRow:
    """What it takes to find `gap` between an arm and the baseline.

    Attributes:
        pair: The paired difference that is known.
        baseline_mean: Mean of the baseline over the same seeds.
        gap: The difference to find, in the metric's unit.
        spread: Standard deviation of the differences; None for one pair.
        power: Of the t-test with the pairs that there are, none for fewer than the sign-flip test
            takes; None where it cannot be said.
        needed: Pairs for `POWER`, and no fewer than that; None where it cannot be said.
        fewest: Lower end of the interval of `needed`, from that of the spread.
        most: Its upper end.
        adjusted_p: p-value of the difference itself, corrected for all rows (Holm).
    """

    pair: PairedRow
    baseline_mean: float
    gap: float
    spread: float | None
    power: float | None
    needed: int | None
    fewest: int | None
    most: int | None
    adjusted_p: float


def power_rows(
    records: Sequence[RunRecord],
    *,
    metric: str = "violations",
    gap: float = GAP,
    baseline: str = BASELINE,
) -> list[PowerRow]:
    """One row per domain, preset and arm that shares seeds with the baseline.

    Raises:
        ConfigurationError: `gap` is not positive, or nothing can be paired.
    """
    if not (math.isfinite(gap) and gap > 0.0):
        raise ConfigurationError(f"--gap is {gap}; expected a positive share, such as 0.25.")
    pairs = [row for row in paired_rows(records, baseline) if row.metric == metric]
    if not pairs:
        raise ConfigurationError(
            f"no runs share a seed with {baseline} and have {metric}: nothing can be paired. Run "
            "both arms with the same seeds."
        )
    groups = {(one.domain, one.preset, one.title): one for one in group_runs(records)}
    adjusted = holm([pair.difference.p_value for pair in pairs])
    rows = []
    for pair, p_value in zip(pairs, adjusted, strict=True):
        reference = groups[(pair.domain, pair.preset, pair.baseline)]
        values = reference.values(metric, pair.seeds)
        assert values is not None
        rows.append(_row(pair, float(np.mean(values)), gap, p_value))
    return rows


def _row(pair: PairedRow, baseline_mean: float, gap: float, adjusted_p: float) -> PowerRow:
    count, error = pair.difference.n, pair.difference.standard_error
    wanted = gap * abs(baseline_mean)
    spread = None if error is None else error * math.sqrt(count)
    known = bool(spread) and wanted > 0.0
    effect = wanted / spread if spread and known else 0.0
    # The sample's spread is the true one times W (see `scale_quantile`).
    tail = 0.5 * (1.0 - SPREAD_LEVEL)
    ends = [scale_quantile(one, count - 1) for one in (tail, 1.0 - tail)] if known else []
    enough = count >= MINIMUM_FOR_VERDICT
    return PowerRow(
        pair=pair,
        baseline_mean=baseline_mean,
        gap=wanted,
        spread=spread,
        power=paired_power(effect, count) * enough if known else None,
        needed=_at_least_testable(required_pairs(effect)) if known else None,
        fewest=_at_least_testable(required_pairs(effect * ends[1])) if known else None,
        most=_at_least_testable(required_pairs(effect * ends[0])) if known else None,
        adjusted_p=adjusted_p,
    )


def _at_least_testable(pairs: int | None) -> int | None:
    return None if pairs is None else max(pairs, MINIMUM_FOR_VERDICT)


def required_pairs(effect: float, *, power: float = POWER) -> int | None:
    """The fewest pairs with which the two-sided paired t-test at 5 % has the power.

    Args:
        effect: Mean of the differences over their standard deviation.
        power: Probability of finding it.

    Returns:
        At least 2; None beyond `MOST_PAIRS`.
    """
    high = 2
    while paired_power(effect, high) < power:
        if high == MOST_PAIRS:
            return None
        high = min(2 * high, MOST_PAIRS)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if paired_power(effect, middle) >= power else (middle, high)
    return max(high, 2)


def paired_power(effect: float, pairs: int) -> float:
    """Power of the two-sided paired t-test at 5 % for normal differences.

    P(|T| > c) where T is noncentral t with `pairs` - 1 degrees of freedom and noncentrality
    effect * sqrt(pairs), and c the quantile of the central one. `effect` as in `required_pairs`.
    """
    freedom = pairs - 1
    limit = t_limit(freedom)
    shift = effect * math.sqrt(pairs)
    return upper_tail(limit, freedom, shift) + upper_tail(limit, freedom, -shift)


def upper_tail(limit: float, freedom: int, shift: float) -> float:
    """P(T > limit) of a noncentral t variable T = (Z + shift) / W.

    Z is standard normal and W^2 freedom is chi-squared: the mean over W of Phi(shift - limit W).
    """
    points, weights = _scale_quadrature(freedom)
    values = [_normal.cdf(shift - limit * point) for point in points]
    return float(np.dot(weights, values))


@cache
def t_limit(freedom: int) -> float:
    """The value that |t| exceeds with probability 5 %."""
    low, high = 0.0, 1_000.0
    while high - low > 1e-10:
        middle = 0.5 * (low + high)
        too_low = 2.0 * upper_tail(middle, freedom, 0.0) > 1.0 - LEVEL
        low, high = (middle, high) if too_low else (low, middle)
    return 0.5 * (low + high)


def scale_quantile(probability: float, freedom: int) -> float:
    """Quantile of W = sqrt(chi-squared / freedom): of a sample's spread over the true one."""
    low, high = 0.0, _scale_range(freedom)[1]
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        points, weights = _legendre(_scale_range(freedom)[0], middle)
        below = float(np.dot(weights, _scale_density(points, freedom)))
        low, high = (middle, high) if below < probability else (low, middle)
    return 0.5 * (low + high)


def _scale_range(freedom: int) -> tuple[float, float]:
    """Where W is, but for less than 1e-20 of its probability."""
    reach = 10.0 / math.sqrt(freedom)
    return max(0.0, 1.0 - reach), 1.0 + reach


def _scale_density(points: Float[np.ndarray, " n"], freedom: int) -> Float[np.ndarray, " n"]:
    """Density of W: 2 (f/2)^(f/2) / Gamma(f/2) w^(f-1) exp(-f w^2 / 2)."""
    half = 0.5 * freedom
    constant = math.log(2.0) + half * math.log(half) - math.lgamma(half)
    return np.exp(constant + (freedom - 1) * np.log(points) - half * points**2)


@cache
def _scale_quadrature(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights with which functions of W are averaged."""
    points, weights = _legendre(*_scale_range(freedom))
    return points, weights * _scale_density(points, freedom)


def _legendre(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre points and weights between two ends."""
    points, weights = _unit_legendre()
    half = 0.5 * (high - low)
    return low + half * (points + 1.0), half * weights


@cache
def _unit_legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(NODES)
