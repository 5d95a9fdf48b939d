"""What `data sniff` learns of a file before there is a map: its columns, and a bounded sample.

A format that needs settings before its columns can be read (a CSV dialect, the topics of a bag)
is described by a function of its own; all others through their reader.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.registry import Registry
from safemesa.datasets.importers.find import open_source
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.lerobot_folder import LeRobotSource
from safemesa.datasets.importers.minari_folder import MinariSource
from safemesa.datasets.importers.source import AbstractSource, reading
from safemesa.datasets.importers.topics import TopicSource
from safemesa.datasets.sniff.csv_sample import describe_csv
from safemesa.datasets.sniff.description import (
    NUMBER,
    TEXT,
    ColumnSample,
    Description,
    require_few_columns,
)
from safemesa.datasets.sniff.topic_samples import describe_topics

Describer = Callable[[Path, int], Description]
"""Takes a path, and how many bytes of values it may keep."""

describers: Registry[Describer] = Registry("format that sniff knows")
"""Suffix to describer, for formats whose reader needs settings first."""

for _suffix in (".csv", ".tsv"):
    describers.register(_suffix)(describe_csv)

FOLDERS: dict[type[AbstractSource], str] = {
    MinariSource: "Minari folder",
    LeRobotSource: "LeRobot folder",
}
"""Formats that no suffix names."""
WIDEST = 1_000
"""Numbers per row of an array; more are pixels or beams, no signals."""


def describe(path: Path, budget: int) -> Description:
    """Describes a file, or a folder that is one recording, and keeps about `budget` bytes of it.

    Raises:
        DatasetError: no reader knows it, or it is damaged.
    """
    suffix = path.suffix.lower()
    if not path.is_dir() and suffix in describers:
        return describers[suffix](path, budget)
    with reading(path):
        source = open_source(path, ImportMap())
    if isinstance(source, TopicSource):
        return describe_topics(path, budget)
    with reading(path):
        return describe_source(source, budget, FOLDERS.get(type(source), ""))


def describe_source(source: AbstractSource, budget: int, form: str = "") -> Description:
    """A description by way of a reader that needs no settings: the first block of each column."""
    widths, declaration = dict(source.widths()), source.declaration()
    unread = {name: "the reader gives no rows of it" for name in declaration.unread}
    names = [name for name in widths if name not in unread]
    require_few_columns(len(names), source.path)
    wide = [name for name in names if (widths[name] or 1) > WIDEST]
    unread |= dict.fromkeys(wide, "more numbers than a network for signals reads")
    samples: dict[str, ColumnSample] = {}
    for name in names:
        if name in unread:
            continue
        sample = _sample(source, name, widths[name])
        if sample is None:
            unread[name] = "neither numbers nor short texts"
        else:
            samples[name] = sample
    lengths = Counter(tuple(map(len, sample.parts)) for sample in samples.values())
    usual = lengths.most_common(1)[0][0] if lengths else ()
    for name, sample in samples.items():
        if tuple(map(len, sample.parts)) != usual:
            unread[name] = f"{sum(map(len, sample.parts))} rows, most columns have {sum(usual)}"
    kept = [sample for name, sample in samples.items() if name not in unread]
    numbers = sum(sample.width or 1 for sample in kept)
    rows = max(budget // (8 * max(numbers, 1)), 2)
    total = source.rows()
    return Description(
        path=source.path,
        format=form or source.path.suffix.removeprefix(".").upper() or "folder",
        columns=tuple(_shortened(sample, rows) for sample in kept),
        unread=tuple(unread.items()),
        declaration=declaration,
        whole=total is not None and total <= min(sum(usual), rows),
    )


def _sample(source: AbstractSource, name: str, width: int | None) -> ColumnSample | None:
    """A column as numbers, else as texts; None where it is neither."""
    for numbers, texts, kind in (([name], [], NUMBER), ([], [name], TEXT)):
        try:
            blocks = list(source.sample_blocks(numbers, texts))
        except DatasetError:
            continue
        parts = [np.asarray(block.columns[name]) for block in blocks]
        if kind == NUMBER:
            parts = [part.astype(np.float64) for part in parts]
        return ColumnSample(name=name, kind=kind, width=width, parts=tuple(parts))
    return None


def _shortened(sample: ColumnSample, rows: int) -> ColumnSample:
    """At most so many rows, equally many of every part."""
    most = max(rows // max(len(sample.parts), 1), 1)
    return ColumnSample(
        name=sample.name,
        kind=sample.kind,
        width=sample.width,
        parts=tuple(part[:most] for part in sample.parts),
    )
