"""CSV files, with NumPy and the standard library alone.

Sound blocks are parsed at once; any other block is read again cell by cell, so that every bad cell
is named by line and column.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.source import (
    AbstractSource,
    Block,
    Declaration,
    require_columns,
)

BLOCK_LINES = 32_768
MAXIMUM_LINE = 2**20
LONGEST_TEXT = 128
"""Signs of an identifier."""
_WORDS = {
    **dict.fromkeys(("", "nan", "null", "none", "na", "n/a"), float("nan")),
    "true": 1.0,
    "false": 0.0,
}


class CSVSource(AbstractSource):
    """A table with a header line; line numbers count from 1."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        self.path = path
        self.delimiter = mapping.delimiter
        with _opened(path) as file:
            header = _line(file, path)
        if not header.strip():
            raise DatasetError(f"{path} is empty, expected a header line. Leave it out.")
        self.header = [name.strip() for name in next(self._split([header]))]
        repeated = {name for name in self.header if self.header.count(name) > 1}
        if repeated:
            raise DatasetError(
                f"{path}, line 1: the header names {sorted(repeated)} twice. Rename one column."
            )
        if len(self.header) == 1 and any(mark in header for mark in ";\t|"):
            raise DatasetError(
                f"{path}, line 1: one column only, {header.strip()[:80]!r}. Declare the delimiter "
                'in the map, such as delimiter = ";".'
            )

    def widths(self) -> Mapping[str, int | None]:
        return dict.fromkeys(self.header)

    def rows(self) -> int | None:
        return None

    def declaration(self) -> Declaration:
        return Declaration()

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        require_columns(self.widths(), [*numbers, *texts], self.path)
        number = 1
        with _opened(self.path) as file:
            _line(file, self.path)
            try:
                while lines := list(islice(file, BLOCK_LINES)):
                    first, number = number + 1, number + len(lines)
                    yield self._block(lines, first, numbers, texts)
            except UnicodeDecodeError as error:
                raise _not_text(self.path) from error

    def _block(
        self, lines: list[str], first: int, numbers: Sequence[str], texts: Sequence[str]
    ) -> Block:
        rows = np.arange(first, first + len(lines), dtype=np.int64)
        filled = np.fromiter((not line.isspace() for line in lines), np.bool_, len(lines))
        if not filled.all():
            lines, rows = [line for line in lines if not line.isspace()], rows[filled]
        expected = len(self.header) - 1
        quoted = any('"' in line for line in lines)
        sound = not quoted and all(line.count(self.delimiter) == expected for line in lines)
        # An overlong line is a file of another kind, and would be slow to split.
        if max(map(len, lines), default=0) > MAXIMUM_LINE:
            raise _not_text(self.path)
        columns = self._fast(lines, numbers, texts) if sound else None
        if columns is not None:
            return Block(columns=columns, rows=rows)
        return self._slow(lines, rows, numbers, texts)

    def _fast(
        self, lines: list[str], numbers: Sequence[str], texts: Sequence[str]
    ) -> dict[str, np.ndarray] | None:
        """All cells at once; None where one of them is no number or a text is too long."""
        width, count = len(self.header), len(lines)
        # One split of the whole block is five times as fast as NumPy's own text reader.
        text = self.delimiter.join(lines)
        cells, underscored = text.split(self.delimiter) if lines else [], "_" in text
        columns: dict[str, np.ndarray] = {}
        try:
            for name in numbers:
                own = cells[self.header.index(name) :: width]
                if underscored and any("_" in cell for cell in own):
                    return None
                columns[name] = np.fromiter(map(float, own), np.float64, count)
        except ValueError:
            return None
        for name in texts:
            own = [cell.strip() for cell in cells[self.header.index(name) :: width]]
            if max(map(len, own), default=0) >= LONGEST_TEXT:
                return None
            columns[name] = np.asarray(own, np.str_)
        return columns

    def _slow(
        self, lines: list[str], rows: np.ndarray, numbers: Sequence[str], texts: Sequence[str]
    ) -> Block:
        findings: list[Finding] = []
        parsed: dict[str, list] = {name: [] for name in (*numbers, *texts)}
        places = {name: self.header.index(name) for name in parsed}
        kept = np.ones(len(lines), np.bool_)
        for index, fields in enumerate(self._split_each(lines)):
            row = int(rows[index])
            if len(fields) != len(self.header):
                # Nobody knows which of its fields is which.
                kept[index] = False
                detail = f"{len(fields)} fields, the header has {len(self.header)}"
                findings.append(self._finding("ragged-row", row, "", detail))
                continue
            for name in numbers:
                cell = fields[places[name]].strip()
                value = _number(cell)
                if value is None:
                    findings.append(self._finding("not-a-number", row, name, repr(cell[:40])))
                parsed[name].append(np.nan if value is None else value)
            for name in texts:
                cell = fields[places[name]].strip()
                if len(cell) >= LONGEST_TEXT:
                    raise DatasetError(
                        f"{self.path}, line {row}: the identifier in column {name!r} is longer "
                        f"than {LONGEST_TEXT - 1} signs. Shorten it."
                    )
                parsed[name].append(cell)
        columns = {name: np.asarray(parsed[name], np.float64) for name in numbers}
        columns |= {name: np.asarray(parsed[name], np.str_) for name in texts}
        return Block(columns=columns, rows=rows[kept], findings=tuple(findings))

    def _split(self, lines: list[str]) -> Iterator[list[str]]:
        try:
            yield from csv.reader(lines, delimiter=self.delimiter)
        except csv.Error as error:
            raise DatasetError(f"{self.path} is no CSV file: {error}.") from error

    def _split_each(self, lines: list[str]) -> Iterator[list[str]]:
        """Line by line, so that a stray quotation mark spoils one row and not all that follow."""
        for line in lines:
            yield next(self._split([line]), [])

    def _finding(self, code: str, row: int, column: str, detail: str) -> Finding:
        return Finding(code=code, file=str(self.path), row=row, column=column, detail=detail)


def _number(cell: str) -> float | None:
    """The value of a cell: NaN for an empty one, seconds for a date with a time, None for text."""
    try:
        # Python would take 1_000 for a number, no other program does.
        return None if "_" in cell else float(cell)
    except ValueError:
        known = _WORDS.get(cell.lower())
        return _seconds(cell) if known is None else known


def _seconds(cell: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date with a time; of UTC where no zone is named."""
    if ":" not in cell:
        return None
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _opened(path: Path) -> TextIO:
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}. Check the path.") from error


def _line(file: TextIO, path: Path) -> str:
    try:
        line = file.readline(MAXIMUM_LINE)
    except (OSError, UnicodeDecodeError) as error:
        raise _not_text(path) from error
    if len(line) >= MAXIMUM_LINE or "\0" in line:
        raise _not_text(path)
    return line


def _not_text(path: Path) -> DatasetError:
    return DatasetError(f"{path} is no CSV file in UTF-8. Convert it, or correct its suffix.")
