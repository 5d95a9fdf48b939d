"""A folder that one process at a time may write to; released also by `kill -9`."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from safemesa.core.errors import OutputFolderError

UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How file systems, such as some of clusters, say that they have no `flock`."""


@contextmanager
def folder_lock(folder: Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Holds `folder` (made where it is missing) against other processes.

    While another one holds it, `on_busy` is called again and again; it raises, or waits a while.
    Where the system or the file system has no `flock` nothing is held.

    Raises:
        OutputFolderError: the folder cannot be made or written to.
    """
    lock = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFolderError(
            f"cannot make the folder {folder}: {error.strerror}. Choose another one."
        ) from error
    try:
        file = open(lock, "w")  # noqa: SIM115 - what fails inside of the block is not ours.
    except OSError as error:
        raise _cannot_lock(lock, error) from error
    with file:
        if os.name == "posix":
            _hold(file, lock, on_busy)
        yield


def _hold(file: IO[str], lock: Path, on_busy: Callable[[], None]) -> None:
    """Locks a file, calling `on_busy` while another process holds it."""
    import fcntl

    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            on_busy()
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return
            raise _cannot_lock(lock, error) from error


def _cannot_lock(lock: Path, error: OSError) -> OutputFolderError:
    return OutputFolderError(
        f"cannot write {lock}: {error.strerror or error}. Check your rights, or choose another "
        "folder."
    )


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Holds `folder` against other processes, without waiting for them.

    Raises:
        OutputFolderError: another process holds it, or it cannot be made.
    """

    def refuse() -> NoReturn:
        raise OutputFolderError(
            f"another process is working on {folder}. Wait for it, or choose another --out."
        )

    with folder_lock(folder, refuse):
        yield
