"""Raw rows of one task: what a plan reads from a block, before steps are made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from safemesa.datasets.importers.plan import Plan
from safemesa.datasets.importers.source import Block

UNKNOWN = np.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class RawRows:
    """Rows in the order of the file; what the logs do not have is NaN or None.

    `flags` are cost, terminated and truncated `[n, 3]`; `measured` are the further signals of the
    limit `[n, signals]`; `file` numbers the files.
    """

    obs: Float[np.ndarray, "n obs"]
    next_obs: Float[np.ndarray, "n obs"] | None
    action: Float[np.ndarray, "n act"]
    reward: Float[np.ndarray, " n"]
    flags: Float[np.ndarray, "n 3"]
    measured: Float[np.ndarray, "n signals"]
    time: Float[np.ndarray, " n"] | None
    step: Float[np.ndarray, " n"] | None
    episode: np.ndarray | None
    row: Int[np.ndarray, " n"]
    file: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.row)


Columns = TypeVar("Columns")


def take_rows(record: Columns, index: np.ndarray | slice) -> Columns:
    """Some rows of a dataclass of arrays; its other fields stay."""
    return _rebuilt([record], lambda values: values[0][index])


def join_rows(parts: Sequence[Columns]) -> Columns:
    """Dataclasses of arrays, one after the other; other fields are the first's."""
    return parts[0] if len(parts) == 1 else _rebuilt(parts, np.concatenate)


def _rebuilt(parts: Sequence[Columns], combine: Callable[[list], np.ndarray]) -> Columns:
    first: Any = parts[0]
    columns = {one.name: [getattr(part, one.name) for part in parts] for one in fields(first)}
    return type(first)(
        **{
            name: combine(values) if isinstance(values[0], np.ndarray) else values[0]
            for name, values in columns.items()
        }
    )


def read_rows(plan: Plan, block: Block, file: int) -> RawRows:
    """Applies a plan to a block."""
    names, count = plan.map.columns, len(block.rows)

    def column(name: str | None, missing: float) -> np.ndarray:
        if name is None:
            return np.full(count, missing)
        values = np.asarray(block.columns[name])
        # No reshaping by -1, which an empty block does not allow.
        values = values if values.ndim == 1 else values[:, 0]
        return values.astype(np.float64)

    flags = [plan.map.cost_column, names.terminated, names.truncated]
    return RawRows(
        obs=_stack([one.read(block) for one in plan.obs], count),
        next_obs=_stack([one.read(block) for one in plan.next_obs], count)
        if plan.next_obs
        else None,
        action=_stack([one.read(block) for one in plan.action], count),
        reward=column(names.reward, 0.0),
        flags=np.stack([column(name, UNKNOWN) for name in flags], axis=1),
        measured=_stack([one.read(block) for one in plan.signals], count),
        time=None if names.time is None else column(names.time, UNKNOWN) * plan.map.time_scale,
        step=None if names.step is None else column(names.step, UNKNOWN),
        episode=None if names.episode is None else block.columns[names.episode],
        row=block.rows,
        file=np.full(count, file, np.int64),
    )


def split_tasks(plan: Plan, block: Block, rows: RawRows, default: str) -> list[tuple[str, RawRows]]:
    """Rows by task, in the order of each task's first row; within a task the order stays."""
    name = plan.map.columns.task
    if name is None:
        return [(default, rows)]
    tasks, first, number = np.unique(block.columns[name], return_index=True, return_inverse=True)
    if len(tasks) == 1:
        return [(str(tasks[0]), rows)]
    order = np.argsort(first)
    return [(str(tasks[one]), take_rows(rows, np.flatnonzero(number == one))) for one in order]


def _stack(values: Sequence[np.ndarray], count: int) -> np.ndarray:
    return np.stack(values, axis=1) if values else np.zeros((count, 0))
