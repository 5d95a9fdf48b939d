"""The black box goes on after every failure of its disk, counts what is lost, and reads records."""

import json
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safemesa.shield.runtime import BlackBox, SettingsError, ShieldError, read_black_box


def record(number: int = 0) -> dict[str, Any]:
    return {"number": number, "obs": np.zeros(2), "proposed": None, "action": None}


def add(box: BlackBox, count: int) -> None:
    for _ in range(count):
        box.add(record(box.total))


def assert_counted(path: Path, *boxes: BlackBox) -> None:
    """Each record is on disk, or somebody knows that it is not."""
    counted = sum(box.lost + box.overwritten for box in boxes)
    assert sum(box.total for box in boxes) == len(read_black_box(path)) + counted


@pytest.mark.parametrize("failing", ["open", "replace", "stat", "write"])
def test_one_failure_costs_its_records_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "box.jsonl"
    box = BlackBox(path, maximum_bytes=1000)
    add(box, 5)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        if failing == "write":
            assert box._file is not None
            box._file.close()
        else:
            patch.setattr(os, failing, fail)
        add(box, 40)
    before = box.lost
    add(box, 10)
    assert box.lost == before
    assert (box.lost > 0) == (failing != "stat")
    assert [one["number"] for one in read_black_box(path)][-10:] == list(range(45, 55))
    assert_counted(path, box)


