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
from safemesa.datasets.importers.import_map import STEPS, ColumnNames, ImportMap, SignalMap
from safemesa.datasets.importers.source import (
    BLOCK_ROWS,
    MAXIMUM_WIDTH,
    Block,
    Declaration,
    as_text,
)

DECLARATION = "safemesa"
"""Where our own exports keep what the foreign format has no place for, as JSON."""

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
    """One array of a file: its shape, and how to read rows `start` to `stop` in order."""

    shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]


def array_widths(columns: Mapping[str, ArrayColumn]) -> dict[str, int | None]:
    """Numbers per row: None for `[n]`."""
    return {
        name: None if len(one.shape) == 1 else int(np.prod(one.shape[1:], dtype=np.int64))
        for name, one in columns.items()
    }


def check_shapes(columns: Mapping[str, ArrayColumn], where: Path) -> None:
    """Checks ranks and widths; lengths are checked among the columns that are used.

    Raises:
        DatasetError: a column is no array of rows, or its rows are absurdly wide.
    """
    for name, one in columns.items():
        if not 1 <= len(one.shape) <= 2 or (len(one.shape) == 2 and one.shape[1] > MAXIMUM_WIDTH):
            raise DatasetError(
                f"{where}: {name!r} has the shape {list(one.shape)}, expected [rows] or "
                f"[rows, at most {MAXIMUM_WIDTH}]."
            )


def array_blocks(
    columns: Mapping[str, ArrayColumn], numbers: Sequence[str], texts: Sequence[str], where: Path
) -> Iterator[Block]:
    """Reads the wanted columns side by side.

    Raises:
        DatasetError: their numbers of rows differ.
    """
    wanted = list(dict.fromkeys([*numbers, *texts]))
    lengths = {name: columns[name].shape[0] for name in wanted}
    if len(set(lengths.values())) > 1:
        raise LogError(
            "lengths-differ",
            f"{where}: columns differ in their number of rows: "
            f"{', '.join(f'{name} {count}' for name, count in lengths.items())}. The recording "
            "was cut off, or arrays of T + 1 observations are stored flat; record it again.",
        )
    total = next(iter(lengths.values()), 0)
    for start in range(0, total, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, total)
        read = {name: columns[name].read(start, stop) for name in wanted}
        values = {name: read[name] for name in numbers}
        values |= {name: as_text(read[name]) for name in texts}
        yield Block(columns=values, rows=np.arange(start, stop, dtype=np.int64))


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


def declared_by_us(text: str | None, layout: ImportMap, where: Path) -> Declaration:
    """Reads what one of our exports wrote beside the columns.

    Raises:
        DatasetError: it is damaged.
    """
    if text is None:
        return Declaration(layout=layout)
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
            numbered=layout.columns.episode is not None and layout.columns.step is not None,
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise DatasetError(
            f"{where}: its {DECLARATION!r} declaration is damaged ({error!r:.100}). Export again."
        ) from error


def declaration_text(record: Mapping[str, Any]) -> str:
    """The inverse: JSON that `declared_by_us` reads."""
    return json.dumps(record, allow_nan=False)
