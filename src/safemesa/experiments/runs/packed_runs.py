"""Many run folders in two files: `packed_runs.json` (settings, summaries) and `episodes.parquet`.

What runs have in common is written once: each run's line holds what differs. A packed run has the
path that its folder had, so `results/navigation/navigation1/mesa-0` is read the same way whether
the folder is there or only `results/navigation/packed_runs.json`. Models and transitions are not
packed.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from safemesa.core.errors import CheckpointError, ConfigurationError, DatasetError
from safemesa.core.files import atomic_path, read_json, sha256, write_atomic
from safemesa.datasets.importers.extras import import_extra

RUNS_FILE = "packed_runs.json"
EPISODES_FILE = "episodes.parquet"
FORMAT = 1
"""Version of both files."""

RUN_COLUMN = "run"
"""Column of `episodes.parquet` that says whose episode a row is."""

Values = dict[str, Any]
"""A JSON object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRun:
    """`config.json`, `summary.json` and the lines of `metrics.jsonl` of a run."""

    config: Values
    summary: Values
    lines: list[Values]


class PackedRuns:
    """The runs that a folder holds packed; episodes are read when the first is asked for."""

    def __init__(self, folder: Path) -> None:
        """Reads `packed_runs.json`.

        Raises:
            DatasetError: it is damaged, or of another version.
        """
        self.folder = folder
        file = folder / RUNS_FILE
        record = read_json(file, error=DatasetError)
        if record.get("format") != FORMAT:
            raise DatasetError(
                f"{file} has format {record.get('format')!r}; this version reads {FORMAT}. Pack "
                "the run folders again, or install the version that packed them."
            )
        try:
            self._episodes_hash = str(record["episodes_sha256"])
            self._runs = {
                str(name): _merged(record["shared"], own) for name, own in record["runs"].items()
            }
            self.configs: dict[str, Values] = {n: run["config"] for n, run in self._runs.items()}
            self.summaries: dict[str, Values] = {n: run["summary"] for n, run in self._runs.items()}
            self._fields = {name: run["fields"] for name, run in self._runs.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{file} is damaged ({error!r}). Restore it, or pack the run folders again."
            ) from error

    def lines(self, name: str) -> list[Values]:
        """The lines of a run's `metrics.jsonl`, one per episode.

        Raises:
            ConfigurationError: pyarrow is not installed.
            CheckpointError: there is no such run, or `episodes.parquet` is missing, damaged, or
                not the one that was written with `packed_runs.json`.
        """
        if name not in self._fields:
            raise CheckpointError(f"{self.folder / RUNS_FILE} has no run {name!r}.")
        rows = self._rows_by_run.get(name, [])
        return [{field: row[field] for field in self._fields[name]} for row in rows]

    @functools.cached_property
    def _rows_by_run(self) -> dict[str, list[Values]]:
        file = self.folder / EPISODES_FILE
        arrow, parquet = _arrow(file)
        try:
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != self._episodes_hash:
                raise CheckpointError(
                    f"{file} is not the file that {RUNS_FILE} beside it was written with. Restore "
                    "both, or pack the run folders again."
                )
            table = parquet.read_table(arrow.BufferReader(data)).to_pylist()
        except (OSError, arrow.ArrowException) as error:
            raise CheckpointError(
                f"{file} cannot be read: {error}. Restore it, or pack the run folders again."
            ) from error
        rows: dict[str, list[Values]] = {}
        for row in table:
            rows.setdefault(row[RUN_COLUMN], []).append(row)
        return rows


def packed_runs(folder: Path) -> PackedRuns:
    """The packed runs of a folder; a file that did not change is read once.

    Raises:
        DatasetError: `packed_runs.json` is missing or damaged.
    """
    try:
        status = (folder / RUNS_FILE).stat()
    except OSError as error:
        raise DatasetError(f"{folder / RUNS_FILE} cannot be read: {error}.") from error
    return _read_packed(folder, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=32)
def _read_packed(folder: Path, changed: int, size: int) -> PackedRuns:
    del changed, size
    return PackedRuns(folder)


def packed_place(path: Path) -> tuple[Path, str] | None:
    """The folder whose packed runs `path` lies in, and the rest of the path below it.

    None where neither the path nor a folder above has any.
    """
    for folder in (path, *path.parents):
        if (folder / RUNS_FILE).is_file():
            return folder, path.relative_to(folder).as_posix()
    return None


