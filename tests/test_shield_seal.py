"""What an export folder says is verified, or said not to be."""

import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shields import edit_manifest, make_shield_folder

from safemesa.cli.main import main
from safemesa.shield.runtime import (
    ModelError,
    Shield,
    check_folder,
    not_verified,
    seal_folder,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shield_folder(tmp_path_factory.mktemp("shields") / "sound")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "shield"))


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["shield", "check", str(folder)])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_check_lists_what_it_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = check(folder, capsys)
    assert code == 0
    assert told.endswith("The shield is sound.\n")
    for name in ("weights", "settings", "known answers", "files", "runtime"):
        assert f"check of {name}: verified" in told


BY_HAND: dict[str, Callable[[dict[str, Any]], Any]] = {
    "risk.limit is 0.9, was 0.5": lambda s: s["risk"].update(limit=0.9),
    "observations[1].low is -3.5, was None": lambda s: s["observations"][1].update(low=-3.5),
    "actions[0].rate is 2.0, was None": lambda s: s["actions"][0].update(rate=2.0),
    "actions[1].safe is 1.0, was 0.5": lambda s: s["actions"][1].update(safe=1.0),
    "timing.maximum_age is None, was 0.1": lambda s: s["timing"].update(maximum_age=None),
    "fallback is 'hold', was 'constant'": lambda s: s.update(fallback="hold"),
    "enforce.allowed is False, was True": lambda s: s["enforce"].update(allowed=False),
    "risk.minimum_dwell is 1.0, was 0.0": lambda s: s["risk"].update(minimum_dwell=1.0),
}


@pytest.mark.parametrize("words", BY_HAND)
def test_an_edited_setting_runs_is_reported_and_can_be_sealed(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    edit_manifest(folder, lambda m: BY_HAND[words](m["shield"]))
    assert Shield.load(folder).edited == (words,)
    code, told = check(folder, capsys)
    assert code == 2
    assert f"check of settings: NOT VERIFIED: edited ({words})" in told
    assert "sound" not in told
    assert main(["shield", "seal", str(folder)]) == 0
    assert words in capsys.readouterr().out
    code, told = check(folder, capsys)
    assert code == 0
    assert f"check of settings: verified: sealed with edits ({words})" in told
    assert Shield.load(folder).edited == ()
    assert list(folder.glob(".*")) == []


def first_answer(manifest: dict[str, Any]) -> None:
    for name, values in manifest["known_answers"].items():
        manifest["known_answers"][name] = values[:1]


FIXED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "mean": lambda m: m["shield"]["observations"][0].update(mean=-1.0000001),
    "std": lambda m: m["shield"]["observations"][2].update(std=3.01),
    "name": lambda m: m["shield"]["observations"][0].update(name="pose"),
    "unit": lambda m: m["shield"]["observations"][2].update(unit="deg"),
    "order": lambda m: m["shield"]["observations"].reverse(),
    "action limit": lambda m: m["shield"]["actions"][0].update(high=2.5),
    "dt": lambda m: m["shield"].update(dt=0.1),
    "recovery": lambda m: m["shield"].update(recovery={"kind": "fixed", "action": [0.0, 0.5]}),
    "no known answers": lambda m: m.update(known_answers=None),
    "fewer known answers": first_answer,
    "shorter list": lambda m: m["files"].pop("MODEL_CARD.md"),
    "no list": lambda m: m.update(files={"weights.safetensors": m["files"]["weights.safetensors"]}),
    "no seal": lambda m: m.pop("seal"),
    "null seal": lambda m: m.update(seal=None),
    "other seal": lambda m: m["seal"].update(sha256="0" * 64),
    "seal of lists": lambda m: m.update(seal=[1]),
}


@pytest.mark.parametrize("kind", FIXED)
def test_what_nobody_may_edit_is_refused(folder: Path, kind: str) -> None:
    edit_manifest(folder, FIXED[kind])
    for load in (Shield.load, check_folder, seal_folder):
        with pytest.raises(ModelError):
            load(folder)


def test_what_only_describes_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_manifest(folder, lambda m: m.update(warnings=[], name="\x1b[2Jgreen"))
    code, told = check(folder, capsys)
    assert code == 2
    assert "NOT VERIFIED: edited (what it says of its data" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("kind", ["notes.txt", "black_box.jsonl", "code.py", "folder", "pyc"])
def test_files_that_are_not_of_the_export_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    name = kind
    if kind == "pyc":
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "safemesa_shield.cpython-311.pyc").write_bytes(b"")
        assert check(folder, capsys)[0] == 0
        name = "numpy.pyc"
        (folder / "__pycache__" / name).write_bytes(b"")
    elif kind == "folder":
        (folder / kind).mkdir()
    else:
        (folder / kind).write_text("{}")
    code, told = check(folder, capsys)
    assert code == 2
    assert f"not of the export: ['{name}']" in told


