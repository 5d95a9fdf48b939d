"""Minari datasets, read from their folder: no environment and no global store is needed.

HDF5 storage is read through h5py, Arrow and Parquet storage through pyarrow (extra `data`). Infos
hold T or T + 1 values; of T + 1 the first belongs to the reset, and the cost of a step is the one
after it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.files import read_json
from safemesa.datasets.findings import LogError
from safemesa.datasets.importers.arrays import (
    DECLARATION,
    EPISODE,
    STEP,
    array_layout,
    declared_by_us,
)
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.hdf5_file import (
    array_columns,
    is_hard_group,
    open_hdf5,
)
from safemesa.datasets.importers.identity import labels
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.parquet_file import arrow_numbers
from safemesa.datasets.importers.source import (
    BLOCK_ROWS,
    AbstractSource,
    Block,
    Declaration,
    check_numeric,
    reading,
    require_columns,
)

NUMBERS_ATTRIBUTES = ("safemesa_episode", "safemesa_step")
"""Attributes of an episode in our exports: its number and the number of its first step."""

Arrays = dict[str, np.ndarray]


class MinariSource(AbstractSource):
    """One Minari dataset; rows count from 0 over all episodes."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        del mapping
        self.path = path
        self._data = path / "data" if (path / "data").is_dir() else path
        with reading(path):
            self._metadata = self._read_metadata()
        self.storage = str(self._metadata.get("data_format", "hdf5"))
        if self.storage not in ("hdf5", "arrow", "parquet"):
            raise DatasetError(f"{path}: Minari storage {self.storage!r} is not known.")
        self._unread: tuple[str, ...] = ()
        with reading(path):
            first = next(self._episodes(None), None)
        if first is None:
            raise DatasetError(f"{path} has no episodes. Leave it out.")
        self._widths = {
            name: None if values.ndim == 1 else values.shape[1] for name, values in first.items()
        }

    def _read_metadata(self) -> Mapping[str, Any]:
        """`metadata.json`, or the attributes of the HDF5 file where older Minari kept them."""
        if (self._data / "metadata.json").is_file():
            return read_json(self._data / "metadata.json", error=DatasetError)
        with open_hdf5(self._data / "main_data.hdf5") as file:
            found = {name: file.attrs[name] for name in file.attrs}
        # h5py gives NumPy's numbers, which are no `int`.
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in found.items()
        }

    def widths(self) -> Mapping[str, int | None]:
        return self._widths

    def rows(self) -> int | None:
        total = self._metadata.get("total_steps")
        return total if isinstance(total, int) else None

    def declaration(self) -> Declaration:
        layout = array_layout(self._widths)
        own = self._metadata.get(DECLARATION)
        if own is not None:
            return declared_by_us(str(own), layout, self.path)
        known = self._metadata.get("dataset_id")
        environment = self._text_record("env_spec")
        horizon = environment.get("max_episode_steps")
        low, high = self._bounds()
        name = environment.get("id")
        return Declaration(
            domain=name if isinstance(name, str) else None,
            # Ids are namespaced: `fleet/robot1/drive-v0` is not `fleet/robot2/drive-v0`.
            task=known if isinstance(known, str) and known else self.path.name,
            unread=self._unread,
            action_low=low,
            action_high=high,
            layout=replace(layout, horizon=horizon if isinstance(horizon, int) else None),
        )

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        wanted = list(dict.fromkeys([*numbers, *texts]))
        parts: list[Arrays] = []
        waiting = first = 0
        found = 0
        for episode in self._episodes(wanted):
            require_columns(episode, wanted, self.path)
            parts.append({name: episode[name] for name in wanted})
            waiting += len(episode[EPISODE])
            found += 1
            if waiting >= BLOCK_ROWS:
                yield self._joined(parts, texts, first)
                first, waiting, parts = first + waiting, 0, []
        self._require_all(found)
        if parts:
            yield self._joined(parts, texts, first)

    def _require_all(self, found: int) -> None:
        """Refuses a recording of which episodes are missing."""
        declared = self._metadata.get("total_episodes")
        if isinstance(declared, int) and declared != found:
            raise LogError(
                "lengths-differ",
                f"{self.path} has {found} episodes, its metadata name {declared}: some are lost. "
                "Restore the folder, or record it again.",
            )

    def _joined(self, parts: list[Arrays], texts: Sequence[str], first: int) -> Block:
        try:
            columns = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
        except ValueError as error:
            raise DatasetError(f"{self.path}: widths differ between episodes: {error}.") from error
        columns |= {name: labels(columns[name]) for name in texts}
        count = len(next(iter(columns.values()), ()))
        return Block(columns=columns, rows=np.arange(first, first + count, dtype=np.int64))

    def _episodes(self, wanted: Sequence[str] | None) -> Iterator[Arrays]:
        """The columns of every episode: the wanted ones, or all that can be read."""
        if self.storage == "hdf5":
            return self._hdf5_episodes(wanted)
        return self._arrow_episodes(wanted)

    def _hdf5_episodes(self, wanted: Sequence[str] | None) -> Iterator[Arrays]:
        with open_hdf5(self._data / "main_data.hdf5") as file:
            names = [name for name in file if name.startswith("episode_")]
            for name in sorted(names, key=_number):
                where = Path(f"{self.path}/{name}")
                if not is_hard_group(file, name):
                    raise DatasetError(
                        f"{where} is no group of this file, expected an episode's arrays."
                    )
                group, arrays = file[name], {}
                for key, column in array_columns(group, where).items():
                    numeric = column.dtype is not None and column.dtype.kind in "buif"
                    if wanted is not None and key in wanted and column.problem:
                        raise DatasetError(f"{where}: {key!r} {column.problem}.")
                    if not column.problem and numeric and column.shape and _used(key, wanted):
                        arrays[key] = group[key][()]
                    elif wanted is None:
                        self._unread += (key,)
                attributes = [group.attrs.get(key) for key in NUMBERS_ATTRIBUTES]
                yield self._steps(arrays, where, _number(name), attributes, wanted is not None)

    def _arrow_episodes(self, wanted: Sequence[str] | None) -> Iterator[Arrays]:
        arrow = import_extra("pyarrow", "data")
        for folder in sorted(
            (one for one in self._data.iterdir() if one.is_dir() and one.name.isdecimal()),
            key=lambda one: int(one.name[:18]),
        ):
            meta = read_json(folder / "metadata.json", error=DatasetError)
            total = meta.get("total_steps")
            arrays = {}
            for name, column in _leaves(arrow, self._table(folder)):
                if not _used(name, wanted):
                    continue
                try:
                    arrays[name] = arrow_numbers(arrow, column, name, folder)
                except DatasetError:
                    # Texts and images matter only if the map uses them.
                    if wanted is not None and name in wanted:
                        raise
                    self._unread += (name,)
            longest = max(map(len, arrays.values()), default=0)
            if not isinstance(total, int) or not 1 <= total <= longest:
                raise DatasetError(f"{folder}: total_steps is {total!r}; the episode is cut off.")
            # The storage pads every column to the T + 1 rows of the observations.
            arrays = {
                name: values if name.startswith(("observations", "infos/")) else values[:total]
                for name, values in arrays.items()
            }
            number = int(folder.name[:18])
            yield self._steps(arrays, folder, number, [None, None], wanted is not None)

    def _table(self, folder: Path) -> Any:
        """One episode, whole."""
        files = sorted(folder.glob(f"*.{self.storage}"))
        if len(files) != 1:
            raise DatasetError(f"{folder} has {len(files)} .{self.storage} files, expected one.")
        if self.storage == "parquet":
            return import_extra("pyarrow.parquet", "data").ParquetFile(files[0]).read()
        arrow = import_extra("pyarrow", "data")
        with arrow.memory_map(str(files[0])) as source:
            return import_extra("pyarrow.ipc", "data").open_file(source).read_all()

    def _steps(
        self, arrays: Arrays, where: Path, number: int, attributes: Sequence[Any], strict: bool
    ) -> Arrays:
        """Columns of T rows from arrays of T or T + 1; other lengths are refused if `strict`."""
        if "rewards" not in arrays:
            raise DatasetError(f"{where} has no rewards, by which Minari counts steps.")
        total = len(arrays["rewards"])
        columns: Arrays = {}
        for name, values in arrays.items():
            check_numeric(values.dtype, name, where)
            if values.ndim > 2:
                values = values.reshape(len(values), -1)
            is_obs, is_info = name.startswith("observations"), name.startswith("infos/")
            if is_info and values.ndim == 2 and values.shape[1] == 1:
                values = values[:, 0]
            expected = (total + 1,) if is_obs else (total, total + 1) if is_info else (total,)
            if strict and len(values) not in expected:
                raise LogError(
                    "lengths-differ",
                    f"{where}: {name!r} has {len(values)} rows, expected "
                    f"{' or '.join(map(str, expected))} for {total} steps. The recording is cut "
                    "off or shifted; record it again.",
                )
            if is_obs:
                columns[name] = values[:-1]
                columns["next_" + name] = values[1:]
            else:
                columns[name] = values[-total:] if total else values[:0]
        episode, step = (
            default if given is None else _whole(given, where)
            for given, default in zip(attributes, (number, 0), strict=True)
        )
        columns[EPISODE] = np.full(total, episode, np.int64)
        columns[STEP] = np.arange(step, step + total, dtype=np.int64)
        return columns

    def _text_record(self, key: str) -> dict[str, Any]:
        """A JSON object that the metadata hold as text; empty without one."""
        text = self._metadata.get(key)
        if not isinstance(text, str):
            return {}
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{self.path}: {key} is damaged: {error}.") from error
        return record if isinstance(record, dict) else {}

    def _bounds(self) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Finite bounds of the action space."""
        space = self._text_record("action_space")
        bounds = []
        for key in ("low", "high"):
            values = np.asarray(space.get(key, []), object).ravel().tolist()
            numbers = [float(one) for one in values if isinstance(one, int | float)]
            sound = len(numbers) == len(values) > 0 and all(map(math.isfinite, numbers))
            bounds.append(tuple(numbers) if sound else None)
        return bounds[0], bounds[1]


def _number(name: str) -> int:
    digits = name.removeprefix("episode_")
    return int(digits) if digits.isdigit() and len(digits) < 10 else -1


def _used(name: str, wanted: Sequence[str] | None) -> bool:
    """Whether an array is needed: all are while there is no map; rewards count the steps."""
    return wanted is None or name == "rewards" or name in wanted or f"next_{name}" in wanted


def _whole(given: Any, where: Path) -> int:
    number = int(given)
    if not 0 <= number < 2**31:
        raise DatasetError(f"{where}: an episode or step is numbered {number}: it is damaged.")
    return number


def _leaves(arrow: Any, table: Any) -> Iterator[tuple[str, Any]]:
    """Columns of numbers, those of nested records named by their path."""
    waiting = [(name, table.column(name).combine_chunks()) for name in table.column_names]
    while waiting:
        name, column = waiting.pop()
        if arrow.types.is_struct(column.type):
            for index in range(column.type.num_fields):
                field = column.type.field(index)
                waiting.append((f"{name}/{field.name}", column.field(index)))
        else:
            yield name, column


def is_minari(path: Path) -> bool:
    """Whether a folder is one Minari dataset; older ones have no `metadata.json`."""
    data = path / "data"
    return (data / "metadata.json").is_file() or (data / "main_data.hdf5").is_file()