def write_packed_runs(folder: Path, runs: Mapping[str, PackedRun]) -> None:
    """Writes both files, the runs in the order of their names; what was packed there is replaced.

    `packed_runs.json` is written last and has the other file's hash, so that a reader never takes
    episodes for those of other runs.

    Args:
        folder: Where to; it is created.
        runs: By name, a relative path with `/`.

    Raises:
        ConfigurationError: pyarrow is not installed.
        DatasetError: an episode's number is neither a truth value nor a number nor text.
        OutputFolderError: the folder cannot be written.
    """
    ordered = {name: runs[name] for name in sorted(runs)}
    arrow, parquet = _arrow(folder / EPISODES_FILE)
    columns: dict[str, list[Any]] = {RUN_COLUMN: []}
    fields = dict.fromkeys(name for run in ordered.values() for line in run.lines for name in line)
    for name, run in ordered.items():
        columns[RUN_COLUMN] += [name] * len(run.lines)
        for field in fields:
            columns.setdefault(field, []).extend(line.get(field) for line in run.lines)
    table = arrow.table({name: _column(arrow, name, column) for name, column in columns.items()})
    numbers = [field for field in fields if arrow.types.is_floating(table.schema.field(field).type)]
    with atomic_path(folder / EPISODES_FILE) as temporary:
        parquet.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=[name for name in columns if name not in numbers],
            use_byte_stream_split=numbers,
        )
    records = {
        name: {"config": run.config, "summary": run.summary, "fields": _fields(name, run.lines)}
        for name, run in ordered.items()
    }
    shared = _shared(list(records.values()))
    lines = [
        f"{_json(name)}: {_json(_difference(record, shared))}" for name, record in records.items()
    ]
    head = {"format": FORMAT, "episodes_sha256": sha256(folder / EPISODES_FILE), "shared": shared}
    # Sorted, so that packing again what is packed changes nothing.
    text = json.dumps(head, indent=1, ensure_ascii=False, sort_keys=True).removesuffix("\n}")
    text += ',\n "runs": {\n' + ",\n".join(lines) + "\n }\n}\n"
    write_atomic(folder / RUNS_FILE, text.encode())


def _arrow(file: Path) -> tuple[ModuleType, ModuleType]:
    """Pyarrow and its Parquet module.

    Raises:
        ConfigurationError: it is not installed; names the file that needs it.
    """
    try:
        return import_extra("pyarrow", "data"), import_extra("pyarrow.parquet", "data")
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def _column(arrow: ModuleType, name: str, values: list[Any]) -> Any:
    """An array of the smallest type that holds every value exactly."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {int} or kinds <= {str}:
        return arrow.array(values)
    if not kinds <= {int, float}:
        titles = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DatasetError(
            f"lines of metrics.jsonl have {titles} as {name!r}; expected numbers, truth values, "
            "text, or null, of one kind."
        )
    exact = arrow.array([None if value is None else float(value) for value in values])
    single = exact.cast(arrow.float32(), safe=False)
    return single if single.cast(arrow.float64()).equals(exact) else exact


def _fields(name: str, lines: Sequence[Values]) -> list[str]:
    """Keys that all lines of a run have.

    Raises:
        DatasetError: the lines differ in them.
    """
    first = list(lines[0])
    if any(set(line) != set(first) for line in lines):
        raise DatasetError(f"lines of metrics.jsonl of {name} differ in their fields.")
    return first


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _shared(records: Sequence[Values]) -> Values:
    """What all objects have in common, objects within objects included."""
    first, *others = records
    shared = {}
    for name, value in first.items():
        if any(name not in other for other in others):
            continue
        values = [value, *(other[name] for other in others)]
        if all(_same(value, another) for another in values):
            shared[name] = value
        elif all(isinstance(another, dict) for another in values) and (inner := _shared(values)):
            shared[name] = inner
    return shared


def _difference(record: Values, shared: Values) -> Values:
    """What `_merged` adds to `shared` to get `record` back."""
    own = {}
    for name, value in record.items():
        if name not in shared:
            own[name] = value
        elif not _same(value, shared[name]):
            own[name] = _difference(value, shared[name])
    return own


def _merged(shared: Values, own: Values) -> Values:
    """Objects put together, field by field; `own` decides where both have one."""
    merged = dict(shared)
    for name, value in own.items():
        both = isinstance(value, dict) and isinstance(shared.get(name), dict)
        merged[name] = _merged(shared[name], value) if both else value
    return merged


def below(names: Sequence[str], place: str) -> list[str]:
    """Names of runs at or below a relative place; `.` is all of them."""
    where = PurePosixPath(place)
    return [name for name in names if place == "." or PurePosixPath(name).is_relative_to(where)]
