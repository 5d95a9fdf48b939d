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
from safemesa.datasets.importers.arrays import DECLARATION, array_layout, declared_by_us
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.hdf5_file import hard_child, is_group, open_hdf5, plain_datasets
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.parquet_file import arrow_numbers
from safemesa.datasets.importers.source import (
    BLOCK_ROWS,
    AbstractSource,
    Block,
    Declaration,
    check_numeric,
    require_columns,
)

EPISODE, STEP = "metadata/episode", "metadata/step"
NUMBERS_ATTRIBUTES = ("safemesa_episode", "safemesa_step")
"""Attributes of an episode in our exports: its number and the number of its first step."""

Arrays = dict[str, np.ndarray]


class MinariSource(AbstractSource):
    """One Minari dataset; rows count from 0 over all episodes."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        del mapping
        self.path = path
        self._data = path / "data" if (path / "data").is_dir() else path
        self._metadata = read_json(self._data / "metadata.json", error=DatasetError)
        self.storage = str(self._metadata.get("data_format", "hdf5"))
        if self.storage not in ("hdf5", "arrow", "parquet"):
            raise DatasetError(f"{path}: Minari storage {self.storage!r} is not known.")
        first = next(self._episodes(), None)
        if first is None:
            raise DatasetError(f"{path} has no episodes. Leave it out.")
        self._widths = {
            name: None if values.ndim == 1 else values.shape[1] for name, values in first.items()
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
        environment = self._text_record("env_spec")
        horizon = environment.get("max_episode_steps")
        low, high = self._bounds()
        name = environment.get("id")
        return Declaration(
            domain=name if isinstance(name, str) else None,
            task=self.path.name,
            action_low=low,
            action_high=high,
            layout=replace(layout, horizon=horizon if isinstance(horizon, int) else None),
        )

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        wanted = list(dict.fromkeys([*numbers, *texts]))
        parts: list[Arrays] = []
        waiting = first = 0
        found = 0
        for episode in self._episodes():
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
        columns |= {name: columns[name].astype(np.str_) for name in texts}
        count = len(next(iter(columns.values())))
        return Block(columns=columns, rows=np.arange(first, first + count, dtype=np.int64))

    def _episodes(self) -> Iterator[Arrays]:
        return self._hdf5_episodes() if self.storage == "hdf5" else self._arrow_episodes()

    def _hdf5_episodes(self) -> Iterator[Arrays]:
        with open_hdf5(self._data / "main_data.hdf5") as file:
            names = [name for name in file if name.startswith("episode_")]
            for name in sorted(names, key=_number):
                where = Path(f"{self.path}/{name}")
                group = hard_child(file, name, name, self.path)
                if not is_group(group):
                    raise DatasetError(f"{where} is no group, expected an episode's arrays.")
                arrays = {}
                for key, dataset in plain_datasets(group, where).items():
                    if dataset.dtype.kind in "buif" and dataset.shape:
                        arrays[key] = dataset[()]
                attributes = [group.attrs.get(key) for key in NUMBERS_ATTRIBUTES]
                yield self._steps(arrays, where, _number(name), attributes)

    def _arrow_episodes(self) -> Iterator[Arrays]:
        arrow = import_extra("pyarrow", "data")
        for folder in sorted(
            (one for one in self._data.iterdir() if one.is_dir() and one.name.isdigit()),
            key=lambda one: int(one.name),
        ):
            meta = read_json(folder / "metadata.json", error=DatasetError)
            total = meta.get("total_steps")
            try:
                table = self._table(folder)
                arrays = {
                    name: arrow_numbers(arrow, column, name, folder)
                    for name, column in _leaves(arrow, table)
                }
            except (OSError, arrow.ArrowException) as error:
                raise DatasetError(f"{folder} is damaged: {error}.") from error
            if not isinstance(total, int) or not 1 <= total < max(map(len, arrays.values())) + 1:
                raise DatasetError(f"{folder}: total_steps is {total!r}; the episode is cut off.")
            # The storage pads every column to the T + 1 rows of the observations.
            arrays = {
                name: values if name.startswith(("observations", "infos/")) else values[:total]
                for name, values in arrays.items()
            }
            yield self._steps(arrays, folder, int(folder.name), [None, None])

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

    def _steps(self, arrays: Arrays, where: Path, number: int, attributes: Sequence[Any]) -> Arrays:
        """Columns of T rows from arrays of T or T + 1."""
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
            if len(values) not in expected:
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
            default if given is None else int(given)
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
