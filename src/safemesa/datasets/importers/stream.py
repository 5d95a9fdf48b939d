"""All files of an import as one stream of transitions, task by task in the order of the files."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.datasets.findings import Finding, LogError
from safemesa.datasets.importers.assemble import Report, Steps, TaskAssembler
from safemesa.datasets.importers.find import open_source
from safemesa.datasets.importers.identity import robots_in_words, task_of
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.plan import Plan, make_plan, plan_spaces
from safemesa.datasets.importers.rows import read_rows, split_tasks
from safemesa.datasets.importers.source import AbstractSource, Block, Declaration, reading

OnRows = Callable[[int, int], None]
"""Called with (bytes of finished files, rows so far)."""
MAXIMUM_TASKS = 100_000


@dataclass
class LogStream:
    """Reads files one after the other. After the stream has ended, the rest is known too."""

    paths: Sequence[Path]
    mapping: ImportMap
    report: Report
    on_rows: OnRows = lambda done, rows: None
    on_error: Callable[[Path, DatasetError], None] | None = None
    """Called instead of raising, where a file cannot be read; the other files are read."""
    files: list[str] = field(default_factory=list)
    declared: dict[str, Declaration] = field(default_factory=dict)
    """What the first file of each task says about itself."""
    owners: dict[str, tuple[str, Path]] = field(default_factory=dict)
    """Tasks that are named after a file or folder: after what, and the first file of them."""
    parts: dict[str, set[int]] = field(default_factory=dict)
    """Numbers of the files of each task."""
    plan: Plan | None = None
    """How the first sound file is read; the others must have the same signals."""
    _rows: int = 0
    _told: set[tuple[str, ...]] = field(default_factory=set)

    def spaces(self, horizon: int) -> Spaces:
        """The spaces of all tasks.

        Raises:
            DatasetError: nothing could be read.
        """
        if self.plan is None:
            raise DatasetError("no file could be read; see the errors above.")
        return plan_spaces(self.plan, horizon)

    def robots(self) -> str:
        """Which robots the files are of, in one line."""
        counts = {task: len(files) for task, files in self.parts.items()}
        return robots_in_words(counts, len(self.files))

    def __iter__(self) -> Iterator[Steps]:
        """The transitions of every task; tasks may alternate where a file holds several."""
        assemblers: dict[str, TaskAssembler] = {}
        done = 0
        for path in self.paths:
            self.files.append(str(path))
            try:
                yield from self._file(path, assemblers, done)
            except DatasetError as error:
                if self.on_error is None:
                    raise
                self.on_error(path, error)
            done += _bytes(path)
            self.on_rows(done, self._rows)
        for assembler in assemblers.values():
            yield from assembler.finish()

    def _file(self, path: Path, assemblers: dict[str, TaskAssembler], done: int) -> Iterator[Steps]:
        with reading(path):
            source = open_source(path, self.mapping)
            declaration = source.declaration()
        plan = self._plan_of(source)
        number = len(self.files) - 1
        default = ""
        if plan.map.columns.task is None:
            default, owner = task_of(path, self.mapping.task_from, declaration.task)
            self._claim(default, owner, path)
        self._tell_unused(plan, path)
        blocks = source.blocks(plan.number_columns(), plan.text_columns())
        while (block := self._next(blocks, path)) is not None:
            for finding in block.findings:
                self.report(finding)
            self._require_labels(plan, block, path)
            if not len(block.rows):
                continue
            rows = read_rows(plan, block, number)
            self._rows += len(rows)
            for task, part in split_tasks(plan, block, rows, default):
                if task not in assemblers:
                    if len(assemblers) >= MAXIMUM_TASKS:
                        raise DatasetError(
                            f"{path}: more than {MAXIMUM_TASKS} tasks; is {plan.map.columns.task!r}"
                            " really the column of the robot?"
                        )
                    self.declared[task] = declaration
                    self.parts[task] = set()
                    assemblers[task] = TaskAssembler(task, plan, self.files, self.report)
                assemblers[task].plan = plan
                self.parts[task].add(number)
                yield from assemblers[task].feed(part)
            self.on_rows(done, self._rows)

    def _require_labels(self, plan: Plan, block: Block, path: Path) -> None:
        """Reports empty names of tasks and episodes: their rows would go to a task of no name."""
        for name in plan.text_columns():
            empty = np.asarray(block.columns[name]) == ""
            if empty.any():
                row = int(block.rows[int(np.argmax(empty))])
                count = int(np.count_nonzero(empty))
                self.report(
                    Finding(code="missing-value", file=str(path), row=row, column=name, count=count)
                )

    @staticmethod
    def _next(blocks: Iterator[Block], path: Path) -> Block | None:
        with reading(path):
            return next(blocks, None)

    def _tell_unused(self, plan: Plan, path: Path) -> None:
        """Columns that nobody reads, once for each kind of file."""
        if not plan.unused or plan.unused in self._told:
            return
        self._told.add(plan.unused)
        names, count = plan.unused, len(plan.unused)
        more = f" and {count - 8} more" if count > 8 else ""
        detail = ", ".join(map(repr, names[:8])) + more
        self.report(Finding(code="unused-columns", file=str(path), count=count, detail=detail))

    def _claim(self, task: str, owner: str, path: Path) -> None:
        """Refuses a second file (or folder) of a name that stands for a robot."""
        first, first_path = self.owners.setdefault(task, (owner, path))
        if os.path.realpath(first) != os.path.realpath(owner):
            raise LogError(
                "same-name",
                f"{first_path} and {path} would both be the task {task!r}, as if of one robot. "
                'If they are, name their folder (task_from = "folder" or "folder:2") or a pattern '
                '(task_from = "{task}/*/*.csv"); if not, do so too, name a task column, or rename '
                "one.",
            )

    def _plan_of(self, source: AbstractSource) -> Plan:
        plan = make_plan(self.mapping, source)
        if self.plan is None:
            self.plan = plan
        first, other = plan_spaces(self.plan, 1), plan_spaces(plan, 1)
        for name in ("obs_names", "action_names", "action_low", "action_high", "dt"):
            expected, given = getattr(first, name), getattr(other, name)
            if expected != given:
                raise LogError(
                    "wrong-width",
                    f"{source.path}: {name} is {_short(given)}, in {self.files[0]} it is "
                    f"{_short(expected)}. All tasks of a dataset share their signals, bounds and "
                    "dt.",
                )
        return plan


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def total_bytes(paths: Sequence[Path]) -> int:
    """Size of all files, for a progress bar."""
    return sum(_bytes(path) for path in paths)
