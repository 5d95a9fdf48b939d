"""The command line: every verb, every kind of wrong input, exit codes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import logs
import numpy as np
import pytest
from tiny import TINY_FLAGS, episodes_of

from safemesa.cli.arguments import apply
from safemesa.cli.main import READER_LEFT, VERBS, main
from safemesa.core.errors import ConfigurationError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.registry import domain
from safemesa.experiments.arms import configure
from safemesa.guards.settings import TakeoverSettings
from safemesa.phases.build import fresh_risk_networks
from safemesa.phases.collection.logs import FewViolationsWarning
from safemesa.phases.presets.own_logs import BALANCED, RARE
from safemesa.phases.storage.artefacts import load_prior, load_risk_model, save_artefact


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


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("run", "ARM DOMAIN"),
        ("report", "RUNS ..."),
        ("calibration", "RUNS ..."),
        ("power", "RUNS ..."),
        ("headroom", "[DOMAIN ...]"),
    ],
)
def test_help_names_what_is_given_without_a_flag(
    verb: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    usage = " ".join(capsys.readouterr().out.split("\n\n")[0].split())
    assert f" {words}" in usage
    assert "STR STR" not in usage


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


def test_help_on_a_folder_without_logs_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["meta-train", "nothing", "--preset", "quick", "--help"])
    assert stop.value.code == 0
    assert "usage: safemesa meta-train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], "unknown verb 'runn'"),
        (["run", "mesaa", "navigation2"], "Did you mean 'mesa'?"),
        (["run", "mesa", "navigation3"], "Did you mean 'navigation2'?"),
        (["run", "mesa", "navigation2", "--preset", "papper"], "Did you mean 'paper'?"),
        (["run", "maml+sqrll", "navigation2", "--out", "nowhere"], "unknown guard 'sqrll'"),
        (["run", "mesa", "navigation2", "--seeds", "0"], "--seeds is 0"),
        (["run", "mesa", "navigation2", "--seed", "-1"], "seed is -1"),
        (["run", "mesa", "navigation2", "--seed", "4294967296"], "seed is 4294967296"),
        (["run", "mesa", "navigation2", "--seed", "4294967295", "--seeds", "2"], "seed is 42949"),
        (["collect", "navigation2", "--data-seed", "-1"], "data_seed is -1"),
        (["demo", "--seed", "-1"], "seed is -1; expected a number from 0"),
        (["headroom", "navigation2", "--seeds", "4294967296"], "seed is 4294967296"),
        (["calibration", ".", "--tasks", "0"], "--tasks is 0"),
        (["calibration", ".", "--tasks", "-1"], "--tasks is -1"),
        (["calibration", ".", "--pairs", "0"], "--pairs is 0"),
        (["calibration", ".", "--rollouts", "0"], "--rollouts is 0"),
        (["data", "info", "missing"], "missing"),
        (["data", "inform"], "expected one of sniff, import, export, info, doctor"),
        (["adapt", "missing", "missing"], "missing"),
        (["meta-train", "missing"], "missing"),
        (["report", "missing"], "missing"),
        (["report"], "no folder is given; expected one or more: run folders"),
        (["calibration"], "no folder is given; expected one or more: run folders"),
        (["power"], "no folder is given; expected one or more: run folders"),
        (["paper"], "`safemesa paper` got 'nothing'; expected one of figure2"),
        (["paper", "figure4", "--preset", "quick", "--draw-only", "--out", "nope"], "navigation1"),
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
        ["--sampling.next-action", "none"],
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


def test_a_folder_keeps_to_the_model_and_log_it_began_with(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command with another model would otherwise show the first one's results."""
    prior, log = finished / "artefacts" / "prior", finished / "artefacts" / "test_log"
    for name, steps in (("one", "1"), ("three", "3")):
        arguments = ["adapt", str(prior), str(log), "--adapt.steps", steps, "--out"]
        assert main([*arguments, str(tmp_path / name)]) == 0
        assert f"Adapted in {steps} steps" in capsys.readouterr().out
        assert load_risk_model(tmp_path / name)[1].adapt.steps == int(steps)
    with pytest.raises(SystemExit) as refused:
        main([*arguments[:4], "-1", "--out", str(tmp_path / "wrong")])
    assert refused.value.code == 2
    assert "steps is -1" in capsys.readouterr().err
    data = OfflineTasks.load(log)
    assert data.test is not None
    cost = 1.0 - data.test.columns["cost"]
    columns = {**data.test.columns, "cost": cost}
    replace(data, test=replace(data.test, columns=columns)).save(tmp_path / "other_log")
    deploy = ["--deploy.episodes", "2", "--out", str(tmp_path / "deployed")]
    one, three = ([str(tmp_path / name), "navigation2"] for name in ("one", "three"))
    same = ["--log", str(log)]
    assert main(["deploy", *one, *deploy, *same]) == 0
    assert main(["deploy", *one, *deploy, *same]) == 0
    assert main(["deploy", *three, *deploy, *same]) == 2
    assert "adapt.steps is 1 there and 3 here" in capsys.readouterr().err
    model, config, spaces = load_risk_model(tmp_path / "one")
    changed = eqx.tree_at(lambda tree: tree.normaliser.mean, model, model.normaliser.mean + 1.0)
    save_artefact(tmp_path / "changed", changed, config, spaces, {})
    assert main(["deploy", str(tmp_path / "changed"), "navigation2", *deploy, *same]) == 2
    assert "begun with another risk model" in capsys.readouterr().err
    assert main(["deploy", *one, *deploy, "--log", str(tmp_path / "other_log")]) == 2
    assert "begun with another log" in capsys.readouterr().err
    assert main(["deploy", *one, *deploy]) == 2
    assert "begun with another log" in capsys.readouterr().err
    assert main(["deploy", str(tmp_path / "one"), "maze", "--out", str(tmp_path / "maze")]) == 2
    assert "does not fit maze" in capsys.readouterr().err
    assert not (tmp_path / "maze").exists()


