"""The import map: which columns are observations, actions and cost, in TOML or JSON."""

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.core.files import read_json
from safemesa.datasets.importers.limit import Limit, parse_limit

MAXIMUM_MAP_BYTES = 2**20
STEPS, STATES = "steps", "states"
ROW_KINDS = (STEPS, STATES)
GAPS = ("refuse", "split")
TASK_FROM = ("file", "folder")
CUT = "cut"
AFTER_VIOLATION = ("keep", CUT)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalMap:
    """One signal: the column that holds it, and how to convert it (`scale * value + offset`).

    An array column of width k stands for k signals, named `column[0]` to `column[k - 1]`.
    """

    name: str
    column: str
    next_column: str | None = None
    """Observations only: the column with the value after the step."""
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    low: float | None = None
    high: float | None = None
    """Actions only: bounds in converted units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnNames:
    """Columns that are no signals. None: the logs have no such column."""

    task: str | None = None
    episode: str | None = None
    step: str | None = None
    time: str | None = None
    reward: str | None = None
    terminated: str | None = None
    truncated: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportMap:
    """What the columns of the logs mean. Fields that are None are taken from the files."""

    domain: str | None = None
    rows: str | None = None
    """`steps`: a row is a step: the state before it, its action, and what the step led to (cost,
    reward, ends). `states`: a row is a moment: its signals, the action that is taken then, and
    whether this state violates; the cost of a step is the next row's."""
    dt: float | None = None
    """Seconds between rows."""
    horizon: int | None = None
    """Longest episode in steps; default: the longest that is found."""
    time_scale: float = 1.0
    """Seconds per unit of the time column."""
    gaps: str = "refuse"
    """`refuse`, or `split`: begin a new episode where rows are missing."""
    after_violation: str = "keep"
    """`keep`, or `cut`: an episode ends at its first violation, and its further rows are left out,
    as where a stop stays on in the log."""
    task_from: str = "file"
    """Without a task column: every `file` is a task, or every `folder`."""
    test: str | None = None
    """The task that is the new robot."""
    delimiter: str = ","
    """Of CSV files."""
    columns: ColumnNames = field(default_factory=ColumnNames)
    obs: tuple[SignalMap, ...] = ()
    action: tuple[SignalMap, ...] = ()
    signal: tuple[SignalMap, ...] = ()
    """Further signals that the limit reads."""
    cost_column: str | None = None
    cost_limit: Limit | None = None
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per task: what is known about it, such as masses or faults."""

    def __post_init__(self) -> None:
        """Refuses what contradicts itself."""
        for name, known in (
            ("rows", ROW_KINDS),
            ("gaps", GAPS),
            ("after_violation", AFTER_VIOLATION),
            ("task_from", TASK_FROM),
        ):
            given = getattr(self, name)
            if given is not None and given not in known:
                raise ConfigurationError(f"map: {name} is {given!r}, expected one of {known}.")
        self._check_numbers()
        if self.cost_column is not None and self.cost_limit is not None:
            raise ConfigurationError("map: cost has a column and a limit, expected one of them.")
        if self.rows == STATES and any(one.next_column for one in self.obs):
            raise ConfigurationError(
                'map: rows are "states", so the next observation is the next row\'s; remove '
                'next_column, or declare rows = "steps".'
            )

    def _check_numbers(self) -> None:
        for name in ("dt", "time_scale"):
            given = getattr(self, name)
            if given is not None and not (math.isfinite(given) and given > 0):
                raise ConfigurationError(f"map: {name} is {given}, expected seconds above 0.")
        if self.horizon is not None and self.horizon < 1:
            raise ConfigurationError(f"map: horizon is {self.horizon}, expected at least 1.")
        if len(self.delimiter) != 1:
            raise ConfigurationError(f"map: delimiter is {self.delimiter!r}, expected one sign.")
        for one in self.action:
            if (one.low is None) != (one.high is None):
                raise ConfigurationError(f"map: action {one.name!r} needs both low and high.")


def read_map(path: Path) -> ImportMap:
    """Reads a map from a `.toml` or `.json` file.

    Raises:
        ConfigurationError: the file is missing, unreadable or damaged, or a key or value is wrong.
    """
    if path.suffix == ".json":
        record = read_json(path, error=ConfigurationError)
    else:
        record = _read_toml(path)
    return map_from_record(record, str(path))


def map_from_record(record: Mapping[str, Any], where: str = "map") -> ImportMap:
    """A map from plain values, as TOML and JSON give them.

    Raises:
        ConfigurationError: unknown keys, or values of the wrong kind.
    """
    record = dict(record)
    columns = _table(record.pop("columns", {}), f"{where}: columns")
    cost = _table(record.pop("cost", {}), f"{where}: cost")
    tasks = _table(record.pop("tasks", {}), f"{where}: tasks")
    signals = {
        kind: _signals(record.pop(kind, []), f"{where}: {kind}")
        for kind in ("obs", "action", "signal")
    }
    kinds = {
        "domain": str,
        "rows": str,
        "dt": float,
        "horizon": int,
        "time_scale": float,
        "gaps": str,
        "after_violation": str,
        "task_from": str,
        "delimiter": str,
    }
    named = [*kinds, "columns", "cost", "tasks", *signals]
    values = _typed(record, kinds, where, named)
    column_kinds = {one.name: str for one in fields(ColumnNames)}
    cost_values = _typed(cost, {"column": str, "limit": str}, f"{where}: cost")
    parameters = tasks.pop("parameters", {})
    task_values = _typed(tasks, {"test": str}, f"{where}: tasks", ["test", "parameters"])
    limit = cost_values.get("limit")
    return ImportMap(
        **values,
        **signals,
        **task_values,
        columns=ColumnNames(**_typed(columns, column_kinds, f"{where}: columns")),
        cost_column=cost_values.get("column"),
        cost_limit=None if limit is None else parse_limit(limit),
        parameters={
            name: _table(value, f"{where}: tasks.parameters.{name}")
            for name, value in _table(parameters, f"{where}: tasks.parameters").items()
        },
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(MAXIMUM_MAP_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}. Check --map.") from error
    if len(text) > MAXIMUM_MAP_BYTES:
        raise ConfigurationError(f"{path} is larger than a map can be. Check --map.")
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no valid TOML: {error}.") from error


def _signals(record: Any, where: str) -> tuple[SignalMap, ...]:
    """Signals as a list of names, or of tables."""
    if not isinstance(record, list):
        raise ConfigurationError(f"{where} is {record!r}, expected a list of names or tables.")
    kinds = {
        "name": str,
        "column": str,
        "next_column": str,
        "scale": float,
        "offset": float,
        "unit": str,
        "low": float,
        "high": float,
    }
    found = []
    for index, one in enumerate(record):
        place = f"{where}[{index}]"
        if isinstance(one, str):
            found.append(SignalMap(name=one, column=one))
            continue
        values = _typed(_table(one, place), kinds, place)
        name = values.get("name") or values.get("column")
        if name is None:
            raise ConfigurationError(f"{place} has neither name nor column, expected one of them.")
        found.append(SignalMap(**{"column": name, **values, "name": name}))
    names = [one.name for one in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigurationError(f"{where} repeats {repeated}: give each signal its own name.")
    return tuple(found)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} is {value!r}, expected a table.")
    return dict(value)


def _typed(
    record: Mapping[str, Any],
    kinds: Mapping[str, type],
    where: str,
    known: list[str] | None = None,
) -> dict[str, Any]:
    """The values of `record`, checked; whole numbers pass as float."""
    values = {}
    for key, value in record.items():
        if key not in kinds:
            names = known or list(kinds)
            close = difflib.get_close_matches(key, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"{where}: unknown key {key!r}.{hint} Known: {', '.join(names)}."
            )
        kind = kinds[key]
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise ConfigurationError(
                f"{where}: {key} is {str(value)[:80]!r}, expected a finite {kind.__name__}."
                if kind is float
                else f"{where}: {key} is {str(value)[:80]!r}, expected {kind.__name__}."
            )
        values[key] = value
    return values
