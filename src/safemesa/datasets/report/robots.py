"""What a page shows of each robot: counts, a sample of its rows, and its last moments."""

from dataclasses import dataclass

import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.moments import Moment, evenly, moment_before, violation_rows
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.datasets.validation import row_chunks

ROWS = 4000
"""Drawn of each robot; of very many robots or signals fewer."""
ALL_VALUES = 4_000_000
"""Of all signals and robots together."""
EXTREMES = (0.001, 0.999)
"""Quantiles that count as a robot's range: single outliers do not."""
BINS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class RobotView:
    """One robot. Signals are observations, then actions: `s` of them, in physical units."""

    name: str
    role: str
    transitions: int
    episodes: int
    violating_rows: int
    events: int
    """Violations; one that lasts for many rows counts once."""
    rows: np.ndarray
    """A sample `[n, s]`, without rows that are not finite."""
    extremes: np.ndarray
    """`[2, s]`; NaN where there is no sound row."""
    moments: tuple[Moment, ...]
    """Some of the violations, evenly chosen."""


def view_robots(
    data: OfflineTasks, *, before: int, after: int, most_moments: int
) -> list[RobotView]:
    """The new robot first, then the others in their order. Memory is bounded by the sample."""
    logs = [*([data.test] if data.test is not None else []), *data.train]
    values = len(logs) * (data.spaces.obs_size + data.spaces.action_size)
    wanted = min(ROWS, max(ALL_VALUES // values, 100))
    return [_view(log, data.spaces, wanted, before, after, most_moments) for log in logs]


def _view(
    log: TaskLog, spaces: Spaces, wanted: int, before: int, after: int, most: int
) -> RobotView:
    rows, events = sample(log, wanted), violation_rows(log)
    width = spaces.obs_size + spaces.action_size
    extremes = np.quantile(rows, EXTREMES, axis=0) if len(rows) else np.full((2, width), np.nan)
    return RobotView(
        name=log.name,
        role=log.role,
        transitions=log.transitions,
        episodes=log.episodes,
        violating_rows=log.violations,
        events=len(events),
        rows=rows,
        extremes=extremes,
        moments=tuple(
            moment_before(log, row, before, after, spaces.dt) for row in evenly(events, most)
        ),
    )


def sample(log: TaskLog, wanted: int) -> np.ndarray:
    """About `wanted` rows of observations and actions, `[n, s]`, drawn from the whole log.

    Every n-th row would be of the same place in episodes of equal length.
    """
    rng, parts = np.random.default_rng(0), []
    for chunk in row_chunks(log.transitions):
        chosen = rng.random(chunk.stop - chunk.start) * log.transitions < wanted
        parts.append(
            np.concatenate(
                [log.columns["obs"][chunk][chosen], log.columns["action"][chunk][chosen]],
                axis=1,
                dtype=np.float64,
            )
        )
    rows = np.concatenate(parts)
    return rows[np.isfinite(rows).all(axis=1)]


def edges_of(views: list[RobotView], signal: int) -> np.ndarray:
    """Bounds `[BINS + 1]` of equal parts of a signal's range over all robots."""
    extremes = np.array([view.extremes[:, signal] for view in views])
    extremes = extremes[np.isfinite(extremes).all(axis=1)]
    low, high = (extremes.min(), extremes.max()) if len(extremes) else (0.0, 1.0)
    if not high > low:
        spread = abs(low) * 0.05 or 0.5
        low, high = low - spread, high + spread
    return np.linspace(low, high, BINS + 1)


def shares_of(view: RobotView, signal: int, edges: np.ndarray) -> np.ndarray:
    """The share of a robot's rows in each part `[BINS]`; the outer parts hold what is beyond."""
    values = np.clip(view.rows[:, signal], edges[0], edges[-1])
    counts, _ = np.histogram(values, edges)
    return counts / max(len(values), 1)


def outside_others(views: list[RobotView]) -> np.ndarray:
    """Share `[robots, s]` of each robot's rows outside the range of all others; NaN for one."""
    result = np.full((len(views), views[0].extremes.shape[1]), np.nan)
    extremes = np.array([view.extremes for view in views])
    for index, view in enumerate(views):
        others = np.delete(extremes, index, axis=0)
        others = others[np.isfinite(others).all(axis=(1, 2))]
        if not len(others) or not len(view.rows):
            continue
        low, high = others[:, 0].min(axis=0), others[:, 1].max(axis=0)
        result[index] = ((view.rows < low) | (view.rows > high)).mean(axis=0)
    return result
