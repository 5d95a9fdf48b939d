"""The dialect of a CSV file, and a sample of its rows: its beginning, middle and end."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.csv_file import LONGEST_QUOTATION, CSVSource
from safemesa.datasets.importers.identity import MISSING_WORDS
from safemesa.datasets.importers.import_map import ImportMap, map_from_record
from safemesa.datasets.importers.source import reading
from safemesa.datasets.sniff.description import (
    NUMBER,
    TEXT,
    TIME,
    ColumnSample,
    Description,
    Setting,
    require_few_columns,
)

LINES = 200
"""Lines that the dialect is judged by."""
MARKS = (",", ";", "\t", "|", " ")
MARK_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
COMMENTS = ("#", "%", "//")
MOSTLY = 0.5
"""Share of a column's cells above which it is one of numbers, and other cells are faults."""
MAXIMUM_WORDS = 4
"""Distinct texts among numbers that may stand for missing values."""
LONGEST_WORD = 12
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
_CLOCK = re.compile(r"(\d{4}-\d\d-\d\d[T ])?\d{1,2}:\d\d(:\d\d.*)?")

Numbered = list[tuple[int, str]]
"""Lines with their numbers."""


def describe_csv(path: Path, budget: int) -> Description:
    """Recognises the dialect and reads at most `budget` bytes of the file.

    Raises:
        DatasetError: it is empty, no text, or has no header line.
    """
    with reading(path):
        chunks, whole = _chunks(path, budget)
        encoding = _encoding(chunks)
        texts = _texts(chunks, encoding)
        settings, default = [], "\t" if path.suffix.lower() == ".tsv" else ","
        if encoding != "utf-8":
            settings.append(Setting(key="encoding", value=encoding, reason="this is no UTF-8"))
        settings += _dialect(texts[0], default)
        mapping = _map(settings)
        source = CSVSource(path, mapping)
        require_few_columns(len(source.header), path)
        if all(source.number(name) is not None for name in source.header):
            raise DatasetError(
                f"{path}, line {source.header_line} holds numbers where the names of columns "
                "belong. Write a header line above them."
            )
        records, units = _records(texts, source, mapping)
        if units:
            reason = f"line {source.header_line + 1} names units: {', '.join(units)[:60]}"
            settings.append(Setting(key="units_row", value=True, reason=reason))
        columns, missing = _columns(source, records, units)
        if missing:
            reason = f"in columns of numbers: {', '.join(missing)}"
            settings.append(Setting(key="missing_values", value=missing, reason=reason))
    repeated = [name for name, count in Counter(source.header).items() if count > 1 and name]
    return Description(
        path=path,
        format="CSV",
        columns=tuple(column for column in columns if column.name not in repeated),
        settings=tuple(settings),
        unread=tuple((name, "the header names it twice") for name in repeated),
        whole=whole,
    )


def _map(settings: Sequence[Setting]) -> ImportMap:
    return map_from_record({setting.key: setting.value for setting in settings})