def test_a_prior_needs_an_arm_that_learns_one(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", "navigation2", *TINY_FLAGS, "--out", str(tmp_path / "logs")]) == 0
    for arm in ("rrl", "unconstrained", "carl"):
        flags = [*TINY_FLAGS, "--arm", arm, "--out", str(tmp_path / arm)]
        assert main(["meta-train", str(tmp_path / "logs"), *flags]) == 2
        assert "learns no prior of risk" in capsys.readouterr().err
        assert not (tmp_path / arm).exists()


def test_a_checkpoint_of_other_logs_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "navigation2", *TINY_FLAGS, "--out", "first"]) == 0
    assert main(["collect", "navigation2", *TINY_FLAGS, "--data-seed", "1", "--out", "other"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("safemesa.phases.meta_train.meta_train", _interrupt)
        with pytest.raises(ZeroDivisionError):
            main(["meta-train", "first", *TINY_FLAGS, "--out", "prior"])
    assert main(["meta-train", "other", *TINY_FLAGS, "--out", "prior"]) == 2
    assert "interrupted run on other logs than other" in capsys.readouterr().err
    assert main(["meta-train", "first", *TINY_FLAGS, "--out", "prior"]) == 0


def _interrupt(*arguments: object, **settings: object) -> None:
    raise ZeroDivisionError


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
    flags = [*TINY_FLAGS, "--out", "whole", "--guard-settings.risk-limit", "0.7"]
    assert main(["run", "mesa", "navigation2", *flags]) == 2
    assert "guard_settings.risk_limit is 0.1 there and 0.7 here" in capsys.readouterr().err
    assert (finished / "config.json").read_text() == before


def test_tensorboard(workplace: Path) -> None:
    pytest.importorskip("tensorboardX")
    flags = [*TINY_FLAGS, "--out", "board", "--tensorboard", "--deploy.episodes", "3"]
    assert main(["run", "rrl", "navigation2", *flags]) == 0
    assert list((workplace / "board" / "tensorboard").glob("events*"))


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "All is well" in text
    assert "data " in text


def test_doctor_is_content_without_mujoco() -> None:
    """A plain `pip install safemesa` has none."""
    code = (
        "import sys\nsys.modules['mujoco'] = None\n"
        "from safemesa.cli.main import main\nsys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mujoco no" in done.stdout
    assert "safemesa[mujoco] not tried: safemesa/AntDisabled-v0" in done.stdout
    assert "safemesa/Maze-v0" in done.stdout


def test_interruption_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safemesa.phases.run.run", interrupted)
    assert main(["run", "rrl", "navigation2", "--out", "stopped here"]) == 130
    said = capsys.readouterr().err
    assert "What is done is saved; go on with:" in said
    assert "safemesa run rrl navigation2 --out 'stopped here'" in said


def test_interruption_promises_nothing_where_nothing_is_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safemesa.cli.calibration.main", interrupted)
    assert main(["calibration", "runs"]) == 130
    said = capsys.readouterr().err
    assert "saved" not in said
    assert "To begin again:\n  safemesa calibration runs" in said


def test_interruption_before_any_verb_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("safemesa.cli.main.usage", interrupted)
    assert main([]) == 130


@pytest.mark.parametrize("arguments", [["grid", "--help"], ["doctor"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    """As in `safemesa grid --help | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "safemesa", *arguments],
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
    """`kill -9` soon after a new checkpoint, ten times, then the same command: the same result."""
    folder, rng, kills = tmp_path / "killed", random.Random(0), 0
    command = [sys.executable, "-m", "safemesa", "run", "mesa", "navigation2"]
    command += [*TINY_FLAGS, "--out", str(folder)]
    for _ in range(10):
        before = set((folder / "checkpoints").glob("*.json"))
        process = subprocess.Popen(command, cwd=workplace)
        while process.poll() is None and set((folder / "checkpoints").glob("*.json")) <= before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=workplace, check=True)
    assert kills >= 3
    assert episodes_of(folder) == episodes_of(finished)


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
        assert config.sampling.next_action == expected
        assert config.sampling.violation_fraction is None


def test_rare_violations_are_drawn_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fleet = logs.cart_fleet(tasks=3, episodes=12)
    share = sum(log.violations for log in fleet.train) / sum(log.transitions for log in fleet.train)
    assert share < RARE
    fleet.save(Path("fleet"))
    tiny = ["--preset", "quick", "--meta.iterations", "2", "--risk.hidden", "8"]
    for name, more, expected in (
        ("balanced", ("--arm", "mesa"), BALANCED),
        ("uniform", ("--arm", "mesa", "--sampling.violation-fraction", "None"), None),
        # Balanced batches would raise the level of a mixture's risk.
        ("own", (), None),
    ):
        assert main(["meta-train", "fleet", *tiny, *more, "--out", name]) == 0
        told = "30% of the rows of each batch" in capsys.readouterr().out
        assert told == (expected is not None)
        config = load_prior(Path(name))[1]
        assert config.sampling.violation_fraction == expected
        assert config.meta.outer_rate == (1e-3 if name == "own" else 3e-4)
        if name == "own":
            assert isinstance(config.guard_settings, TakeoverSettings)
            assert config.guard_settings.calm_share == 0.75


def test_a_horizon_of_own_logs_is_held_to_their_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 0.05 s; Navigation's, whose sizes are taken, are 1 s."""
    monkeypatch.chdir(tmp_path)
    logs.cart_fleet(tasks=2, episodes=6).save(Path("fleet"))
    tiny = ["--preset", "quick", "--meta.iterations", "1", "--risk.hidden", "4"]
    assert main(["meta-train", "fleet", *tiny, "--horizon", "0.5", "--out", "prior"]) == 0
    assert load_prior(Path("prior"))[1].risk.gamma_risk == pytest.approx(0.9)


def test_other_units_than_the_priors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Declared ones are compared; undeclared ones are noticed by their size."""
    monkeypatch.chdir(tmp_path)
    fleet = logs.cart_fleet(tasks=3, episodes=12)
    assert fleet.test is not None
    in_metres = replace(fleet, provenance={"units": {"position": "m"}})
    in_metres.save(Path("fleet"))
    tiny = ["--preset", "quick", "--meta.iterations", "2", "--risk.hidden", "8"]
    assert main(["meta-train", "fleet", *tiny, "--out", "prior"]) == 0
    columns = {
        name: column * np.float32(100.0) if name in ("obs", "next_obs") else column
        for name, column in fleet.test.columns.items()
    }
    large = replace(fleet, train=(), test=replace(fleet.test, columns=columns), provenance={})
    large.save(Path("large"))
    replace(large, provenance={"units": {"position": "cm"}}).save(Path("in_cm"))
    with warnings.catch_warnings():
        # The command line prints warnings.
        warnings.simplefilter("always")
        assert main(["adapt", "prior", "large", "--out", "risk"]) == 0
        assert "velocity of the new robot lies" in capsys.readouterr().err
        assert main(["adapt", "prior", "fleet", "--out", "right"]) == 0
        assert "OtherUnitWarning" not in capsys.readouterr().err
    assert main(["adapt", "prior", "in_cm", "--out", "wrong"]) == 2
    assert "position is in 'cm', and the prior learned from logs in 'm'" in capsys.readouterr().err


def test_phases_one_at_a_time_keep_the_settings_of_a_users_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`module:attribute` has the settings of HalfCheetah in every verb."""
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    domain = "safemesa.domains.half_cheetah:HELD_OUT"
    small = ["--data.train-tasks", "3", "--data.train-transitions", "1100", "--sac.hidden", "4"]
    small += ["--data.test-transitions", "60", "--sac.warmup-steps", "50", "--sac.batch", "4"]
    small += ["--risk.hidden", "4", "--meta.iterations", "2", "--preset", "cpu"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewViolationsWarning)
        assert main(["collect", domain, *small, "--jobs", "1", "--out", "logs"]) == 0
    assert main(["meta-train", "logs", *small, "--out", "prior"]) == 0
    _, config, _ = load_prior(Path("prior"))
    assert config.domain == domain
    usual = configure("mesa", domain, "cpu")
    assert config.deploy == usual.deploy
    assert config.risk == replace(usual.risk, hidden=(4,))
    assert config.sampling.next_action == "uniform"


def test_a_horizon_in_seconds_sets_the_discount_of_every_domain() -> None:
    """Also of a user's, named `module:attribute`; where nobody turned it into one, that is said."""
    pytest.importorskip("mujoco")
    for name in ("halfcheetah", "safemesa.domains.half_cheetah:HELD_OUT"):
        config = configure("safemesa", name, "cpu")
        config = replace(config, risk=replace(config.risk, horizon=2.5))
        assert apply(config, None).risk.gamma_risk == pytest.approx(0.98)
        with pytest.raises(ConfigurationError, match=r"gamma_risk 0\.98, but gamma_risk is 0\.95"):
            fresh_risk_networks(config, domain(name).spaces)
