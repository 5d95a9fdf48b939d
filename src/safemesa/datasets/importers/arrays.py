"""What array formats (NPZ, HDF5, Minari) share: names that their communities gave the columns."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.datasets.findings import LogError
from safemesa.datasets.importers.identity import labels
from safemesa.datasets.importers.import_map import STEPS, ColumnNames, ImportMap, SignalMap
from safemesa.datasets.importers.source import (
    BLOCK_ROWS,
    MAXIMUM_WIDTH,
    Block,
    Declaration,
    check_numeric,
)

DECLARATION = "safemesa"
"""Where our own exports keep what the foreign format has no place for, as JSON."""

EPISODE, STEP = "metadata/episode", "metadata/step"
"""Columns that some readers add, and our recordings have."""

ALIASES: dict[str, tuple[str, ...]] = {
    "obs": ("observations", "obs"),
    "next_obs": ("next_observations", "next_obs"),
    "action": ("actions", "action"),
    "reward": ("rewards", "reward"),
    "cost": ("costs", "cost", "infos/cost"),
    "terminated": ("terminals", "terminations", "terminated"),
    "truncated": ("timeouts", "truncations", "truncated"),
    "episode": ("metadata/episode", "episode"),
    "step": ("metadata/step", "step"),
}
"""Meaning to names in DSRL, D4RL, Minari, OmniSafe and Gymnasium recordings.

OmniSafe's `done` is not among them: whether it stops the bootstrap must be declared.
"""


@dataclass(frozen=True, kw_only=True)
class ArrayColumn:
    """One array of a file; what is wrong with it matters only if the map uses it."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype | None = None
    """None for text of varying length."""
    read: Callable[[int, int], np.ndarray] = lambda start, stop: np.zeros(0)
    """Rows `start` to `stop`, in order."""
    problem: str = ""
    """Why it is not read; empty if it can be."""


def array_widths(columns: Mapping[str, ArrayColumn]) -> dict[str, int | None]:
    """Numbers per row: None for `[n]`, and for what cannot be read."""
    return {
        name: None
        if len(one.shape) < 2 or one.problem
        else int(np.prod(one.shape[1:], dtype=np.int64))
        for name, one in columns.items()
    }


def unread_arrays(columns: Mapping[str, ArrayColumn]) -> tuple[str, ...]:
    """Names of what is in the file and is no column of a log."""
    return tuple(name for name, one in columns.items() if one.problem or _shape_problem(one))


def _shape_problem(one: ArrayColumn) -> str:
    if 1 <= len(one.shape) <= 2 and (len(one.shape) == 1 or one.shape[1] <= MAXIMUM_WIDTH):
        return ""
    return f"has the shape {list(one.shape)}, expected [rows] or [rows, at most {MAXIMUM_WIDTH}]"


def require_sound(
    columns: Mapping[str, ArrayColumn], numbers: Sequence[str], texts: Sequence[str], where: Path
) -> None:
    """Checks the columns that are used, and no others.

    Raises:
        DatasetError: one cannot be read, is no array of rows, or holds no numbers; or their
            numbers of rows differ.
    """
    for name in dict.fromkeys([*numbers, *texts]):
        one = columns[name]
        problem = one.problem or _shape_problem(one)
        if problem:
            raise DatasetError(f"{where}: {name!r} {problem}.")
        if name in texts and len(one.shape) > 1:
            raise DatasetError(
                f"{where}: {name!r} has {list(one.shape)} values, expected one identifier per row."
            )
        if name in numbers or (one.dtype is not None and one.dtype.kind not in "US"):
            check_numeric(np.dtype(object) if one.dtype is None else one.dtype, name, where)
    lengths = {name: columns[name].shape[0] for name in dict.fromkeys([*numbers, *texts])}
    if len(set(lengths.values())) > 1:
        raise LogError(
            "lengths-differ",
            f"{where}: columns differ in their number of rows: "
            f"{', '.join(f'{name} {count}' for name, count in list(lengths.items())[:40])}. The "
            "recording was cut off, or arrays of T + 1 observations are stored flat; record it "
            "again.",
        )


def array_blocks(
    columns: Mapping[str, ArrayColumn], numbers: Sequence[str], texts: Sequence[str], first: int = 0
) -> Iterator[Block]:
    """Reads the wanted columns side by side; `require_sound` must have passed."""
    wanted = list(dict.fromkeys([*numbers, *texts]))
    total = columns[wanted[0]].shape[0] if wanted else 0
    for start in range(0, total, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, total)
        read = {name: columns[name].read(start, stop) for name in wanted}
        values = {name: read[name] for name in numbers}
        values |= {name: labels(read[name]) for name in texts}
        yield Block(columns=values, rows=np.arange(first + start, first + stop, dtype=np.int64))


def array_layout(widths: Mapping[str, int | None]) -> ImportMap:
    """The map that the columns' names imply. Bounds, dt and the like stay open."""
    found = {
        meaning: next((name for name in names if name in widths), None)
        for meaning, names in ALIASES.items()
    }
    obs, action = found["obs"], found["action"]
    return ImportMap(
        rows=STEPS,
        columns=ColumnNames(
            episode=found["episode"],
            step=found["step"],
            reward=found["reward"],
            terminated=found["terminated"],
            truncated=found["truncated"],
        ),
        obs=()
        if obs is None
        else (SignalMap(name=obs, column=obs, next_column=found["next_obs"]),),
        action=() if action is None else (SignalMap(name=action, column=action),),
        cost_column=found["cost"],
    )


def declared_by_us(
    text: str | None, layout: ImportMap, where: Path, unread: tuple[str, ...] = ()
) -> Declaration:
    """Reads what one of our exports wrote beside the columns.

    Raises:
        DatasetError: it is damaged.
    """
    if text is None:
        return Declaration(layout=layout, unread=unread)
    try:
        record = json.loads(text)
        spaces = record["spaces"]
        declared = Spaces(
            obs_names=tuple(map(str, spaces["obs_names"])),
            action_names=tuple(map(str, spaces["action_names"])),
            action_low=tuple(map(float, spaces["action_low"])),
            action_high=tuple(map(float, spaces["action_high"])),
            horizon=int(spaces["horizon"]),
            dt=float(spaces["dt"]),
        )
        return Declaration(
            domain=str(record["domain"]),
            task=str(record["task"]),
            role=str(record["role"]),
            parameters=dict(record["parameters"]),
            provenance=dict(record["provenance"]),
            spaces=declared,
            layout=replace(layout, dt=declared.dt, horizon=declared.horizon),
            unread=unread,
            numbered=layout.columns.episode is not None and layout.columns.step is not None,
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise DatasetError(
            f"{where}: its {DECLARATION!r} declaration is damaged ({error!r:.100}). Export again."
        ) from error


def declaration_text(record: Mapping[str, Any]) -> str:
    """The inverse: JSON that `declared_by_us` reads."""
    return json.dumps(record, allow_nan=False)
