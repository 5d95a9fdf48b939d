"""LeRobot datasets (v2.0, v2.1, v3.0), read from their folder through pyarrow (extra `robots`).

A dataset is one robot: `meta/info.json` says what there is, and `data/chunk-*/*.parquet` holds the
rows, one per frame, in steps of 1 / fps. Columns keep their names (`observation.state`, `action`,
`next.reward`); components can be named, `observation.state[gripper]`. Videos and images are not
read. `describe()` reads `meta` alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.files import read_json
from safemesa.datasets.findings import LogError
from safemesa.datasets.importers.describe import (
    BOOLEAN,
    NUMBER,
    TEXT,
    ColumnDescription,
    LogDescription,
    TopicDescription,
)
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.identity import labels
from safemesa.datasets.importers.import_map import ColumnNames, ImportMap, SignalMap
from safemesa.datasets.importers.parquet_file import arrow_numbers
from safemesa.datasets.importers.source import (
    BLOCK_ROWS,
    MAXIMUM_WIDTH,
    AbstractSource,
    Block,
    Declaration,
    natural_order,
    reading,
    require_columns,
)

INFO = Path("meta") / "info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
EPISODE, STEP, TIME = "episode_index", "frame_index", "timestamp"
STATE, ACTION, REWARD = "observation.state", "action", "next.reward"
PICTURES = ("video", "image")
MAXIMUM_FILES = 1_000_000
_NAMED = re.compile(r"(.+)\[([^\[\]]+)\]")


class LeRobotSource(AbstractSource):
    """One dataset. Rows count from 0 over all episodes."""

    advice = "A component of an array can be named: observation.state[gripper]."

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        self.path = path
        self._arrow = import_extra("pyarrow", "robots")
        self._parquet = import_extra("pyarrow.parquet", "robots")
        with reading(path):
            info = read_json(path / INFO, error=DatasetError)
            self.version = str(info.get("codebase_version"))
            if self.version not in VERSIONS:
                raise DatasetError(
                    f"{path / INFO}: codebase_version is {self.version[:40]!r}, expected one of "
                    f"{', '.join(VERSIONS)}. Convert it with LeRobot's own scripts."
                )
            self._info = info
            self._fps = _number(info.get("fps"), "fps", path)
            features = info.get("features")
            if not isinstance(features, dict) or not features:
                raise DatasetError(f"{path / INFO} names no features.")
            self._features = {
                str(name): _Feature(name, one, path) for name, one in features.items()
            }
            self._files = self._data_files()
        del mapping

    def _data_files(self) -> list[Path]:
        files = sorted(self.path.glob("data/chunk-*/*.parquet"), key=natural_order)
        if not files or len(files) > MAXIMUM_FILES:
            raise DatasetError(
                f"{self.path} has {len(files)} files data/chunk-*/*.parquet: its rows are not "
                "there. Download them too."
            )
        return files

    def _columns(self) -> dict[str, "_Feature"]:
        return {name: one for name, one in self._features.items() if one.readable}

    def widths(self) -> Mapping[str, int | None]:
        return _Widths(self._columns())

    def rows(self) -> int | None:
        total = self._info.get("total_frames")
        return total if type(total) is int else None

    def declaration(self) -> Declaration:
        known = self._columns()

        def present(name: str) -> str | None:
            return name if name in known else None

        signals = {
            name: (SignalMap(name=name, column=name),) if name in known else ()
            for name in (STATE, ACTION)
        }
        kind = self._info.get("robot_type")
        return Declaration(
            parameters={"robot_type": kind} if isinstance(kind, str) and len(kind) < 128 else {},
            layout=ImportMap(
                dt=1.0 / self._fps,
                obs=signals[STATE],
                action=signals[ACTION],
                columns=ColumnNames(
                    episode=present(EPISODE),
                    step=present(STEP),
                    time=present(TIME),
                    reward=present(REWARD),
                ),
            ),
            unread=tuple(name for name in self._features if name not in known),
        )

    def leftovers(self, used: set[str]) -> tuple[str, ...]:
        """Columns that are not used; those that only number rows are not worth a word."""
        used = used | {"index", "task_index", EPISODE, STEP, TIME}
        used |= {match[1] for name in used if (match := _NAMED.fullmatch(name))}
        return tuple(name for name in self._features if name not in used)

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        known = self.widths()
        require_columns(known, [*numbers, *texts], self.path)
        stored = {name: self._stored(name) for name in dict.fromkeys([*numbers, *texts])}
        wanted = list(dict.fromkeys([*(column for column, _ in stored.values()), EPISODE]))
        first, episodes, last = 0, 0, ""
        for file in self._files:
            with reading(file):
                table = self._parquet.ParquetFile(file)
                absent = [one for one in wanted if one not in table.schema_arrow.names]
                if absent:
                    raise LogError("missing-column", f"{file} has no column {absent[0]!r}.")
                batches = table.iter_batches(batch_size=BLOCK_ROWS, columns=wanted)
            while True:
                with reading(file):
                    batch = next(batches, None)
                if batch is None:
                    break
                columns = {name: self._numbers(batch, *stored[name], file) for name in numbers}
                columns |= {
                    name: labels(batch.column(stored[name][0]).to_pylist()) for name in texts
                }
                label = labels(batch.column(EPISODE).to_pylist())
                if len(label):
                    changes = int(np.count_nonzero(label[1:] != label[:-1]))
                    episodes += changes + int(label[0] != last)
                    last = str(label[-1])
                rows = np.arange(first, first + batch.num_rows, dtype=np.int64)
                first += batch.num_rows
                yield Block(columns=columns, rows=rows)
        for key, count in (("total_frames", first), ("total_episodes", episodes)):
            declared = self._info.get(key)
            if type(declared) is int and declared != count:
                raise LogError(
                    "lengths-differ",
                    f"{self.path}: {key} is {declared} in {INFO}, but the files hold {count}: some "
                    "are lost. Download the dataset again.",
                )

    def _stored(self, name: str) -> tuple[str, int | None]:
        """The column of the file that holds a column of ours, and the component."""
        if name in self._features:
            return name, None
        match = _NAMED.fullmatch(name)
        assert match is not None
        return match[1], self._features[match[1]].names.index(match[2])

    def _numbers(self, batch: Any, column: str, index: int | None, file: Path) -> np.ndarray:
        feature, values = self._features[column], batch.column(column)
        types = self._arrow.types
        if types.is_list(values.type) or types.is_large_list(values.type):
            values = self._fixed(values, column, feature.width or 1, file)
        found = arrow_numbers(self._arrow, values, column, file)
        expected = (len(found),) if feature.width is None else (len(found), feature.width)
        if found.shape != expected and found.size == len(found) * (feature.width or 1):
            found = found.reshape(expected)
        if found.shape != expected:
            raise DatasetError(
                f"{file}: {column!r} has {found.shape[1:] or 'no'} components, {INFO} says "
                f"{feature.width}."
            )
        return found if index is None or feature.width is None else found[:, index]

    def _fixed(self, values: Any, column: str, width: int, file: Path) -> Any:
        lengths = values.value_lengths()
        if values.null_count or any(one != width for one in set(lengths.to_pylist())):
            raise DatasetError(f"{file}: {column!r} has lists that are not {width} long.")
        return self._arrow.FixedSizeListArray.from_arrays(values.flatten(), width)

    def describe(self) -> LogDescription:
        total = self.rows() or 0
        episodes = self._info.get("total_episodes")
        known = self._columns()
        columns = tuple(
            ColumnDescription(
                name=name, kind=one.kind, type=one.dtype, width=one.width, names=one.names
            )
            for name, one in known.items()
        )
        return LogDescription(
            path=self.path,
            format="lerobot",
            dt=1.0 / self._fps,
            episodes=episodes if type(episodes) is int else None,
            topics=(
                TopicDescription(
                    name="",
                    type=str(self._info.get("robot_type") or ""),
                    count=total,
                    rate=self._fps,
                    columns=columns,
                ),
            ),
            unread=tuple(name for name in self._features if name not in known),
        )


class _Feature:
    """One column, as `meta/info.json` describes it."""

    def __init__(self, name: str, record: Any, path: Path) -> None:
        if not isinstance(record, dict):
            raise DatasetError(f"{path / INFO}: the feature {name!r} is no table.")
        self.dtype = str(record.get("dtype"))[:40]
        shape = record.get("shape")
        if not isinstance(shape, list) or any(type(one) is not int or one < 0 for one in shape):
            raise DatasetError(f"{path / INFO}: the feature {name!r} has the shape {shape!r:.80}.")
        count = 1
        for one in shape:
            count *= one
        self.width = None if shape in ([], [1]) else count
        self.kind = TEXT if self.dtype == "string" else BOOLEAN if self.dtype == "bool" else NUMBER
        # Arrays of more dimensions are stored as nested lists, which are no signals.
        flat = len(shape) <= 1 and 0 < count <= MAXIMUM_WIDTH
        self.readable = self.dtype not in PICTURES and flat
        self.names = _names(record.get("names"), count)


def _names(given: Any, count: int) -> tuple[str, ...]:
    """Names of components, which are a list, or one list in a table."""
    if isinstance(given, dict) and len(given) == 1:
        given = next(iter(given.values()))
    texts = isinstance(given, list) and all(isinstance(one, str) for one in given)
    return tuple(given) if texts and len(given) == count == len(set(given)) else ()


class _Widths(Mapping[str, int | None]):
    """Columns with their widths; components by name are columns too, but not listed."""

    def __init__(self, features: Mapping[str, _Feature]) -> None:
        self._features = features

    def __getitem__(self, name: str) -> int | None:
        if name in self._features:
            return self._features[name].width
        match = _NAMED.fullmatch(name)
        if match and match[1] in self._features and match[2] in self._features[match[1]].names:
            return None
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)


def is_lerobot(path: Path) -> bool:
    """Whether a folder is one LeRobot dataset."""
    return (path / INFO).is_file() and (path / "data").is_dir()


def _number(given: Any, name: str, path: Path) -> float:
    if type(given) not in (int, float) or not 0 < given < 1e6:
        raise DatasetError(f"{path / INFO}: {name} is {given!r:.40}, expected a rate above 0.")
    return float(given)
