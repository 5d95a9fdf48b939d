"""Where verbs write: a user's file is never replaced, links stay, pipes and devices are refused."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from logs import cart_fleet

import safemesa
from safemesa.cli.main import main
from safemesa.core.errors import OutputFolderError
from safemesa.core.files import atomic_folder, write_atomic, write_json
from safemesa.core.outputs import check_output, check_outputs, is_our_folder
from safemesa.experiments.grid.grid_folder import GridFolder
from safemesa.experiments.headroom.measure_headroom import HeadroomFiles
from safemesa.phases.storage.run_folder import RunFolder


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "out.json", tmp_path / "disk" / "target.json"
    link.symlink_to(target)
    write_atomic(link, b"first")
    write_atomic(link, b"second")
    assert link.is_symlink()
    assert target.read_bytes() == b"second"
    assert [one.name for one in target.parent.iterdir()] == ["target.json"]


def unusual(folder: Path, kind: str) -> Path:
    path = folder / "out.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket", "loop"])
def test_what_is_no_regular_file_is_refused_and_stays(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = unusual(tmp_path, kind)
    before = path.lstat()
    for refuse in (
        lambda: write_atomic(path, b"{}"),
        lambda: check_output(path),
        lambda: check_outputs(tmp_path, ["out.json"]),
    ):
        with pytest.raises(OutputFolderError, match=r"cannot write .*out\.json"):
            refuse()
    with pytest.raises(OutputFolderError, match="exists already"), atomic_folder(path):
        pass
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["out.json"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "data"
    cart_fleet(tasks=3, episodes=6).save(folder)
    return folder


THESIS = "years of work"


def commands(work: Path, data: Path, out: Path) -> dict[str, list[str]]:
    """A command line per verb that writes a single file, to `out`; none needs a real model."""
    missing = str(work / "missing")
    return {
        "data info": ["data", "info", str(data), "--json", str(out)],
        "data doctor": ["data", "doctor", str(data), "--json", str(out)],
        "evaluate": ["evaluate", missing, str(data), "--out", str(out)],
        "calibration": ["calibration", missing, "--out", str(out)],
        "skill": ["skill", missing, "--out", str(out)],
        "shield bench": ["shield", "bench", missing, "--out", str(out)],
    }


VERBS_OF_ONE_FILE = ("data info", "data doctor", "evaluate", "calibration", "skill", "shield bench")


@pytest.mark.parametrize("verb", VERBS_OF_ONE_FILE)
def test_a_file_of_the_users_is_not_replaced(
    verb: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "thesis.json"
    for text in (THESIS, json.dumps({"title": THESIS}), json.dumps([1]), ""):
        out.write_text(text)
        assert main(commands(tmp_path, dataset, out)[verb]) == 2
        assert "thesis.json exists already and was not written by safemesa" in (
            capsys.readouterr().err
        )
        assert out.read_text() == text
    out.unlink()
    os.mkfifo(out)
    assert main(commands(tmp_path, dataset, out)[verb]) == 2
    assert "it is a pipe" in capsys.readouterr().err
    below = tmp_path / "file.txt"
    below.write_text(THESIS)
    assert main(commands(tmp_path, dataset, below / "out.json")[verb]) == 2
    assert "file.txt is no folder" in capsys.readouterr().err
    assert out.is_fifo()
    assert below.read_text() == THESIS


def test_a_file_of_ours_is_replaced(dataset: Path, tmp_path: Path) -> None:
    real = tmp_path / "kept.json"
    link = tmp_path / "info.json"
    link.symlink_to(real)
    for _ in range(2):
        assert main(["data", "info", str(dataset), "--json", str(link)]) == 0
    assert link.is_symlink()
    assert json.loads(real.read_text())["command"].startswith("safemesa data info")
    assert main(["data", "doctor", str(dataset), "--json", str(link)]) == 0
    assert json.loads(real.read_text())["command"].startswith("safemesa data doctor")


FOLDER_VERBS = {
    "report.html": ["report", "missing", "--out", "mine"],
    "results.md": ["report", "missing", "--out", "mine"],
    "results.json": ["report", "missing", "--out", "mine"],
    "claims.md": ["paper", "claims", "--out", "mine"],
    "claims.json": ["paper", "claims", "--out", "mine"],
    "figures/figure3.png": ["paper", "figure3", "--out", "mine"],
    "calibration.json": ["paper", "figure2", "--draw-only", "--out", "mine"],
    "headroom.md": ["headroom", "--out", "mine"],
    "episodes.parquet": ["pack", "missing", "--out", "mine"],
    "packed_runs.json": ["pack", "missing", "--out", "mine"],
    "slurm/submit.sh": ["grid", "--emit", "sbatch", "--preset", "quick", "--out", "mine"],
}


@pytest.mark.parametrize("name", FOLDER_VERBS)
def test_a_file_in_a_folder_of_the_users_is_not_replaced(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("mine") / name
    file.parent.mkdir(parents=True)
    file.write_text(THESIS)
    assert main(FOLDER_VERBS[name]) == 2
    assert "was not written by safemesa" in capsys.readouterr().err
    assert [one for one in Path("mine").rglob("*") if one.is_file()] == [file]
    assert file.read_text() == THESIS


def test_the_verbs_of_this_file_are_all_that_write() -> None:
    """Whoever adds a verb looks at what it may replace, and names it here."""
    from safemesa.cli.main import VERBS

    single = {verb.split()[0] for verb in VERBS_OF_ONE_FILE}
    folders = {words[0] for words in FOLDER_VERBS.values()}
    # Into folders that are empty, theirs by their settings, or not there yet.
    own = {"demo", "run", "collect", "meta-train", "adapt", "deploy"}
    assert single | folders | own == set(VERBS) - {"power", "doctor"}


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "navigation2", "--preset", "quick", "--out", "mine"],
        ["meta-train", "DATA", "--out", "mine"],
        ["data", "export", "DATA", "--out", "mine"],
        ["run", "rrl", "navigation2", "--preset", "quick", "--out", "mine"],
    ],
)
def test_a_folder_of_the_users_is_not_written_into(
    words: list[str],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(dataset) if word == "DATA" else word for word in words]
    for make in (
        lambda: (Path("mine").mkdir(), Path("mine/thesis.tex").write_text(THESIS)),
        lambda: Path("mine").write_text(THESIS),
        lambda: os.mkfifo("mine"),
        lambda: Path("mine").symlink_to("nowhere"),
    ):
        make()
        if words[0] == "run" and Path("mine").is_symlink():
            break  # its folder is made where the link leads
        before = sorted(Path().rglob("*"))
        assert main(words) == 2
        assert len(capsys.readouterr().err) > 20
        assert sorted(Path().rglob("*")) == before
        if Path("mine").is_dir():
            shutil.rmtree("mine")
        else:
            Path("mine").unlink()


def test_folders_with_a_record_of_ours_are_ours(tmp_path: Path) -> None:
    records = {
        "results.json": {"format": 1, "command": "", "rows": [], "runs": []},
        "claims.json": {"command": "made by hand", "findings": []},
        "packed_runs.json": {"format": 1, "episodes_sha256": "", "shared": {}, "runs": {}},
    }
    for name, record in records.items():
        folder = tmp_path / name.partition(".")[0]
        assert not is_our_folder(folder)
        write_json(folder / name, record)
        (folder / "results.md").write_text("of an earlier version")
        assert is_our_folder(folder)
        check_outputs(folder, ["results.md"])
    write_json(tmp_path / "theirs" / "results.json", {"rows": [1, 2]})
    assert not is_our_folder(tmp_path / "theirs")
    assert GridFolder(tmp_path).file.name == "grid.json"


def test_a_pipe_by_the_name_of_a_record_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results.json")
    assert not is_our_folder(tmp_path)
    with pytest.raises(OutputFolderError, match="it is a pipe"):
        check_outputs(tmp_path, ["results.json"])


@pytest.mark.parametrize("check", [check_output, lambda link: check_outputs(link.parent, ["l"])])
def test_the_folder_that_a_link_leads_to_is_asked_too(
    tmp_path: Path, check: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    monkeypatch.setattr(os, "access", lambda folder, _: folder != locked)
    (tmp_path / "l").symlink_to(locked / "out.json")
    with pytest.raises(OutputFolderError, match=r"may not write into .*locked"):
        check(tmp_path / "l")


@pytest.mark.parametrize("name", ["risk/manifest.json", "shield/manifest.json", "config.json"])
def test_records_of_models_and_runs_are_not_replaced(name: str, tmp_path: Path) -> None:
    """Their `command` says how they were made, and losing it loses them."""
    path = tmp_path / "config.json"
    write_json(path, {"config": {}, "command": "safemesa run mesa navigation2"})
    model = Path(safemesa.__file__).parent / "shield" / "demo" / "model"
    with pytest.raises(OutputFolderError, match="exists already"):
        check_output(path if name == path.name else model / name)


def test_measurements_of_something_else_are_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "headroom.jsonl").write_text('{"temperature": 21}\n')
    assert main(["headroom", "--out", str(tmp_path)]) == 2
    (tmp_path / "headroom.jsonl").unlink()
    row = {"domain": "maze", "preset": "quick", "seed": 0}
    (tmp_path / "escapes.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "headroom.md").write_text("of an earlier command")
    files = HeadroomFiles(folder=tmp_path)
    assert files.escapes() == [row]
    # Interrupted between its two files: ours, and there is nothing to tabulate yet.
    assert main(["headroom", "--out", str(tmp_path)]) == 2


def test_a_picture_names_its_maker() -> None:
    from safemesa.core.outputs import PNG_MARK
    from safemesa.experiments.report.result_figures import png, styled_figure

    with styled_figure(1.0, 1.0) as figure:
        pass
    assert PNG_MARK in png(figure)[:512]


def test_a_run_folder_is_no_place_for_another_file(tmp_path: Path) -> None:
    write_atomic(RunFolder(tmp_path / "run").metrics.path, np.zeros(3, np.uint8).tobytes())
    with pytest.raises(OutputFolderError, match="exists already"):
        check_output(tmp_path / "run" / "metrics.jsonl")
