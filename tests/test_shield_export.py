"""What the export writes, and that it runs where nothing but NumPy and safetensors is."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from monitors import make_tracker
from shields import SAFE_ACTION, SPACES, edit_manifest, make_shield_folder, make_source

from safemesa.cli.main import main
from safemesa.core.errors import CheckpointError, ConfigurationError, OutputFolderError
from safemesa.core.files import sha256, write_json
from safemesa.experiments.measures.log_metrics import exact_interval
from safemesa.guards.settings import TakeoverSettings
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.phases.config import with_names
from safemesa.phases.storage.artefacts import RiskModel, save_artefact
from safemesa.phases.storage.run_folder import RunFolder
from safemesa.shield.export import (
    ShieldOptions,
    Source,
    draw_inputs,
    export_shield,
    find_source,
    read_calibration,
    reference_answers,
    shield_tensors,
)
from safemesa.shield.runtime import SettingsError, Shield, bench, check_folder

ALONE = """
import sys, sysconfig

class OnlyNumPyAndSafetensors:
    def find_spec(self, name, path=None, target=None):
        allowed = {"numpy", "safetensors", "safemesa_shield", *sys.stdlib_module_names}
        # NumPy and safetensors look for optional things that a robot has not got either.
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is not on this robot", name=name)
        return None

