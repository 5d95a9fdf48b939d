"""Worker processes that are started again when they die."""

import abc
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safemesa.core.errors import SafemesaError
from safemesa.phases.workers import Worker, WorkerError

DEATHS = 3
"""A process that dies so often without getting further is given up."""

POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Job:
    """A call in a process of its own that can be repeated: what is done is not done again.

    Attributes:
        name: Unique.
        function: Called as `function(tell, *arguments)`; see `Worker`.
        arguments: Must pickle.
        log: File for its output; None: that of this process.
        mark: Something that changes whenever the work gets further.
        has_children: Whether it starts workers itself.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple
    log: Path | None = None
    mark: Callable[[], Hashable] = field(default=lambda: None)
    has_children: bool = False


class Watcher(abc.ABC):
    """Sees what happens to jobs."""

    @abc.abstractmethod
    def started(self, name: str) -> None:
        """A process of the job begins, for the first time or again."""

    @abc.abstractmethod
    def told(self, name: str, message: Any) -> None:
        """The job has told something."""

    @abc.abstractmethod
    def died(self, name: str, exitcode: int) -> None:
        """The job's process was killed or failed unforeseen; it is started again."""

    @abc.abstractmethod
    def ended(self, name: str, error: SafemesaError | None) -> None:
        """The job is over; `error` says why it failed."""

    @abc.abstractmethod
    def tick(self) -> None:
        """Called several times a second."""


@dataclass(kw_only=True)
class _Attempt:
    """A process at work."""

    job: Job
    worker: Worker
    mark: Hashable


def supervise(jobs: Sequence[Job], processes: int, watcher: Watcher) -> dict[str, SafemesaError]:
    """Carries all jobs out, at most `processes` at a time; returns errors by name.

    A job that raises a typed error is over. One whose process dies is started again, unless it
    has died `DEATHS` times without getting further. The others go on in either case. However this
    ends, no process is left.
    """
    waiting, running = deque(jobs), list[_Attempt]()
    deaths = dict.fromkeys((job.name for job in jobs), 0)
    failures: dict[str, SafemesaError] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(_start(waiting.popleft(), watcher))
            time.sleep(POLL_SECONDS)
            for attempt in list(running):
                name, exitcode = attempt.job.name, attempt.worker.exitcode
                for message in attempt.worker.messages():
                    watcher.told(name, message)
                if exitcode is None:
                    continue
                running.remove(attempt)
                error = attempt.worker.error
                attempt.worker.stop()
                if exitcode != 0 and error is None:
                    moved = attempt.job.mark() != attempt.mark
                    deaths[name] = 0 if moved else deaths[name] + 1
                    if deaths[name] < DEATHS:
                        watcher.died(name, exitcode)
                        # First in the line: it is the furthest.
                        waiting.appendleft(attempt.job)
                        continue
                    error = _gave_up(attempt.job, exitcode)
                if error is not None:
                    failures[name] = error
                watcher.ended(name, error)
            watcher.tick()
    finally:
        for attempt in running:
            attempt.worker.stop()
    return failures


def _start(job: Job, watcher: Watcher) -> _Attempt:
    mark = job.mark()
    worker = Worker(job.function, job.arguments, log=job.log, has_children=job.has_children)
    watcher.started(job.name)
    return _Attempt(job=job, worker=worker, mark=mark)


def _gave_up(job: Job, exitcode: int) -> WorkerError:
    where = f" Its output is in {job.log}." if job.log is not None else ""
    return WorkerError(
        f"its process died {DEATHS} times without getting further; the last exit code is "
        f"{exitcode} (killed, out of memory, or a defect?).{where} Fewer --jobs need less memory."
    )
