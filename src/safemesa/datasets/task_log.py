"""The log of one task as columns, in memory or mapped from a file."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safemesa.datasets.validation import row_chunks

FEW_VIOLATIONS = 10
"""With fewer events in its log, how well a risk fits the new robot is hardly known: `data doctor`
asks for more, `adapt` warns, and an exported shield may only monitor."""


def violations_in_words(events: int, rows: int) -> str:
    """The violations of a log, and on how many rows they are where some stay on."""
    return f"{events} violations" + (f" ({rows} violating rows)" if rows != events else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskLog:
    """The log of one task.

    `columns` maps the names of `format.COLUMNS` to arrays of `[n, ...]`, in memory or mapped from
    a file: obs `[n, o]`, action `[n, a]` (physical units), reward `[n]`, cost `[n]` (0 or 1),
    next_obs `[n, o]`, terminated `[n]`, truncated `[n]`, episode `[n]` and step `[n]`.
    """

    name: str
    role: str
    columns: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def transitions(self) -> int:
        """Number of rows."""
        return int(self.columns["obs"].shape[0])

    @functools.cached_property
    def violations(self) -> int:
        """Number of rows with cost 1."""
        return sum(int(np.count_nonzero(cost)) for cost in self._chunks("cost"))

    @functools.cached_property
    def violation_events(self) -> int:
        """Number of times that cost becomes 1 within an episode: a stop that stays on is one."""
        count, last_cost, last_episode = 0, 0, None
        for chunk in row_chunks(self.transitions):
            cost = np.asarray(self.columns["cost"][chunk]) == 1
            episode = np.asarray(self.columns["episode"][chunk])
            goes_on = cost[1:] & cost[:-1] & (episode[1:] == episode[:-1])
            starts_on = bool(cost[0] and last_cost and episode[0] == last_episode)
            count += int(np.count_nonzero(cost)) - int(np.count_nonzero(goes_on)) - starts_on
            last_cost, last_episode = cost[-1], episode[-1]
        return count

    @functools.cached_property
    def episodes(self) -> int:
        """Number of episodes."""
        count, last = 0, None
        for episode in self._chunks("episode"):
            count += int(np.count_nonzero(np.diff(episode))) + int(episode[0] != last)
            last = episode[-1]
        return count

    @functools.cached_property
    def total_reward(self) -> float:
        """Sum of all rewards."""
        return sum(float(np.sum(reward, dtype=np.float64)) for reward in self._chunks("reward"))

    def next_action(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The logged action of the step after each of `rows`: `(action [n, a], valid [n])`.

        `valid` is false on the last row of an episode, which has no following step; there
        `action` repeats the row's own action, so that it stays within its bounds.
        """
        episode = self.columns["episode"]
        # Steps of an episode have no gaps, so the following row is the following step.
        following = np.minimum(rows + 1, self.transitions - 1)
        valid = (following > rows) & (episode[following] == episode[rows])
        return self.columns["action"][np.where(valid, following, rows)], valid

    @functools.cached_property
    def safe_starts(self) -> np.ndarray:
        """Numbers of the rows (int32) that do not begin in a violation, as far as the log tells.

        A row begins in one where the row before it, of the same episode, reached one.
        """
        rows = np.arange(self.transitions, dtype=np.int32)
        violated = np.asarray(self.columns["cost"][:-1]) > 0.5
        episode = np.asarray(self.columns["episode"])
        begins = np.zeros(self.transitions, np.bool_)
        begins[1:] = violated & (episode[1:] == episode[:-1])
        return rows[~begins]

    @functools.cached_property
    def steps_to_violation(self) -> np.ndarray:
        """Steps (int64) until the episode's next violation, 0 where the row's own step violates.

        Where none follows in the log it is the largest integer.
        """
        violates = np.asarray(self.columns["cost"]) > 0.5
        episode = np.asarray(self.columns["episode"])
        rows = np.arange(self.transitions)
        never = np.iinfo(np.int64).max
        following = np.where(violates, rows, never)
        following = np.minimum.accumulate(following[::-1])[::-1]
        ends = np.append(np.flatnonzero(episode[1:] != episode[:-1]), self.transitions - 1)
        last = ends[np.searchsorted(ends, rows)]
        return np.where(following <= last, following - rows, never)

    def _chunks(self, column: str) -> Iterator[np.ndarray]:
        for chunk in row_chunks(self.transitions):
            yield self.columns[column][chunk]


def log_of_rows(name: str, columns: Mapping[str, np.ndarray]) -> TaskLog:
    """Rows of a new robot, in their order, as its log.

    An episode ends where the next row does not begin in the state that the one before led to, and
    with the rows.

    Args:
        name: Of the log.
        columns: `obs`, `action`, `next_obs`, `reward`, `cost`, `terminated` as in a `TaskLog`.
    """
    terminated = columns["terminated"] > 0.5
    goes_on = (columns["obs"][1:] == columns["next_obs"][:-1]).all(axis=1) & ~terminated[:-1]
    episode = np.concatenate([[0], np.cumsum(~goes_on)]).astype(np.int32)
    starts = np.flatnonzero(np.diff(episode, prepend=-1))
    rest = {
        "terminated": terminated,
        "truncated": np.append(~goes_on, True) & ~terminated,
        "episode": episode,
        "step": (np.arange(len(episode)) - starts[episode]).astype(np.int32),
    }
    return TaskLog(name=name, role="test", columns={**columns, **rest})