sys.meta_path.insert(0, OnlyNumPyAndSafetensors())
sys.path[:0] = [sys.argv[1], *sys.argv[2].split("|")]
for absent in ("jax", "equinox", "safemesa", "gymnasium"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{absent} can be imported: this proves nothing")

import json
import numpy as np
from safemesa_shield import Shield

shield = Shield.load(sys.argv[1], mode="enforce")
cases = json.load(sys.stdin)
decisions = [shield.decide(np.float32(o), np.float32(a)) for o, a in cases]
json.dump([[d.action.tolist(), d.risk, d.overridden] for d in decisions], sys.stdout)
"""


def run_alone(code: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    """Python without site packages, user packages or environment variables."""
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100)


def homes_of(*modules: str) -> str:
    return "|".join(str(Path(sys.modules[name].__file__).parents[1]) for name in modules)


def test_the_folder_runs_with_numpy_and_safetensors_alone(tmp_path: Path) -> None:
    source = make_source((32, 32))
    folder = make_shield_folder(tmp_path / "shield", source)
    obs, action = draw_inputs(source.model, SPACES, 50, seed=3)
    cases = json.dumps([[o.tolist(), a.tolist()] for o, a in zip(obs, action, strict=True)])
    places = homes_of("numpy", "safetensors")
    result = run_alone(ALONE, str(folder), places, stdin=cases)
    assert result.returncode == 0, result.stderr
    wanted, recovery = reference_answers(source.model, SPACES, obs, action)
    for row, (executed, risk, overridden) in enumerate(json.loads(result.stdout)):
        assert risk == pytest.approx(wanted[row], abs=1e-5)
        assert overridden == (wanted[row] > 0.5)
        expected = recovery[row] if overridden else action[row]
        np.testing.assert_allclose(executed, expected, atol=1e-5)


def test_the_file_checks_its_own_folder(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "shield")
    command = [sys.executable, str(folder / "safemesa_shield.py"), "check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stderr) == (0, "")
    assert "known_answers_differ_by" in result.stdout
    assert result.stdout.endswith("The shield is sound.\n")
    timed = [*command[:2], "bench", "--ticks", "20"]
    result = subprocess.run(timed, capture_output=True, text=True, timeout=100)
    assert "ticks: 20\n" in result.stdout, result.stderr
    (folder / "weights.safetensors").write_bytes(b"")
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_importing_the_runtime_imports_no_jax() -> None:
    code = (
        "import safemesa.shield.runtime, sys; print(sorted({'jax', 'equinox'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_the_manifest_says_what_a_user_must_know(tmp_path: Path) -> None:
    manifest = export_shield(
        make_source(), tmp_path / "s", ShieldOptions(release_limit=0.25, minimum_dwell=0.2)
    )
    stored = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert stored == json.loads(json.dumps(manifest))
    shield = stored["shield"]
    assert [one["name"] for one in shield["observations"]] == list(SPACES.obs_names)
    assert [one["unit"] for one in shield["observations"]] == [None, None, "rad"]
    assert [one["safe"] for one in shield["actions"]] == [0.0, 0.0]
    assert shield["risk"] == {"limit": 0.5, "release_limit": 0.25, "minimum_dwell": 0.2}
    assert shield["dt"] == SPACES.dt
    assert set(stored["files"]) == {"weights.safetensors", "MODEL_CARD.md", "safemesa_shield.py"}
    assert stored["log"]["violations"] == 20
    card = (tmp_path / "s" / "MODEL_CARD.md").read_text()
    for words in ("rad", "20 violations", "0.25", "ASTM F3269", "no assured"):
        assert words in card


@pytest.mark.parametrize("violations", [0, 9, None])
def test_few_violations_warn_and_forbid_enforcing(tmp_path: Path, violations: int | None) -> None:
    source = make_source(violations=violations)
    manifest = export_shield(source, tmp_path / "careful")
    assert not manifest["shield"]["enforce"]["allowed"]
    assert "violations" in manifest["warnings"][0]
    assert "**WARNING**" in (tmp_path / "careful" / "MODEL_CARD.md").read_text()
    forced = export_shield(source, tmp_path / "forced", ShieldOptions(force=True))
    assert forced["shield"]["enforce"]["allowed"]
    assert forced["warnings"][0] == manifest["warnings"][0]
    assert Shield.load(tmp_path / "forced", mode="enforce").mode == "enforce"


def test_what_the_logs_and_the_calibration_do_not_vouch_for_is_said(tmp_path: Path) -> None:
    source = make_source()
    assert source.log is not None
    log = source.log | {"provenance": {"dt_declared": False}}
    failed = {"scores": {"auroc": {"mean": 0.99}}, "null": {"sound": False}}
    manifest = export_shield(replace(source, log=log, calibration=failed), tmp_path / "s")
    said = " ".join(manifest["warnings"])
    assert "failed its null test" in said
    assert "so 1 s was taken" in said
    clean = export_shield(
        replace(source, calibration={**failed, "null": {"sound": True}}), tmp_path / "clean"
    )
    assert "null test" not in " ".join(clean["warnings"])
    assert "1 s was taken" not in " ".join(clean["warnings"])


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ({"scores": {"auroc": {"value": 0.24, "low": 0.15, "high": 0.34}}}, "danger from safety"),
        ({"scores": {"auroc": {"value": 0.7, "low": 0.45, "high": 0.9}}}, "as low as 0.450"),
        ({"null": {"sound": False}}, "null test"),
    ],
)
def test_a_risk_that_knows_nothing_may_only_watch(
    tmp_path: Path, calibration: dict, words: str
) -> None:
    source = replace(make_source(), calibration=calibration)
    manifest = export_shield(source, tmp_path / "s")
    assert not manifest["shield"]["enforce"]["allowed"]
    assert words in manifest["shield"]["enforce"]["because"]
    assert words in manifest["warnings"][0]
    with pytest.raises(SettingsError, match=words):
        Shield.load(tmp_path / "s", mode="enforce")
    good = {"scores": {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}}, "null": {"sound": True}}
    manifest = export_shield(replace(source, calibration=good), tmp_path / "good")
    assert manifest["shield"]["enforce"]["allowed"]


def measured(announced: int, of: int, calm_time: float = 0.04, limit: float = 0.5) -> dict:
    """A row of the table of `safemesa evaluate`."""
    low, high = exact_interval(announced, of)
    share = {"value": announced / of, "count": announced, "of": of, "low": low, "high": high}
    return {
        "limit": limit,
        "announced": share,
        "false_alarms": 3,
        "false_alarms_per_hour": 1.5,
        "calm_time_share": calm_time,
        "safe_episodes_with_alarm": share,
        "too_late": announced < 0.5 * of,
        "useless": calm_time > 0.5,
    }


def evaluation(*rows: dict, found: float | None = None, chosen: dict | None = None) -> dict:
    """What `safemesa evaluate --out` writes, as far as a shield reads it."""
    warns = {"lead_s": 0.25, "limits": list(rows)}
    warns["limit"] = {"found": found is not None, "value": found}
    if chosen is not None:
        warns["target"] = {"test": chosen}
    scores = {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}}
    return {"scores": scores, "null": {"sound": True}, "time_to_act": warns}


def exported(tmp_path: Path, source: Source, **options: Any) -> tuple[dict, str, str]:
    """The manifest, the card and what `check` says of the time to act."""
    chosen = ShieldOptions(safe_action=SAFE_ACTION, **options)
    manifest = export_shield(source, tmp_path / "s", chosen)
    card = (tmp_path / "s" / "MODEL_CARD.md").read_text()
    return manifest, card, check_folder(tmp_path / "s")["time_to_act"]


def test_card_check_and_manifest_say_how_early_the_shield_warns(tmp_path: Path) -> None:
    rows = [measured(20, 20, limit=0.1), measured(15, 20)]
    source = replace(make_source(), calibration=evaluation(*rows))
    manifest, card, check = exported(tmp_path, source)
    assert manifest["warnings"] == []
    assert manifest["time_to_act"]["announced"]["count"] == 15
    assert manifest["time_to_act"]["lead_s"] == 0.25
    low, high = exact_interval(15, 20)
    assert check == (
        f"15 of 20 violations were announced at least 0.25 s before [{low:.3f}, {high:.3f}]; 1.5 "
        "false alarms per hour of calm time, 4.0% of it flagged"
    )
    assert "held-out logs, at risk limit 0.5:" in card
    assert (
        f"- announced at least 0.25 s before: 15 of 20 violations [{low:.3f}, {high:.3f}]" in card
    )
    assert "- false alarms: 1.5 per hour of calm time\n- calm time that is flagged: 4.0%" in card


def test_a_shield_that_comes_too_late_may_only_watch(tmp_path: Path) -> None:
    source = replace(make_source(), calibration=evaluation(measured(3, 20)))
    manifest, card, _ = exported(tmp_path, source)
    assert not manifest["shield"]["enforce"]["allowed"]
    assert "comes too late: 3 of 20 violations" in manifest["shield"]["enforce"]["because"]
    assert "**WARNING** A shield at this limit comes too late: 3 of 20" in card
    (tmp_path / "forced").mkdir()
    forced, _, _ = exported(tmp_path / "forced", source, force=True)
    assert forced["shield"]["enforce"]["allowed"]


def test_numbers_of_another_limit_are_said_to_be_so(tmp_path: Path) -> None:
    source = replace(make_source(), calibration=evaluation(measured(3, 20), measured(1, 20, 0.9)))
    # A higher limit comes too late as well; a lower one need not.
    for name, limit, allowed in (("higher", 0.6, False), ("lower", 0.4, True)):
        (tmp_path / name).mkdir()
        manifest, card, check = exported(tmp_path / name, source, risk_limit=limit)
        assert manifest["shield"]["enforce"]["allowed"] == allowed
        assert "measured at another limit than its own" in " ".join(manifest["warnings"])
        assert "This shield has another, for which nothing was measured" in card
        assert check.startswith("at a limit of 0.5, 3 of 20 violations")
    # What rounds to the limit is the limit.
    (tmp_path / "rounded").mkdir()
    manifest, _, _ = exported(tmp_path / "rounded", source, risk_limit=0.503)
    assert manifest["time_to_act"]["at_exported_limit"]


def test_a_shield_that_would_flag_everything_is_warned_of(tmp_path: Path) -> None:
    source = replace(make_source(), calibration=evaluation(measured(20, 20, 0.7)))
    manifest, _, _ = exported(tmp_path, source)
    assert manifest["warnings"] == [
        "At this limit 70% of calm time is flagged: nearly everything would be overridden."
    ]


def test_a_risk_that_looks_too_short_ahead_is_warned_of(tmp_path: Path) -> None:
    calibration = evaluation(measured(20, 20))
    calibration["time_to_act"]["short_sighted"] = ["motion"]
    manifest, _, _ = exported(tmp_path, replace(make_source(), calibration=calibration))
    (warning,) = manifest["warnings"]
    assert "may look too short ahead to warn in time" in warning


def test_multiples_of_a_found_limit_are_those_of_this_model(tmp_path: Path) -> None:
    """The model's own found limit is the unit; a limit that was given is compared in risks."""
    rows = [measured(15, 20, limit=1.0), measured(5, 20, limit=2.0)]
    source = make_source()
    model = replace(source.model, limit=jnp.asarray(0.3))
    config = with_names(source.config, guard="takeover")
    calibration = evaluation(*rows, found=0.25, chosen=measured(9, 10, limit=0.5))
    found = replace(source, model=model, config=config, calibration=calibration)
    given = replace(found, config=replace(config, guard_settings=TakeoverSettings(risk_limit=0.3)))
    for name, one, limit, count in (
        ("as_found", found, None, 15),
        ("twice", found, 0.6, 5),
        ("chosen", found, 0.15, 9),
        ("given", given, 0.25, 15),
    ):
        (tmp_path / name).mkdir()
        manifest, _, _ = exported(tmp_path / name, one, risk_limit=limit)
        assert manifest["time_to_act"]["announced"]["count"] == count
        assert manifest["time_to_act"]["at_exported_limit"]
    unknown = evaluation(*rows, found=0.25)
    unknown["time_to_act"]["limit"]["value"] = None
    manifest, _, _ = exported(tmp_path, replace(given, calibration=unknown))
    assert manifest["time_to_act"] is None


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        {"limits": 3, "lead_s": 0.1},
        {"limits": [{"limit": 0.5}], "lead_s": 0.1, "limit": {"found": False}},
        {"limits": [measured(1, 2) | {"announced": None}], "lead_s": 0.1},
        {"limits": [measured(1, 2) | {"limit": "low"}], "lead_s": 0.1},
        {"limits": [measured(1, 2) | {"calm_time_share": "few"}], "lead_s": 0.1},
        {"limits": [measured(1, 2, 0.9) | {"calm_time_share": None}], "lead_s": 0.1},
        {"limits": [measured(1, 2)], "lead_s": None},
    ],
)
def test_a_calibration_of_an_older_version_measured_no_time_to_act(
    tmp_path: Path, broken: dict | None
) -> None:
    """Or one that was damaged; what it says of the ranking is still read."""
    older = evaluation() | {"trade_off": [{"limit": 0.5}], "time_to_act": broken}
    write_json(tmp_path / "older.json", older)
    source = replace(make_source(), calibration=read_calibration(tmp_path / "older.json"))
    manifest, card, check = exported(tmp_path, source)
    assert manifest["time_to_act"] is None
    assert "does not say whether this shield warns in time" in manifest["warnings"][0]
    assert "Not measured: nobody knows whether this shield warns in time." in card
    assert "- AUROC: 0.900 [0.800, 0.950]" in card
    assert check == "not measured"


