"""Parquet files, through pyarrow (extra `data`)."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.identity import labels
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.source import (
    BLOCK_ROWS,
    LARGE,
    MAXIMUM_RATIO,
    MAXIMUM_WIDTH,
    AbstractSource,
    Block,
    Declaration,
    check_numeric,
    reading,
    require_columns,
)


class ParquetSource(AbstractSource):
    """A table; columns of fixed-size lists are arrays. Rows count from 0."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        del mapping
        self.path = path
        self._arrow = import_extra("pyarrow", "data")
        parquet = import_extra("pyarrow.parquet", "data")
        with reading(path):
            self._file = parquet.ParquetFile(path)
            schema = self._file.schema_arrow
            self._repeated = {name for name, count in Counter(schema.names).items() if count > 1}
            is_list = self._arrow.types.is_fixed_size_list
            self._widths = {
                one.name: one.type.list_size if is_list(one.type) else None for one in schema
            }
        self._refuse_inflated()

    def _refuse_inflated(self) -> None:
        """A few bytes can say "the same row, 30 million times", and would be read for hours.

        Raises:
            DatasetError: the rows are so much larger than the file.
        """
        numbers = sum(width or 1 for width in self._widths.values())
        size, stored = 8 * numbers * self._file.metadata.num_rows, self.path.stat().st_size
        if size > LARGE and size > MAXIMUM_RATIO * stored:
            raise DatasetError(
                f"{self.path} has {self._file.metadata.num_rows} rows of {numbers} numbers in "
                f"{stored} bytes: nearly all rows are equal, which is no log of a robot. Leave it "
                "out, or write only what was recorded."
            )

    def widths(self) -> Mapping[str, int | None]:
        return self._widths

    def rows(self) -> int | None:
        return self._file.metadata.num_rows

    def declaration(self) -> Declaration:
        return Declaration()

    def sample_blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        groups = self._file.num_row_groups
        for group in sorted({0, groups // 2, max(groups - 1, 0)}) if groups else ():
            yield from itertools.islice(self._blocks(numbers, texts, [group]), 1)

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        yield from self._blocks(numbers, texts, None)

    def _blocks(
        self, numbers: Sequence[str], texts: Sequence[str], groups: list[int] | None
    ) -> Iterator[Block]:
        """Blocks of some row groups, or of all; rows are counted from the first of these."""
        wanted = list(dict.fromkeys([*numbers, *texts]))
        require_columns(self._widths, wanted, self.path)
        twice = [name for name in wanted if name in self._repeated]
        if twice:
            raise DatasetError(
                f"{self.path}: the schema names {twice} twice. Rename one column of each."
            )
        first = 0
        for batch in self._file.iter_batches(BLOCK_ROWS, row_groups=groups, columns=wanted):
            columns = {name: self._numbers(batch.column(name), name) for name in numbers}
            columns |= {name: labels(batch.column(name).to_pylist()) for name in texts}
            rows = np.arange(first, first + batch.num_rows, dtype=np.int64)
            first += batch.num_rows
            yield Block(columns=columns, rows=rows)

    def _numbers(self, column: Any, name: str) -> np.ndarray:
        return arrow_numbers(self._arrow, column, name, self.path)


TICKS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds of a timestamp's unit."""


def arrow_numbers(arrow: Any, column: Any, name: str, path: Path) -> np.ndarray:
    """An arrow array as numbers `[n]`, or `[n, k]` for lists of fixed size; nulls are NaN.

    Raises:
        DatasetError: text, dates or lists of varying size.
    """
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if arrow.types.is_fixed_size_list(kind):
        if not 1 <= kind.list_size <= MAXIMUM_WIDTH or column.null_count:
            raise DatasetError(f"{path}: column {name!r} has missing or oversized lists.")
        flat = arrow_numbers(arrow, column.flatten(), name, path)
        return flat.reshape(len(column), kind.list_size)
    if arrow.types.is_boolean(kind) or arrow.types.is_decimal(kind):
        column = column.cast(arrow.float64())
        kind = column.type
    if arrow.types.is_timestamp(kind):
        # Seconds, as other time columns have them.
        ticks = column.cast(arrow.int64()).to_numpy(zero_copy_only=False)
        return ticks * np.float64(TICKS[kind.unit])
    if arrow.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (arrow.types.is_integer(kind) or arrow.types.is_floating(kind)):
        raise DatasetError(
            f"{path}: column {name!r} holds {kind}, expected numbers. Correct the map, or convert "
            "the column (lists to a fixed size)."
        )
    values = column.to_numpy(zero_copy_only=False)
    check_numeric(values.dtype, name, path)
    return values
