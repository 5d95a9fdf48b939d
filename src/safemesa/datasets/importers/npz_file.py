"""NPZ archives (OmniSafe's layout, Gymnasium recordings of ours): read in blocks, never unpickled.

Members are opened one beside the other and read forwards, so that an archive may be larger than
memory. Nothing is unpacked to disk.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    declared_by_us,
    require_sound,
    unread_arrays,
)
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.source import (
    AbstractSource,
    Block,
    Declaration,
    reading,
    require_columns,
)

MAXIMUM_MEMBERS = 1_000
MAXIMUM_HEADER = 10_000
MAXIMUM_RATIO = 500
"""Largest compression that a member may have once it is larger than `LARGE` bytes."""
LARGE = 2**28
LONGEST_DECLARATION = 2**24


class NPZSource(AbstractSource):
    """Arrays of equal length; rows count from 0."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        del mapping
        self.path = path
        with reading(path), zipfile.ZipFile(path) as archive:
            self._members = self._checked(archive)
            found = {name: self._described(archive, name) for name in self._members}
            self._text = self._declared_text(archive, found.get(DECLARATION))
        # Numbers without rows, such as a frame rate, are no columns.
        self._columns = {name: one for name, one in found.items() if one.shape or one.problem}

    def widths(self) -> Mapping[str, int | None]:
        return array_widths(self._columns)

    def rows(self) -> int | None:
        return max((one.shape[0] for one in self._columns.values() if one.shape), default=0)

    def declaration(self) -> Declaration:
        layout = array_layout(self.widths())
        return declared_by_us(self._text, layout, self.path, unread_arrays(self._columns))

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        require_columns(self._columns, [*numbers, *texts], self.path)
        require_sound(self._columns, numbers, texts, self.path)
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            columns = {}
            for name in dict.fromkeys([*numbers, *texts]):
                # An archive stays open until its members are closed.
                file = stack.enter_context(archive.open(self._members[name]))
                columns[name] = self._opened(file, name)
            yield from array_blocks(columns, numbers, texts)

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
            if name.removesuffix(".npy") in found:
                raise DatasetError(f"{self.path}: member {name!r} occurs twice.")
            found[name.removesuffix(".npy")] = member
        return found

    def _described(self, archive: zipfile.ZipFile, name: str) -> ArrayColumn:
        """Shape and type of a member, or why it is not read."""
        member = self._members[name]
        if not member.filename.endswith(".npy"):
            return ArrayColumn(problem="is no array (.npy)")
        packed = max(member.compress_size, 1)
        if member.file_size > LARGE and member.file_size > MAXIMUM_RATIO * packed:
            return ArrayColumn(
                problem=f"unpacks to {member.file_size} bytes from {packed}: refused as a "
                "decompression bomb"
            )
        try:
            with archive.open(member) as file:
                shape, _, dtype = read_npy_header(file, repr(name))
                held = member.file_size - file.tell()
        except Exception as error:
            # Members that nobody uses may be anything.
            return ArrayColumn(problem=f"is no array that can be read: {error}")
        if math.prod(shape) * dtype.itemsize != held:
            return ArrayColumn(
                problem=f"declares the shape {list(shape)} of {dtype}, but holds {held} bytes: it "
                "is damaged"
            )
        return ArrayColumn(shape=shape, dtype=dtype)

    def _declared_text(self, archive: zipfile.ZipFile, header: ArrayColumn | None) -> str | None:
        """The JSON text that our recorder adds."""
        if header is None or header.shape or header.dtype is None or header.dtype.kind != "U":
            return None
        if header.dtype.itemsize > LONGEST_DECLARATION:
            raise DatasetError(f"{self.path}: its {DECLARATION!r} member is too long to be ours.")
        with archive.open(self._members[DECLARATION]) as file:
            read_npy_header(file, DECLARATION)
            return str(np.frombuffer(file.read(), header.dtype)[0])

    def _opened(self, file: Any, name: str) -> ArrayColumn:
        one = self._columns[name]
        shape, fortran, dtype = read_npy_header(file, name)
        width = int(np.prod(shape[1:], dtype=np.int64))
        if fortran and width > 1:
            # Its rows are scattered over the whole member.
            whole = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
            return replace(one, read=lambda start, stop: whole[start:stop])

        def read(start: int, stop: int) -> np.ndarray:
            size = (stop - start) * width * dtype.itemsize
            data = file.read(size)
            if len(data) != size:
                raise DatasetError(f"{self.path}: {name!r} ends before its last row.")
            return np.frombuffer(data, dtype).reshape((stop - start, *shape[1:]))

        return replace(one, read=read)


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
