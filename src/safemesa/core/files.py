"""Atomic files and folders, JSON and checksums. Imports no JAX: the command line starts fast."""

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safemesa.core.errors import OutputFolderError, SafemesaError

MAXIMUM_JSON_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced to disk and renamed to it.

    A reader sees the old file or the whole new one, also after a power cut. If the body raises,
    the temporary file is removed and `path` stays as it was.

    Raises:
        OutputFolderError: the file cannot be written (rights, full disk, a folder of that name).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        # After the rename there is nothing left to remove.
        with contextlib.suppress(OSError):
            temporary.unlink()


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
        raise _cannot_write(path, error) from error
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
    write_atomic(path, (text + "\n").encode())


def read_json(path: str | Path, *, error: type[SafemesaError] = SafemesaError) -> dict[str, Any]:
    """Reads a JSON object; every failure is raised as `error`.

    Raises:
        error: the file is missing, unreadable, over 64 MiB, nested too deeply, not JSON (NaN and
            Infinity are not JSON), or not an object.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAXIMUM_JSON_BYTES:
            raise error(
                f"{path} has {size} bytes, expected at most {MAXIMUM_JSON_BYTES}: this is no "
                "file of safemesa. Check the path."
            )
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
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
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise SafemesaError(f"cannot read {path}: {error.strerror}. Check the path.") from error
    return digest.hexdigest()


class _ConstantError(ValueError):
    """NaN or Infinity inside a JSON file."""


def _refuse_constant(name: str) -> Any:
    raise _ConstantError(f"{name} is not a JSON number")


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


def _cannot_write(path: Path, error: OSError) -> OutputFolderError:
    return OutputFolderError(
        f"cannot write {path}: {error.strerror or error}. Check the path, your rights and the "
        "free space, or choose another place."
    )
