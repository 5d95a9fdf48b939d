"""What a sample shows of each column, as numbers that rules can ask for."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from safemesa.datasets.sniff.description import NUMBER, TEXT, TIME, ColumnSample, Description

BEGINNING = 0.05
"""Part of its range in which a clock of runs begins."""
MOST_TEXTS = 1_000
"""Distinct texts that are counted; more are no names of robots or episodes."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_BRACKETS = re.compile(r"(\s*)[\[(]\s*([^\])]{1,12}?)\s*[\])]\s*$")

UNITS = {
    "mm": "mm", "cm": "cm", "m": "m", "km": "km", "meters": "m", "metres": "m",
    "mps": "m/s", "kmh": "km/h", "kph": "km/h", "knots": "kn",
    "s": "s", "sec": "s", "secs": "s", "seconds": "s", "ms": "ms", "msec": "ms", "millis": "ms",
    "us": "us", "usec": "us", "micros": "us", "ns": "ns", "nsec": "ns", "nanos": "ns",
    "deg": "deg", "degrees": "deg", "rad": "rad", "radians": "rad",
    "dps": "deg/s", "rps": "rad/s", "rpm": "rpm",
    "pct": "%", "percent": "%", "volts": "V", "mv": "mV", "amps": "A", "ma": "mA", "watts": "W",
    "nm": "N m", "newton": "N", "hz": "Hz", "kg": "kg", "pa": "Pa", "hpa": "hPa", "kpa": "kPa",
    "bar": "bar", "degc": "deg C", "celsius": "deg C", "kelvin": "K",
}  # fmt: skip
"""Last word of a name to unit; of `speed_m_s` and `rate_deg_s` the last two words."""
PER = {"s": "s", "s2": "s^2"}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
EPOCHS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""A clock of at least so many units, all since 1970, counts these."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One column, over all files that were looked at. Shares are of 0 to 1."""

    name: str
    words: tuple[str, ...]
    """The words of the name, in small letters."""
    kind: str
    width: int | None = None
    unit: str = ""
    rate: float | None = None
    count: int = 0
    """Cells with a value."""
    missing: float = 0.0
    """Share of cells without one."""
    low: float = np.nan
    high: float = np.nan
    lows: tuple[float, ...] = ()
    """Of an array, of each number."""
    highs: tuple[float, ...] = ()
    distinct: int = 0
    whole: bool = False
    """All are whole numbers."""
    ones: float = 0.0
    """Share of ones, of a column of zeros and ones."""
    longest_on: int = 0
    """Longest run of ones."""
    changes: float = 0.0
    """Share of rows that differ from the row before."""
    rises: float = 0.0
    """Share of those that are larger; a clock that begins anew does not count."""
    counts_up: float = 0.0
    """Share of rows that are one more than the row before; beginnings do not count."""
    at_ends: float = 0.0
    """Share of rows that repeat exactly the smallest or largest value."""
    constant_per_file: bool = False
    returns: bool = False
    """A value comes back, within a file, after others."""
    texts: tuple[str, ...] = ()
    """Distinct labels, of a column that has few."""

    @property
    def binary(self) -> bool:
        """Zeros and ones alone."""
        return self.kind == NUMBER and self.width is None and self.whole and (
            self.low >= 0 and self.high <= 1
        )  # fmt: skip

    @property
    def constant(self) -> bool:
        """One value alone."""
        return self.distinct == 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Columns that all files share; parts lie one after the other, files in their order."""

    descriptions: tuple[Description, ...]
    columns: dict[str, ColumnSample]
    starts: np.ndarray
    """Whether a row is the first of its part, bool `[rows]`."""
    file: np.ndarray
    """Number of the file of each row, int `[rows]`."""

    def values(self, name: str) -> np.ndarray:
        """All rows of a column."""
        return _joined(self.columns[name].parts)


def gather(descriptions: Sequence[Description]) -> Sample:
    """Puts the samples of several files together."""
    by_name = [{column.name: column for column in each.columns} for each in descriptions]
    names = [name for name in by_name[0] if all(name in columns for columns in by_name)]
    shared: dict[str, ColumnSample] = {}
    for name in names:
        columns = [each[name] for each in by_name]
        widths = {column.width for column in columns}
        kinds = {column.kind for column in columns}
        if len(widths) > 1:
            continue
        kind = TEXT if TEXT in kinds else TIME if TIME in kinds else NUMBER
        parts = [part for column in columns for part in column.parts]
        if kind == TEXT:
            parts = [part if part.dtype.kind == "U" else part.astype(np.str_) for part in parts]
        shared[name] = replace(columns[0], kind=kind, parts=tuple(parts))
    lengths = [
        (number, len(part))
        for number, each in enumerate(descriptions)
        for part in (each.columns[0].parts if each.columns else ())
    ]
    starts = [np.arange(length) == 0 for _, length in lengths]
    files = [np.full(length, number) for number, length in lengths]
    return Sample(
        descriptions=tuple(descriptions),
        columns=shared,
        starts=_joined(starts).astype(np.bool_),
        file=_joined(files).astype(np.int64),
    )


def facts_of(sample: Sample, name: str) -> Facts:
    """The facts of one column."""
    column = sample.columns[name]
    stem, bracket = split_unit(name)
    words = tuple(word.lower() for word in _WORDS.findall(plain(stem)))
    known = Facts(
        name=name,
        words=words,
        kind=column.kind,
        width=column.width,
        unit=column.unit or bracket or unit_of(words),
        rate=column.rate,
    )
    values = sample.values(name)
    if column.kind == TEXT:
        return _of_texts(known, values, sample)
    if column.width is not None:
        return _of_arrays(known, values)
    return _of_numbers(known, values, sample)


def _of_texts(known: Facts, values: np.ndarray, sample: Sample) -> Facts:
    distinct = np.unique(values)
    return replace(
        known,
        count=int(np.count_nonzero(values != "")),
        missing=float(np.mean(values == "")) if len(values) else 0.0,
        distinct=len(distinct),
        texts=tuple(map(str, distinct[:MOST_TEXTS])) if len(distinct) <= MOST_TEXTS else (),
        changes=_share(values[1:] != values[:-1], ~sample.starts[1:]),
        constant_per_file=_constant_per_file(values, sample),
        returns=_returns(values, sample),
    )


def _of_arrays(known: Facts, values: np.ndarray) -> Facts:
    sound = np.isfinite(values).all(axis=1)
    rows = values[sound]
    if not len(rows):
        return known
    lows, highs = rows.min(axis=0), rows.max(axis=0)
    return replace(
        known,
        count=len(rows),
        missing=1.0 - len(rows) / len(values),
        low=float(lows.min()),
        high=float(highs.max()),
        lows=tuple(lows.tolist()),
        highs=tuple(highs.tolist()),
        distinct=1 if bool((lows == highs).all()) else 2,
        changes=_share((rows[1:] != rows[:-1]).any(axis=1), np.ones(len(rows) - 1, np.bool_)),
    )


def _of_numbers(known: Facts, values: np.ndarray, sample: Sample) -> Facts:
    sound = np.isfinite(values)
    numbers = values[sound]
    if not len(numbers):
        return replace(known, missing=1.0 if len(values) else 0.0)
    pairs = ~sample.starts[1:] & sound[1:] & sound[:-1]
    # What is infinite is in no pair that counts.
    with np.errstate(invalid="ignore", over="ignore"):
        passed = np.where(pairs, values[1:] - values[:-1], 0.0)
    low, high = float(numbers.min()), float(numbers.max())
    # A fall to where the smallest values are is the beginning of another run.
    anew = (passed < 0) & (values[1:] <= low + BEGINNING * (high - low))
    distinct = np.unique(numbers)
    whole = bool((numbers == np.floor(numbers)).all())
    binary = whole and low >= 0 and high <= 1
    return replace(
        known,
        count=len(numbers),
        missing=float(1.0 - np.mean(np.isfinite(values) | np.isinf(values))),
        low=low,
        high=high,
        distinct=len(distinct),
        whole=whole,
        ones=float(numbers.mean()) if binary else 0.0,
        longest_on=_longest(values == 1, sample) if binary else 0,
        changes=_share(passed != 0, pairs),
        rises=_share(passed > 0, pairs & (passed != 0) & ~anew),
        counts_up=_share(passed == 1, pairs & ~anew),
        at_ends=max(float(np.mean((numbers == low) | (numbers == high))) - 2 / len(numbers), 0.0),
        constant_per_file=_constant_per_file(values, sample),
        returns=_returns(values, sample),
    )


def _share(is_so: np.ndarray, counted: np.ndarray) -> float:
    total = int(np.count_nonzero(counted))
    return float(np.count_nonzero(is_so & counted) / total) if total else 0.0


def _constant_per_file(values: np.ndarray, sample: Sample) -> bool:
    return all(len(np.unique(values[sample.file == file])) <= 1 for file in set(sample.file))


def _returns(values: np.ndarray, sample: Sample) -> bool:
    """Whether a run of equal values begins with one that an earlier run of the file had."""
    if not len(values):
        return False
    begins = np.append(True, (values[1:] != values[:-1]) | (sample.file[1:] != sample.file[:-1]))
    if values.dtype.kind == "f":
        begins &= ~np.isnan(values)
    runs = list(zip(sample.file[begins].tolist(), values[begins].tolist(), strict=True))
    return len(set(runs)) < len(runs)


def _longest(is_on: np.ndarray, sample: Sample) -> int:
    """Longest run of ones within a part."""
    if not len(is_on):
        return 0
    begins = np.flatnonzero(sample.starts | np.append(True, is_on[1:] != is_on[:-1]))
    lengths = np.diff(np.append(begins, len(is_on)))
    return int(lengths[is_on[begins]].max(initial=0))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def plain(text: str) -> str:
    """Letters without accents."""
    split = unicodedata.normalize("NFKD", text)
    return "".join(sign for sign in split if not unicodedata.combining(sign))


def split_unit(name: str) -> tuple[str, str]:
    """`Speed [m/s]` as `("Speed", "m/s")`; `position[wrist]` names no unit."""
    match = _BRACKETS.search(name)
    if match is None or match[2].isdigit() or not match.start():
        return name, ""
    known = match[1] or match[2] in UNITS or match[2] in UNITS.values() or "/" in match[2]
    return (name[: match.start()], match[2]) if known else (name, "")


def unit_of(words: Sequence[str]) -> str:
    """The unit that the last words of a name are; empty where they are none."""
    if len(words) < 2:
        return ""
    *_, before, last = ("", *words)
    if len(words) > 2 and last in PER and before in UNITS:
        return f"{UNITS[before]}/{PER[last]}"
    return UNITS.get(last, "")


def time_unit(facts: Facts) -> str:
    """What a clock counts: by its name, else by its size; empty where neither says it."""
    if facts.kind == TIME:
        return "s"
    if facts.unit in SECONDS:
        return facts.unit
    for word in facts.words:
        if UNITS.get(word) in SECONDS and (word not in ("s", "m") or len(facts.words) > 1):
            return UNITS[word]
    return next((unit for least, unit in EPOCHS if facts.low >= least), "")
