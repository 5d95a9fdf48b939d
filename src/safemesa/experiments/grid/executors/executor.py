"""What all executors share: the order of events around a grid, and what is said when runs fail."""

import abc
from collections.abc import Sequence
from pathlib import Path

from safemesa.core.errors import SafemesaError
from safemesa.experiments.grid.executors.progress_board import Row
from safemesa.experiments.grid.executors.worker_tasks import Task
from safemesa.experiments.grid.grid_folder import Grid, GridFolder, GridRun


class GridError(SafemesaError):
    """Some runs of a grid failed; the others are finished."""


class AbstractExecutor(abc.ABC):
    """Carries out what is unfinished of a grid."""

    @abc.abstractmethod
    def carry_out(self, grid: Grid, folder: GridFolder) -> None:
        """Returns when all runs are finished.

        Raises:
            OutputFolderError: the folder holds other settings, or another process works on it.
            ConfigurationError: an unknown name; nothing was written.
            GridError: runs failed; all others are finished.
        """


def unfinished(grid: Grid, folder: GridFolder) -> list[tuple[GridRun, ...]]:
    """Groups of runs that share a process, without those that are finished."""
    groups = (
        tuple(run for run in group if not folder.run(run).finished) for group in grid.groups()
    )
    return [group for group in groups if group]


def make_task(group: Sequence[GridRun], folder: GridFolder, simulators: int = 0) -> Task:
    """The task of a group. Paths are absolute: its process may be elsewhere."""
    conditions = list(dict.fromkeys(run.condition for run in group))
    seeds = sorted({run.config.seed for run in group})
    arms = "+".join([conditions[0], *(one.rpartition("/")[2] for one in conditions[1:])])
    name = f"{arms}-{seeds[0]}" + (f"..{seeds[-1]}" if len(seeds) > 1 else "")
    root: Path = folder.path.absolute()
    return Task(
        name=name,
        configs=tuple(run.config for run in group),
        folders=tuple(root / run.name for run in group),
        priors=folder.priors.absolute(),
        log=folder.logs.absolute() / f"{name}.log",
        simulators=simulators,
    )


def task_row(task: Task) -> Row:
    """What the board shows of a task."""
    return Row(
        name=task.name,
        arm=", ".join(dict.fromkeys(config.arm for config in task.configs)),
        domain=task.configs[0].domain,
        seeds=",".join(str(seed) for seed in sorted({config.seed for config in task.configs})),
    )


def failure(failures: dict[str, SafemesaError], total: int) -> GridError:
    """What is said at the end."""
    lines = [f"{name}: {error}" for name, error in failures.items()]
    return GridError(
        f"{len(failures)} of {total} processes failed; the others are finished. Give the "
        "same command again to go on with these:\n  " + "\n  ".join(lines)
    )
