"""Logs of topics (ROS 2 bags, MCAP, ULog): their columns, made into rows at a likely dt."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.describe import (
    TEXT as LOG_TEXT,
    ColumnDescription,
    LogDescription,
    TopicDescription,
)
from safemesa.datasets.importers.find import open_source
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.questions import OPEN
from safemesa.datasets.importers.resample_map import ResampleMap
from safemesa.datasets.importers.source import Declaration, reading
from safemesa.datasets.sniff.clock import bound, rounded
from safemesa.datasets.sniff.description import NUMBER, TEXT, ColumnSample, Description, Setting

SLOWEST = 0.5
"""Messages per second below which a topic tells of events and makes no rows."""
WIDEST = 64
"""Numbers of an array; more are maps, clouds or covariances."""
MOST_COLUMNS = 500
ROUGHLY = 0.03
"""Part of a topic's spacing by which it may be moved to a number of one digit."""
PERIODS = 3.0
"""Of the slowest topic, for which a value may stand."""


def describe_topics(path: Path, budget: int) -> Description:
    """Describes a log of topics, and samples the beginning of its rows.

    Raises:
        DatasetError: it is damaged, or no topic makes rows.
    """
    with reading(path):
        log = open_source(path, ImportMap()).describe()
    quick = [topic for topic in log.topics if (topic.rate or 0.0) >= SLOWEST and topic.columns]
    if not quick:
        raise DatasetError(
            f"{path}: no topic has {SLOWEST} messages per second; expected some that tell the "
            "robot's state. Record them too."
        )
    unread = {name: "cannot be read" for name in log.unread}
    for topic in log.topics:
        if topic not in quick:
            unread[topic.name] = f"{topic.count} messages: no rows; an event for [resample] start?"
    columns, wide = _columns(quick)
    unread |= wide
    settings, resample, dt = _settings(log, quick)
    samples = _samples(path, columns, resample, dt, budget)
    return Description(
        path=path,
        format=log.format,
        columns=tuple(samples),
        settings=settings,
        unread=tuple(unread.items()),
        declaration=Declaration(),
        whole=False,
        makes_time=True,
    )


def _columns(topics: Sequence[TopicDescription]) -> tuple[dict[str, str], dict[str, str]]:
    """Columns of a map with their kinds, and those that are left out with the reason."""
    columns: dict[str, str] = {}
    unread: dict[str, str] = {}
    for topic in topics:
        for column in topic.columns:
            if (column.width or 1) > WIDEST:
                unread[column.name] = f"{column.width} numbers"
                continue
            kind = TEXT if column.kind == LOG_TEXT else NUMBER
            if kind == TEXT and column.width is not None:
                unread[column.name] = "texts"
                continue
            for name in _parts(column):
                if len(columns) < MOST_COLUMNS:
                    columns[name] = kind
                else:
                    unread[name] = f"beyond {MOST_COLUMNS} columns"
    return columns, unread


def _parts(column: ColumnDescription) -> list[str]:
    """An array of varying width is read by its components."""
    if column.width is None or (column.fixed and not column.names):
        return [column.name]
    names = column.names or tuple(map(str, range(column.width)))
    return [f"{column.name}[{name}]" for name in names]


def _settings(
    log: LogDescription, topics: Sequence[TopicDescription]
) -> tuple[tuple[Setting, ...], ResampleMap, float]:
    """What the map must say of times and rates, and what the sample is made with."""
    rates = {topic.name: topic.rate or SLOWEST for topic in topics}
    spacings = {name: _spacing(rate) for name, rate in rates.items()}
    commands = [name for name in rates if any(word in name.lower() for word in ("cmd", "command"))]
    order = [*commands, *sorted(rates, key=lambda name: -rates[name])]
    candidates = tuple(dict.fromkeys(spacings[name] for name in order))
    age = bound(PERIODS / min(rates.values()))
    shown = ", ".join(f"{name} {rate:.4g}" for name, rate in list(rates.items())[:8])
    settings = [
        Setting(key="rows", value="states", reason="topics are sampled at moments"),
        Setting(
            key="dt",
            value=OPEN,
            reason=f"How many seconds lie between two rows? Messages per second: {shown}.",
            candidates=candidates,
        ),
        Setting(key="gaps", value="split", reason="where rows are missing a new episode begins"),
        Setting(
            key="resample.method",
            value="last",
            reason='the newest value before the row; "linear" and "nearest" look ahead',
        ),
        Setting(
            key="resample.max_age",
            value=OPEN,
            reason="For how many seconds does a value stand? Then it is missing. The slowest topic "
            f"has {min(rates.values()):.4g} messages per second.",
            candidates=(age,),
        ),
    ]
    clock = None
    if log.format != "ulog":
        headed = all(topic.header for topic in topics)
        clock = "header" if headed else "log"
        candidates_of_clock = ("header", "log") if headed else ("log",)
        some = [topic.name for topic in topics if topic.header]
        settings.append(
            Setting(
                key="resample.time",
                value=OPEN,
                reason='Which time counts: "log", when a message was recorded, or "header", when '
                f"it was measured? Topics with a header: {', '.join(some[:8]) or 'none'}.",
                candidates=candidates_of_clock,
            )
        )
    sampled = ResampleMap(max_age=age, time=clock, restart="split")
    return tuple(settings), sampled, candidates[0]


def _spacing(rate: float) -> float:
    """Seconds between messages; a rate over a whole log is hardly ever round."""
    spacing = 1.0 / rate
    digit = float(f"{spacing:.1g}")
    return digit if abs(digit - spacing) <= ROUGHLY * spacing else rounded(spacing)


def _samples(
    path: Path, columns: dict[str, str], resample: ResampleMap, dt: float, budget: int
) -> list[ColumnSample]:
    """Rows of the beginning, as the import makes them."""
    source = open_source(path, ImportMap(dt=dt, resample=resample))
    numbers = [name for name, kind in columns.items() if kind == NUMBER]
    texts = [name for name, kind in columns.items() if kind == TEXT]
    most = max(budget // (8 * max(len(columns), 1)), 2)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    rows = 0
    with reading(path):
        for block in source.blocks(numbers, texts):
            if not len(block.rows):
                continue
            for name in columns:
                values = np.asarray(block.columns[name])
                parts[name].append(values if columns[name] == TEXT else values.astype(np.float64))
            rows += len(block.rows)
            if rows >= most:
                break
    found = []
    for name, kind in columns.items():
        whole = np.concatenate(parts[name])[:most] if parts[name] else np.zeros(0)
        width = int(np.prod(whole.shape[1:])) if whole.ndim > 1 else None
        found.append(ColumnSample(name=name, kind=kind, width=width, parts=(whole,)))
    return found
