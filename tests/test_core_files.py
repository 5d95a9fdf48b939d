"""Atomic files, JSON and checksums."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safemesa.core import files
from safemesa.core.errors import DatasetError, OutputFolderError, SafemesaError
from safemesa.core.locks import folder_lock, sole_owner


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_atomic_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    files.write_atomic(path, b"old")
    files.write_atomic(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert names_in(path.parent) == ["a.bin"]
    assert files.sha256(path) == hashlib.sha256(b"\x00new").hexdigest()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    files.write_atomic(path, b"old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputFolderError, match=r"a\.bin: No space left on device"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


def test_writing_onto_a_folder_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputFolderError, match="cannot write") as refused:
        files.write_atomic(tmp_path / "folder", b"")
    # The path may be that of any flag, such as `data info --json`.
    assert "--out" not in str(refused.value)
    assert names_in(tmp_path) == ["folder"]


def test_atomic_folder(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "out") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "inner" / "a").read_text() == "1"
    opened = files.atomic_folder(tmp_path / "out")
    with pytest.raises(OutputFolderError, match="exists already"), opened:
        pass
    with pytest.raises(KeyError), files.atomic_folder(tmp_path / "other"):
        raise KeyError
    assert names_in(tmp_path) == ["out"]


def test_json_round_trip_keeps_the_order(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"z": 1, "a": [1.5, None, True, "Ω"], "m": {"y": {}, "b": []}}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert list(files.read_json(path)) == ["z", "a", "m"]
    assert path.read_text(encoding="utf-8").startswith('{\n  "z": 1')


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_numbers_that_json_lacks(tmp_path: Path, number: float) -> None:
    with pytest.raises(SafemesaError, match=r"tasks\[1\]\.dt is NaN or infinite"):
        files.write_json(tmp_path / "a.json", {"tasks": [{}, {"dt": number}]})
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": [-1e999]}', "-1e999 is beyond the largest number"),
        (b"[1, 2]", "holds a JSON list"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "number that cannot be read"),
    ],
)
def test_read_json_errors_are_typed(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        files.read_json(path, error=DatasetError)


def test_read_json_of_what_is_missing_or_huge(tmp_path: Path) -> None:
    with pytest.raises(SafemesaError, match="does not exist"):
        files.read_json(tmp_path / "no.json")
    with pytest.raises(SafemesaError, match="cannot read"):
        files.read_json(tmp_path)
    with pytest.raises(SafemesaError, match="cannot read"):
        files.sha256(tmp_path / "no.json")
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(files.MAXIMUM_JSON_BYTES + 1)  # sparse: takes no disk
    with pytest.raises(SafemesaError, match="expected at most"):
        files.read_json(huge)


def test_files_and_tensors_import_no_jax() -> None:
    code = "import sys, safemesa.core.tensors, safemesa.core.registry; print('jax' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout.lower()) is False


def test_a_folder_whose_lock_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OutputFolderError, match=r"cannot write .*\.lock: Is a directory"):
        sole_owner(tmp_path).__enter__()


def test_a_held_folder_is_busy(tmp_path: Path) -> None:
    with (
        sole_owner(tmp_path),
        pytest.raises(OutputFolderError, match="another process is working on"),
    ):
        sole_owner(tmp_path).__enter__()
    with sole_owner(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_holds_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such are some of clusters; it was called busy, for ever where one waits."""
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with folder_lock(tmp_path, lambda: pytest.fail("called busy")):
        pass


def test_what_else_fails_about_a_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(OutputFolderError, match="Input/output error"):
        sole_owner(tmp_path).__enter__()
