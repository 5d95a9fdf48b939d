"""NPZ archives (OmniSafe's layout, Gymnasium recordings of ours): read in blocks, never unpickled.

Members are opened one beside the other and read forwards, so that an archive may be larger than
memory. Nothing is unpacked to disk.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.arrays import (
    DECLARATION,
    ArrayColumn,
    array_blocks,
    array_layout,
    array_widths,
    check_shapes,
    declared_by_us,
)
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.source import (
    AbstractSource,
    Block,
    Declaration,
    check_numeric,
    require_columns,
)

MAXIMUM_MEMBERS = 1_000
MAXIMUM_HEADER = 10_000
MAXIMUM_RATIO = 500
"""Largest compression that a log may have once it is larger than `LARGE` bytes."""
LARGE = 2**28
_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)
"""What `zipfile` and NumPy raise; the last for encryption and for unknown compression."""


class NPZSource(AbstractSource):
    """Arrays of equal length; rows count from 0."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        del mapping
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = self._checked(archive)
                self._headers = {
                    name: self._header(archive, member) for name, member in self._members.items()
                }
                self._text = self._declared_text(archive)
        except _DAMAGE as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{path} is no sound NPZ archive: {error}.") from error
        # Numbers without rows, such as a frame rate, are no columns.
        self._headers = {name: one for name, one in self._headers.items() if one[0]}
        check_shapes({name: _described(one[0]) for name, one in self._headers.items()}, path)

    def widths(self) -> Mapping[str, int | None]:
        return array_widths({name: _described(one[0]) for name, one in self._headers.items()})

    def rows(self) -> int | None:
        return max((shape[0] for shape, _, _ in self._headers.values()), default=0)

    def declaration(self) -> Declaration:
        return declared_by_us(self._text, array_layout(self.widths()), self.path)

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        require_columns(self.widths(), [*numbers, *texts], self.path)
        for name in numbers:
            check_numeric(self._headers[name][2], name, self.path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                wanted = dict.fromkeys([*numbers, *texts])
                columns = {name: self._opened(archive, name) for name in wanted}
                yield from array_blocks(columns, numbers, texts, self.path)
        except _DAMAGE as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{self.path} is damaged: {error}.") from error

    def _checked(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        """Members by name, without `.npy`."""
        members = archive.infolist()
        if len(members) > MAXIMUM_MEMBERS:
            raise DatasetError(f"{self.path} has {len(members)} members: this is no log.")
        found: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = member.filename
            parts = name.replace("\\", "/").split("/")
            if ".." in parts or name.startswith(("/", "\\")) or ":" in name:
                raise DatasetError(f"{self.path}: member {name!r} points outside of the archive.")
            if not name.endswith(".npy"):
                raise DatasetError(f"{self.path}: member {name!r} is no array (.npy).")
            if member.file_size > LARGE and member.file_size > MAXIMUM_RATIO * max(
                member.compress_size, 1
            ):
                raise DatasetError(
                    f"{self.path}: member {name!r} unpacks to {member.file_size} bytes from "
                    f"{member.compress_size}: refused as a decompression bomb."
                )
            if name.removesuffix(".npy") in found:
                raise DatasetError(f"{self.path}: member {name!r} occurs twice.")
            found[name.removesuffix(".npy")] = member
        return found

    def _header(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo
    ) -> tuple[tuple[int, ...], bool, np.dtype]:
        """Shape, whether columns come first, dtype; checked against the member's size."""
        with archive.open(member) as file:
            shape, fortran, dtype = read_npy_header(file, f"{self.path}: {member.filename!r}")
            size = math.prod(shape) * dtype.itemsize
            if size != member.file_size - file.tell():
                raise DatasetError(
                    f"{self.path}: member {member.filename!r} declares the shape {list(shape)} of "
                    f"{dtype}, but holds {member.file_size - file.tell()} bytes. It is damaged."
                )
        return shape, fortran, dtype

    def _declared_text(self, archive: zipfile.ZipFile) -> str | None:
        """The JSON text that our recorder adds."""
        header = self._headers.get(DECLARATION)
        if header is None or header[0] != () or header[2].kind != "U":
            return None
        with archive.open(self._members[DECLARATION]) as file:
            read_npy_header(file, DECLARATION)
            return str(np.frombuffer(file.read(), header[2])[0])

    def _opened(self, archive: zipfile.ZipFile, name: str) -> ArrayColumn:
        shape, fortran, dtype = self._headers[name]
        file = archive.open(self._members[name])
        read_npy_header(file, name)
        width = int(np.prod(shape[1:], dtype=np.int64))
        if fortran and width > 1:
            # Its rows are scattered over the whole member.
            whole = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
            return ArrayColumn(shape=shape, read=lambda start, stop: whole[start:stop])

        def read(start: int, stop: int) -> np.ndarray:
            count = (stop - start) * width
            data = file.read(count * dtype.itemsize)
            return np.frombuffer(data, dtype, count).reshape((stop - start, *shape[1:]))

        return ArrayColumn(shape=shape, read=read)


def read_npy_header(file: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The header of an `.npy` stream: shape, Fortran order, dtype.

    Raises:
        DatasetError: it holds Python objects.
        ValueError: it is no such header.
    """
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise ValueError(f"version {version} of the NPY format is not known")
    shape, fortran, dtype = reader(file, max_header_size=MAXIMUM_HEADER)
    if dtype.hasobject:
        raise DatasetError(
            f"{where} holds Python objects, which can run code when they are read: refused. Save "
            "plain arrays."
        )
    if any(one < 0 for one in shape):
        raise ValueError("a negative shape")
    return shape, fortran, dtype


def _described(shape: tuple[int, ...]) -> ArrayColumn:
    """A column whose rows nobody reads yet."""
    return ArrayColumn(shape=shape, read=lambda start, stop: np.zeros(0))
