"""The `quick` preset works for the paper's arms on every domain; slow, a few minutes in all."""

import json
import warnings
from pathlib import Path

import pytest

from safemesa.cli.main import main
from safemesa.experiments.runs.run_records import scan_runs
from safemesa.phases.presets import DOMAIN_PRESETS

ARMS = ("mesa", "multitask", "rrl", "unconstrained")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", DOMAIN_PRESETS)
def test_arms_leave_complete_run_folders(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for arm in ARMS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few violations in so small a log
            assert main(["run", arm, name, "--preset", "quick", "--out", f"runs/{arm}"]) == 0
        summary = json.loads((tmp_path / "runs" / arm / "summary.json").read_text())
        assert (summary["arm"], summary["domain"]) == (arm, name)
        assert summary["episodes"] > 0
        lines = (tmp_path / "runs" / arm / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == summary["episodes"]
    scan = scan_runs([tmp_path / "runs"])
    assert len(scan.runs) == len(ARMS)
    assert not scan.set_aside
    assert main(["report", "runs", "--out", "report", "--no-calibration"]) == 0
    capsys.readouterr()


@pytest.mark.slow
def test_a_video_of_the_last_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    arguments = "run unconstrained navigation2 --preset quick --deploy.episodes 5 --video --out run"
    assert main(arguments.split()) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    with image.open(tmp_path / "run" / "episode.gif") as video:
        assert video.n_frames == last["length"] + 1
