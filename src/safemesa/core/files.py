"""Atomic files and folders, JSON and checksums. Imports no JAX: the command line starts fast."""

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safemesa.core.errors import OutputFolderError, SafemesaError

MAXIMUM_JSON_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
"""Files are hashed in pieces of this size."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced to disk and renamed to it.

    A reader sees the old file or the whole new one, also after a power cut. If the body raises,
    the temporary file is removed and `path` stays as it was. A link stays, and the file that it
    leads to is replaced.

    Raises:
        OutputFolderError: the file cannot be written (rights, full disk, a folder of that name), or
            the path leads to a pipe, a device or a socket, which a file must not replace.
    """
    path = refuse_unusual(Path(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # After the rename there is nothing left to remove.
        with contextlib.suppress(OSError):
            temporary.unlink()


def refuse_unusual(path: Path) -> Path:
    """Where a file is written: where links lead, if that is a regular file or nothing yet.

    Raises:
        OutputFolderError: it is a folder, a pipe, a device or a socket, or cannot be reached.
    """
    # Not strict: what a link leads to may not be there yet.
    real = Path(os.path.realpath(path))
    try:
        mode = real.lstat().st_mode
    except FileNotFoundError:
        return real
    except OSError as error:
        raise OutputFolderError(
            f"cannot write {path!s:.200}: {error.strerror}. Check the path."
        ) from error
    if stat.S_ISREG(mode):
        return real
    kind = next((name for test, name in UNUSUAL if test(mode)), "no regular file")
    raise OutputFolderError(f"cannot write {path}: it is {kind}. Choose another name.")


UNUSUAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link that leads back to itself"),
)
"""What a file must not replace, by what says so of a mode."""


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success its files are synced and it is renamed.

    Raises:
        OutputFolderError: `path` exists already, or cannot be written.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise OutputFolderError(
            f"{path} exists already and is not overwritten. Choose another folder, or remove it."
        )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _sync(Path(folder) / name)
            _sync(Path(folder))
        os.rename(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path` atomically; missing parent folders are created.

    Raises:
        OutputFolderError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically and in insertion order.

    Raises:
        SafemesaError: a number is NaN or infinite, which JSON does not have; its place is named.
        OutputFolderError: the file cannot be written.
    """
    write_atomic(path, json_bytes(path, value))


def json_bytes(path: str | Path, value: Any) -> bytes:
    """What `write_json` writes to `path`, which is for errors alone.

    Raises:
        SafemesaError: a number is NaN or infinite.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        place = _not_finite(value, "")
        if place is None:
            raise
        raise SafemesaError(
            f"cannot write {path}: the value at {place} is NaN or infinite and JSON has no such "
            "number. Write null where a value is missing."
        ) from error
    return (text + "\n").encode()


def read_json(path: str | Path, *, error: type[SafemesaError] = SafemesaError) -> dict[str, Any]:
    """Reads a JSON object; every failure is raised as `error`.

    Raises:
        error: the file is missing, unreadable, over 64 MiB, nested too deeply, not JSON (NaN and
            Infinity are not JSON, and 1e999 is read as one), or not an object.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAXIMUM_JSON_BYTES:
            raise error(
                f"{path} has {size} bytes, expected at most {MAXIMUM_JSON_BYTES}: this is no "
                "file of safemesa. Check the path."
            )
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant, parse_float=_finite)
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist. Check the path.") from cause
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}. Check the path.") from cause
    except RecursionError as cause:
        raise error(f"{path} is nested too deeply to be a file of safemesa.") from cause
    except (json.JSONDecodeError, UnicodeDecodeError, _ConstantError) as cause:
        raise error(
            f"{path} is not valid JSON ({cause}): it is damaged or was edited by hand. Restore "
            "it from a copy, or make it again."
        ) from cause
    except ValueError as cause:
        if isinstance(cause, SafemesaError):
            raise
        # Python refuses integers of thousands of digits.
        raise error(f"{path} holds a number that cannot be read ({cause}).") from cause
    if not isinstance(value, dict):
        raise error(f"{path} holds a JSON {type(value).__name__}, expected an object {{...}}.")
    return value


CHECKSUM = "checksum"
"""Key of a JSON object under which the hash of everything else in it stands."""


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the hash of its values, whatever their order and layout."""
    return {**value, CHECKSUM: _checksum(value)}


def read_checked_json(
    path: str | Path, *, error: type[SafemesaError] = SafemesaError
) -> dict[str, Any]:
    """Reads a JSON object that `with_checksum` made, without the checksum.

    One of an earlier version has none, and is read as it is.

    Raises:
        error: as `read_json`; or the file does not match its checksum.
    """
    value = read_json(path, error=error)
    if CHECKSUM in value and value.pop(CHECKSUM) != _checksum(value):
        raise error(
            f"{path} does not match its checksum: it is damaged or was edited. Restore it from a "
            f"copy, or make it again; if you meant to edit it, remove its {CHECKSUM!r}."
        )
    return value


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_name(domain: str) -> str:
    """A domain's name in paths: `module:attribute` has a colon, which not all systems allow."""
    return domain.replace(":", "-")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits. Reads in chunks.

    Raises:
        SafemesaError: the file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise SafemesaError(f"cannot read {path}: {error.strerror}. Check the path.") from error
    return digest.hexdigest()


class _ConstantError(ValueError):
    """NaN or Infinity inside a JSON file, or a number that would be read as one."""


def _refuse_constant(name: str) -> Any:
    raise _ConstantError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _ConstantError(f"{digits[:40]} is beyond the largest number of 64 bits")
    return value


def _not_finite(value: Any, place: str) -> str | None:
    """The place of the first float in `value` that is not finite, such as `tasks[3].dt`."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (place or "the top")
    children: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        children = [(f"{place}.{key}".lstrip("."), child) for key, child in value.items()]
    elif isinstance(value, list | tuple):
        children = [(f"{place}[{index}]", child) for index, child in enumerate(value)]
    for child_place, child in children:
        found = _not_finite(child, child_place)
        if found is not None:
            return found
    return None


def _sync(path: Path) -> None:
    """Flushes a file or folder to disk. Windows cannot open folders, and needs no such call."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> OutputFolderError:
    """What failed about a file, as an error that a user can act on."""
    return OutputFolderError(
        f"cannot write {path}: {error.strerror or error}. Check the path, your rights and the "
        "free space, or choose another place."
    )
