"""Damaged run folders: refused by a sentence, repaired, or harmless; never learned from."""

import contextlib
import errno
import json
import resource
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import logs
import numpy as np
import pytest
from damage import (
    REFUSED,
    contents,
    copied,
    flip,
    flips,
    gone_on,
    silent_differences,
)
from tiny import episodes_of, tiny_config

from safemesa.cli.main import main
from safemesa.core.errors import CheckpointError, DatasetError, OutputFolderError, SafemesaError
from safemesa.core.files import read_checked_json, read_json, with_checksum, write_json
from safemesa.datasets.importers.write import import_logs
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.runs.run_records import scan_runs
from safemesa.phases.config import RunConfig, fitted
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.growing_file import GrowingFile, JsonLines

SIGNALS = 4
"""Observations and actions of Navigation 2."""


def small_config(arm: str) -> RunConfig:
    """Of every phase a little, in chunks of more than an episode."""
    config = tiny_config(arm)
    return replace(
        config,
        meta=fitted(type(config.meta), config.meta, {"first_order": True, "iterations": 4}),
        deploy=replace(config.deploy, episodes=6, chunk_steps=110),
    )


class Runs:
    """One run that nothing happened to, and its folder as it was after some checkpoints."""

    def __init__(self, root: Path, arm: str) -> None:
        self.config = small_config(arm)
        self.options = RunOptions(data_dir=root / "data", command="safemesa run ...")
        self.straight, self.half = root / "straight", root / "half"
        save, saved = Checkpointer.save, [0]

        def and_copied(checkpointer, step, state, notes):
            save(checkpointer, step, state, notes)
            saved[0] += checkpointer.phase == "deploy"
            if saved[0] == 3 and not self.half.exists():
                shutil.copytree(self.straight, self.half)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpointer, "save", and_copied)
            run([self.config], [self.straight], self.options)
        assert not (self.half / "summary.json").exists()
        assert len(list((self.half / "checkpoints").glob("deploy-*.json"))) == 2

    def go_on(self, folder: Path) -> str:
        return gone_on(self.config, folder, self.straight, self.options, SIGNALS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of the arm that takes least to compile."""
    return Runs(tmp_path_factory.mktemp("damage"), "unconstrained")


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of an arm with everything that a run folder can hold."""
    return Runs(tmp_path_factory.mktemp("damage"), "mesa")


def half_notes(runs: Runs) -> list[dict]:
    """What the two checkpoints of the half run say of its files, older first."""
    records = sorted((runs.half / "checkpoints").glob("deploy-*.json"))
    return [read_json(record)["notes"]["files"] for record in records]


@pytest.mark.parametrize("name", ["metrics.jsonl", "learning.jsonl", "replay/rows.f32"])
def test_damage_after_the_last_sound_checkpoint_is_made_again(
    runs: Runs, tmp_path: Path, name: str
) -> None:
    older, newer = (notes[name]["bytes"] for notes in half_notes(runs))
    assert older < newer
    folder = copied(runs.half, tmp_path / "run")
    flip(folder / name, older + 3, 2)
    assert runs.go_on(folder) == "sound"
    assert episodes_of(folder) == episodes_of(runs.straight)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("metrics.jsonl", r"metrics\.jsonl, line 1 is not what the run wrote"),
        ("learning.jsonl", r"learning\.jsonl, line 1 is not what the run wrote"),
        ("replay/rows.f32", r"rows\.f32, somewhere in its first \d+ bytes, is not what"),
    ],
)
def test_damage_before_all_checkpoints_is_refused_and_named(
    runs: Runs, tmp_path: Path, name: str, place: str
) -> None:
    folder = copied(runs.half, tmp_path / "run")
    flip(folder / name, 3, 0)
    with pytest.raises(CheckpointError, match=place):
        run([runs.config], [folder], runs.options)
    # As the message says, the phase can be done again.
    shutil.rmtree(folder / "checkpoints")
    assert runs.go_on(folder) == "sound"


