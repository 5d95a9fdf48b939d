"""The default executor: processes of this machine."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safemesa.core.errors import ConfigurationError, SafemesaError
from safemesa.experiments.grid.executors.executor import (
    AbstractExecutor,
    failure,
    make_task,
    task_row,
    unfinished,
)
from safemesa.experiments.grid.executors.progress_board import Board, Row
from safemesa.experiments.grid.executors.supervise import Job, Watcher, supervise
from safemesa.experiments.grid.executors.worker_tasks import Ready, Task, prepare, run_task
from safemesa.experiments.grid.grid_folder import Grid, GridFolder
from safemesa.phases.config import RunConfig
from safemesa.phases.workers import cores

PREPARATION = "preparation"
"""Name of the job that checks names and collects training logs."""


@dataclass(frozen=True, kw_only=True)
class LocalExecutor(AbstractExecutor):
    """Carries grids out in worker processes with one compute thread each.

    Results do not depend on `jobs`: also one job's runs are in such processes.

    Attributes:
        data_dir: Where training logs are kept.
        command: What is recorded as the command of each run.
        jobs: Processes at a time; None: one per core, and one on an accelerator.
        collect_only: Whether to stop when the training logs are there.
        simulators: Processes of each process that step its simulators; 0: none but itself.
    """

    data_dir: Path
    command: str
    jobs: int | None = None
    collect_only: bool = False
    simulators: int = 0

    def __post_init__(self) -> None:
        """Refuses fewer than one process."""
        if self.jobs is not None and self.jobs < 1:
            raise ConfigurationError(f"--jobs is {self.jobs}; expected at least 1.")

    def carry_out(self, grid: Grid, folder: GridFolder) -> None:
        """Trains, adapts and deploys whatever is not finished."""
        folder.check(grid)
        tasks = [make_task(group, folder, self.simulators) for group in unfinished(grid, folder)]
        if not tasks and not self.collect_only:
            return
        with ExitStack() as stack:

            def ready() -> None:
                stack.enter_context(folder.lock())
                folder.open(grid, self.command)

            configs = [task.configs[0] for task in tasks]
            if self.collect_only:
                configs = [run.config for run in grid.runs]
            backend = prepare_runs(configs, self.data_dir, self.jobs or cores(), ready).backend
            if self.collect_only:
                return
            jobs = self.jobs or (cores() if backend == "cpu" else 1)
            if backend != "cpu" and grid.seeds_per_process == 1 and len(grid.runs) > 1:
                print(
                    f"JAX computes on {backend}: in a new folder, --seeds-per-process 5 runs five "
                    "seeds of an arm side by side in one process.",
                    file=sys.stderr,
                )
            finished = len(grid.groups()) - len(tasks)
            failures = run_tasks(tasks, self.data_dir, self.command, jobs, finished)
        if failures:
            raise failure(failures, len(tasks))


def run_tasks(
    tasks: list[Task], data_dir: Path, command: str, jobs: int, finished: int = 0
) -> dict[str, SafemesaError]:
    """Carries tasks out in worker processes; returns errors by name."""
    work = [
        Job(
            name=task.name,
            function=run_task,
            arguments=(task, data_dir.absolute(), command),
            log=task.log,
            mark=task.mark,
            has_children=task.simulators > 0,
        )
        for task in tasks
    ]
    rows = [task_row(task) for task in tasks]
    with Board(rows, finished) as board:
        return supervise(work, jobs, board)


def prepare_runs(
    configs: Sequence[RunConfig],
    data_dir: Path,
    jobs: int,
    ready: Callable[[], None],
    *,
    collect: bool = True,
) -> Ready:
    """Checks names, calls `ready`, then collects missing training logs (with `collect`).

    All in another process: one that holds an accelerator's memory would leave none for the runs.

    Raises:
        ConfigurationError: an unknown name; `ready` was not called.
        SafemesaError: training logs cannot be collected, or are of other sizes.
    """
    # Seeds share names and training logs.
    configs = list(dict.fromkeys(replace(config, seed=0) for config in configs))
    job = Job(
        name=PREPARATION,
        function=prepare,
        arguments=(configs, data_dir.absolute(), jobs, collect),
        mark=lambda: frozenset(data_dir.glob(".*.unfinished/task-*/checkpoints/*.json")),
        has_children=True,
    )
    row = Row(name=PREPARATION, arm="", domain="", seeds="")
    with Board([row]) as board:
        watcher = _Preparing(board, ready)
        failures = supervise([job], 1, watcher)
    if failures:
        raise failures[PREPARATION]
    assert watcher.word is not None
    return watcher.word


class _Preparing(Watcher):
    """Shows the preparation and waits for its first word."""

    def __init__(self, board: Board, ready: Callable[[], None]) -> None:
        self.board, self.ready = board, ready
        self.word: Ready | None = None

    def started(self, name: str) -> None:
        self.board.started(name)

    def told(self, name: str, message: Any) -> None:
        if isinstance(message, Ready):
            # Told again where the process was started again.
            if self.word is None:
                self.ready()
            self.word = message
        self.board.told(name, message)

    def died(self, name: str, exitcode: int) -> None:
        self.board.died(name, exitcode)

    def ended(self, name: str, error: SafemesaError | None) -> None:
        if error is None:
            self.board.rows[name].state = "done"

    def tick(self) -> None:
        self.board.tick()