def test_another_runtime_that_the_list_vouches_for_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forger can make all hashes fit; the package compares with its own code."""
    from safemesa.shield.runtime import seal_of

    path = folder / "safemesa_shield.py"
    path.write_text(path.read_text() + "\nprint('hello')\n")

    def forge(manifest: dict[str, Any]) -> None:
        manifest["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest["seal"] = seal_of(manifest)

    edit_manifest(folder, forge)
    code, told = check(folder, capsys)
    assert code == 2
    assert "check of runtime: NOT VERIFIED: it is another code" in told
    path.unlink()
    with pytest.raises(ModelError, match="cannot read"):
        check_folder(folder)


@pytest.mark.parametrize("version", [1, 2])
def test_folders_of_older_formats_load_and_are_said_to_be_unverified(
    folder: Path, capsys: pytest.CaptureFixture[str], version: int
) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["format"] = version
        del manifest["seal"], manifest["shield"]["training"]
        if version == 1:
            del manifest["shield"]["recovery"]
        for signal in manifest["shield"]["observations"] + manifest["shield"]["actions"]:
            del signal["trained_low"], signal["trained_high"]

    wanted = Shield.load(folder, mode="enforce").decide(np.zeros(3), [0.0, 0.5])
    edit_manifest(folder, older)
    shield = Shield.load(folder, mode="enforce")
    decision = shield.decide(np.zeros(3), [0.0, 0.5])
    assert (decision.risk, decision.reason) == (wanted.risk, wanted.reason)
    code, told = check(folder, capsys)
    assert code == 2
    assert "settings: NOT VERIFIED: a manifest of this format has no hash" in told
    edit_manifest(
        folder,
        lambda m: m.update(
            known_answers=None, files={"weights.safetensors": m["files"]["weights.safetensors"]}
        ),
    )
    found = check_folder(folder)
    assert not_verified(found) == "settings, known answers, files"
    with pytest.raises(ModelError, match="older format"):
        seal_folder(folder)


EXTREME: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dt": lambda s: s.update(dt=1e-320),
    "dwell": lambda s: s["risk"].update(minimum_dwell=1e30),
    "dwell of dt": lambda s: (s.update(dt=1e-300), s["risk"].update(minimum_dwell=1.0)),
    "std": lambda s: s["observations"][0].update(mean=1e30, std=1e-12),
    "mean": lambda s: s["observations"][0].update(mean=-1e30),
    "large std": lambda s: s["observations"][0].update(std=1e30),
    "low": lambda s: s["observations"][0].update(low=10**400),
    "limits": lambda s: s["actions"][0].update(low=-1e30, high=1e30),
    "width": lambda s: s["actions"][0].update(low=0.0, high=1e-320, safe=0.0),
    "huge": lambda s: s["actions"][0].update(high=10**300),
    "rate": lambda s: s["actions"][0].update(rate=10**1000),
    "age": lambda s: s["timing"].update(maximum_age=-1),
}


@pytest.mark.parametrize("kind", EXTREME)
@pytest.mark.parametrize("answers", [True, False])
def test_extreme_numbers_are_errors_of_the_model(folder: Path, kind: str, answers: bool) -> None:
    """Also where no hash and no known answers stand in the way: in folders of format 2."""

    def change(manifest: dict[str, Any]) -> None:
        EXTREME[kind](manifest["shield"])
        manifest["format"] = 2
        del manifest["seal"], manifest["shield"]["training"]
        for signal in manifest["shield"]["observations"] + manifest["shield"]["actions"]:
            del signal["trained_low"], signal["trained_high"]
        if not answers:
            manifest["known_answers"] = None

    edit_manifest(folder, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if answers or kind not in ("large std", "limits"):
            with pytest.raises(ModelError):
                Shield.load(folder)
        else:
            decision = Shield.load(folder, mode="enforce").decide(np.zeros(3), [0.0, 0.5])
            assert np.isfinite(decision.action).all()


@pytest.mark.parametrize(
    "answers",
    [
        {"risks": [1e300]},
        {"risks": [10**400]},
        {"observations": "abc"},
        {"actions": [[{}]]},
        5,
        [[]],
    ],
)
def test_absurd_answers_are_errors_of_the_model(folder: Path, answers: Any) -> None:
    def change(manifest: dict[str, Any]) -> None:
        known = manifest["known_answers"]
        manifest["known_answers"] = {**known, **answers} if isinstance(answers, dict) else answers

    edit_manifest(folder, change)
    edit_manifest(folder, lambda m: m.update(seal=_forged(m)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelError):
            Shield.load(folder)


def _forged(manifest: dict[str, Any]) -> dict[str, Any]:
    from safemesa.shield.runtime import seal_of

    return seal_of(manifest)


@pytest.mark.parametrize(
    "name", ["a\0b", "\ud800", "x" * 5000, "", ".", "..", "a/b", "/etc/passwd"]
)
def test_absurd_names_of_files_are_errors_of_the_model(folder: Path, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = "0" * 64
        manifest["seal"] = _forged(manifest)

    edit_manifest(folder, change)
    with pytest.raises(ModelError):
        check_folder(folder)


def test_folders_that_are_no_paths(tmp_path: Path) -> None:
    for place in ("a\0b", "\ud800", "x" * 5000):
        with pytest.raises(ModelError):
            Shield.load(place)
        with pytest.raises(ModelError):
            check_folder(place)


def test_a_manifest_rewritten_by_another_program_is_the_same(folder: Path) -> None:
    """JavaScript writes 2.0 as 2, sorts nothing, and escapes what it likes."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(": 2.0,", ": 2,").replace("\n", " "))
    assert Shield.load(folder).edited == ()


def test_the_file_seals_and_checks_its_own_folder(folder: Path) -> None:
    def run(verb: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / "safemesa_shield.py"), verb]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    edit_manifest(folder, lambda m: m["shield"]["risk"].update(limit=0.6))
    result = run("check")
    assert result.returncode == 2
    assert "not everything is verified: settings." in result.stderr
    assert "sound" not in result.stdout
    assert run("seal").stdout == "risk.limit is 0.6, was 0.5\n"
    result = run("check")
    assert result.returncode == 0
    assert result.stdout.endswith("The shield is sound.\n")
    text = json.loads((folder / "manifest.json").read_text())["seal"]
    assert (text["exported"]["risk.limit"], text["sealed"]["risk.limit"]) == (0.5, 0.6)
