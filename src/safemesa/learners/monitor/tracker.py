"""The monitor as it goes along with a robot, one row at a time: in JAX, a pytree.

The same residual, score and CUSUM as in `surprise.py` and `detectors.py`. What is usual for this
robot, and the networks themselves, are renewed from outside (`phases/monitoring.py`).
"""

from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.learners.carl.learner import ModelState
from safemesa.learners.monitor.surprise import fit_healthy_scale

MOST_ALARMS = 256
"""So many alarms of a run are remembered; later ones are counted."""

LARGEST = 1e30
"""No surprise is larger."""


class FleetMonitor(eqx.Module):
    """What Phase 1 leaves of a monitor: an ensemble, rows to rehearse, and the threshold."""

    model: ModelState
    rows: Float[Array, "fleet width"]
    threshold: Float[Array, ""]


class Usual(eqx.Module):
    """What is usual for a robot: surprises as normal scores, and how far networks disagree."""

    levels: Float[Array, " memory"]
    """Rising; padded at the end."""
    scores: Float[Array, " memory"]
    outside: Float[Array, ""]
    """The share of disagreement in the variance above which a row is outside of the training."""


class Tracker(eqx.Module):
    """A monitor in the middle of a run."""

    model: ModelState
    usual: Usual
    recent: Float[Array, "memory 2"]
    """Surprise and share of disagreement of the newest rows without an alarm, in a ring."""
    remembered: Int[Array, ""]
    """Rows that were ever written to it."""
    threshold: Float[Array, ""]
    reference: Float[Array, ""]
    tightened: Float[Array, ""]
    """The risk limit is multiplied by it while it is tight."""
    statistic: Float[Array, ""]
    calm: Int[Array, ""]
    """The step from which on the statistic is above 0: the estimated change, should it alarm."""
    first: Int[Array, ""]
    """Rows of earlier steps are of the robot before its last change."""
    alarm: Bool[Array, ""]
    tight: Bool[Array, ""]
    """Whether the risk limit is tightened."""
    alarms: Float[Array, "alarms 3"]
    """Step, estimated step of the change and statistic of each."""
    count: Int[Array, ""]
    """Alarms so far."""
    outside_rows: Int[Array, ""]
    """Rows so far that were outside of the training."""

    @property
    def limit_factor(self) -> Float[Array, ""]:
        """By which the risk limit is multiplied at present."""
        return jnp.where(self.tight, self.tightened, 1.0)


class Look(NamedTuple):
    """What the monitor sees in a row."""

    surprise: Float[Array, "..."]
    disagreement: Float[Array, "..."]
    """Share of the variance that comes from the networks' disagreement, in [0, 1]."""


def look(
    model: ModelState,
    obs: Float[Array, "rows obs"],
    action: Float[Array, "rows act"],
    next_obs: Float[Array, "rows obs"],
) -> Look:
    """Surprise (`surprise.surprise`) and disagreement of rows; only the observation counts."""
    size = obs.shape[-1]
    x = model.scaling.inputs(jnp.concatenate([obs, action], axis=-1))
    said = model.ensemble(jnp.broadcast_to(x[None], (model.ensemble.count, *x.shape)))
    change = jnp.concatenate([next_obs - obs, jnp.zeros((*obs.shape[:-1], 1))], axis=-1)
    target = model.scaling.targets(change)[..., :size]
    mean, log_variance = said.mean[..., :size], said.log_variance[..., :size]
    inherent = jnp.mean(jnp.exp(log_variance), axis=0)
    disagreement = jnp.var(mean, axis=0)
    variance = inherent + disagreement
    squared = jnp.square(target - jnp.mean(mean, axis=0))
    surprise = jnp.mean(squared / variance, axis=-1)
    # What is not a number is as large as any, and the networks are sure of it.
    return Look(
        jnp.where(surprise < LARGEST, surprise, LARGEST),
        jnp.nan_to_num(jnp.mean(disagreement / variance, axis=-1)),
    )


def usual_of(recent: Float[np.ndarray, "rows 2"], memory: int, outside: float) -> Usual:
    """What is usual where these rows were the newest.

    Raises:
        DatasetError: there are too few (`surprise.LEAST_ROWS`), or some are not finite.
    """
    scale = fit_healthy_scale(np.asarray(recent[:, 0], np.float64))
    padding = memory - len(scale.levels)
    levels = np.pad(scale.levels, (0, padding), constant_values=np.finfo(np.float32).max)
    return Usual(
        jnp.asarray(levels, jnp.float32),
        jnp.asarray(np.pad(scale.scores, (0, padding), mode="edge"), jnp.float32),
        jnp.asarray(np.quantile(recent[:, 1], outside), jnp.float32),
    )


def score_of(usual: Usual, seen: Look) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
    """Normal scores, and which rows are outside of the training: these are worth at most 0.

    There the networks cannot tell a changed robot from a place where it has never been.
    """
    score = jnp.interp(seen.surprise, usual.levels, usual.scores)
    outside = seen.disagreement > usual.outside
    return jnp.where(outside, jnp.minimum(score, 0.0), score), outside


def track(
    tracker: Tracker,
    obs: Float[Array, " obs"],
    action: Float[Array, " act"],
    next_obs: Float[Array, " obs"],
    step: Int[Array, ""],
) -> tuple[Tracker, Float[Array, ""]]:
    """The tracker after the row of a step, and the row's score.

    An alarm is where the statistic exceeds the threshold. It lasts until the monitor has learned
    the robot anew: a changed robot is calm now and then, as where it is reset or hardly moves. Rows
    of an alarm are not remembered as usual.
    """
    seen = look(tracker.model, obs[None], action[None], next_obs[None])
    seen = Look(*(value[0] for value in seen))
    score, outside = score_of(tracker.usual, seen)
    statistic = jnp.maximum(tracker.statistic + score - tracker.reference, 0.0)
    calm = jnp.where(tracker.alarm | (statistic > 0.0), tracker.calm, step + 1)
    begins = (statistic > tracker.threshold) & ~tracker.alarm
    alarm = tracker.alarm | begins
    entry = jnp.stack([step.astype(jnp.float32), calm.astype(jnp.float32), statistic])
    place = jnp.minimum(tracker.count, MOST_ALARMS - 1)
    memory = tracker.recent.shape[0]
    slot = tracker.remembered % memory
    row = jnp.where(alarm, tracker.recent[slot], jnp.stack([seen.surprise, seen.disagreement]))
    following = replace(
        tracker,
        recent=tracker.recent.at[slot].set(row),
        remembered=tracker.remembered + (~alarm).astype(jnp.int32),
        statistic=statistic,
        calm=calm,
        alarm=alarm,
        tight=tracker.tight | begins,
        alarms=tracker.alarms.at[place].set(jnp.where(begins, entry, tracker.alarms[place])),
        count=tracker.count + begins.astype(jnp.int32),
        outside_rows=tracker.outside_rows + outside.astype(jnp.int32),
    )
    return following, score


def remembered_rows(tracker: Tracker) -> Float[np.ndarray, "rows 2"]:
    """The rows of the ring that hold something, in no order."""
    return np.asarray(tracker.recent)[: min(int(tracker.remembered), tracker.recent.shape[0])]
