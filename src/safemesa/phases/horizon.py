"""How far a risk must look ahead, in seconds: asked of the user, or read from the logs."""

import numpy as np

from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog

SHORTEST, LONGEST = 20, 100
"""Steps between which a horizon that is read from logs lies."""
LOST = np.exp(-1.0)
"""A signal has forgotten where it was when its autocorrelation is below this."""
ROWS_PER_LOG = 20_000
"""Rows of a log that are looked at; more tell no more."""


def suggested_horizon(data: OfflineTasks) -> float:
    """Seconds for which this fleet's motion lasts: the median over signals of their memory.

    The memory of a signal is the lag at which its autocorrelation within episodes falls below 1/e.
    What a robot does now is felt for about so long; a risk that looks much less far ahead sees an
    accident only when no action helps any more.
    """
    memories = np.stack([_memories(log) for log in data.train])
    steps = float(np.median(np.median(memories, axis=0)))
    return data.spaces.dt * min(max(steps, SHORTEST), LONGEST)


def _memories(log: TaskLog) -> np.ndarray:
    """Steps until each signal's autocorrelation is lost, `[obs]`; `LONGEST` where it never is."""
    obs = np.asarray(log.columns["obs"][:ROWS_PER_LOG], np.float64)
    episode = np.asarray(log.columns["episode"][:ROWS_PER_LOG])
    centred = obs - obs.mean(axis=0)
    variance = np.maximum(np.square(centred).mean(axis=0), 1e-300)
    found = np.full(obs.shape[1], float(LONGEST))
    for lag in range(LONGEST - 1, 0, -1):
        same = episode[lag:] == episode[:-lag]
        if not same.any():
            continue
        correlation = (centred[lag:][same] * centred[:-lag][same]).mean(axis=0) / variance
        found = np.where(correlation < LOST, lag, found)
    return found
