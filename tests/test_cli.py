"""The command line: every verb, every kind of wrong input, exit codes."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY_FLAGS, episodes_of

from safemesa.cli.main import READER_LEFT, VERBS, main
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.phases.storage.artefacts import load_prior


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(autouse=True)
def _in_workplace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"safemesa {verb}" in capsys.readouterr().out


def test_help_imports_no_jax() -> None:
    code = (
        "import sys\nfrom safemesa.cli.main import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "mesa", "halfcheetah", "--preset", "cpu", "--help"],
        ["grid", "--domains", "halfcheetah", "--preset", "cpu", "--help"],
    ],
)
def test_help_shows_the_defaults_of_the_preset(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "new robot's log. (default: 2500)" in words
    assert "--deploy.steps {None}|INT" in words
    assert "(default: 40000)" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], "unknown verb 'runn'"),
        (["run", "mesaa", "navigation2"], "Did you mean 'mesa'?"),
        (["run", "mesa", "navigation3"], "Did you mean 'navigation2'?"),
        (["run", "mesa", "navigation2", "--preset", "papper"], "Did you mean 'paper'?"),
        (["run", "maml+sqrll", "navigation2", "--out", "nowhere"], "unknown guard 'sqrll'"),
        (["run", "mesa", "navigation2", "--seeds", "0"], "--seeds is 0"),
        (["data", "info", "missing"], "missing"),
        (["data", "inform"], "expected one of import, export, info, doctor"),
        (["adapt", "missing", "missing"], "missing"),
        (["meta-train", "missing"], "missing"),
        (["report", "missing"], "missing"),
    ],
)
def test_wrong_input_is_explained(
    arguments: list[str], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(workplace.iterdir())
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(workplace.iterdir()) == before


@pytest.mark.parametrize(
    "flags",
    [
        ["--risk.gamma-risk", "3"],
        ["--risk.gama", "0.5"],
        ["--sac.batch", "0"],
        ["--deploy.episodes", "many"],
        ["--data.next-action", "none"],
        ["--meta.inner-rate", "nan"],
    ],
)
def test_impossible_values_exit_with_2(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "mesa", "navigation2", *flags])
    assert stop.value.code == 2
    assert flags[0].split(".")[-1].strip("-") in capsys.readouterr().err.replace("_", "-")


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    before = os.getcwd()
    os.chdir(workplace)
    try:
        assert main(["run", "mesa", "navigation2", *TINY_FLAGS, "--out", "whole"]) == 0
    finally:
        os.chdir(before)
    return workplace / "whole"


def test_phases_one_at_a_time_equal_a_run(
    finished: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", "navigation2", *TINY_FLAGS, "--out", "logs"]) == 0
    assert main(["meta-train", "logs", *TINY_FLAGS, "--out", "prior"]) == 0
    assert main(["adapt", "prior", "logs", "--out", "risk_model"]) == 0
    assert main(["deploy", "risk_model", "navigation2", "--log", "logs", "--out", "steps"]) == 0
    assert "violated" in capsys.readouterr().out
    assert episodes_of(workplace / "steps") == episodes_of(finished)
    assert main(["data", "info", "logs", "--json", "info.json"]) == 0
    assert "train-003" in capsys.readouterr().out
    info = json.loads(Path("info.json").read_text())
    assert [one["role"] for one in info["tasks"]].count("test") == 1
    assert info["provenance"]["policy"].startswith("random rollouts of navigation2")
    # Nothing is overwritten.
    for arguments in (
        ["collect", "navigation2", *TINY_FLAGS, "--out", "logs"],
        ["meta-train", "logs", *TINY_FLAGS, "--out", "prior"],
        ["adapt", "prior", "logs", "--out", "risk_model"],
    ):
        assert main(arguments) == 2
        assert "exists already" in capsys.readouterr().err


def test_a_risk_model_of_another_kind_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prior = str(finished / "artefacts" / "prior")
    assert main(["deploy", prior, "navigation2", "--out", "wrong"]) == 2
    assert "expected 'risk_model'" in capsys.readouterr().err


def test_a_finished_run_exits_at_once(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.json*")}
    assert main(["run", "mesa", "navigation2", *TINY_FLAGS, "--out", "whole"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*.json*")}
    assert str(finished.name) in capsys.readouterr().out


def test_another_configuration_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "config.json").read_text()
    flags = [*TINY_FLAGS, "--out", "whole", "--risk.risk-limit", "0.7"]
    assert main(["run", "mesa", "navigation2", *flags]) == 2
    assert "risk.risk_limit is 0.1 there and 0.7 here" in capsys.readouterr().err
    assert (finished / "config.json").read_text() == before


def test_tensorboard(workplace: Path) -> None:
    pytest.importorskip("tensorboardX")
    flags = [*TINY_FLAGS, "--out", "board", "--tensorboard", "--deploy.episodes", "3"]
    assert main(["run", "rrl", "navigation2", *flags]) == 0
    assert list((workplace / "board" / "tensorboard").glob("events*"))


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "All is well" in capsys.readouterr().out


def test_interruption_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safemesa.phases.run.run", interrupted)
    assert main(["run", "rrl", "navigation2", "--out", "stopped"]) == 130
    assert "safemesa run rrl navigation2 --out stopped" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["grid", "--help"], ["doctor"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    """As in `safemesa grid --help | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "safemesa.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=120)
    assert process.returncode == READER_LEFT
    assert errors == ""


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr("safemesa.cli.doctor.main", broken)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        main(["doctor"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_change_nothing(finished: Path, workplace: Path, tmp_path: Path) -> None:
    """`kill -9` at ten random moments, then the same command: the same result."""
    command = [sys.executable, "-m", "safemesa.cli.main", "run", "mesa", "navigation2"]
    command += [*TINY_FLAGS, "--out", str(tmp_path / "killed")]
    rng, kills = random.Random(0), 0
    while kills < 10:
        process = subprocess.Popen(command, cwd=workplace)
        try:
            process.wait(timeout=rng.uniform(3.0, 14.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        if process.returncode == 0:
            break
        pytest.fail(f"the run failed with exit code {process.returncode}")
    subprocess.run(command, cwd=workplace, check=True)
    assert kills >= 3
    assert episodes_of(tmp_path / "killed") == episodes_of(finished)


def test_logs_of_the_users_own_are_learned_under_their_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a domain that is not ours the logged action follows; of ours a uniform one."""
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "navigation2", *TINY_FLAGS, "--out", "ours"]) == 0
    data = OfflineTasks.load(Path("ours"))
    replace(data, domain="fleet").save(Path("theirs"))
    tiny = [*TINY_FLAGS, "--meta.iterations", "2"]
    for folder, expected in (("ours", "uniform"), ("theirs", "logged")):
        assert main(["meta-train", folder, *tiny, "--out", f"prior-{folder}"]) == 0
        _, config, _ = load_prior(Path(f"prior-{folder}"))
        assert config.data.next_action == expected
