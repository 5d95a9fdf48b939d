"""Tables of text, which Markdown and HTML share, and how their numbers are written."""

from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """What a cell says, and lines of smaller print below it."""

    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A header and rows of as many cells; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
