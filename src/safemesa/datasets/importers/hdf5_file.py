"""HDF5 files of flat arrays: DSRL, D4RL and their like, through h5py (extra `data`).

A file can name other files (external links, external storage, virtual datasets) and declare sizes
that it does not hold. All of that is refused before a row is read.
"""

import math
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
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.source import (
    AbstractSource,
    Block,
    Declaration,
    check_numeric,
    require_columns,
)

MAXIMUM_DEPTH = 4
MAXIMUM_OBJECTS = 10_000
MAXIMUM_RATIO = 1_000
"""Largest compression of a dataset that is larger than `LARGE` bytes."""
LARGE = 2**24


class HDF5Source(AbstractSource):
    """Datasets of equal length; those in groups are named `group/dataset`. Rows count from 0."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        del mapping
        self.path = path
        with open_hdf5(path) as file:
            found = plain_datasets(file, path)
            # Numbers without rows are metadata (D4RL keeps some), not columns.
            self._shapes = {name: one.shape for name, one in found.items() if one.shape}
            self._dtypes = {name: one.dtype for name, one in found.items()}
            self._text = attribute_text(file, path)
        check_shapes(self._described(), path)

    def _described(self) -> dict[str, ArrayColumn]:
        nothing = np.zeros(0)
        return {
            name: ArrayColumn(shape=shape, read=lambda start, stop: nothing)
            for name, shape in self._shapes.items()
        }

    def widths(self) -> Mapping[str, int | None]:
        return array_widths(self._described())

    def rows(self) -> int | None:
        return max((shape[0] for shape in self._shapes.values()), default=0)

    def declaration(self) -> Declaration:
        return declared_by_us(self._text, array_layout(self.widths()), self.path)

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        require_columns(self.widths(), [*numbers, *texts], self.path)
        for name in (*numbers, *texts):
            # Fixed-size text is an identifier; text of varying size is an object to h5py.
            if name in numbers or self._dtypes[name].kind != "S":
                check_numeric(self._dtypes[name], name, self.path)
        with open_hdf5(self.path) as file:
            wanted = dict.fromkeys([*numbers, *texts])
            columns = {
                name: ArrayColumn(shape=self._shapes[name], read=_reader(file[name]))
                for name in wanted
            }
            try:
                yield from array_blocks(columns, numbers, texts, self.path)
            except (OSError, RuntimeError) as error:
                raise DatasetError(f"{self.path} is damaged: {error}.") from error


def _reader(dataset: Any) -> Any:
    return lambda start, stop: dataset[start:stop]


def open_hdf5(path: Path) -> Any:
    """Opens a file for reading.

    Raises:
        DatasetError: it is missing, truncated or no HDF5 file.
    """
    h5py = import_extra("h5py", "data")
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path} is no sound HDF5 file: {error}.") from error


def attribute_text(file: Any, path: Path) -> str | None:
    """The JSON text that our export keeps in the attribute `safemesa` of the root."""
    try:
        value = file.attrs.get(DECLARATION)
    except (OSError, RuntimeError, TypeError) as error:
        raise DatasetError(f"{path}: its attributes are damaged: {error}.") from error
    return value if isinstance(value, str) else None


def plain_datasets(group: Any, path: Path) -> dict[str, Any]:
    """All datasets below a group, by their path; links to elsewhere are refused.

    Raises:
        DatasetError: a soft or external link, external or virtual storage, objects, or a size
            that the file does not hold.
    """
    found: dict[str, Any] = {}
    visited = 0
    waiting = [("", group, 0)]
    while waiting:
        prefix, one, depth = waiting.pop()
        for name in _names(one, path):
            visited += 1
            place = f"{prefix}{name}"
            if visited > MAXIMUM_OBJECTS or depth > MAXIMUM_DEPTH:
                raise DatasetError(f"{path}: more objects or levels than a log has, at {place!r}.")
            child = hard_child(one, name, place, path)
            if is_group(child):
                waiting.append((f"{place}/", child, depth + 1))
            else:
                check_dataset(child, place, path)
                found[place] = child
    return found


def _names(group: Any, path: Path) -> list[str]:
    try:
        return list(group)
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is damaged: {error}.") from error


def hard_child(group: Any, name: str, place: str, path: Path) -> Any:
    """A child of a group that is in this file.

    Raises:
        DatasetError: it is a link to elsewhere, or damaged.
    """
    h5py = import_extra("h5py", "data")
    try:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise DatasetError(
                f"{path}: {place!r} is a {type(link).__name__}, which can point to other files: "
                "refused. Copy the data into the file."
            )
        return group[name]
    except (OSError, RuntimeError, KeyError) as error:
        raise DatasetError(f"{path} is damaged at {place!r}: {error}.") from error


def is_group(one: Any) -> bool:
    """Whether an object of a file is a group."""
    h5py = import_extra("h5py", "data")
    return isinstance(one, h5py.Group)


def check_dataset(dataset: Any, place: str, path: Path) -> None:
    """Refuses datasets that reach outside of the file or claim more than it holds.

    Raises:
        DatasetError: what is wrong with it.
    """
    h5py = import_extra("h5py", "data")
    if not isinstance(dataset, h5py.Dataset):
        raise DatasetError(f"{path}: {place!r} is no dataset, expected arrays only.")
    try:
        outside = dataset.external or dataset.is_virtual
        shape, dtype, stored = dataset.shape, dataset.dtype, dataset.id.get_storage_size()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is damaged at {place!r}: {error}.") from error
    if outside:
        raise DatasetError(f"{path}: {place!r} keeps its data in other files: refused.")
    if shape is None:
        raise DatasetError(f"{path}: {place!r} holds nothing. Remove it.")
    size = math.prod(shape) * dtype.itemsize
    if size > LARGE and size > MAXIMUM_RATIO * max(stored, 1):
        raise DatasetError(
            f"{path}: {place!r} declares the shape {list(shape)}, {size} bytes, but stores "
            f"{stored}: refused."
        )
