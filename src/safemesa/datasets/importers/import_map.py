"""The import map: which columns are observations, actions and cost, in TOML or JSON."""

import codecs
import difflib
import math
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.core.files import read_json
from safemesa.datasets.importers.identity import check_task_rule
from safemesa.datasets.importers.limit import Limit, parse_limit
from safemesa.datasets.importers.questions import refuse_questions
from safemesa.datasets.importers.resample_map import ResampleMap, TopicRule

MAXIMUM_MAP_BYTES = 2**20
MAXIMUM_SIGNALS = 10_000
"""Of one kind; more are pixels or beams, and no network here reads so many."""
MAXIMUM_NAME = 127
MAXIMUM_DEPTH = 20
"""Levels of a task's parameters."""
LARGEST = 3e38
"""What 32 bits hold."""
STEPS, STATES = "steps", "states"
ROW_KINDS = (STEPS, STATES)
GAPS = ("refuse", "split")
ERROR, HOLD, DROP, SPLIT = "error", "hold", "drop", "split"
MISSING = (ERROR, HOLD, DROP, SPLIT)
CLIP = "clip"
OUTSIDE = (ERROR, CLIP)
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
    missing: str | None = None
    """What a missing cell means; None: as the whole map says."""


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
    missing: str = ERROR
    """What a missing cell of a signal means: `error`; `hold` the value before, within the episode;
    `drop` the row as if it had never been logged; or `split`: drop it and begin a new episode."""
    outside: str = ERROR
    """Of actions beyond their bounds: `error`, or `clip` where the robot did so itself."""
    task_from: str | None = None
    """Without a task column: every `file` is a task, or every `folder`, or the folder N levels up
    (`folder:N`), or what a pattern of paths names, such as `{task}/*/run_*.csv`. None: what a
    recording says of itself, else `file`."""
    ignore: tuple[str, ...] = ()
    """Columns that are left out on purpose; nothing is said of them."""
    test: str | None = None
    """The task that is the new robot."""
    delimiter: str | None = None
    """Of CSV files, as all that follow up to `encoding`. None: a comma, or a tab in `.tsv`."""
    decimal: str = "."
    comment: str | None = None
    """Lines that begin so are passed over."""
    skip_rows: int = 0
    """Lines above the header."""
    units_row: bool = False
    """Whether the row below the header names units."""
    missing_values: tuple[str, ...] = ()
    """Cells that mean nothing, beside empty ones, `nan`, `null` and their like."""
    encoding: str = "utf-8"
    columns: ColumnNames = field(default_factory=ColumnNames)
    obs: tuple[SignalMap, ...] = ()
    action: tuple[SignalMap, ...] = ()
    signal: tuple[SignalMap, ...] = ()
    """Further signals that the limit reads."""
    cost_column: str | None = None
    cost_limit: Limit | None = None
    resample: ResampleMap | None = None
    """How topics become rows; None for logs that are rows."""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per task: what is known about it, such as masses or faults."""

    def __post_init__(self) -> None:
        """Refuses what contradicts itself."""
        for name, known in (
            ("rows", ROW_KINDS),
            ("gaps", GAPS),
            ("after_violation", AFTER_VIOLATION),
            ("missing", MISSING),
            ("outside", OUTSIDE),
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
        if self.horizon is not None and not 1 <= self.horizon < 2**31:
            raise ConfigurationError(
                f"map: horizon is {str(self.horizon)[:40]}, expected 1 to {2**31 - 1} steps."
            )
        for one in (*self.obs, *self.action, *self.signal):
            _check_signal(one)
        for one in self.action:
            if (one.low is None) != (one.high is None):
                raise ConfigurationError(f"map: action {one.name!r} needs both low and high.")
        if self.task_from is not None:
            check_task_rule(self.task_from)
        self._check_text_files()

    def _check_text_files(self) -> None:
        """How CSV files are written."""
        mark = self.delimiter
        if mark is not None and (len(mark) != 1 or mark.isalnum() or mark in "\"'.+-_\r\n\0"):
            raise ConfigurationError(
                f"map: delimiter is {mark!r}, expected one sign that no number, name or quotation "
                'has, such as "," or ";" or "\\t".'
            )
        if self.decimal not in (".", ","):
            raise ConfigurationError(f'map: decimal is {self.decimal!r}, expected "." or ",".')
        if self.decimal == (mark or "").strip():
            raise ConfigurationError(
                f"map: decimal and delimiter are both {mark!r}; no cell could be told from the "
                "next."
            )
        if self.comment is not None and not 1 <= len(self.comment.strip()) <= 8:
            raise ConfigurationError(
                f'map: comment is {self.comment[:40]!r}, expected what such lines begin with, "#".'
            )
        if not 0 <= self.skip_rows <= 1_000_000:
            raise ConfigurationError(
                f"map: skip_rows is {str(self.skip_rows)[:40]}, expected 0 to 1 000 000 lines."
            )
        try:
            # A codec that is none of texts (base64, zip) would run on bytes it was not meant for.
            is_text = getattr(codecs.lookup(self.encoding), "_is_text_encoding", True)
        except (LookupError, ValueError):
            is_text = False
        if not is_text:
            raise ConfigurationError(
                f"map: encoding is {self.encoding[:40]!r}, expected one of Python's, such as "
                '"utf-8", "latin-1", "cp1252" or "utf-16".'
            )


def _check_signal(one: SignalMap) -> None:
    if one.scale == 0:
        raise ConfigurationError(
            f"map: {one.name!r} has the scale 0, by which every value becomes the offset. Expected "
            "a factor; leave the signal out if it is not to be read."
        )
    for key in ("scale", "offset", "low", "high"):
        value = getattr(one, key)
        if value is not None and abs(value) > LARGEST:
            raise ConfigurationError(
                f"map: {key} of {one.name!r} is {value}, which does not fit 32 bits."
            )
    if one.missing is not None and one.missing not in MISSING:
        raise ConfigurationError(
            f"map: missing of {one.name!r} is {one.missing!r}, expected one of {MISSING}."
        )


def read_map(path: Path) -> ImportMap:
    """Reads a map from a `.toml` or `.json` file.

    Raises:
        ConfigurationError: the file is missing, unreadable or damaged, a key or value is wrong, or
            a question is open.
    """
    if path.suffix == ".json":
        record = read_json(path, error=ConfigurationError)
    else:
        record = _read_toml(path)
    return map_from_record(record, str(path))


def map_from_record(record: Mapping[str, Any], where: str = "map") -> ImportMap:
    """A map from plain values, as TOML and JSON give them.

    Raises:
        ConfigurationError: unknown keys, values of the wrong kind, or open questions.
    """
    refuse_questions(record, where)
    record = dict(record)
    columns = _table(record.pop("columns", {}), f"{where}: columns")
    cost = _table(record.pop("cost", {}), f"{where}: cost")
    tasks = _table(record.pop("tasks", {}), f"{where}: tasks")
    resample = record.pop("resample", None)
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
        "missing": str,
        "outside": str,
        "task_from": str,
        "ignore": list,
        "delimiter": str,
        "decimal": str,
        "comment": str,
        "skip_rows": int,
        "units_row": bool,
        "missing_values": list,
        "encoding": str,
    }
    named = [*kinds, "columns", "cost", "tasks", "resample", *signals]
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
        resample=None if resample is None else _resample(resample, f"{where}: resample"),
        parameters={
            name: _plain(
                _table(value, f"{where}: tasks.parameters.{name}"),
                f"{where}: tasks.parameters.{name}",
            )
            for name, value in _table(parameters, f"{where}: tasks.parameters").items()
        },
    )


def _resample(record: Any, where: str) -> ResampleMap:
    """The table `[resample]` with its exceptions by topic."""
    rest = _table(record, where)
    topics = _table(rest.pop("topics", {}), f"{where}: topics")
    rule_kinds = {"method": str, "max_age": float, "time": str}
    kinds = {
        **rule_kinds,
        **dict.fromkeys(("late", "gap"), float),
        **dict.fromkeys(("restart", "start", "stop", "running"), str),
    }
    rules = {
        name: TopicRule(
            **_typed(_table(rule, f"{where}: topics.{name}"), rule_kinds, f"{where}: topics.{name}")
        )
        for name, rule in topics.items()
    }
    return ResampleMap(**_typed(rest, kinds, where, [*kinds, "topics"]), topics=rules)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(MAXIMUM_MAP_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}. Check --map.") from error
    if len(text) > MAXIMUM_MAP_BYTES:
        raise ConfigurationError(f"{path} is larger than a map can be. Check --map.")
    try:
        content = text.decode()
        _check_dotted_keys(content, path)
        record = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        # Beside TOML's own errors: no UTF-8, and numbers of thousands of digits.
        raise ConfigurationError(f"{path} is no valid TOML: {error}.") from error
    refuse_questions(record, str(path), content)
    return record


def _check_dotted_keys(content: str, path: Path) -> None:
    """`a.a.a. ... = 1` takes `tomllib` time quadratic in its dots."""
    for number, line in enumerate(content.split("\n"), 1):
        text = line.strip()
        header = text.startswith("[") and "," not in text
        key = text if header else text.partition("=")[0] if "=" in text else ""
        key = "" if text.startswith("#") else key
        if key.count(".") > 2 * MAXIMUM_DEPTH:
            raise ConfigurationError(
                f"{path}, line {number}: a key of {key.count('.') + 1} parts nests too deeply."
            )


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
        "missing": str,
    }
    if len(record) > MAXIMUM_SIGNALS:
        raise ConfigurationError(
            f"{where} has {len(record)} signals, expected at most {MAXIMUM_SIGNALS}. Reduce images "
            "and scans to features first."
        )
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
    repeated = [name for name, count in Counter(one.name for one in found).items() if count > 1]
    if repeated:
        raise ConfigurationError(
            f"{where} repeats {sorted(repeated)[:20]}: give each signal its own name."
        )
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
        if kind is list:
            values[key] = _texts(value, f"{where}: {key}")
            continue
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            finite = "a finite " if kind is float else ""
            raise ConfigurationError(
                f"{where}: {key} is {_shown(value)}, expected {finite}{kind.__name__}."
            )
        if isinstance(value, str):
            _check_text(value, key, f"{where}: {key}")
        values[key] = value
    return values


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(type(one) is str for one in value):
        raise ConfigurationError(f"{where} is {_shown(value)}, expected a list of texts.")
    return tuple(value)


def _check_text(value: str, key: str, where: str) -> None:
    """Names and units are shown and stored: short, and of signs that can be."""
    name = key in ("domain", "name", "unit", "test", "column", "next_column")
    if "\0" in value or (name and not (len(value) <= MAXIMUM_NAME and value.isprintable())):
        raise ConfigurationError(
            f"{where} is {_shown(value)}, expected at most {MAXIMUM_NAME} printable signs."
        )


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """Parameters, which go into the manifest: only what JSON holds, and not too deep.

    Raises:
        ConfigurationError: a date, NaN, a number without end, or too many levels.
    """
    if depth > MAXIMUM_DEPTH:
        raise ConfigurationError(f"{where} nests deeper than {MAXIMUM_DEPTH} levels.")
    if isinstance(value, Mapping):
        return {
            str(key): _plain(one, f"{where}.{key}"[:200], depth + 1) for key, one in value.items()
        }
    if isinstance(value, list):
        return [_plain(one, where, depth + 1) for one in value]
    sound = (
        isinstance(value, str | bool)
        or (type(value) is int and abs(value) < 2**63)
        or (type(value) is float and math.isfinite(value))
    )
    if not sound:
        raise ConfigurationError(
            f"{where} is {_shown(value)}, expected texts, true or false, finite numbers, lists and "
            "tables. Write a date as a text."
        )
    return value


def _shown(value: Any) -> str:
    """A value in a message; Python refuses to print integers of thousands of digits."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too long to show"
