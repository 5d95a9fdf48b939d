"""Files that only grow, under a running hash: damage is noticed before anything is learned from it.

A checkpoint vouches for the first bytes of each such file, and `files.json` for all of them when
the run is finished.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safemesa.core.errors import CheckpointError, SafemesaError
from safemesa.core.files import CHUNK_BYTES, cannot_write

LINE_DIGITS = 4
"""Hexadecimal digits kept of the hash of each line: enough to say which line is another one."""


class GrowingFile:
    """Bytes that are appended and never changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest, self._size = hashlib.sha256(), 0
        """Running hash of so many bytes."""
        self._is_known = False
        """Whether they are those of the file, which is read before it is first written to."""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def append_bytes(self, data: bytes) -> int:
        """Adds bytes, flushes them to disk, and returns the file's new size.

        Raises:
            OutputFolderError: the file cannot be written; part of the data may be on disk.
        """
        self._know()
        try:
            with open(self.path, "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._take(data)
        return size

    def truncate_bytes(self, size: int) -> None:
        """Drops everything after the first `size` bytes.

        Raises:
            CheckpointError: the file is shorter.
            OutputFolderError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                if file.tell() < size:
                    raise self._shortened(file.tell(), size)
                file.truncate(size)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._read_on(size)

    def vouch(self) -> dict[str, Any]:
        """What `check` needs to know of the bytes so far."""
        self._know()
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def check(self, record: Any, whole: bool = False) -> None:
        """Whether the file begins as it did when `vouch` gave `record`; or is it, as a `whole`.

        Raises:
            CheckpointError: it does not; the place is named as closely as it is known.
        """
        size, digest = _as_record(record, self.path)
        if self.size < size:
            raise self._shortened(self.size, size)
        if whole and self.size > size:
            raise CheckpointError(
                f"{self.path} has {self.size} bytes, and {size} when the run ended: something was "
                "added. Restore it from a copy, or make the run again."
            )
        found = hashlib.sha256()
        for chunk in _chunks(self.path, size):
            found.update(chunk)
        if found.hexdigest() != digest:
            raise CheckpointError(
                f"{self.place_of_damage(record)} is not what the run wrote: the file is damaged, "
                "or was edited. Restore it from a copy, or make the run again."
            )

    def place_of_damage(self, record: dict[str, Any]) -> str:
        """Where a file differs from what was vouched for, in words."""
        return f"{self.path}, somewhere in its first {record['bytes']} bytes,"

    def _take(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)

    def _restart(self) -> None:
        self._digest, self._size = hashlib.sha256(), 0

    def _know(self) -> None:
        if not self._is_known:
            self._read_on(self.size)

    def _read_on(self, size: int) -> None:
        self._restart()
        self._is_known = True
        for chunk in _chunks(self.path, size):
            self._take(chunk)

    def _shortened(self, size: int, expected: int) -> CheckpointError:
        return CheckpointError(
            f"{self.path} has {size} bytes, expected at least {expected}: it was shortened. "
            "Restore it from a copy, or remove the run folder and run again."
        )


class JsonLines(GrowingFile):
    """One JSON object per line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._line_sums: list[str] = []
        self._unfinished = b""

    def append(self, records: Iterable[dict[str, Any]]) -> int:
        """Adds records, flushes them to disk, and returns the file's new size in bytes.

        Raises:
            SafemesaError: a number is not finite; nothing is written.
            OutputFolderError: the file cannot be written.
        """
        lines = "".join(f"{self._line(record)}\n" for record in records)
        return self.append_bytes(lines.encode())

    def _line(self, record: dict[str, Any]) -> str:
        try:
            return json.dumps(record, allow_nan=False)
        except ValueError as error:
            wrong = [
                f"{name} is {value}"
                for name, value in record.items()
                if isinstance(value, float) and not math.isfinite(value)
            ]
            raise SafemesaError(
                f"{self.path}, step {record.get('env_steps')}: {', '.join(wrong)}. Learning has "
                "diverged: lower the learning rates, or look at what the environment reports. The "
                "run goes on from the checkpoint before, and would come to the same."
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """All records; an unfinished last line is left out.

        Raises:
            CheckpointError: a line is no JSON object; it is named.
        """
        if not self.path.is_file():
            return []
        records = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CheckpointError(
                    f"{self.path}, line {number} is damaged ({error}). Restore it from a copy, or "
                    "make the run again."
                ) from error
            if not isinstance(record, dict):
                raise CheckpointError(
                    f"{self.path}, line {number} holds a JSON {type(record).__name__}, expected an "
                    "object {...}. Restore it from a copy, or make the run again."
                )
            records.append(record)
        return records

    def vouch(self) -> dict[str, Any]:
        """Also some digits of the hash of each line, which tell lines apart."""
        return {**super().vouch(), "line_sums": "".join(self._line_sums)}

    def place_of_damage(self, record: dict[str, Any]) -> str:
        """The first line that is another one."""
        sums = str(record.get("line_sums", ""))
        known = [sums[place : place + LINE_DIGITS] for place in range(0, len(sums), LINE_DIGITS)]
        data = b"".join(_chunks(self.path, record["bytes"]))
        lines = data.removesuffix(b"\n").split(b"\n")
        pairs = zip(known, map(_line_sum, lines), strict=False)
        differs = (number for number, (one, other) in enumerate(pairs, start=1) if one != other)
        number = next(differs, None)
        if number is None:
            return f"{self.path}, somewhere in its first {len(lines)} lines,"
        return f"{self.path}, line {number}"

    def _take(self, data: bytes) -> None:
        super()._take(data)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        self._line_sums += map(_line_sum, lines)

    def _restart(self) -> None:
        super()._restart()
        self._line_sums, self._unfinished = [], b""


def _line_sum(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:LINE_DIGITS]


def _chunks(path: Path, size: int) -> Iterable[bytes]:
    """The first `size` bytes of a file; nothing of one that is not there."""
    if size == 0:
        return
    try:
        with open(path, "rb") as file:
            while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
                size -= len(chunk)
                yield chunk
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}. Check the path.") from error


def _as_record(record: Any, path: Path) -> tuple[int, str]:
    """Size and hash of what `vouch` gave, after a way through a file."""
    size = record.get("bytes") if isinstance(record, dict) else None
    digest = record.get("sha256") if isinstance(record, dict) else None
    if type(size) is not int or size < 0 or not isinstance(digest, str):
        raise CheckpointError(
            f"what the run folder says of {path} is damaged ({record!r:.80}). Restore the folder "
            "from a copy, or make the run again."
        )
    return size, digest
