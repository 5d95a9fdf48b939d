"""CSV files, with NumPy and the standard library alone.

A block of lines is cut into cells at once and converted column by column; only a column with a
cell that is no plain number is looked at cell by cell, so that every bad cell has its line.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.identity import MISSING_WORDS, labels
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.source import (
    AbstractSource,
    Block,
    Declaration,
    reading,
    require_columns,
)

BLOCK_LINES = 32_768
BLOCK_SIGNS = 2**22
MAXIMUM_LINE = 2**22
LONG_TAIL = 2**20
"""NUL bytes after which the rest is compared as bytes."""
LONGEST_NUMBER = 400
"""Signs of a cell that can be a number; Python would read millions of digits, slowly."""
LONGEST_QUOTATION = 100
"""Lines that one quoted cell may span; beyond, its quotation mark is a stray one."""
_TRUTH = {"true": 1.0, "false": 0.0}
_SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}):(\d{2}(?:\.\d*)?)")

Lines = tuple[list[str], np.ndarray]
"""Records, and the number of the line that each begins in."""


class CSVSource(AbstractSource):
    """A table with a header line; line numbers count from 1."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        self.path = path
        self._map = mapping
        self._encoding = mapping.encoding
        self.delimiter = mapping.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
        self._absent = frozenset(one.strip() for one in mapping.missing_values)
        numbers = (self._plain(one) for one in self._absent)
        self._absent_numbers = np.asarray([one for one in numbers if one is not None])
        self._tail: Finding | None = None
        self.header_line = 0
        with reading(path):
            header = self._find_header()
            self.header = [name.strip() for name in self._split(header)]
        self.advice = self._advice(header)
        self._places = {name: index for index, name in enumerate(self.header)}
        # Names that repeat and columns without one do no harm unless they are used.
        unique = len(self._places) == len(self.header)
        counts = {} if unique else Counter(self.header)
        self._repeated = {name for name, count in counts.items() if count > 1}
        self._places.pop("", None)

    def widths(self) -> Mapping[str, int | None]:
        return dict.fromkeys(self._places)

    def rows(self) -> int | None:
        return None

    def declaration(self) -> Declaration:
        return Declaration()

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        wanted = [*numbers, *texts]
        require_columns(self._places, wanted, self.path)
        twice = [name for name in wanted if name in self._repeated]
        if twice:
            raise DatasetError(
                f"{self.path}, line {self.header_line}: the header names {sorted(set(twice))} "
                "twice. Rename one column."
            )
        units = self._map.units_row
        for lines, rows in self._records():
            body = rows > self.header_line
            if not body.all():
                lines, rows = (
                    lines[int(np.argmax(body)) if body.any() else len(lines) :],
                    rows[body],
                )
            if units and lines:
                lines, rows, units = lines[1:], rows[1:], False
            for start in range(0, len(lines), BLOCK_LINES):
                part = slice(start, start + BLOCK_LINES)
                yield self._block(lines[part], rows[part], numbers, texts)
        if self._tail is not None:
            nothing = {name: np.zeros(0, np.str_ if name in texts else float) for name in wanted}
            yield Block(columns=nothing, rows=np.zeros(0, np.int64), findings=(self._tail,))

    def _find_header(self) -> str:
        for lines, rows in self._records():
            for line, row in zip(lines, rows.tolist(), strict=True):
                separator = _SEPARATOR.fullmatch(line.strip())
                self.header_line = row
                if separator is None:
                    return line
                if self._map.delimiter is None:
                    self.delimiter = separator[1]
        raise DatasetError(f"{self.path} is empty, expected a header line. Leave it out.")

    def _advice(self, header: str) -> str:
        """What the map may lack, judged by a header that does not have the columns."""
        first = self.header[0]
        if first[:1] in ("#", "%") and self._map.comment is None:
            return (
                f'Its line {self.header_line} looks like a comment: declare comment = "{first[0]}".'
            )
        if len(self.header) == 1:
            marks = [mark for mark in ";\t|, " if mark in header.strip() and mark != self.delimiter]
            if marks:
                return f"It has one column only: declare delimiter = {marks[0]!r}."
        if all(self._plain(name) is not None for name in self.header):
            return "Its header holds numbers: it seems to have no header line."
        return ""

    def _records(self) -> Iterator[Lines]:
        """All lines but comments, empty ones and those above, in blocks."""
        self._tail = None
        with self._opened() as file:
            rest, number = "", 1
            while True:
                chunk = self._read(file, number)
                text = rest + chunk
                if "\0" in text:
                    text, chunk = self._before_nul(text, number, file), ""
                lines = text.split("\n")
                rest = lines.pop() if chunk else ""
                ragged_end = rest if len(rest) > MAXIMUM_LINE else max(lines, key=len, default="")
                if len(ragged_end) > MAXIMUM_LINE:
                    self._refuse_long_line(lines, number)
                rows = np.arange(number, number + len(lines), dtype=np.int64)
                number += len(lines)
                lines, rows = self._kept(lines, rows)
                if '"' in text:
                    lines, rows, opened = self._joined(lines, rows, not chunk)
                    if opened:
                        # A cell that goes on in the next block is read again with it.
                        number -= len(opened)
                        rest = "\n".join([*opened, rest])
                if lines:
                    yield lines, rows
                if not chunk:
                    return

    def _read(self, file: TextIO, number: int) -> str:
        try:
            return file.read(BLOCK_SIGNS)
        except UnicodeError as error:
            with open(self.path, "rb") as raw:
                name = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
            raise DatasetError(
                f"{self.path}, after line {number}: this is no text in {self._encoding} ({error}). "
                f'Declare its encoding in the map, such as encoding = "{name}", or correct its '
                "suffix."
            ) from error

    def _before_nul(self, text: str, number: int, file: TextIO) -> str:
        """The whole lines before a tail of NUL bytes, as a power cut leaves it.

        Raises:
            DatasetError: NUL bytes elsewhere: the file is no text.
        """
        before, _, after = text.partition("\0")
        place = number + before.count("\n")
        seen = 0
        while not after.strip("\0\n "):
            seen += len(after)
            after = file.read(BLOCK_SIGNS) if seen < LONG_TAIL else self._rest(file)
            if not after:
                cut = before.rpartition("\n")
                detail = "the last line is cut off there" if cut[2] else ""
                self._tail = self._finding("nul-tail", place, "", detail)
                return cut[0]
        raise DatasetError(
            f"{self.path}, line {place}: NUL bytes, and text after them. This is no CSV file, or "
            "it is damaged. Restore it, or correct its suffix or the map's encoding."
        )

    @staticmethod
    def _rest(file: TextIO) -> str:
        """What follows a long tail of NUL bytes, without decoding gigabytes of them."""
        raw = file.buffer
        # The text reader may have decoded a little more than it has handed out.
        raw.seek(max(raw.tell() - LONG_TAIL // 2, 0))
        nothing = bytes(2**22)
        while chunk := raw.read(len(nothing)):
            if chunk != nothing[: len(chunk)] and chunk.strip(b"\0\r\n\t "):
                return "text"
        return ""

    def _refuse_long_line(self, lines: list[str], number: int) -> None:
        place = next((i for i, one in enumerate(lines) if len(one) > MAXIMUM_LINE), len(lines))
        raise DatasetError(
            f"{self.path}, line {number + place} is longer than {MAXIMUM_LINE // 2**20} MiB, which "
            "no line of a log is. Leave columns out, or correct its suffix."
        )

    def _kept(self, lines: list[str], rows: np.ndarray) -> Lines:
        above, comment = self._map.skip_rows, self._map.comment
        kept = [bool(line) and not line.isspace() for line in lines]
        if comment is not None:
            mark = comment.strip()
            kept = [
                one and not line.lstrip().startswith(mark)
                for one, line in zip(kept, lines, strict=True)
            ]
        if above and len(rows) and rows[0] <= above:
            kept = [one and row > above for one, row in zip(kept, rows.tolist(), strict=True)]
        if all(kept):
            return lines, rows
        return [line for line, one in zip(lines, kept, strict=True) if one], rows[np.asarray(kept)]

    def _joined(
        self, lines: list[str], rows: np.ndarray, final: bool
    ) -> tuple[list[str], np.ndarray, list[str]]:
        """Lines of one quoted cell as one record; the last part may go on in the next block."""
        closed = self._quotations()
        records, starts, index = [], [], 0
        while index < len(lines):
            record, end = lines[index], index + 1
            if record.count('"') % 2 and self._is_open(closed, record):
                last = min(len(lines), index + LONGEST_QUOTATION)
                text, is_open = [record], True
                while end < last and is_open:
                    text.append(lines[end])
                    # Only another quotation mark can close it.
                    is_open = '"' not in lines[end] or self._is_open(closed, "\n".join(text))
                    end += 1
                if is_open:
                    if not final and last == len(lines) and len(lines) - index < LONGEST_QUOTATION:
                        return records, np.asarray(starts, np.int64), lines[index:]
                    end = index + 1
                else:
                    record = "\n".join(text)
            records.append(record)
            starts.append(rows[index])
            index = end
        return records, np.asarray(starts, np.int64), []

    def _quotations(self) -> re.Pattern[str]:
        mark = re.escape(self.delimiter)
        return re.compile(rf'((?:^|{mark})\s*)"(?:[^"]|"")*"')

    def _is_open(self, closed: re.Pattern[str], text: str) -> bool:
        """Whether a cell begins with a quotation mark that nothing closes."""
        rest = closed.sub(r"\1", text)
        return re.search(rf'(?:^|{re.escape(self.delimiter)})\s*"', rest) is not None

    def _block(
        self, lines: list[str], rows: np.ndarray, numbers: Sequence[str], texts: Sequence[str]
    ) -> Block:
        findings: list[Finding] = []
        width, mark = len(self.header), self.delimiter
        plain = not any('"' in line for line in lines)
        if plain and all(line.count(mark) == width - 1 for line in lines):
            cells = self._cells(lines, [*numbers, *texts])
        else:
            records = (
                [line.split(mark) for line in lines] if plain else list(map(self._split, lines))
            )
            kept = np.asarray([len(fields) == width for fields in records], np.bool_)
            findings += self._ragged(records, rows, kept)
            records, rows = [one for one in records if len(one) == width], rows[kept]
            cells = {
                name: [fields[self._places[name]] for fields in records]
                for name in (*numbers, *texts)
            }
        longest = max(map(len, lines), default=0)
        columns = {
            name: self._convert(cells[name], name, rows, longest, findings) for name in numbers
        }
        for name in texts:
            with reading(self.path):
                columns[name] = labels([cell.strip() for cell in cells[name]], self._absent)
        return Block(columns=columns, rows=rows, findings=tuple(findings))

    def _cells(self, lines: list[str], names: list[str]) -> dict[str, list[str]]:
        """The cells of some columns, where every line has as many as the header."""
        width, mark = len(self.header), self.delimiter
        last = max((self._places[name] for name in names), default=0)
        if last < width // 2:
            # Most of a wide line is not used.
            parts = [line.split(mark, last + 1) for line in lines]
            return {name: [part[self._places[name]] for part in parts] for name in names}
        # One split of the whole block is five times as fast as NumPy's own text reader.
        every = mark.join(lines).split(mark) if lines else []
        return {name: every[self._places[name] :: width] for name in names}

    def _ragged(
        self, records: list[list[str]], rows: np.ndarray, kept: np.ndarray
    ) -> list[Finding]:
        """Rows of which nobody knows which field is which."""
        if kept.all():
            return []
        first, width = int(np.argmin(kept)), len(self.header)
        fields = len(records[first])
        detail = f"{fields} fields, the header has {width}"
        if fields > width and "." not in "".join(records[first]) and self.delimiter == ",":
            detail += '; are these decimal commas? Then export with delimiter = ";"'
        found = self._finding("ragged-row", int(rows[first]), "", detail, int((~kept).sum()))
        return [found]

    def _convert(
        self, cells: list[str], name: str, rows: np.ndarray, longest: int, findings: list[Finding]
    ) -> np.ndarray:
        """Numbers of a column; NaN where a cell has none, with a finding where it has text."""
        values = self._at_once(cells, longest)
        if values is None:
            parsed = [self.number(cell) for cell in cells]
            bad = [index for index, one in enumerate(parsed) if one is None]
            if bad:
                cell = cells[bad[0]].strip()
                first_row = int(rows[bad[0]]) == int(rows[0]) and len(bad) == 1
                detail = repr(cell[:40]) + self._cell_advice(cell, first_row)
                row = int(rows[bad[0]])
                findings.append(self._finding("not-a-number", row, name, detail, len(bad)))
            values = np.asarray([np.nan if one is None else one for one in parsed], np.float64)
        if len(self._absent_numbers):
            values = np.where(np.isin(values, self._absent_numbers), np.nan, values)
        return values

    def _at_once(self, cells: list[str], longest: int) -> np.ndarray | None:
        """All cells as plain numbers, or None where one of them is something else."""
        if longest > LONGEST_NUMBER and max(map(len, cells), default=0) > LONGEST_NUMBER:
            return None
        together = "".join(cells)
        # Python would take 1_000 for a number, no other program does.
        if "_" in together:
            return None
        if self._map.decimal == ",":
            if "." in together:
                return None
            cells = [cell.replace(",", ".") for cell in cells]
        try:
            return np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            return None

    def _cell_advice(self, cell: str, first_row: bool) -> str:
        if self._map.decimal == "." and _DECIMAL_COMMA.fullmatch(cell):
            return ': declare decimal = ","'
        if first_row:
            return ": if this row names units, declare units_row = true"
        if cell.isascii() and len(cell) <= 10 and not any(map(str.isdigit, cell)):
            return f": if it stands for a missing value, declare missing_values = [{cell!r}]"
        return ""

    def _plain(self, cell: str) -> float | None:
        """The value of a plain number."""
        if len(cell) > LONGEST_NUMBER or "_" in cell:
            return None
        if self._map.decimal == ",":
            if "." in cell:
                return None
            cell = cell.replace(",", ".")
        try:
            return float(cell)
        except ValueError:
            return None

    def number(self, cell: str) -> float | None:
        """The value of a cell: NaN for a missing one, seconds for a time, None for text."""
        cell = cell.strip()
        if cell in self._absent:
            return float("nan")
        value = self._plain(cell)
        if value is not None:
            return value
        word = cell.lower()
        if word in MISSING_WORDS:
            return float("nan")
        return _TRUTH[word] if word in _TRUTH else _seconds(cell)

    def _split(self, record: str) -> list[str]:
        # A blank after the delimiter is no part of a cell, so that ` "a"` is a quoted one.
        blank = self.delimiter != " "
        rows = list(csv.reader([record], delimiter=self.delimiter, skipinitialspace=blank))
        return rows[0] if rows else []

    def _finding(self, code: str, row: int, column: str, detail: str, count: int = 1) -> Finding:
        return Finding(
            code=code, file=str(self.path), row=row, column=column, detail=detail, count=count
        )

    def _opened(self) -> TextIO:
        name = "utf-8-sig" if self._encoding.lower() in ("utf-8", "utf8") else self._encoding
        try:
            return open(self.path, encoding=name)
        except OSError as error:
            raise DatasetError(
                f"cannot read {self.path}: {error.strerror}. Check the path."
            ) from error


def _seconds(cell: str) -> float | None:
    """Seconds of a time: since 1970 of an ISO 8601 date with one, else since midnight.

    Dates without a zone are of UTC.
    """
    clock = _CLOCK.fullmatch(cell)
    if clock is not None:
        return 3600.0 * int(clock[1]) + 60.0 * int(clock[2]) + float(clock[3])
    if ":" not in cell:
        return None
    try:
        moment = datetime.fromisoformat(cell)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
