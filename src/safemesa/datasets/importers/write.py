"""Imports logs of any size into a native dataset: rows pass through, they are never all held."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from safemesa.core.errors import ConfigurationError, DatasetError, OutputFolderError
from safemesa.core.files import cannot_write
from safemesa.core.spaces import Spaces
from safemesa.datasets.doctor.cells import check_cells
from safemesa.datasets.findings import ERROR, Finding, Findings, by_kind
from safemesa.datasets.format import COLUMNS, make_provenance
from safemesa.datasets.importers.assemble import Steps
from safemesa.datasets.importers.find import find_sources, suffixes_in_words
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.stream import LogStream, OnRows
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog

SHOWN = 3
"""Errors of each kind that an import names before it gives up."""


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What an import made, and what it noticed (warnings only; errors are raised)."""

    folder: Path
    transitions: int
    tasks: int
    findings: Findings


def import_logs(
    paths: Sequence[Path],
    mapping: ImportMap,
    out: Path,
    *,
    command: str = "safemesa.datasets.importers.write.import_logs",
    on_rows: OnRows = lambda done, rows: None,
    on_robots: Callable[[str], None] = lambda line: None,
) -> ImportResult:
    """Reads files and writes one dataset folder; every file (or task column) is a task.

    `on_robots` is told which robots there are, in one line, before anything is written.

    Raises:
        DatasetError: a file is damaged or a row is wrong; file, row and column are named.
        ConfigurationError: the map leaves something open.
        OutputFolderError: `out` exists or cannot be written.
    """
    if os.path.lexists(out):
        raise OutputFolderError(f"{out} exists already. Choose another --out, or remove it.")
    findings = Findings()
    skipped: list[Path] = []
    stream = LogStream(find_sources(paths, skipped), mapping, findings.add, on_rows)
    report_skipped(skipped, findings)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFolderError(
            f"cannot write {out}: {error.strerror}. Choose another --out."
        ) from error
    # Beside the result, where there is room for it: temporary folders are often in memory.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        columns = ColumnFiles(Path(scratch))
        for steps in stream:
            check_cells(steps, stream.spaces(1), stream.files, findings.add)
            _raise_errors(findings)
            columns.append(steps)
        _raise_errors(findings)
        data = _dataset(stream, columns, command)
        on_robots(stream.robots())
        data.save(out)
        return ImportResult(
            folder=out,
            transitions=sum(log.transitions for log in data.logs),
            tasks=len(data.logs),
            findings=findings,
        )


class ColumnFiles:
    """Columns of many tasks as raw files that grow; mapped into memory once they are complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, int] = {}
        self.longest = 1
        self._numbers: dict[str, int] = {}

    def append(self, steps: Steps) -> None:
        """Adds transitions of one task.

        Raises:
            OutputFolderError: the disk is full.
        """
        number = self._numbers.setdefault(steps.task, len(self._numbers))
        self.rows[steps.task] = self.rows.get(steps.task, 0) + len(steps)
        self.longest = max(self.longest, int(steps.step.max(initial=0)) + 1)
        for name, column in COLUMNS.items():
            path = self._path(number, name)
            values = np.ascontiguousarray(getattr(steps, name).astype(column.dtype))
            try:
                with open(path, "ab") as file:
                    file.write(values.reshape(-1).view(np.uint8).data)
            except OSError as error:
                raise cannot_write(path, error) from error

    def mapped(self, task: str, spaces: Spaces) -> dict[str, np.ndarray]:
        """All columns of a task, read from disk when they are used."""
        number, rows = self._numbers[task], self.rows[task]
        return {
            name: np.memmap(
                self._path(number, name), column.dtype, "r", shape=column.shape(rows, spaces)
            )
            for name, column in COLUMNS.items()
        }

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"{number}-{name}"


def _dataset(stream: LogStream, columns: ColumnFiles, command: str) -> OfflineTasks:
    if not columns.rows or stream.plan is None:
        raise DatasetError(
            "the files hold no transition: every episode has a single row, or none. See the map's "
            "`rows` and `episode`."
        )
    mapping, spaces = stream.plan.map, stream.spaces(columns.longest)
    mapping = _with_full_names(mapping, list(columns.rows))
    test = _test_task(stream, mapping.test, list(columns.rows))
    logs = [
        TaskLog(
            name=task,
            role="test" if task == test else "train",
            columns=columns.mapped(task, spaces),
            parameters={
                **stream.declared[task].parameters,
                **mapping.parameters.get(task, {}),
            },
        )
        for task in columns.rows
    ]
    unknown = set(mapping.parameters) - set(columns.rows)
    if unknown:
        raise ConfigurationError(
            f"the map has parameters of {sorted(unknown)}, but the tasks are "
            f"{', '.join(list(columns.rows)[:20])}."
        )
    first = next(iter(stream.declared.values()))
    return OfflineTasks(
        domain=mapping.domain or first.domain or "imported",
        spaces=spaces,
        train=tuple(log for log in logs if log.role == "train"),
        test=next((log for log in logs if log.role == "test"), None),
        provenance=_provenance(stream, command),
    )


def _with_full_names(mapping: ImportMap, tasks: Sequence[str]) -> ImportMap:
    """The map's tasks by their whole names: `drive-v0` may stand for `fleet/robot1/drive-v0`."""
    names = {task: full_name(task, tasks) for task in (*mapping.parameters, mapping.test or "")}
    return replace(
        mapping,
        test=mapping.test and names[mapping.test],
        parameters={names[task]: value for task, value in mapping.parameters.items()},
    )


