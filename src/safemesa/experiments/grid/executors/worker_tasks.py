"""What worker processes do for a grid. Imports JAX inside functions (see `Worker`)."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.phases.config import RunConfig
from safemesa.phases.progress import Progress
from safemesa.phases.workers import Tell

TELL_SECONDS = 0.2
"""Progress within a phase is told at most this often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What one process does: runs that differ in their seeds, or share Phase 3 besides.

    Attributes:
        name: For people; also names the log.
        configs: The runs.
        folders: Their folders, in the same order.
        priors: Folder in which the grid's runs share what Phase 1 made.
        log: File for the process' output.
        simulators: Processes that step the simulators of Phase 3; 0: this one.
    """

    name: str
    configs: tuple[RunConfig, ...]
    folders: tuple[Path, ...]
    priors: Path
    log: Path
    simulators: int = 0

    def mark(self) -> frozenset[str]:
        """Changes whenever a run gets further: what is vouched for in its folder."""
        patterns = ("checkpoints/*.json", "artefacts/*/manifest.json", "summary.json")
        return frozenset(
            str(file) for folder in self.folders for one in patterns for file in folder.glob(one)
        )


@dataclass(frozen=True, slots=True)
class Ready:
    """All names of the grid are known.

    Attributes:
        backend: The kind of device on which JAX computes.
        complete: Whether all training logs are there.
    """

    backend: str
    complete: bool


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase of `total` steps begins, of which `done` are done already."""

    phase: str
    total: int
    done: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """So many steps of the phase are done."""

    done: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning for the user."""

    text: str


def run_task(tell: Tell, task: Task, data_dir: Path, command: str) -> None:
    """Carries a task out, or goes on with it."""
    _prepare_process(tell)
    from safemesa.phases.run import RunOptions, run

    progress = TellingProgress(tell)
    options = RunOptions(
        data_dir=data_dir,
        priors=task.priors,
        command=command,
        progress=progress,
        simulators=task.simulators,
    )
    run(task.configs, task.folders, options)


def prepare(
    tell: Tell, configs: Sequence[RunConfig], data_dir: Path, jobs: int, collect: bool
) -> None:
    """Checks all names, then (with `collect`) sees that the training logs are there.

    `jobs` processes collect logs of simulators.

    Raises:
        ConfigurationError: an unknown domain, meta-learner or guard; nothing was written.
    """
    _prepare_process(tell)
    import jax

    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.adapt import uses_training_logs
    from safemesa.phases.agent_kinds import make_agent
    from safemesa.phases.collection.logs import load_or_collect_train, train_folder

    wanted = {}
    for config in configs:
        domain = find_domain(config.domain)
        make_agent(config, domain.spaces)
        if uses_training_logs(config):
            wanted[(config.domain, config.preset, config.data_seed, config.data)] = domain, config
    there = [train_folder(domain, one, data_dir).exists() for domain, one in wanted.values()]
    backend = jax.default_backend()
    tell(Ready(backend, all(there)))
    for domain, config in wanted.values() if collect else ():
        processes = jobs if backend == "cpu" else None
        load_or_collect_train(domain, config, data_dir, TellingProgress(tell), processes)


def _prepare_process(tell: Tell) -> None:
    from safemesa.phases.compilation import use_compilation_cache

    use_compilation_cache()
    warnings.showwarning = _telling_warnings(tell)


def _telling_warnings(tell: Tell) -> Callable[..., None]:
    """Warnings become messages, so that a person sees each once for all runs."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        del filename, lineno, file, line
        tell(Warned(f"{category.__name__}: {message}"))

    return show


class TellingProgress(Progress):
    """Tells another process."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._last = tell, 0.0

    def start(self, phase: str, total: int, done: int) -> None:
        """Tells at once."""
        self._tell(PhaseStarted(phase, total, done))
        self._last = time.monotonic()

    def update(self, done: int, note: tuple[str, float] | None = None) -> None:
        """Tells if the last message is a while ago."""
        del note
        if time.monotonic() - self._last > TELL_SECONDS:
            self._tell(Advanced(done))
            self._last = time.monotonic()

    def finish(self) -> None:
        """Nothing: another phase or the end of the process follows."""
