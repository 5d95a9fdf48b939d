"""The moments around violations: which rows they are, and what the signals did."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safemesa.datasets.task_log import TaskLog
from safemesa.datasets.validation import row_chunks


class Moment(NamedTuple):
    """Signals around one violation, with time 0 where the violating state is reached.

    `seconds [n]`, `obs [n, o]`, `action [n, a]` in physical units. The last state has no action in
    the log: NaN.
    """

    row: int
    """Of the log: the step that reached the violation."""
    episode: int
    seconds: np.ndarray
    obs: np.ndarray
    action: np.ndarray


def violation_rows(log: TaskLog) -> np.ndarray:
    """Rows (int64) whose step begins a violation; one that lasts for many rows counts once."""
    found = [np.zeros(0, np.int64)]
    last_cost, last_episode = False, None
    for chunk in row_chunks(log.transitions):
        cost = np.asarray(log.columns["cost"][chunk]) > 0.5
        episode = np.asarray(log.columns["episode"][chunk])
        before = np.concatenate([[last_cost and last_episode == episode[0]], cost[:-1]])
        before[1:] &= episode[1:] == episode[:-1]
        found.append(np.flatnonzero(cost & ~before) + chunk.start)
        last_cost, last_episode = bool(cost[-1]), episode[-1]
    return np.concatenate(found)


def evenly(rows: Sequence[int] | np.ndarray, most: int) -> list[int]:
    """At most so many of them, spread evenly from the first to the last."""
    if len(rows) <= most:
        return [int(row) for row in rows]
    places = np.linspace(0, len(rows) - 1, most).round().astype(np.int64)
    return [int(rows[place]) for place in places]


def moment_before(log: TaskLog, row: int, before: int, after: int, dt: float) -> Moment:
    """The last `before` steps up to the violation of `row`, and up to `after` steps behind it."""
    columns, episode = log.columns, int(log.columns["episode"][row])
    start = row + 1 - min(before, int(columns["step"][row]) + 1)
    following = np.asarray(columns["episode"][row + 1 : row + 1 + after])
    stop = row + 1 + int(np.cumprod(following == episode).sum())
    last = np.asarray(columns["next_obs"][stop - 1], np.float64)[None]
    obs = np.concatenate([np.asarray(columns["obs"][start:stop], np.float64), last])
    action = np.asarray(columns["action"][start:stop], np.float64)
    action = np.concatenate([action, np.full((1, action.shape[1]), np.nan)])
    seconds = (np.arange(start, stop + 1) - (row + 1)) * dt
    return Moment(row, episode, seconds, obs, action)