@pytest.mark.parametrize("told", [None, 3, {}, {"summary": 3}, {"summary": "\x1b[2J"}])
def test_check_takes_no_summary_that_is_none(tmp_path: Path, told: Any) -> None:
    """A folder of an older version has none, and one may be forged."""
    folder = make_shield_folder(tmp_path / "s")
    edit_manifest(folder, lambda manifest: manifest.update(time_to_act=told))
    assert check_folder(folder)["time_to_act"] == "not measured"


def test_a_stop_that_stays_on_is_one_violation(tmp_path: Path) -> None:
    source = make_source(violations=320)
    assert source.log is not None
    latched = replace(source, log={**source.log, "violation_events": 1})
    manifest = export_shield(latched, tmp_path / "s")
    assert "holds 1 violations" in manifest["warnings"][0]
    card = (tmp_path / "s" / "MODEL_CARD.md").read_text()
    assert "1 violations (320 violating rows)" in card


def test_only_what_evaluate_wrote_is_a_calibration(tmp_path: Path) -> None:
    write_json(tmp_path / "other.json", {"version": 1, "auroc": 0.9})
    with pytest.raises(ConfigurationError, match="is no calibration"):
        read_calibration(tmp_path / "other.json")


def test_the_black_box_names_the_manifest(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "shield")
    pinned = check_folder(folder)["manifest_sha256"]
    assert pinned == sha256(folder / "manifest.json")
    assert Shield.load(folder, sha256=pinned).digest == pinned[:16]


