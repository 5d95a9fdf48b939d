"""What may be written where: files of a user are never replaced. Imports no JAX.

Verbs ask before they begin their work. A file is ours where it says so: JSON has the command that
made it, pictures name their software. Text cannot, and is ours where it lies in a folder of ours.
What says how a run or a model was made has a command too, and is never replaced by something else.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from safemesa.core.errors import OutputFolderError, SafemesaError
from safemesa.core.files import read_json, refuse_unusual

PNG_MARK = b"Software\0safemesa"
"""In the first bytes of a picture of ours."""

RECORDS = ("results.json", "claims.json", "grid.json", "packed_runs.json")
"""Files of which any one makes a folder ours."""

SIGNATURES = (
    {"format", "command", "rows", "runs"},
    {"format", "command", "seeds_per_process", "conditions"},
    {"format", "episodes_sha256", "runs"},
    {"command", "findings"},
)
"""Keys by which such files are known, whoever's command made them."""


def check_output(path: Path | None) -> None:
    """Refuses a file that cannot be written, or is there and not ours; writes nothing.

    None, where a verb was not asked for a file, passes.

    Raises:
        OutputFolderError: the path leads to something else than a file of ours.
    """
    if path is None:
        return
    check_parent(path)
    refuse_unusual(path)
    if path.exists() and not is_ours(path):
        raise OutputFolderError(
            f"{path} exists already and was not written by safemesa, so it is not replaced. Choose "
            "another name, or remove it."
        )


def check_outputs(folder: Path, names: Iterable[str]) -> None:
    """The same of the files of a folder, which may be replaced in a folder of ours.

    Raises:
        OutputFolderError: the folder cannot be one, or holds a file of that name that is not ours.
    """
    check_parent(folder / "file")
    ours = is_our_folder(folder)
    for name in names:
        check_parent(folder / name)
        refuse_unusual(folder / name)
        if not ours and (folder / name).exists() and not is_ours(folder / name):
            raise OutputFolderError(
                f"{folder / name} exists already and was not written by safemesa, so it is not "
                "replaced. Choose another --out, or remove it."
            )


def is_our_folder(folder: Path) -> bool:
    """Whether a verb of ours has written a record into it."""
    return any(is_ours(folder / name) for name in RECORDS)


def is_ours(path: Path) -> bool:
    """Whether a file says that safemesa wrote it, and is no part of a run or a model."""
    if not path.is_file():
        return False  # to open a pipe is to wait for its writer
    if path.suffix == ".png":
        try:
            with open(path, "rb") as file:
                return PNG_MARK in file.read(512)
        except OSError:
            return False
    try:
        record = read_json(path)
    except SafemesaError:
        return False
    if "config" in record:
        return False
    return str(record.get("command", "")).split(" ")[0] == "safemesa" or any(
        keys <= set(record) for keys in SIGNATURES
    )


def check_parent(path: Path) -> None:
    """Refuses a path whose folder is not there and cannot be made, or must not be written into.

    Of a link, that is the folder of what it leads to.

    Raises:
        OutputFolderError: it is such a path.
    """
    for folder in Path(os.path.realpath(path)).parents:
        try:
            mode = folder.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputFolderError(
                f"cannot write {path}: {error.strerror}. Choose another place."
            ) from error
        if not stat.S_ISDIR(mode):
            raise OutputFolderError(
                f"cannot write {path}: {folder} is no folder. Choose another place."
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputFolderError(
                f"cannot write {path}: you may not write into {folder}. Choose another place."
            )
        return
