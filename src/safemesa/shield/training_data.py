"""What a shield was trained on, as numbers by which its runtime notices that it has left that.

Two measures, each cheap enough for every tick: the range of each signal, and the distance from the
middle of the observations along their main axes, in standard deviations (Mahalanobis). How far is
too far is learned from rows that were held out: of data like the training data about one row in a
thousand is outside.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from safemesa.phases.storage.seen import Seen
from safemesa.shield.runtime import MAXIMUM_DIRECTIONS

QUANTILE = 0.999
"""Of held-out rows that are inside."""
LEAST_ROWS = 50
"""Of fewer rows a distance says nothing."""
FOLDS, BLOCKS = 5, 50
"""Rows are held out in stretches of time: neighbours in time are nearly the same row."""
MARGIN = (1.1, 2.0)
"""By how much a range is widened, at least and at most, as a factor on its half width."""
SMALLEST_SPREAD = 0.1
"""Of the normaliser's standard deviation. Less counts as this, so that a signal that rested, or
that others determine, may move a little."""


class TrainingData(NamedTuple):
    """Ranges in physical units; centre and axes of normalised observations."""

    low: Float[np.ndarray, " signals"]
    high: Float[np.ndarray, " signals"]
    centre: Float[np.ndarray, " obs"]
    axes: Float[np.ndarray, "obs directions"]
    distance: float
    rows: int

    def manifest(self, policy: str) -> dict[str, Any]:
        """The part of the manifest that is not the ranges."""
        return {
            "policy": policy,
            "distance": self.distance,
            "directions": self.axes.shape[1],
            "rows": self.rows,
        }

    def tensors(self) -> dict[str, np.ndarray]:
        """The part that lies beside the weights."""
        return {
            "training.centre": self.centre.astype(np.float32),
            "training.axes": self.axes.astype(np.float32),
        }


def describe_training_data(
    seen: Seen, shift: np.ndarray, scale: np.ndarray, obs_size: int
) -> TrainingData | None:
    """Fits both measures; None where there are too few rows.

    Args:
        seen: rows and ranges in physical units, observations first.
        shift: `(x - shift) / scale` is what the networks see.
        scale: likewise, one number per signal.
        obs_size: number of observations.
    """
    rows = (seen.rows.astype(np.float64) - shift) / scale
    if len(rows) < LEAST_ROWS:
        return None
    low, high = ((bound.astype(np.float64) - shift) / scale for bound in (seen.low, seen.high))
    widths, distances = [], []
    fold = np.arange(len(rows)) * BLOCKS // len(rows) % FOLDS
    for held_out in range(FOLDS):
        kept, new = rows[fold != held_out], rows[fold == held_out]
        middle, half = _range(kept.min(axis=0), kept.max(axis=0))
        widths.append((np.abs(new - middle) / half).max(axis=1))
        centre, axes = _main_axes(kept[:, :obs_size])
        distances.append(np.linalg.norm((new[:, :obs_size] - centre) @ axes, axis=1))
    wider = float(np.clip(np.quantile(np.concatenate(widths), QUANTILE), *MARGIN))
    middle, half = _range(low, high)
    centre, axes = _main_axes(rows[:, :obs_size])
    return TrainingData(
        low=(middle - wider * half) * scale + shift,
        high=(middle + wider * half) * scale + shift,
        centre=centre,
        axes=axes,
        distance=float(np.quantile(np.concatenate(distances), QUANTILE)),
        rows=len(rows),
    )


def _range(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half width of ranges in units of the networks."""
    return 0.5 * (low + high), np.maximum(0.5 * (high - low), SMALLEST_SPREAD)


def _main_axes(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre, and the axes of largest variance, each divided by its standard deviation."""
    centre = obs.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov(obs, rowvar=False).reshape(2 * (obs.shape[1],)))
    largest = np.argsort(variance)[::-1][:MAXIMUM_DIRECTIONS]
    spread = np.sqrt(np.maximum(variance[largest], SMALLEST_SPREAD**2))
    return centre, axes[:, largest] / spread
