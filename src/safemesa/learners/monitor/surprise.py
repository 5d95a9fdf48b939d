"""How far the next observation is from what an ensemble predicted, as a score that is comparable.

A row of a log becomes one number in two steps. `surprise` measures the residual in units of the
ensemble's own uncertainty. `HealthyScale` asks how extreme that is among the surprises of a healthy
robot, and says it as a normal score: whatever the distribution of surprises, scores of healthy rows
are standard normal, as detectors (`monitor/detectors.py`) expect. They are not independent.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from safemesa.core.errors import DatasetError

LEAST_ROWS = 100
"""Of a healthy log from which a scale is made."""

KNOTS = 4096
"""A scale remembers so many quantiles."""


def surprise(
    mean: Float[np.ndarray, "members rows targets"],
    log_variance: Float[np.ndarray, "members rows targets"],
    target: Float[np.ndarray, "rows targets"],
) -> Float[np.ndarray, " rows"]:
    """Mean over targets of the squared residual divided by the variance of the mixture.

    An ensemble of Gaussians is a mixture: its mean is the mean of means, its variance the mean of
    variances plus the variance of means. So a row that the members disagree on may be further off,
    and a policy that goes where the model knows little surprises less than a changed robot.

    Raises:
        DatasetError: something is not finite, or a variance is 0 in floating point; a residual
            that is unknown is no residual.
    """
    for name, values in (("mean", mean), ("log_variance", log_variance), ("target", target)):
        if not np.isfinite(values).all():
            raise DatasetError(
                f"{name} of the predictions is not finite in {int((~np.isfinite(values)).sum())} "
                "places; expected numbers. Look at the log and the model."
            )
    variance = np.mean(np.exp(log_variance), axis=0) + np.var(mean, axis=0)
    if not (variance > 0.0).all():
        raise DatasetError(
            f"the variance of the predictions is 0 in {int((variance <= 0.0).sum())} places; "
            "expected numbers above 0. Bound log_variance from below, as the ensemble does."
        )
    residual = target - np.mean(mean, axis=0)
    return np.mean(np.square(residual) / variance, axis=-1)


@dataclass(frozen=True, eq=False)
class HealthyScale:
    """Turns surprises into normal scores.

    Attributes:
        levels: Surprises of healthy rows, rising.
        scores: The normal score of each.
    """

    levels: Float[np.ndarray, " knots"]
    scores: Float[np.ndarray, " knots"]

    def __call__(self, surprises: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        """Between levels linearly; beyond the largest healthy surprise, the score of that one.

        So one row, however odd, is worth no more than a rare healthy row, and it takes several to
        raise an alarm.

        Raises:
            DatasetError: a surprise is NaN, after which no detector would ever raise an alarm.
        """
        if np.isnan(surprises).any():
            raise DatasetError(
                f"{int(np.isnan(surprises).sum())} surprises are NaN; expected numbers. Look at "
                "the log and the model."
            )
        return np.interp(surprises, self.levels, self.scores)


def fit_healthy_scale(surprises: Float[np.ndarray, " rows"]) -> HealthyScale:
    """The scale of a healthy log that the model did not learn from.

    Raises:
        DatasetError: there are too few rows, or some are not finite.
    """
    count = len(surprises)
    if count < LEAST_ROWS or not np.isfinite(surprises).all():
        raise DatasetError(
            f"a scale is made from at least {LEAST_ROWS} finite surprises of a healthy robot; "
            f"given: {count}, {int((~np.isfinite(surprises)).sum())} of them not finite. Record a "
            "longer log."
        )
    # Hazen's positions: the i-th of n is the quantile (i + 1/2) / n.
    knots = min(KNOTS, count)
    probability = (np.arange(count) + 0.5) / count
    # Evenly spaced in rank, and every rank of the upper tail, which decides about alarms.
    ranks = np.linspace(0, count - 1, knots).round().astype(int)
    ranks = np.union1d(ranks, np.arange(max(0, count - knots), count))
    normal = NormalDist()
    scores = np.array([normal.inv_cdf(float(p)) for p in probability[ranks]])
    levels, level, count_of = np.unique(
        np.sort(surprises)[ranks], return_inverse=True, return_counts=True
    )
    # Equal surprises share the mean of their scores, as of a robot that stands still.
    return HealthyScale(levels, np.bincount(level, scores) / count_of)
