"""What a reader of one file format offers: named columns, in blocks of consecutive rows."""

import abc
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError, SafemesaError
from safemesa.core.spaces import Spaces
from safemesa.datasets.findings import Finding, LogError
from safemesa.datasets.importers.describe import LogDescription
from safemesa.datasets.importers.import_map import ImportMap

BLOCK_ROWS = 65_536
MAXIMUM_WIDTH = 100_000
"""Numbers per row; more is no log of signals."""

MAXIMUM_RATIO = 1_000
"""Largest compression of what is larger than `LARGE` bytes: no log of signals is so even."""
LARGE = 2**24


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Consecutive rows: columns `[n]` or `[n, k]` of numbers, or `[n]` of text."""

    columns: Mapping[str, np.ndarray]
    rows: np.ndarray
    """Row numbers as the file counts them, int64 `[n]`."""
    findings: tuple[Finding, ...] = ()
    """Cells that could not be read; they are NaN in `columns`."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a file says about itself, beyond its columns."""

    domain: str | None = None
    task: str | None = None
    role: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    spaces: Spaces | None = None
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    """Bounds of the action array, where the format knows them but not the names."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    layout: ImportMap = field(default_factory=ImportMap)
    """Columns whose meaning the format fixes."""
    unread: tuple[str, ...] = ()
    """Parts of the file that are no columns, such as images and texts."""
    numbered: bool = False
    """Episode and step columns are ours: keep them as they are."""


class AbstractSource(abc.ABC):
    """One file (or one folder that is one recording)."""

    path: Path
    advice: str = ""
    """What to try where a column is not found."""

    @abc.abstractmethod
    def widths(self) -> Mapping[str, int | None]:
        """Columns that can be read: how many numbers per row, None for a single one or text."""

    @abc.abstractmethod
    def rows(self) -> int | None:
        """Number of rows, where it is known without reading them."""

    @abc.abstractmethod
    def declaration(self) -> Declaration:
        """What the file says about itself."""

    def describe(self) -> LogDescription:
        """What the log holds; values are not read.

        Raises:
            DatasetError: it is of a format that does not describe itself.
        """
        raise DatasetError(
            f"{self.path} is no log that describes itself; expected a ROS 2 bag, an MCAP or ULog "
            "file, or a LeRobot folder."
        )

    def leftovers(self, used: set[str]) -> tuple[str, ...]:
        """What is in the file beside the columns that are used."""
        every = dict.fromkeys((*self.widths(), *self.declaration().unread))
        return tuple(name for name in every if name not in used)

    @abc.abstractmethod
    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        """Reads these columns; `texts` are identifiers, all others must be numbers.

        Raises:
            DatasetError: the file is damaged, or a column is no number or text.
        """

    def sample_blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        """A few blocks that stand for all: the first, unless the format can leap to others."""
        return itertools.islice(self.blocks(numbers, texts), 1)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever a library raises over a file into a `DatasetError` that names the file.

    Damaged files make libraries raise nearly anything, so there is no list of what to expect; what
    we have to say of a file ourselves passes unchanged.
    """
    try:
        yield
    except SafemesaError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"{path} cannot be read: {reason}. It is damaged, or of another kind than its name "
            "says. Restore it, convert it, or leave it out."
        ) from error


Opener = Callable[[Path, ImportMap], AbstractSource]


def require_columns(given: Mapping[str, Any], wanted: Sequence[str], where: Path) -> None:
    """Raises a `DatasetError` that lists what there is, where a wanted column is not."""
    missing = [name for name in wanted if name not in given]
    if missing:
        raise no_column(missing, given, where)


def no_column(missing: Sequence[str], given: Mapping[str, Any], where: Any) -> LogError:
    """The error that names a column which is not there, and those that are."""
    names = list(given)
    more = f" and {len(names) - 60} more" if len(names) > 60 else ""
    return LogError(
        "missing-column",
        f"{where}: there is no column {', '.join(map(repr, missing[:20]))}. It has: "
        f"{', '.join(map(repr, names[:60]))}{more}. Correct the map.",
    )


def natural_order(path: Path) -> list[tuple[str, int]]:
    """A key that sorts `run_2` before `run_10`, as recorders number their parts."""
    pieces = re.split(r"(\d+)", str(path))
    numbers = [*pieces[1::2], "0"]
    return [(text, int(digits[-18:])) for text, digits in zip(pieces[::2], numbers, strict=True)]


def check_numeric(dtype: np.dtype, name: str, where: Path) -> None:
    """Only bool, integers and floats are signals; objects would have to be unpickled.

    Raises:
        DatasetError: another dtype.
    """
    if dtype.kind not in "buif" or dtype.hasobject:
        raise DatasetError(
            f"{where}: {name!r} holds {dtype}, expected numbers. Files that hold Python objects "
            "are not read: they can run code. Convert them to plain arrays."
        )
