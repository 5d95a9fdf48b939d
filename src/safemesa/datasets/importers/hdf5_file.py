"""HDF5 files through h5py (extra `data`): flat arrays (DSRL, D4RL), or a group per episode.

A file can name other files (external links, external storage, virtual datasets) and declare sizes
that it does not hold. Such parts are not followed; a map that uses one is refused.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.findings import LogError
from safemesa.datasets.importers.arrays import (
    DECLARATION,
    EPISODE,
    ArrayColumn,
    array_blocks,
    array_layout,
    array_widths,
    declared_by_us,
    require_sound,
    unread_arrays,
)
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.source import (
    LARGE,
    MAXIMUM_RATIO,
    AbstractSource,
    Block,
    Declaration,
    reading,
    require_columns,
)

MAXIMUM_DEPTH = 4
MAXIMUM_OBJECTS = 10_000
MAXIMUM_EPISODES = 100_000
_EPISODE = re.compile(r"(?:demo|episode|ep|traj|trajectory|rollout)[-_]?(\d{1,9})", re.IGNORECASE)


class HDF5Source(AbstractSource):
    """Datasets of equal length; those in groups are named `group/dataset`. Rows count from 0.

    Where all datasets are in groups such as `data/demo_0`, every group is an episode.
    """

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        del mapping
        self.path = path
        with reading(path), open_hdf5(path) as file:
            self._text = attribute_text(file)
            self._episodes = episode_groups(file, path)
            if self._episodes:
                first = file[self._episodes[0]]
                found = array_columns(first, path)
                total = max((one.shape[0] for one in found.values() if one.shape), default=0)
                found[EPISODE] = ArrayColumn(shape=(total,), dtype=np.dtype(np.int64))
            else:
                found = array_columns(file, path)
        # Numbers without rows are metadata (D4RL keeps some), not columns.
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
        with open_hdf5(self.path) as file:
            if not self._episodes:
                require_sound(self._columns, numbers, texts, self.path)
                yield from array_blocks(_opened(file, self._columns), numbers, texts)
                return
            first = 0
            for name in self._episodes:
                group = file[name]
                where = Path(f"{self.path}/{name}")
                columns = {
                    key: array_column(group, key, where)
                    for key in dict.fromkeys([*numbers, *texts])
                    if key != EPISODE
                }
                total = max((one.shape[0] for one in columns.values() if one.shape), default=0)
                number = _number(name)
                columns[EPISODE] = ArrayColumn(
                    shape=(total,),
                    dtype=np.dtype(np.int64),
                    read=lambda start, stop, number=number: np.full(stop - start, number),
                )
                require_sound(columns, numbers, texts, where)
                yield from array_blocks(_opened(group, columns), numbers, texts, first)
                first += total


def _opened(group: Any, columns: Mapping[str, ArrayColumn]) -> dict[str, ArrayColumn]:
    def column(name: str, one: ArrayColumn) -> ArrayColumn:
        if name == EPISODE and name not in group:
            return one
        dataset = group[name]
        # h5py reads text of varying length as bytes.
        return ArrayColumn(
            shape=one.shape, dtype=one.dtype, read=lambda start, stop: dataset[start:stop]
        )

    return {name: one if one.problem else column(name, one) for name, one in columns.items()}


def open_hdf5(path: Path) -> Any:
    """Opens a file for reading.

    Raises:
        DatasetError: it is missing, truncated or no HDF5 file.
    """
    h5py = import_extra("h5py", "data")
    with reading(path):
        return h5py.File(path, "r")


def attribute_text(file: Any) -> str | None:
    """The JSON text that our export keeps in the attribute `safemesa` of the root."""
    value = file.attrs.get(DECLARATION)
    return value if isinstance(value, str) else None


def episode_groups(file: Any, path: Path) -> list[str]:
    """Groups that are one episode each, in the order of their numbers; empty where none are."""
    for prefix in ("data/", ""):
        parent = file
        if prefix:
            if "data" not in file or not is_hard_group(file, "data"):
                continue
            parent = file["data"]
        names = [name for name in parent if _EPISODE.fullmatch(name)]
        if len(names) > MAXIMUM_EPISODES:
            raise DatasetError(f"{path} has {len(names)} groups: more than a log has episodes.")
        found = [name for name in names if is_hard_group(parent, name)]
        others = [
            name for name in parent if name not in set(names) and not is_hard_group(parent, name)
        ]
        if found and not others:
            return sorted((f"{prefix}{name}" for name in found), key=_number)
    return []


def _number(name: str) -> int:
    match = _EPISODE.fullmatch(name.rsplit("/", 1)[-1])
    return int(match[1]) if match else -1


def is_hard_group(group: Any, name: str) -> bool:
    """Whether a child is a group of this file, and not a link to elsewhere."""
    h5py = import_extra("h5py", "data")
    try:
        link = group.get(name, getlink=True)
        return isinstance(link, h5py.HardLink) and isinstance(group[name], h5py.Group)
    except Exception:
        # Damaged; `array_column` says how, if anybody wants it.
        return False


def array_columns(group: Any, path: Path) -> dict[str, ArrayColumn]:
    """All that is below a group, by its path; `problem` says why a part is not read.

    Raises:
        DatasetError: there are more objects than a log has.
    """
    h5py = import_extra("h5py", "data")
    found: dict[str, ArrayColumn] = {}
    visited = 0
    waiting = [("", group, 0)]
    # A group can hold itself.
    seen = {h5py.h5o.get_info(group.id).addr}
    while waiting:
        prefix, one, depth = waiting.pop()
        for name in one:
            visited += 1
            place = f"{prefix}{name}"
            if visited > MAXIMUM_OBJECTS:
                raise DatasetError(
                    f"{path} has more than {MAXIMUM_OBJECTS} objects, which no log of flat arrays "
                    "has. Export it flat, or give each episode a group `demo_N`."
                )
            if not is_hard_group(one, name):
                found[place] = array_column(one, name, path)
            elif depth < MAXIMUM_DEPTH:
                child = one[name]
                address = h5py.h5o.get_info(child.id).addr
                if address not in seen:
                    seen.add(address)
                    waiting.append((f"{place}/", child, depth + 1))
            else:
                found[place] = ArrayColumn(problem=f"lies more than {MAXIMUM_DEPTH} levels deep")
    return found


def array_column(group: Any, name: str, path: Path) -> ArrayColumn:
    """One dataset, checked as far as its description goes: nothing is read.

    Raises:
        LogError: there is none of this name.
    """
    h5py = import_extra("h5py", "data")
    parent = group
    for part in name.split("/"):
        link = parent.get(part, getlink=True) if isinstance(parent, h5py.Group) else None
        if link is None:
            raise LogError("missing-column", f"{path} has no {name!r}, which others have.")
        if not isinstance(link, h5py.HardLink):
            return ArrayColumn(
                problem=f"is a {type(link).__name__}, which can point to other files: refused. "
                "Copy the data into the file"
            )
        try:
            parent = parent[part]
        except Exception as error:
            return ArrayColumn(problem=f"is damaged: {error}")
    if not isinstance(parent, h5py.Dataset):
        return ArrayColumn(problem="is no dataset, expected an array")
    try:
        return _described(h5py, parent)
    except Exception as error:
        return ArrayColumn(problem=f"is damaged: {error}")


def _described(h5py: Any, dataset: Any) -> ArrayColumn:
    if dataset.external or dataset.is_virtual:
        return ArrayColumn(problem="keeps its data in other files: refused")
    shape, dtype = dataset.shape, dataset.dtype
    if shape is None:
        return ArrayColumn(problem="holds nothing")
    size, stored = math.prod(shape) * dtype.itemsize, dataset.id.get_storage_size()
    if size > LARGE and size > MAXIMUM_RATIO * max(stored, 1):
        return ArrayColumn(
            problem=f"declares the shape {list(shape)}, {size} bytes, but stores {stored}: refused"
        )
    is_text = h5py.check_string_dtype(dtype) is not None
    return ArrayColumn(shape=shape, dtype=None if is_text and dtype.kind == "O" else dtype)
