"""Work on several cores: processes with one compute thread each, which die with their parent."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from safemesa.core.errors import SafemesaError

SINGLE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
POLL_SECONDS = 0.2


Tell = Callable[[Any], None]
"""Sends a message to the process that started this one."""


class WorkerError(SafemesaError):
    """A worker process ended without a result."""


def cores() -> int:
    """How many processes can compute at a time: of a job of a cluster, the cores it was given."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def single_threaded() -> Iterator[None]:
    """The environment of processes that are started meanwhile: one compute thread each."""
    before = {name: os.environ.get(name) for name in SINGLE_THREAD}
    for name, value in SINGLE_THREAD.items():
        old = before[name]
        os.environ[name] = f"{old} {value}" if name == "XLA_FLAGS" and old else value
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del os.environ[name]
            else:
                os.environ[name] = old


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last message of a worker that raised a typed error."""

    error: SafemesaError


class Worker:
    """A spawned process with one compute thread; it can tell its parent things and dies with it.

    It calls `function(tell, *arguments)`. Modules that are needed to find `function` are imported
    before the process looks after itself, so that they should import no JAX.
    """

    def __init__(
        self,
        function: Callable[..., None],
        arguments: tuple,
        *,
        log: Path | None = None,
        has_children: bool = False,
    ) -> None:
        """Starts the process.

        Args:
            function: A function of a module (it is looked up by name in the new process).
            arguments: What it is given after `tell`; must pickle.
            log: File to which its output is appended; None: the parent's own.
            has_children: Whether it may start workers itself.
        """
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._open = True
        self._process = context.Process(
            target=_work, args=(sender, function, arguments, log), daemon=not has_children
        )
        with single_threaded():
            self._process.start()
        sender.close()
        self.error: SafemesaError | None = None
        """What it raised, once `messages` has met it."""

    @property
    def exitcode(self) -> int | None:
        """None while it lives; 0 also after a typed error. Read it before the last `messages`."""
        return self._process.exitcode

    @property
    def pid(self) -> int | None:
        """Number of the process."""
        return self._process.pid

    def messages(self) -> list[Any]:
        """What it told since the last call."""
        found = []
        while self._open and self._receiver.poll():
            try:
                message = self._receiver.recv()
            except (EOFError, OSError):  # it ended, or was killed within a message
                self._open = False
            else:
                if isinstance(message, _Failure):
                    self.error = message.error
                else:
                    found.append(message)
        return found

    def receive(self) -> Any:
        """Waits for the next thing that it tells.

        Raises:
            SafemesaError: what it raised, or a WorkerError if it ended.
        """
        try:
            message = self._receiver.recv()
        except (EOFError, OSError) as end:
            self._process.join()
            raise _ended(self.exitcode) from end
        if isinstance(message, _Failure):
            raise message.error
        return message

    def stop(self) -> None:
        """Ends it if it lives, and waits for the end."""
        self._process.terminate()
        self._process.join()
        self._receiver.close()
        self._open = False


def run_workers(
    function: Callable[..., None], arguments: Sequence[tuple], poll: Callable[[], None]
) -> None:
    """Calls `function(*each)` in one spawned process per element of `arguments`, and waits.

    Args:
        function: A function of a module (it is looked up by name in the new process).
        arguments: What each process is given; must pickle.
        poll: Called several times a second while they work.

    Raises:
        SafemesaError: what a worker raised, or a WorkerError if it died. The others are stopped.
    """
    workers: list[Worker] = []
    try:
        workers += [Worker(_without_tell, (function, *each)) for each in arguments]
        while any(worker.exitcode is None for worker in workers):
            for worker in workers:
                _raise_of(worker)
            poll()
            time.sleep(POLL_SECONDS)
        for worker in workers:
            _raise_of(worker)
        poll()
    finally:
        for worker in workers:
            worker.stop()


def _without_tell(tell: Tell, function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function that has nothing to tell."""
    del tell
    function(*arguments)


def _raise_of(worker: Worker) -> None:
    """Raises what a worker reported, or that it died."""
    exitcode = worker.exitcode
    worker.messages()
    if worker.error is not None:
        raise worker.error
    if exitcode not in (None, 0):
        raise _ended(exitcode)


def _ended(exitcode: int | None) -> WorkerError:
    return WorkerError(
        f"a worker process ended with exit code {exitcode} (killed, or out of memory?). "
        "Run the same command again to go on; fewer --jobs need less memory."
    )


def _work(
    sender: Connection, function: Callable[..., None], arguments: tuple, log: Path | None
) -> None:
    """The life of a worker."""
    # Ctrl-C reaches all processes of a terminal; the parent alone decides what becomes of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if log is not None:
        _redirect_output(log)
    try:
        function(sender.send, *arguments)
    except SafemesaError as error:
        sender.send(_Failure(error))
    sender.close()


def _redirect_output(log: Path) -> None:
    """Standard output and error go to a file, also those of libraries in other languages."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _die_with_parent() -> None:
    """Also where the parent was killed and could stop nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
