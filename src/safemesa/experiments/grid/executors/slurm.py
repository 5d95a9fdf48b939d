"""Grids on a cluster that SLURM runs, through submitit.

Each process' work is one job of an array. A job that is preempted, or whose time is over, is
queued again and goes on from its last checkpoint.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safemesa.core.errors import ConfigurationError, SafemesaError
from safemesa.experiments.grid.executors.executor import (
    AbstractExecutor,
    failure,
    make_task,
    task_row,
    unfinished,
)
from safemesa.experiments.grid.executors.local import prepare_runs, run_tasks
from safemesa.experiments.grid.executors.progress_board import Board
from safemesa.experiments.grid.executors.slurm_config import SlurmConfig
from safemesa.experiments.grid.executors.slurm_queue import Cluster, JobQueue
from safemesa.experiments.grid.executors.worker_tasks import Advanced, PhaseStarted, Task
from safemesa.experiments.grid.grid_folder import Grid, GridFolder, GridRun
from safemesa.phases.config import RunConfig

if TYPE_CHECKING:
    import submitit

LOOK_SECONDS = 10.0
"""Between looks at the queue and the run folders."""


@dataclass(frozen=True)
class TaskJob:
    """What a job does: its task, in a worker process, so that runs equal those of any machine.

    submitit sends it to the job, and calls `checkpoint` before the job is queued again.
    """

    task: Task
    data_dir: Path
    command: str

    def __call__(self) -> str:
        """Carries the task out.

        Raises:
            SafemesaError: it failed.
        """
        for error in run_tasks([self.task], self.data_dir, self.command, 1).values():
            raise error
        return self.task.name

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The same again: a run goes on where its folder says."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class CollectJob:
    """The job that collects training logs; see `TaskJob`."""

    configs: tuple[RunConfig, ...]
    data_dir: Path
    processes: int

    def __call__(self) -> str:
        """Collects what is missing."""
        prepare_runs(self.configs, self.data_dir, self.processes, lambda: None)
        return "collected"

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The same again: the collection goes on where it stopped."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor(AbstractExecutor):
    """Submits jobs and waits for them; interrupted, it leaves them and later finds them again.

    Attributes:
        data_dir: Where training logs are kept; jobs see the same file system.
        command: What is recorded as the command of each run.
        slurm: What jobs ask for.
        cluster: `local` runs jobs as processes of this machine, to try things out.
        look_seconds: Between looks at the queue.
    """

    data_dir: Path
    command: str
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    cluster: Cluster = "slurm"
    look_seconds: float = LOOK_SECONDS

    def carry_out(self, grid: Grid, folder: GridFolder) -> None:
        """Collects, then runs, in jobs."""
        _require_submitit()
        folder.check(grid)
        tasks = [make_task(group, folder) for group in unfinished(grid, folder)]
        if not tasks:
            return
        data_dir = self.data_dir.absolute()
        with ExitStack() as stack:

            def ready() -> None:
                stack.enter_context(folder.lock())
                folder.open(grid, self.command)

            queue = JobQueue(folder, self.slurm, self.cluster)
            configs = tuple(task.configs[0] for task in tasks)
            if not prepare_runs(configs, data_dir, 1, ready, collect=False).complete:
                self._collect(queue, CollectJob(configs, data_dir, self.slurm.collect_cpus))
            finished = len(grid.groups()) - len(unfinished(grid, folder))
            jobs, tasks = self._submit(queue, grid, folder)
            if not tasks:
                return
            ids = sorted({str(job.job_id).partition("_")[0] for job in jobs.values()})
            print(
                f"Jobs {' '.join(ids)}. Ctrl-C leaves them at work: the same command watches "
                f"again, and `scancel {' '.join(ids)}` ends them.",
                file=sys.stderr,
            )
            failures = self._watch(queue, tasks, jobs, finished)
        if failures:
            raise failure(failures, len(tasks))

    def _submit(
        self, queue: JobQueue, grid: Grid, folder: GridFolder
    ) -> tuple[dict[str, Any], list[Task]]:
        """Jobs by task: those of an earlier command that hold runs, and new ones for the others.

        The jobs are looked for before the runs: a run that ends in between has its summary.
        """
        held = queue.find(run.name for run in grid.runs)
        groups = unfinished(grid, folder)
        by_job: dict[str, list[GridRun]] = {}
        for run in (run for group in groups for run in group if run.name in held):
            by_job.setdefault(str(held[run.name].job_id), []).append(run)
        jobs, tasks = {}, []
        for runs in by_job.values():
            tasks.append(make_task(runs, folder))
            jobs[tasks[-1].name] = held[runs[0].name]
        if jobs:
            print(f"{len(jobs)} jobs of an earlier command are still there.", file=sys.stderr)
        calls, names = {}, {}
        for group in groups:
            free = [run for run in group if run.name not in held]
            if free:
                task = make_task(free, folder)
                tasks.append(task)
                calls[task.name] = TaskJob(task, self.data_dir.absolute(), self.command)
                names[task.name] = [run.name for run in free]
        return jobs | queue.submit(calls, self.slurm.cpus, names), tasks

    def _collect(self, queue: JobQueue, call: CollectJob) -> None:
        """The training logs, in a job of their own."""
        name = "collect"
        jobs = queue.find([name]) or queue.submit({name: call}, call.processes)
        print(f"Job {jobs[name].job_id} collects training logs.", file=sys.stderr)
        while queue.alive(jobs):
            time.sleep(self.look_seconds)
        error = queue.error(jobs[name])
        if error is not None:
            raise error

    def _watch(
        self, queue: JobQueue, tasks: Sequence[Task], jobs: dict[str, Any], finished: int
    ) -> dict[str, SafemesaError]:
        """Waits for all jobs; returns errors by name."""
        open_tasks = {task.name: task for task in tasks}
        failures: dict[str, SafemesaError] = {}
        with Board([task_row(task) for task in tasks], finished) as board:
            while open_tasks:
                alive = queue.alive({name: jobs[name] for name in open_tasks})
                for name, task in list(open_tasks.items()):
                    show_progress(board, task)
                    if name in alive:
                        continue
                    done = all((one / "summary.json").is_file() for one in task.folders)
                    error = None if done else queue.error(jobs[name])
                    if error is not None:
                        failures[name] = error
                    board.ended(name, error)
                    del open_tasks[name]
                board.tick()
                if open_tasks:
                    time.sleep(self.look_seconds)
        return failures


def show_progress(board: Board, task: Task) -> None:
    """What the files of a run say about how far it is."""
    row = board.rows[task.name]
    begun = [one for one in task.folders if (one / "config.json").is_file()]
    if not begun:
        return
    if row.state == "waiting":
        board.started(task.name)
    newest = max(begun[0].glob("checkpoints/*.json"), key=lambda one: one.name, default=None)
    if newest is not None:
        phase, _, step = newest.stem.rpartition("-")
        if row.phase != phase:
            board.told(task.name, PhaseStarted(phase, 0, int(step)))
        board.told(task.name, Advanced(int(step)))


def _require_submitit() -> None:
    try:
        import submitit
    except ImportError as error:
        raise ConfigurationError(
            "--executor slurm needs submitit: pip install 'safemesa[slurm]'. Without it, "
            "`--emit sbatch` writes job scripts."
        ) from error
    del submitit