def test_ten_violations_do_not_warn(tmp_path: Path) -> None:
    source = make_source(violations=10)
    manifest = export_shield(source, tmp_path / "s", ShieldOptions(safe_action=SAFE_ACTION))
    assert manifest["shield"]["enforce"]["allowed"]
    assert [text for text in manifest["warnings"] if "violations" in text] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"risk_limit": 1.5}, "release <= limit"),
        ({"release_limit": 0.7}, "release <= limit"),
        ({"minimum_dwell": -1.0}, "minimum_dwell"),
        ({"minimum_dwell": float("inf")}, "minimum_dwell"),
        ({"safe_action": (9.0, 0.5)}, "safe_action"),
        ({"safe_action": (0.0,)}, "safe_action"),
        ({"safe_action": (float("nan"), 0.5)}, "safe_action"),
        ({"fallback": "panic"}, "fallback"),
    ],
)
def test_impossible_options_leave_nothing(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        export_shield(make_source(), tmp_path / "s", ShieldOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_an_artefact_without_a_log_is_exported_for_monitoring(tmp_path: Path) -> None:
    source = make_source(tuple(make_source().config.risk.hidden))
    save_artefact(tmp_path / "risk", source.model, source.config, SPACES, {})
    found = find_source(tmp_path / "risk")
    assert found.violations is None
    with pytest.raises(OutputFolderError, match="exists"):
        export_shield(found, tmp_path / "risk")
    assert not export_shield(found, tmp_path / "s")["shield"]["enforce"]["allowed"]
    with pytest.raises(CheckpointError):
        find_source(tmp_path)


def test_a_run_folder_gives_its_newest_model(tmp_path: Path) -> None:
    adapted, deployed = make_source(seed=1), make_source(seed=2)
    run = RunFolder(tmp_path / "run")
    write_json(run.config_file, {"config": "of a run"})
    with pytest.raises(CheckpointError, match="no newest risk model"):
        find_source(run.path)

    def first_weights(model: RiskModel) -> np.ndarray:
        return shield_tensors(model)["recovery.weights.0"]

    notes = {"log": dict(adapted.log or {})}
    save_artefact(run.risk_model, adapted.model, adapted.config, SPACES, notes)
    found = find_source(run.path)
    np.testing.assert_array_equal(first_weights(found.model), first_weights(adapted.model))
    assert found.violations == 20
    save_artefact(run.deployed_model, deployed.model, deployed.config, SPACES, {})
    for which, source in (("newest", deployed), ("deployed", deployed), ("adapted", adapted)):
        found = find_source(run.path, which)
        np.testing.assert_array_equal(first_weights(found.model), first_weights(source.model))
    with pytest.raises(ConfigurationError, match="expected newest, adapted or deployed"):
        find_source(run.path, "best")
    with pytest.raises(ConfigurationError, match="leave --model out"):
        find_source(run.risk_model, "deployed")


def test_export_check_and_bench_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """From an adapted artefact; `docs/shield.md`, which the tests run, begins with the logs."""
    monkeypatch.chdir(tmp_path)
    source = make_source()
    assert source.log is not None
    save_artefact(tmp_path / "risk", source.model, source.config, SPACES, {"log": dict(source.log)})
    found = {
        "scores": {"auroc": {"value": 0.91, "low": 0.8, "high": 0.96}},
        "null": {"sound": True},
    }
    write_json(Path("calibration.json"), found)
    for command in (
        "shield export risk --out my_shield --calibration calibration.json --risk-limit 0.4",
        "shield check my_shield",
        "shield bench my_shield --ticks 50 --out bench.json",
    ):
        assert main(shlex.split(command)) == 0, capsys.readouterr().err
    manifest = json.loads(Path("my_shield/manifest.json").read_text())
    assert manifest["log"]["violations"] == 20
    assert manifest["provenance"]["domain"] == "navigation2"
    assert manifest["shield"]["risk"]["limit"] == 0.4
    assert "AUROC: 0.910 [0.800, 0.960]" in Path("my_shield/MODEL_CARD.md").read_text()
    assert "The shield is sound." in capsys.readouterr().out
    assert json.loads(Path("bench.json").read_text())["ticks"] == 50
    for wrong in (
        "export risk --out my_shield",
        "check risk",
        "bench my_shield --ticks 0",
        "fly",
    ):
        assert main(["shield", *shlex.split(wrong)]) == 2
    with pytest.raises(SystemExit) as stop:
        main(["shield", "--help"])
    assert stop.value.code == 0


def test_the_card_shows_what_evaluate_found(tmp_path: Path) -> None:
    """The file of `safemesa evaluate --out`; scores that are unknown there are left out."""
    missed = {"value": 0.1, "count": 2, "of": 20, "low": 0.01, "high": 0.31}
    scores = {
        "auroc": {"value": 0.912, "low": 0.85, "high": 0.95},
        "brier": {"value": None},
        "miss_rate": missed,  # an older version's: of the violating step itself
    }
    summary = {"folds": 5, "seen_by_prior": False, "scores": scores}
    export_shield(replace(make_source(), calibration=summary), tmp_path / "s")
    card = (tmp_path / "s" / "MODEL_CARD.md").read_text()
    assert "- AUROC: 0.912 [0.850, 0.950]\n" in card
    assert "missed" not in card
    assert "Brier" not in card
    assert "folds" not in card


def test_the_bench_measures_decide(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "s")
    result = bench(folder, ticks=200)
    assert 0.0 < result["decide_p50_ms"] <= result["decide_p99_ms"] <= result["decide_max_ms"]
    assert result["empty_loop_p50_ms"] < result["decide_p50_ms"]
    assert 0.0 < result["overridden_share"] < 1.0
    assert result["records_lost"] == 0


@pytest.mark.bench
@pytest.mark.parametrize("monitor", [False, True])
def test_latency_bars(tmp_path: Path, monitor: bool) -> None:
    """On one core with OPENBLAS_NUM_THREADS=1; wants the machine to itself."""
    source = make_source((256, 256))
    if monitor:
        # Five networks of 64 x 64.
        source = replace(source, monitor=make_tracker(MonitorConfig()))
    folder = make_shield_folder(tmp_path / "s", source)
    result = bench(folder, ticks=1_000_000)
    assert result["decide_p99_ms"] <= 0.25
    assert result["decide_p99.9_ms"] <= 1.0
    assert result["memory_growth_mib"] <= 2.0


@pytest.mark.parametrize("critics", [1, 2])
def test_onnx_computes_the_same_risk(tmp_path: Path, critics: int) -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    source = make_source((256, 256), critics=critics)
    export_shield(source, tmp_path / "s", onnx=True)
    assert "shield.onnx" in json.loads((tmp_path / "s" / "manifest.json").read_text())["files"]
    session = onnxruntime.InferenceSession(
        tmp_path / "s" / "shield.onnx", providers=["CPUExecutionProvider"]
    )
    obs, action = draw_inputs(source.model, SPACES, 100_000, seed=4)
    wanted, wanted_recovery = reference_answers(source.model, SPACES, obs, action)
    risk, recovery = session.run(["risk", "recovery"], {"observation": obs, "action": action})
    assert np.abs(risk - wanted).max() <= 1e-5
    clear = np.abs(wanted - 0.5) > 1e-4
    np.testing.assert_array_equal((risk > 0.5)[clear], (wanted > 0.5)[clear])
    np.testing.assert_allclose(recovery, wanted_recovery, atol=2e-5)


def test_onnx_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r"safemesa\[onnx\]"):
        export_shield(make_source(), tmp_path / "s", onnx=True)


def test_check_tells_what_the_folder_is(tmp_path: Path) -> None:
    found = check_folder(make_shield_folder(tmp_path / "s"))
    assert found["actions"] == list(SPACES.action_names)
    assert found["enforce_allowed"] is True