def test_a_full_disk_costs_what_did_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    box = BlackBox(path)
    add(box, 3)
    file = box._file
    assert file is not None

    class Full:
        """Half of the next record fits."""

        def write(self, data: bytes) -> int:
            return file.write(data[: len(data) // 2])

        def fileno(self) -> int:
            return file.fileno()

        def close(self) -> None:
            pass

    box._file = Full()  # pyright: ignore[reportAttributeAccessIssue]
    add(box, 1)
    add(box, 2)
    file.close()
    assert box.lost == 1
    assert [one["number"] for one in read_black_box(path)] == [0, 1, 2, 4, 5]
    assert_counted(path, box)


def test_a_file_that_is_removed_is_noticed_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "box.jsonl"
    box = BlackBox(path)
    add(box, 5)
    path.unlink()
    add(box, 7)
    assert (box.lost, len(read_black_box(path))) == (5, 7)
    path.unlink()
    path.parent.rmdir()
    add(box, 2)
    assert box.lost == 14, "there is no folder: nothing can be written"
    path.parent.mkdir()
    add(box, 3)
    assert_counted(path, box)
    assert len(read_black_box(path)) == 3


def test_a_file_that_is_moved_away_keeps_its_records(tmp_path: Path) -> None:
    """As logrotate does."""
    path = tmp_path / "box.jsonl"
    box = BlackBox(path)
    add(box, 5)
    path.rename(tmp_path / "kept.jsonl")
    add(box, 7)
    assert box.lost == 0
    assert len(read_black_box(tmp_path / "kept.jsonl")) == 5
    assert len(read_black_box(path)) == 7


def test_what_rotation_overwrites_is_counted(tmp_path: Path) -> None:
    box = BlackBox(tmp_path / "box.jsonl", maximum_bytes=500)
    add(box, 100)
    assert box.lost == 0
    assert box.overwritten > 50
    assert_counted(tmp_path / "box.jsonl", box)


def test_two_boxes_and_many_threads_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    boxes = [BlackBox(path), pickle.loads(pickle.dumps(BlackBox(path)))]
    threads = [threading.Thread(target=add, args=(box, 100)) for box in boxes for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_black_box(path)) == 600
    assert_counted(path, *boxes)
    small = [BlackBox(tmp_path / "small.jsonl", maximum_bytes=800) for _ in range(2)]
    for _ in range(30):
        for box in small:
            add(box, 1)
    assert sum(one.stat().st_size for one in tmp_path.glob("small*")) <= 1600
    assert max(one["number"] for one in read_black_box(tmp_path / "small.jsonl")) == 29


def test_a_closed_box_counts(tmp_path: Path) -> None:
    box = BlackBox(tmp_path / "box.jsonl")
    add(box, 1)
    box.close()
    add(box, 2)
    assert box.lost == 2
    assert len(box.records) == 3
    assert_counted(tmp_path / "box.jsonl", box)


@pytest.mark.parametrize("where", ["it", "its_older_one"])
def test_files_of_the_user_are_neither_written_to_nor_replaced(tmp_path: Path, where: str) -> None:
    for name, make in {
        "text": lambda path: path.write_text("my notes\n"),
        "binary": lambda path: path.write_bytes(b"\x89PNG\r\n"),
        "table": lambda path: path.write_text("[1, 2]\n"),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
    }.items():
        path = tmp_path / name
        place = path if where == "it" else tmp_path / f"{name}.1"
        make(place)
        before = place.read_bytes() if place.is_file() else None
        with pytest.raises(SettingsError, match=r"is no black box|cannot write"):
            BlackBox(path)
        assert before is None or place.read_bytes() == before
        assert not (path.exists() and where != "it")


def test_links_are_followed_also_when_the_file_rotates(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "box.jsonl", tmp_path / "disk" / "target.jsonl"
    link.symlink_to(target)
    box = BlackBox(link, maximum_bytes=300)
    add(box, 20)
    assert link.is_symlink()
    assert sorted(one.name for one in (tmp_path / "disk").iterdir()) == [
        "target.jsonl",
        "target.jsonl.1",
    ]
    assert_counted(link, box)
    (tmp_path / "dev").symlink_to("/dev/null")
    with pytest.raises(SettingsError, match="is no black box"):
        BlackBox(tmp_path / "dev")


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": -1},
        {"keep": 1.5},
        {"keep": None},
        {"keep": True},
        {"maximum_bytes": 0},
        {"maximum_bytes": "x"},
        {"flush": None},
        {"flush": "never" * 1000},
        {"path": 5},
        {"path": "a\0b"},
        {"path": "\ud800"},
        {"path": "x" * 5000},
        {"path": "/proc/nowhere/box.jsonl"},
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    given = {"path": tmp_path / "box.jsonl", **settings}
    # As users call it: without the type checks of these tests.
    create = getattr(BlackBox.__init__, "__wrapped__", BlackBox.__init__)
    box = BlackBox.__new__(BlackBox)
    with pytest.raises(SettingsError) as caught:
        create(box, **given)
    assert len(str(caught.value)) < 300
    assert list(tmp_path.iterdir()) == []


NO_RECORDS = [
    b"5",
    b"null",
    b"true",
    b'"text"',
    b"[]",
    b"{}",
    b'{"tick": 1}',
    b'{"obs": ["x"], "proposed": null, "action": null}',
    b'{"obs": 5, "proposed": null, "action": null}',
    b'{"obs": [[1.0]], "proposed": null, "action": null}',
    b'{"obs": {"x": 1}, "proposed": null, "action": null}',
    b'{"obs": "nan", "proposed": null, "action": null}',
    b'{"obs": [null], "proposed": null, "action": null}',
    b'{"obs": [1e999999], "proposed": ' + b"9" * 400 + b', "action": null}',
    b"time,x,y",
    b"\x89PNG\r\n",
    b"[" * 10_000,
]


@pytest.mark.parametrize("line", NO_RECORDS)
def test_the_reader_refuses_what_is_no_record(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "box.jsonl"
    sound = json.dumps({"obs": [1.0, "nan"], "proposed": None, "action": [0.0]}).encode()
    path.write_bytes(sound + b"\n" + line + b"\n" + sound + b"\n")
    with pytest.raises(ShieldError, match=r"box.jsonl, line 2 is no record") as caught:
        read_black_box(path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "torn", [b"", b'{"obs": [1.', b"\0" * 900, b'{"obs"', b"\0\0{", b'{"a":' * 9999]
)
def test_the_reader_leaves_out_what_a_crash_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "box.jsonl"
    sound = json.dumps({"obs": [1.0, "nan"], "proposed": None, "action": [0.0]}).encode()
    path.write_bytes(sound + b"\n" + torn + b"\n" + sound + b"\n")
    assert len(read_black_box(path)) == 2
    box = BlackBox(path)
    add(box, 1)
    assert len(read_black_box(path)) == 3


def test_the_reader_wants_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "pipe", Path("a\0b")):
        with pytest.raises(ShieldError):
            read_black_box(path)
