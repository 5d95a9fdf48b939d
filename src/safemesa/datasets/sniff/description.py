"""Records of what `data sniff` learns of one file: settings, columns, a bounded sample."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.source import Declaration

MOST_COLUMNS = 2_000
"""Of a file; a map of more nobody reads."""
NUMBER, TIME, TEXT = "number", "time", "text"
"""Kinds of columns. Times are dates or times of day, converted to seconds."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A key of the map that the format needs, and why it has this value.

    `key` may be `table.key`, of a table such as `resample` that only this format has.
    Where only the user knows the value, it is `questions.OPEN`, `reason` is the question, and
    `candidates` are possible values.
    """

    key: str
    value: Any
    reason: str
    candidates: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnSample:
    """Some values of a column.

    `parts` are stretches of consecutive rows in the order of the file, the same for all columns:
    float64 `[n]` or `[n, width]` with NaN for missing cells, or text `[n]`.
    """

    name: str
    kind: str = NUMBER
    width: int | None = None
    """Numbers per row; None for a single one or text."""
    parts: tuple[np.ndarray, ...] = ()
    unit: str = ""
    """Where the file declares it."""
    rate: float | None = None
    """Measurements per second, where the file knows it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Description:
    """One file, as far as it was looked at."""

    path: Path
    format: str
    """In words: `CSV`, `ROS 2 bag`."""
    columns: tuple[ColumnSample, ...]
    settings: tuple[Setting, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    """Columns that cannot be read as signals, and why."""
    declaration: Declaration = field(default_factory=Declaration)
    whole: bool = True
    """Whether the sample is all of the file."""
    makes_time: bool = False
    """Rows are made at a declared dt, and no column of the map has the time."""


def require_few_columns(count: int, path: Path) -> None:
    """Refuses files of pixels and scans.

    Raises:
        DatasetError: there are more columns than a proposal has.
    """
    if count > MOST_COLUMNS:
        raise DatasetError(
            f"{path} has {count} columns, expected at most {MOST_COLUMNS} for a proposal. Reduce "
            "images and scans to features, or write the map by hand (docs/import_csv.md)."
        )