def _chunks(path: Path, budget: int) -> tuple[list[bytes], bool]:
    """Beginning, middle and end of a file in whole lines, or all of it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= budget:
            return [file.read()], True
        part = budget // 3
        chunks = [file.read(part).rpartition(b"\n")[0]]
        if chunks[0][:2] in (b"\xff\xfe", b"\xfe\xff"):
            # In the middle of such a file nobody knows where a sign begins.
            return [chunks[0][: len(chunks[0]) // 2 * 2]], False
        for place in ((size - part) // 2, size - part):
            file.seek(place)
            lines = file.read(part).partition(b"\n")[2]
            chunks.append(lines.rpartition(b"\n")[0] if place + part < size else lines)
    return chunks, False


def _encoding(chunks: Sequence[bytes]) -> str:
    if chunks[0][:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        for chunk in chunks:
            chunk.decode()
    except UnicodeDecodeError:
        return "cp1252" if all(_decodes(chunk, "cp1252") for chunk in chunks) else "latin-1"
    return "utf-8"


def _decodes(chunk: bytes, encoding: str) -> bool:
    try:
        chunk.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _texts(chunks: Sequence[bytes], encoding: str) -> list[list[str]]:
    """The lines of each chunk; what follows a NUL byte is left to the import."""
    decoded = [chunk.decode(encoding, "ignore") for chunk in chunks]
    decoded[0] = decoded[0].removeprefix("\ufeff")
    texts = [text.partition("\0")[0].replace("\r\n", "\n").replace("\r", "\n") for text in decoded]
    return [text.split("\n") for text in texts]


def _dialect(lines: list[str], default: str) -> list[Setting]:
    """Comment mark, delimiter, lines above the header, and decimal sign, where not the default."""
    first = next((line for line in lines if line.strip()), "")
    declared = re.fullmatch(r"sep=(.)", first.strip(), re.IGNORECASE)
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()][:LINES]
    if declared:
        numbered = numbered[1:]
    comment = _comment(numbered)
    if comment:
        numbered = [(number, line) for number, line in numbered if not _is_comment(line, comment)]
    mark = declared[1] if declared else _delimiter(numbered, default)
    numbers, fields = _parsed(numbered, mark)
    settings = []
    if comment:
        reason = f"lines that begin so stand {'above' if comment in first else 'between'} the rows"
        settings.append(Setting(key="comment", value=comment, reason=reason))
    above = _lines_above(fields)
    if above:
        # A line with `sep=` is heard by the reader, and must not be passed over.
        skipped = numbers[above] - 1
        reason = f"line {skipped + 1} is the first with the fields of a header"
        settings.append(Setting(key="skip_rows", value=skipped, reason=reason))
        if declared:
            settings.append(_delimiter_setting(mark))
    if mark != (declared[1] if declared else default):
        settings.append(_delimiter_setting(mark))
    cells = [cell for row in fields[above + 1 :] for cell in row]
    commas = [cell for cell in cells if _COMMA_NUMBER.fullmatch(cell)]
    if mark != "," and commas and not any(map(_POINT_NUMBER.fullmatch, cells)):
        reason = f"numbers such as {commas[0]}"
        settings.append(Setting(key="decimal", value=",", reason=reason))
    return settings


def _delimiter_setting(mark: str) -> Setting:
    reason = f"cells are parted by {MARK_NAMES.get(mark, mark)}"
    return Setting(key="delimiter", value=mark, reason=reason)


def _is_comment(line: str, mark: str) -> bool:
    return line.lstrip().startswith(mark)


def _comment(numbered: Numbered) -> str | None:
    """The mark of comment lines; not of a header that begins with one."""
    for mark in COMMENTS:
        marked = [_is_comment(line, mark) for _, line in numbered]
        rest = [line for (_, line), is_one in zip(numbered, marked, strict=True) if not is_one]
        if not any(marked) or not rest:
            continue
        last = numbered[marked.index(False) - 1][1] if marked[0] else ""
        begins = any(sign.isalpha() for sign in rest[0])
        if begins or not last or marked.count(True) > marked.index(False):
            return mark
    return None


def _delimiter(numbered: Numbered, default: str) -> str:
    """By which the rows have equal numbers of fields, and the most of these are numbers."""
    best, best_score = default, (0.0, 0.0)
    for mark in sorted(MARKS, key=lambda mark: mark != default):
        _, fields = _parsed(numbered, mark)
        if not fields:
            break
        width, count = Counter(map(len, fields)).most_common(1)[0]
        if width < 2:
            continue
        cells = [cell for row in fields[1:] for cell in row if cell] or ["x"]
        values = sum(_is_value(cell, mark) for cell in cells) / len(cells)
        score = (round(count / len(fields), 1), round(values, 1))
        if score > best_score:
            best, best_score = mark, score
    return best


def _is_value(cell: str, mark: str) -> bool:
    if _NUMBER.fullmatch(cell) or _CLOCK.fullmatch(cell) or cell.lower() in MISSING_WORDS:
        return True
    return mark != "," and _COMMA_NUMBER.fullmatch(cell) is not None


def _parsed(numbered: Numbered, mark: str) -> tuple[list[int], list[list[str]]]:
    """Records with the line that each begins in; a quoted cell may span lines."""
    lines = [f"{line}\n" for _, line in numbered]
    reader = csv.reader(lines, delimiter=mark, skipinitialspace=mark != " ")
    numbers, rows, begin = [], [], 0
    try:
        for row in reader:
            if reader.line_num - begin > LONGEST_QUOTATION:
                raise csv.Error("a quotation mark that nothing closes")
            numbers.append(numbered[begin][0])
            rows.append([cell.strip() for cell in row])
            begin = reader.line_num
    except csv.Error:
        # A stray quotation mark, or one that was opened before the chunk.
        numbers = [number for number, _ in numbered]
        rows = [[cell.strip(' "') for cell in line.split(mark)] for _, line in numbered]
    return numbers, rows


def _lines_above(fields: list[list[str]]) -> int:
    """Rows before the header: those of other widths, such as a title."""
    if not fields:
        return 0
    width = Counter(map(len, fields[len(fields) // 4 :])).most_common(1)[0][0]
    place = next(index for index, row in enumerate(fields) if len(row) == width)
    values = [_is_value(cell, "") for cell in fields[place] if cell]
    # A header of another width than the rows: the doctor says so.
    return 0 if values and sum(values) > MOSTLY * len(values) else place


def _records(
    texts: list[list[str]], source: CSVSource, mapping: ImportMap
) -> tuple[list[list[list[str]]], list[str]]:
    """Rows of each chunk, and the units below the header if there are some."""
    parts, width = [], len(source.header)
    for number, lines in enumerate(texts):
        body = lines[source.header_line :] if number == 0 else lines
        if mapping.comment is not None:
            body = [line for line in body if not _is_comment(line, mapping.comment)]
        kept = [(place, line) for place, line in enumerate(body) if line.strip()]
        _, rows = _parsed(kept, source.delimiter)
        parts.append([row for row in rows if len(row) == width])
    units: list[str] = []
    if len(parts[0]) > 1 and _names_units(parts[0][0], parts[0][1], source):
        units, parts[0] = parts[0][0], parts[0][1:]
    return parts, units


def _names_units(row: list[str], following: list[str], source: CSVSource) -> bool:
    """Whether a row has texts where the next one has numbers, and nowhere a number."""
    if any(cell and source.number(cell) is not None for cell in row):
        return False
    return any(
        cell and source.number(after) is not None and after.lower() not in MISSING_WORDS
        for cell, after in zip(row, following, strict=True)
    )


def _columns(
    source: CSVSource, parts: list[list[list[str]]], units: list[str]
) -> tuple[list[ColumnSample], list[str]]:
    """Columns of numbers, times and texts, and the words that stand for missing values."""
    columns, missing = [], []
    for place, name in enumerate(source.header):
        if not name:
            continue
        cells = [[row[place] for row in rows] for rows in parts]
        counts = Counter(cell for part in cells for cell in part)
        values = {cell: source.number(cell) for cell in counts}
        kind, words = _kind(counts, values)
        missing += [word for word in words if word not in missing]
        numbers = {cell: np.nan if value is None else value for cell, value in values.items()}
        arrays: list[Any] = [
            np.asarray(part, np.str_)
            if kind == TEXT
            else np.fromiter(map(numbers.__getitem__, part), np.float64, len(part))
            for part in cells
        ]
        unit = units[place] if units and units[place].strip("-") else ""
        columns.append(ColumnSample(name=name, kind=kind, parts=tuple(arrays), unit=unit))
    return columns, missing


def _kind(counts: Mapping[str, int], values: Mapping[str, float | None]) -> tuple[str, list[str]]:
    """The kind of a column, and texts among its numbers that look like missing values."""
    numbers = texts = times = 0
    words = []
    for cell, count in counts.items():
        value = values[cell]
        if value is None:
            texts += count
            words.append(cell)
        elif not np.isnan(value):
            numbers += count
            times += count if ":" in cell else 0
    if texts and numbers <= MOSTLY * (numbers + texts):
        return TEXT, []
    if len(words) > MAXIMUM_WORDS or any(
        len(word) > LONGEST_WORD or any(map(str.isdigit, word)) for word in words
    ):
        # What stands there is a fault of the log, which the doctor shows.
        words = []
    return TIME if times > MOSTLY * numbers else NUMBER, words
