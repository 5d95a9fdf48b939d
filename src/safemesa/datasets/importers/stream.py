"""All files of an import as one stream of transitions, task by task in the order of the files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.datasets.findings import Finding, LogError
from safemesa.datasets.importers.assemble import Report, Steps, TaskAssembler
from safemesa.datasets.importers.find import open_source
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.plan import Plan, make_plan, plan_spaces
from safemesa.datasets.importers.rows import read_rows, split_tasks
from safemesa.datasets.importers.source import AbstractSource, Block, Declaration

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
    owners: dict[str, Path] = field(default_factory=dict)
    """Tasks that are named after a file or folder, and which."""
    plan: Plan | None = None
    """How the first sound file is read; the others must have the same signals."""
    _rows: int = 0

    def spaces(self, horizon: int) -> Spaces:
        """The spaces of all tasks.

        Raises:
            DatasetError: nothing could be read.
        """
        if self.plan is None:
            raise DatasetError("no file could be read; see the errors above.")
        return plan_spaces(self.plan, horizon)

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
        source = open_source(path, self.mapping)
        plan = self._plan_of(source)
        declaration = source.declaration()
        number = len(self.files) - 1
        by_folder = self.mapping.task_from == "folder"
        default = declaration.task or (path.parent.name if by_folder else path.stem)
        if declaration.task is None and plan.map.columns.task is None:
            self._claim(default, path.parent if by_folder else path)
        for block in source.blocks(plan.number_columns(), plan.text_columns()):
            for finding in block.findings:
                self.report(finding)
            self._require_labels(plan, block, path)
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
                    assemblers[task] = TaskAssembler(task, plan, self.files, self.report)
                assemblers[task].plan = plan
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

    def _claim(self, task: str, owner: Path) -> None:
        """Refuses a second file (or folder) of a name that stands for a robot."""
        first = self.owners.setdefault(task, owner)
        if first.resolve() != owner.resolve():
            raise LogError(
                "same-name",
                f"{first} and {owner} would both be the task {task!r}, as if of one robot. "
                'Name a task column, set task_from = "folder" or "file", or rename one.',
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
                    f"{source.path}: {name} is {given}, in {self.files[0]} it is {expected}. All "
                    "tasks of a dataset share their signals, bounds and dt.",
                )
        return plan


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def total_bytes(paths: Sequence[Path]) -> int:
    """Size of all files, for a progress bar."""
    return sum(_bytes(path) for path in paths)
