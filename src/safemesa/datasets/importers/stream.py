"""All files of an import as one stream of transitions, task by task in the order of the files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.datasets.findings import LogError
from safemesa.datasets.importers.assemble import Report, Steps, TaskAssembler
from safemesa.datasets.importers.find import open_source
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.plan import Plan, make_plan, plan_spaces
from safemesa.datasets.importers.rows import read_rows, split_tasks
from safemesa.datasets.importers.source import AbstractSource, Declaration

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
        for block in source.blocks(plan.number_columns(), plan.text_columns()):
            for finding in block.findings:
                self.report(finding)
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