def full_name(name: str, tasks: Sequence[str]) -> str:
    """The one task that a name, or the last part of one, stands for; else the name itself."""
    found = [task for task in tasks if task.rsplit("/", 1)[-1] == name]
    return found[0] if name not in tasks and len(found) == 1 else name


def report_skipped(skipped: Sequence[Path], findings: Findings) -> None:
    """Says which files below the given folders nobody reads."""
    if skipped:
        detail = suffixes_in_words(skipped)
        place = str(skipped[0].parent)
        found = Finding(code="unread-file", file=place, count=len(skipped), detail=detail)
        findings.add(found)


def _test_task(stream: LogStream, wanted: str | None, tasks: list[str]) -> str | None:
    if wanted is not None and wanted not in tasks:
        raise ConfigurationError(
            f"the test task {wanted!r} is not among the tasks {', '.join(tasks[:20])}."
        )
    declared = [task for task in tasks if stream.declared[task].role == "test"]
    others = [task for task in declared if task != wanted]
    if others and (wanted is not None or len(declared) > 1):
        raise ConfigurationError(
            f"{', '.join(others)}: recorded as the log of a new robot, and a dataset has one"
            f"{'' if wanted is None else f', here {wanted}'}. As training logs they would tell "
            "the critic about robots that it is to be tested on. Import each with the fleet alone."
        )
    return wanted if wanted is not None else next(iter(declared), None)


def _provenance(stream: LogStream, command: str) -> dict[str, object]:
    """That of our own exports is kept; otherwise where the rows are from."""
    assert stream.plan is not None
    kept = next(iter(stream.declared.values())).provenance
    if kept:
        return dict(kept)
    made = make_provenance(command=command, seed=None, policy="as logged; see the source files")
    every = (*stream.plan.obs, *stream.plan.action)
    limit = stream.plan.limit
    return {
        **made,
        "sources": _source_names(stream.files),
        "units": {one.name: one.unit for one in every if one.unit},
        "rows": stream.plan.map.rows,
        "cost": limit.text if limit is not None else f"column {stream.plan.map.cost_column}",
        "dt_declared": stream.plan.map.dt is not None,
    }


def _source_names(files: Sequence[str]) -> list[str]:
    """Names of files below the folder that holds them all."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in files])
    return [Path(os.path.relpath(name, folder)).as_posix() for name in files]


def _raise_errors(findings: Findings) -> None:
    errors = by_kind(findings)
    errors = [kind for kind in errors if kind[0].defect.level == ERROR]
    if not errors:
        return
    lines = [one.sentence() for kind in errors for one in kind[:SHOWN]]
    hidden = sum(len(kind[SHOWN:]) for kind in errors)
    more = f"\n... and {hidden} more." if hidden else ""
    raise DatasetError(
        "the logs cannot be imported:\n  "
        + "\n  ".join(lines)
        + more
        + "\n`safemesa data doctor` with the same files and map lists everything."
    )


def with_test(mapping: ImportMap, test: str | None) -> ImportMap:
    """The map with another test task."""
    return mapping if test is None else replace(mapping, test=test)
