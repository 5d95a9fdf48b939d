"""Work on several cores: processes with one compute thread each, which die with their parent."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from safemesa.core.errors import SafemesaError

SINGLE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
POLL_SECONDS = 0.2


class WorkerError(SafemesaError):
    """A worker process ended without a result."""


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
    context = multiprocessing.get_context("spawn")
    workers = []
    try:
        with single_threaded():
            for each in arguments:
                receiver, sender = context.Pipe(duplex=False)
                worker = context.Process(target=_work, args=(sender, function, each), daemon=True)
                worker.start()
                sender.close()
                workers.append((worker, receiver))
        while any(worker.is_alive() for worker, _ in workers):
            for worker, receiver in workers:
                _raise_of(worker, receiver)
            poll()
            time.sleep(POLL_SECONDS)
        for worker, receiver in workers:
            _raise_of(worker, receiver)
        poll()
    finally:
        for worker, _ in workers:
            worker.terminate()
            worker.join()


def _raise_of(worker: Any, receiver: Connection) -> None:
    """Raises what a worker reported, or that it died."""
    if receiver.poll():
        try:
            error = receiver.recv()
        except EOFError:
            error = None
        if error is not None:
            raise error
    if worker.exitcode not in (None, 0):
        raise WorkerError(
            f"a worker process ended with exit code {worker.exitcode} (killed, or out of memory?). "
            "Run the same command again to go on; fewer --jobs need less memory."
        )


def _work(sender: Connection, function: Callable[..., None], arguments: tuple) -> None:
    """The life of a worker."""
    # Ctrl-C reaches all processes of a terminal; the parent alone decides what becomes of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        function(*arguments)
    except SafemesaError as error:
        sender.send(error)
    sender.close()


def _die_with_parent() -> None:
    """Also where the parent was killed and could stop nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
