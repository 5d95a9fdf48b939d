"""A folder that one process at a time may write to; released also by `kill -9`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from safemesa.core.errors import OutputFolderError


@contextmanager
def folder_lock(folder: Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Holds `folder` (made where it is missing) against other processes.

    While another one holds it, `on_busy` is called again and again; it raises, or waits a while.
    Where the system has no `flock` nothing is held.

    Raises:
        OutputFolderError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFolderError(
            f"cannot make the folder {folder}: {error.strerror}. Choose another one."
        ) from error
    with open(folder / ".lock", "w") as file:
        if os.name == "posix":
            import fcntl

            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    on_busy()
        yield


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