def test_a_checkpoint_that_was_edited_is_passed_over(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs.half, tmp_path / "run")
    newest = max((folder / "checkpoints").glob("deploy-*.json"))
    record = json.loads(newest.read_text())
    record["notes"]["cumulative_violations"] += 1
    newest.write_text(json.dumps(record))
    assert runs.go_on(folder) == "sound"


def test_copies_beside_checkpoints_are_none(runs: Runs, tmp_path: Path) -> None:
    """As file synchronisation makes them; they come before the newest in the order of names."""
    folder = copied(runs.half, tmp_path / "run")
    newest = max((folder / "checkpoints").glob("deploy-*.json"))
    copy = newest.with_name(f"{newest.stem} (conflicted copy).json")
    shutil.copy(newest, copy)
    assert runs.go_on(folder) == "sound"
    assert copy.is_file()


def test_checkpoints_and_summaries_of_earlier_versions_are_read(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs.half, tmp_path / "run")
    for path in (folder / "checkpoints").glob("deploy-*.json"):
        record = json.loads(path.read_text())
        del record["checksum"], record["notes"]["files"]
        path.write_text(json.dumps(record))
    assert runs.go_on(folder) == "sound"
    of_an_earlier_version(folder)
    assert runs.go_on(folder) == "sound"


def of_an_earlier_version(folder: Path) -> None:
    """A finished run as it was before hashes."""
    (folder / "files.json").unlink()


def test_a_dozen_flips(runs: Runs, tmp_path: Path) -> None:
    expected = contents(runs.straight, SIGNALS)
    assert REFUSED not in expected.values()
    for file, byte, bit in flips(runs.half, 6, seed=1):
        folder = copied(runs.half, tmp_path / "run")
        flip(folder / file, byte, bit)
        assert runs.go_on(folder) in (REFUSED, "sound"), (file, byte, bit)
    for file, byte, bit in flips(runs.straight, 6, seed=2):
        folder = copied(runs.straight, tmp_path / "run")
        flip(folder / file, byte, bit)
        different = silent_differences(contents(folder, SIGNALS), expected)
        assert different == [], (file, byte, bit)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_flips_of_a_run_on_its_way(whole_runs: Runs, tmp_path: Path) -> None:
    runs = whole_runs
    outcomes = Counter()
    for file, byte, bit in flips(runs.half, 200, seed=3):
        folder = copied(runs.half, tmp_path / "run")
        flip(folder / file, byte, bit)
        try:
            outcomes[runs.go_on(folder)] += 1
        except Exception as error:
            raise AssertionError(f"bit {bit} of byte {byte} of {file}: {error!r}") from error
    assert set(outcomes) == {REFUSED, "sound"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_flips_of_a_finished_run(whole_runs: Runs, tmp_path: Path) -> None:
    runs = whole_runs
    expected = contents(runs.straight, SIGNALS)
    summary = json.loads((runs.straight / "summary.json").read_text())
    refused = 0
    for file, byte, bit in flips(runs.straight, 200, seed=4):
        folder = copied(runs.straight, tmp_path / "run")
        flip(folder / file, byte, bit)
        try:
            found = contents(folder, SIGNALS)
            assert silent_differences(found, expected) == []
            # Its command leaves it as it is.
            with contextlib.suppress(SafemesaError):
                assert run([runs.config], [folder], runs.options) == [summary]
        except Exception as error:
            raise AssertionError(f"bit {bit} of byte {byte} of {file}: {error!r}") from error
        refused += REFUSED in found.values()
    assert refused > 100


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda summary: summary.update(violations=summary["violations"] + 1), "violations is"),
        (lambda summary: summary.update(episodes=7), "episodes is 7 there, and 6 over the lines"),
        (lambda summary: summary.update(return_mean=0.5), r"return_mean is 0\.5 there"),
        (lambda summary: summary.update(arm="rrl"), "arm is 'rrl' there, and 'uncons"),
    ],
)
def test_a_summary_that_contradicts_its_run_is_left_out(
    runs: Runs, tmp_path: Path, edit: Callable[[dict], None], message: str
) -> None:
    """Also where nothing has a hash, as in earlier versions."""
    folder = copied(runs.straight, tmp_path / "run")
    of_an_earlier_version(folder)
    assert len(scan_runs([folder]).runs) == 1
    summary = json.loads((folder / "summary.json").read_text())
    edit(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(DatasetError, match=f"contradicts the rest of the run: {message}"):
        scan_runs([folder])


def test_an_edited_line_is_named_by_a_report(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs.straight, tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace('"wall_s": ', '"wall_s": 1')
    (folder / "metrics.jsonl").write_text("".join(lines))
    with pytest.raises(DatasetError, match=r"metrics\.jsonl"):
        scan_runs([folder])
    (folder / "metrics.jsonl").write_text("".join([*lines[:3], "{", *lines[4:]]))
    of_an_earlier_version(folder)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 4 is damaged"):
        read_episode_lines(folder)


def test_the_line_of_equal_length_is_named(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "lines.jsonl")
    file.append([{"number": number} for number in range(9)])
    record = file.vouch()
    file.append([{"number": 9}])
    file.check(record)
    with pytest.raises(CheckpointError, match=r"something was added"):
        file.check(record, whole=True)
    file.path.write_bytes(file.path.read_bytes().replace(b" 5}", b" 7}"))
    with pytest.raises(CheckpointError, match=r"lines\.jsonl, line 6 is not what"):
        JsonLines(file.path).check(record)
    file.path.write_bytes(b"{}\n")
    with pytest.raises(CheckpointError, match="it was shortened"):
        JsonLines(file.path).check(record)
    for wrong in (None, {}, {"bytes": -1, "sha256": ""}, {"bytes": 3, "sha256": 3}):
        with pytest.raises(CheckpointError, match="is damaged"):
            JsonLines(file.path).check(wrong)


def test_a_hash_that_was_gone_on_with_is_that_of_the_whole(tmp_path: Path) -> None:
    one, two = GrowingFile(tmp_path / "one"), GrowingFile(tmp_path / "two")
    one.append_bytes(b"first")
    GrowingFile(tmp_path / "one").append_bytes(b" second")
    again = GrowingFile(tmp_path / "one")
    again.truncate_bytes(len(b"first sec"))
    again.append_bytes(b"!")
    two.append_bytes(b"first sec!")
    assert again.vouch() == two.vouch() == GrowingFile(tmp_path / "two").vouch()


def test_checked_json_knows_its_values_and_not_its_layout(tmp_path: Path) -> None:
    path, value = tmp_path / "a.json", {"b": [1, 2.5, None], "a": {"c": "Ω"}}
    write_json(path, with_checksum(value))
    assert read_checked_json(path) == value
    record = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(record.items()))))
    assert read_checked_json(path) == value
    path.write_text(json.dumps(record | {"b": [1, 2.5, 0]}))
    with pytest.raises(DatasetError, match=r"checksum.*remove its 'checksum'"):
        read_checked_json(path, error=DatasetError)


def test_a_disk_that_fills_while_lines_are_appended_ends_in_a_sentence(
    runs: Runs, tmp_path: Path
) -> None:
    """A limit on the size of files stands for it; the run goes on when there is room again."""
    folder = copied(runs.half, tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    half = (folder / "replay" / "rows.f32").stat().st_size
    for room in (half, half + 50):
        assert (runs.straight / "replay" / "rows.f32").stat().st_size > room
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(OutputFolderError, match=r"cannot write .*rows\.f32: .*free space"):
                run([runs.config], [folder], runs.options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert runs.go_on(folder) == "sound"


def test_an_import_onto_a_full_disk_ends_in_a_sentence(tmp_path: Path) -> None:
    source = logs.write_csv(tmp_path / "a.csv", logs.table(logs.cart_log("a", 0)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OutputFolderError, match=r"cannot write .*free space"):
            import_logs([source], logs.cart_map(), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_full_disk_anywhere_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr("safemesa.cli.power.main", full)
    assert main(["power", "runs"]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_replay_rows_that_were_begun_do_not_count(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs.half, tmp_path / "run")
    with (folder / "replay" / "rows.f32").open("ab") as file:
        file.write(np.zeros(3, np.float32).tobytes())
    assert runs.go_on(folder) == "sound"
