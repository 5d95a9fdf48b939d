"""The dynamics monitor in the shield: as the trainer's, with its policies, through every fault."""

import copy
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitors import SMALL, drive, make_tracker, monitored_source, rows_of
from shields import SAFE_ACTION, SPACES, edit_manifest, make_shield_folder, make_source

from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.learners.monitor.tracker import Tracker
from safemesa.phases.monitoring import Fitting
from safemesa.shield.export import export_shield, monitor_tensors
from safemesa.shield.online import OnlineRisk
from safemesa.shield.replay_page import write_replay
from safemesa.shield.runtime import (
    MONITOR_POLICIES,
    Decision,
    ModelError,
    Reason,
    Shield,
    bench,
    check_folder,
    read_black_box,
)

DT = SPACES.dt
TRIALS = 1000
RECOVERY = [-1.0, 0.25]


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return make_tracker()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tracker: Tracker) -> Path:
    folder = tmp_path_factory.mktemp("shields") / "monitored"
    return make_shield_folder(folder, monitored_source(tracker))


def shield_of(folder: Path, risk: float = 0.1, **load: Any) -> Shield:
    shield = Shield.load(
        folder, **{"mode": "enforce", "recovery": lambda obs: RECOVERY, "force": True, **load}
    )
    shield._risk = lambda: risk
    return shield


def follow(shield: Shield, gain: float, count: int = 60, seed: int = 1) -> list[Decision]:
    """Drives a robot past the shield, whose log goes on whatever it decides."""
    obs, action = drive(np.random.default_rng(seed), count, gain)
    return [shield.decide(*row) for row in zip(obs, action, strict=False)]


def changed_shield(folder: Path, policy: str, **more: Any) -> Shield:
    """A shield whose monitor has just raised an alarm."""
    shield = shield_of(folder, **more)
    assert shield.dynamics is not None
    shield.dynamics.settings = shield.dynamics.settings._replace(
        dynamics_changed=policy, outside_training="record"
    )
    shield.set_mode("monitor")
    follow(shield, gain=3.0)
    assert shield.dynamics.alarm
    shield.reset()
    shield.set_mode(more.get("mode", "enforce"), force=True)
    return shield


# -- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 2.0, -1.0])
def test_the_monitor_says_what_the_trainers_says(
    folder: Path, tracker: Tracker, gain: float
) -> None:
    """Residual, disagreement, score and statistic, along a log in two episodes."""
    fitting = Fitting(config=SMALL, spaces=SPACES)
    episodes = [drive(np.random.default_rng(seed), 150, gain) for seed in (1, 2)]
    rows = np.concatenate([rows_of(*one) for one in episodes])
    seen, shield = fitting.look(tracker.model, rows), shield_of(folder, mode="monitor")
    monitor = shield.dynamics
    assert monitor is not None
    found = np.array([monitor.look(row[:3], row[3:5], row[5:]) for row in rows])
    np.testing.assert_allclose(found, seen, rtol=1e-4, atol=1e-6)
    scores = np.array([monitor.add(*row) for row in found])
    after, wanted = fitting.follow(tracker, rows, 0)
    np.testing.assert_allclose(scores, wanted, atol=2e-3)
    assert monitor.statistic == pytest.approx(float(after.statistic), rel=1e-3, abs=1e-3)
    assert (monitor.alarm, monitor.alarms) == (bool(after.alarm), int(after.count))

    # And the shield finds these steps by itself, but for the one between the episodes.
    statistic, outside = 0.0, 0
    for obs, action in episodes:
        shield.reset()
        for row in zip(obs, [*action, action[-1]], strict=True):
            shield.decide(*row)
            statistic = monitor.statistic
            outside += monitor.outside
    after, _ = fitting.follow(replace(tracker, statistic=after.statistic), rows, 0)
    assert statistic == pytest.approx(float(after.statistic), rel=1e-3, abs=1e-3)
    assert outside == int(after.outside_rows)
    assert monitor.summary()["steps"] == 2 * len(rows)
    assert monitor.summary()["skipped"] == 2  # where an episode begins


def test_the_statistic_survives_a_copy(folder: Path) -> None:
    shield = changed_shield(folder, "record", recovery=None)
    del shield._risk
    monitor = shield.dynamics
    assert monitor is not None
    for other in (pickle.loads(pickle.dumps(shield)), copy.deepcopy(shield)):
        assert other.dynamics.statistic == monitor.statistic > 0.0
        follow(other, gain=1.0)
        assert other.dynamics.tensors is other.model.monitor
        with pytest.raises(ValueError, match="read-only"):
            other.dynamics.tensors["monitor.scale"][0, 0] = 1.0
    assert shield.fork().dynamics.statistic == 0.0  # of another loop
    before = monitor.statistic
    follow(shield, gain=1.0)
    follow(other, gain=1.0, seed=1)
    assert monitor.statistic != before


def test_onnx_says_what_the_runtime_says(tmp_path: Path, tracker: Tracker) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    export_shield(monitored_source(tracker), tmp_path / "s", onnx=True)
    listed = json.loads((tmp_path / "s" / "manifest.json").read_text())["files"]
    assert "shield_monitor.onnx" in listed
    session = onnxruntime.InferenceSession(tmp_path / "s" / "shield_monitor.onnx")
    monitor = Shield.load(tmp_path / "s").dynamics
    assert monitor is not None
    for gain in (0.0, 1.0, 3.0):
        obs, action = drive(np.random.default_rng(3), 200, gain)
        given = {"observation": obs[:-1], "action": action, "next_observation": obs[1:]}
        surprise, disagreement, score = session.run(["surprise", "disagreement", "score"], given)
        rows = rows_of(obs, action)
        found = np.array([monitor.look(row[:3], row[3:5], row[5:]) for row in rows])
        np.testing.assert_allclose(np.stack([surprise, disagreement], 1), found, rtol=1e-3)
        sure = np.abs(disagreement - monitor.settings.outside) > 1e-4
        wanted = np.array([monitor.add(*row) for row in found])
        np.testing.assert_allclose(score[sure], wanted[sure], atol=5e-3)


# -- what is said and done ------------------------------------------------------------------------


def test_a_healthy_robot_is_quiet_and_a_changed_one_is_not(folder: Path) -> None:
    shield = shield_of(folder)
    assert {one.reason for one in follow(shield, 1.0, 300)} <= {Reason.OK, Reason.OUTSIDE_TRAINING}
    shield.reset()
    reasons = [one.reason for one in follow(shield, 3.0)]
    assert reasons[-1] is Reason.DYNAMICS_CHANGED
    statistics = shield.statistics()
    assert statistics["dynamics"]["alarms"] == 1
    assert statistics["reasons"]["dynamics_changed"] == reasons.count(Reason.DYNAMICS_CHANGED)
    record = shield.black_box.records[-1]
    assert record["reason"] == "dynamics_changed"
    assert not record["fault"]
    assert record["statistic"] == shield.dynamics.statistic > 15.0
    assert record["surprise"] == shield.dynamics.surprise > 0.0
    assert record["detail"].startswith("dynamics_changed: ")
    assert "alarm above 15" in record["detail"]
    shield.dynamics.clear_alarm()
    shield.reset()
    assert shield.decide(*(one[0] for one in drive(np.random.default_rng(0), 1))).reason is (
        Reason.OK
    )


def test_an_alarm_ends_where_the_statistic_is_back(folder: Path) -> None:
    shield = shield_of(folder)
    follow(shield, 3.0, 40)
    monitor = shield.dynamics
    assert monitor is not None
    assert monitor.alarm
    shield.reset()
    for obs in np.tile(drive(np.random.default_rng(0), 1, 0.0)[0][:1], (400, 1)):
        assert monitor.alarm == (monitor.statistic > 0.0)
        shield.decide(obs, [0.0, 0.5])  # it stands still
    assert not monitor.alarm


@pytest.mark.parametrize("policy", MONITOR_POLICIES)
def test_policies_of_an_alarm(folder: Path, policy: str) -> None:
    shield = changed_shield(folder, policy)
    proposed = np.array([1.0, 0.75])
    decision = shield.decide([-1.0, 0.5, 2.0], proposed)
    acts = {"recover": RECOVERY, "stop": list(SAFE_ACTION)}
    np.testing.assert_allclose(decision.action, acts.get(policy, proposed))
    assert decision.reason is Reason.DYNAMICS_CHANGED
    assert shield.risk_limit == (0.25 if policy == "tighten" else 0.5)
    # A risk between the tight limit and the usual one.
    shield._risk = lambda: 0.3
    decision = shield.decide([-1.0, 0.5, 2.0], proposed)
    tight = policy in ("tighten", "recover")
    np.testing.assert_allclose(decision.action, RECOVERY if tight else acts.get(policy, proposed))
    assert (decision.reason is Reason.RISK) == (policy == "tighten")
    shield.dynamics.clear_alarm()
    assert shield.decide([-1.0, 0.5, 2.0], proposed).reason is Reason.OK
    assert shield.risk_limit == 0.5
    for mode in ("monitor", "off"):
        passed = changed_shield(folder, policy, mode=mode).decide([-1.0, 0.5, 2.0], proposed)
        np.testing.assert_array_equal(passed.action, proposed)
        assert (passed.reason is Reason.DYNAMICS_CHANGED) == (mode == "monitor")


@pytest.mark.parametrize("policy", MONITOR_POLICIES)
def test_policies_where_the_networks_disagree(folder: Path, policy: str) -> None:
    shield = shield_of(folder)
    monitor = shield.dynamics
    assert monitor is not None
    monitor.settings = monitor.settings._replace(outside=0.0, outside_training=policy)
    obs, action = drive(np.random.default_rng(0), 2)
    shield.decide(obs[0], action[0])
    decision = shield.decide(obs[1], action[1])
    acts = {"recover": RECOVERY, "stop": list(SAFE_ACTION)}
    np.testing.assert_allclose(decision.action, acts.get(policy, action[1]))
    assert decision.reason is Reason.OUTSIDE_TRAINING
    assert "networks disagree" in shield.black_box.records[-1]["detail"]
    assert shield.risk_limit == (0.25 if policy == "tighten" else 0.5)
    assert shield.outside_training == 1
    assert monitor.statistic == 0.0  # it speaks for no change


def test_settings_are_of_the_export_and_the_users(tmp_path: Path, tracker: Tracker) -> None:
    source = monitored_source(tracker)
    with pytest.raises(ConfigurationError, match="dynamics_changed is 'slow'; expected record"):
        make_shield_folder(tmp_path / "s", source, dynamics_changed="slow")
    options = {"dynamics_changed": "stop", "outside_dynamics": "tighten", "tighten": 0.2}
    folder = make_shield_folder(tmp_path / "s", source, **options)
    monitor = Shield.load(folder).settings.monitor
    assert monitor is not None
    assert monitor[-3:] == ("stop", "tighten", 0.2)
    found = check_folder(folder)
    assert "policy stop where the robot has changed" in found["dynamics_monitor"]
    assert "surprises of the monitor" in found["checks"]["known answers"]
    card = (folder / "MODEL_CARD.md").read_text()
    assert "its statistic exceeds 15 (then: stop; where its networks disagree: tighten)" in card
    edit_manifest(folder, lambda m: m["shield"]["monitor"].update(threshold=30.0))
    edited = Shield.load(folder)
    assert edited.edited == ("monitor.threshold is 30.0, was 15.0",)
    edit_manifest(folder, lambda m: m["shield"]["monitor"].update(reference=3.0))
    with pytest.raises(ModelError, match="does not match its own SHA-256"):
        Shield.load(folder)


@pytest.mark.parametrize(
    "options", [{"dynamics_changed": "stop"}, {"outside_dynamics": "recover"}, {"tighten": 0.2}]
)
def test_answers_of_no_monitor_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=rf"{name} is .*has no dynamics monitor"):
        make_shield_folder(tmp_path / "s", **options)


def test_a_monitor_of_a_run_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    source = make_source()
    config = replace(source.config, monitor=MonitorConfig(enabled=True))
    folder = make_shield_folder(tmp_path / "s", replace(source, config=config))
    warnings = json.loads((folder / "manifest.json").read_text())["warnings"]
    assert [text for text in warnings if "run's dynamics monitor is not in this shield" in text]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--monitor.networks 2", "--monitor.networks is given without --monitor.enabled"),
        ("--monitor.enabled --monitor.adapt-again", "--monitor.adapt-again is of `safemesa run`"),
    ],
)
def test_settings_that_no_monitor_of_a_shield_reads_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, expected: str
) -> None:
    fleet_of(0.8, 1.2).save(tmp_path / "logs")
    out = tmp_path / "prior"
    assert main(["meta-train", str(tmp_path / "logs"), *flags.split(), "--out", str(out)]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("*prior*"))


def test_a_shield_without_a_monitor_is_an_older_one(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "s")
    assert "monitor" not in json.loads((folder / "manifest.json").read_text())["shield"]
    shield = shield_of(folder)
    assert shield.dynamics is None
    assert {one.reason for one in follow(shield, 3.0)} == {Reason.OK}
    assert shield.statistics()["dynamics"] is None
    shield._risk = lambda: 0.9
    follow(shield, 1.0, 1)
    assert shield.black_box.records[-1]["statistic"] is None
    assert "nothing notices" in check_folder(folder)["dynamics_monitor"]


def test_a_critic_that_learns_keeps_the_monitor(folder: Path) -> None:
    from safemesa.shield.export import shield_tensors

    shield = shield_of(folder)
    shield.replace_weights(shield_tensors(make_source(seed=3).model))
    assert follow(shield, 3.0)[-1].reason is Reason.DYNAMICS_CHANGED
    assert "p99" in " ".join(bench(folder, ticks=20))


# -- replay ---------------------------------------------------------------------------------------


def dataset_of(gain: float, count: int = 200) -> OfflineTasks:
    """A log of a healthy robot which, after half of it, is pushed otherwise."""
    episodes = [drive(np.random.default_rng(seed), count, g) for seed, g in ((1, 1.0), (2, gain))]
    number = np.repeat(np.arange(2, dtype=np.int32), count)
    last = np.diff(number, append=2) > 0
    columns = {
        "obs": np.concatenate([obs[:-1] for obs, _ in episodes]),
        "next_obs": np.concatenate([obs[1:] for obs, _ in episodes]),
        "action": np.concatenate([action for _, action in episodes]),
        "reward": np.zeros(2 * count, np.float32),
        "cost": np.zeros(2 * count, np.float32),
        "terminated": np.zeros(2 * count, np.bool_),
        "truncated": last,
        "episode": number,
        "step": np.tile(np.arange(count, dtype=np.int32), 2),
    }
    log = TaskLog(name="new", role="test", columns=columns)
    return OfflineTasks(domain="made up", spaces=SPACES, train=(), test=log)


@pytest.mark.parametrize("policy", ["record", "stop"])
def test_a_replay_shows_the_statistic_and_what_enforce_would_do(
    tmp_path: Path, tracker: Tracker, policy: str
) -> None:
    source = monitored_source(tracker)
    folder = make_shield_folder(tmp_path / "s", source, dynamics_changed=policy, risk_limit=1.0)
    dataset_of(3.0).save(tmp_path / "log")
    out = tmp_path / "page.html"
    found = write_replay(tmp_path / "log", folder, out, "the command")
    alarm = found.reason == list(Reason).index(Reason.DYNAMICS_CHANGED)
    assert not alarm[:200].any()
    assert alarm[-20:].all()
    assert (found.statistic[alarm] > 0.0).all()
    assert found.statistic[200:].max() > 15.0 > found.statistic[:200].max()
    np.testing.assert_array_equal(found.overridden, alarm & (policy == "stop"))
    page = out.read_text()
    assert "has the robot changed?" in page
    assert "dynamics_changed" in page
    # Of a black box: what was recorded, since quiet ticks are missing.
    box = tmp_path / "box.jsonl"
    shield = Shield.load(folder, black_box=box)
    follow(shield, 3.0)
    recorded = write_replay(box, folder, out, "the command")
    assert np.isnan(recorded.statistic).all()
    assert recorded.ticks.recorded is not None
    assert recorded.ticks.recorded.statistic[-1] == shield.dynamics.statistic
    assert "has the robot changed?" in out.read_text()
    plain = make_shield_folder(tmp_path / "plain")
    write_replay(tmp_path / "log", plain, out, "the command")
    assert "has the robot changed?" not in out.read_text()


# -- from logs to the shield ----------------------------------------------------------------------


def fleet_of(*gains: float, count: int = 900) -> OfflineTasks:
    """Training robots, and the log of a new one; some rows violate."""
    logs = []
    for number, gain in enumerate((*gains, 1.0)):
        one = dataset_of(gain, count // 2).only_log()
        cost = (np.arange(count) % 40 == 39).astype(np.float32)
        role = "train" if number < len(gains) else "test"
        logs.append(
            replace(one, name=f"{number}", role=role, columns={**one.columns, "cost": cost})
        )
    return OfflineTasks(domain="made up", spaces=SPACES, train=tuple(logs[:-1]), test=logs[-1])


@pytest.mark.slow
def test_own_logs_become_a_shield_with_a_monitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fleet_of(0.8, 0.9, 1.1, 1.2).save(Path("logs"))
    small = "--preset quick --meta.iterations 20 --risk.hidden 8 --monitor.enabled "
    small += "--monitor.networks 2 --monitor.hidden 16 --monitor.fleet-updates 600 "
    small += "--monitor.log-updates 200 --monitor.updates 50 --monitor.false-alarms-per-hour 200"
    assert main(["meta-train", "logs", *small.split(), "--out", "prior"]) == 0
    assert "Monitor: alarms where its statistic exceeds" in capsys.readouterr().out
    assert main(["adapt", "prior", "logs", "--monitor.reference", "2", "--out", "risk"]) == 2
    assert "other --monitor settings" in capsys.readouterr().err
    assert main(["adapt", "prior", "logs", "--monitor.no-enabled", "--out", "plain"]) == 0
    assert not Path("plain/monitor").exists()
    assert main(["adapt", "prior", "logs", "--out", "risk"]) == 0
    assert main(["shield", "export", "risk", "--force", "--tighten", "0.3", "--out", "s"]) == 0
    assert main(["shield", "check", "s"]) == 0
    shield = Shield.load("s")
    assert shield.settings.monitor is not None
    assert shield.settings.monitor.tighten == 0.3
    manifest = json.loads(Path("s/manifest.json").read_text())
    told = manifest["provenance"]["monitor_threshold"]
    assert told["rate"] * 3600.0 / DT == pytest.approx(200.0)
    assert told["value"] == pytest.approx(shield.settings.monitor.threshold)
    assert "200 false alarms in an hour" in Path("s/MODEL_CARD.md").read_text()
    healthy = [one.reason for one in follow(shield, 1.0, 300)]
    assert healthy.count(Reason.DYNAMICS_CHANGED) < 30
    shield.reset()
    assert follow(shield, -1.0)[-1].reason is Reason.DYNAMICS_CHANGED
    again = OnlineRisk.load(Path("risk"), adapt_again=Path("prior"))
    assert again.adapts_again
    assert main(["adapt", "plain", "logs", "--out", "other"]) == 2  # no prior


# -- faults ---------------------------------------------------------------------------------------


def ends_in_the_safe_action(shield: Shield, decision: Decision, reason: Reason, total: int) -> bool:
    record = shield.black_box.records[-1]
    return (
        decision.action.tolist() == list(SAFE_ACTION)
        and decision.overridden
        and decision.reason is reason
        and shield.black_box.total == total + 1
        and record["reason"] == reason
        and record["fault"]
    )


def test_1000_of_1000_residuals_that_are_no_numbers(folder: Path) -> None:
    """A number of the networks in memory is broken; the tick after it is mended is judged anew."""
    shield = shield_of(folder)
    monitor, rng = shield.dynamics, np.random.default_rng(0)
    assert monitor is not None
    monitor.threshold = math.inf
    names = ["weights.0", "weights.1", "biases.0", "inputs"]
    obs, action = drive(rng, TRIALS)
    good = 0
    for trial in range(TRIALS):
        shield.reset()
        shield.decide(obs[trial], action[trial])
        array = monitor.tensors[f"monitor.{names[rng.integers(len(names))]}"]
        place = tuple(rng.integers(size) for size in array.shape)
        array.setflags(write=True)
        whole = array[place]
        array[place] = math.nan
        statistic, total = monitor.statistic, shield.black_box.total
        decision = shield.decide(obs[trial + 1], action[trial])
        good += ends_in_the_safe_action(shield, decision, Reason.MODEL_FAULT, total)
        assert good == trial + 1, (trial, place, decision)
        assert monitor.statistic == statistic  # what is no number changes nothing
        assert "residual" in shield.black_box.records[-1]["detail"]
        array[place] = whole
        decision = shield.decide(obs[trial + 1], action[trial])
        assert math.isfinite(monitor.surprise)
        assert decision.reason in (Reason.OK, Reason.OUTSIDE_TRAINING)
    assert good == TRIALS


def test_1000_of_1000_late_ticks_and_resets_are_no_step(folder: Path) -> None:
    """Whatever lies between two observations, but one dt, is judged by nobody."""
    shield = shield_of(folder)
    monitor, rng = shield.dynamics, np.random.default_rng(0)
    assert monitor is not None
    obs, action = drive(rng, TRIALS)
    skipped, now, good = monitor.skipped, 100.0, 0
    for trial in range(TRIALS):
        now += DT
        shield.decide(obs[trial], action[trial], now=now)
        steps, statistic, total = monitor.steps, monitor.statistic, shield.black_box.total
        kind, reason, sent = trial % 5, None, {}
        if kind == 0:  # late
            now, reason = now + rng.uniform(2.01, 1e4) * DT, Reason.LATE_TICK
            shield._last_now = now - 3.0 * DT  # nothing but the clock knows how late
        elif kind == 1:  # irregular, but within what the shield allows
            now += DT * rng.choice([rng.uniform(0.1, 0.7), rng.uniform(1.3, 1.9)])
        elif kind == 2:  # an episode begins
            now += DT
            shield.reset()
        elif kind == 3:  # an observation that is too old
            now, reason = now + DT, Reason.STALE_OBSERVATION
            sent = {"stamp": now - rng.uniform(2.01, 100.0) * DT}
        else:  # back
            now, reason = now - rng.uniform(1.1, 100.0) * DT, Reason.CLOCK
        decision = shield.decide(10.0 * obs[trial + 1] + 5.0, action[trial], now=now, **sent)
        assert math.isnan(monitor.surprise)
        assert (monitor.steps, monitor.statistic) == (steps, statistic)
        if reason is None:
            good += decision.reason in (Reason.OK, Reason.OUTSIDE_TRAINING)
        else:
            good += ends_in_the_safe_action(shield, decision, reason, total)
        assert good == trial + 1, (trial, kind, decision)
        shield.reset()
    assert monitor.skipped > skipped
    assert good == TRIALS
    assert monitor.alarms == 0


def test_1000_of_1000_wrong_observations_leave_the_statistic(folder: Path) -> None:
    """Missing, misshapen, no number: its fault is the shield's, and no step crosses it."""
    shield = shield_of(folder)
    monitor, rng = shield.dynamics, np.random.default_rng(0)
    assert monitor is not None
    wrong = [
        (None, Reason.BAD_OBSERVATION),
        (np.zeros(2), Reason.BAD_OBSERVATION),
        (np.zeros((1, 3)), Reason.BAD_OBSERVATION),
        ([0.0, math.nan, 0.0], Reason.NAN_OBSERVATION),
        ([0.0, 1e300, math.inf], Reason.NAN_OBSERVATION),
    ]
    obs, action = drive(rng, TRIALS)
    for trial in range(TRIALS):
        shield.decide(obs[trial], action[trial])
        given, reason = wrong[trial % len(wrong)]
        steps, statistic, total = monitor.steps, monitor.statistic, shield.black_box.total
        decision = shield.decide(given, action[trial])
        assert ends_in_the_safe_action(shield, decision, reason, total), (trial, decision)
        decision = shield.decide(obs[trial], action[trial])
        assert (monitor.steps, monitor.statistic) == (steps, statistic)
        shield.reset()


@pytest.mark.slow
def test_1000_of_1000_broken_files_with_a_monitor(tmp_path: Path, tracker: Tracker) -> None:
    """A bit of the monitor's tensors, or of its part of the manifest, differs; or it is missing."""
    folder = make_shield_folder(tmp_path / "s", monitored_source(tracker))
    weights, manifest = folder / "weights.safetensors", folder / "manifest.json"
    whole, told = weights.read_bytes(), manifest.read_bytes()
    rng = np.random.default_rng(0)
    start, part = 8 + int.from_bytes(whole[:8], "little"), told.index(b'"monitor": {')
    for trial in range(TRIALS):
        data, text = bytearray(whole), bytearray(told)
        if trial == 0:
            weights.unlink()
        elif trial % 2:
            data[rng.integers(start, len(whole))] ^= 1 << rng.integers(8)
            weights.write_bytes(data)
        else:
            # Of its sizes, and of what is not set by hand.
            place = part + told[part:].index(b'"outside": 0') + 12 + int(rng.integers(6))
            text[place] ^= 1 << rng.integers(8)
            manifest.write_bytes(text)
        shield = Shield.load(folder, mode="enforce", emergency_action=SAFE_ACTION)
        weights.write_bytes(whole)
        manifest.write_bytes(told)
        decision = shield.decide(np.zeros(3), [0.0, 0.5])
        assert ends_in_the_safe_action(shield, decision, Reason.CORRUPT_MODEL, 0), trial
    assert Shield.load(folder, mode="enforce").dynamics is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": 17}, "networks is 17"),
        ({"sizes": [5, 16, 8, 7]}, "sizes that begin with 5 and end with 6"),
        ({"levels": 0}, "levels is 0"),
        ({"threshold": "high"}, "threshold is 'high'"),
        ({"reference": 0.0}, "reference is 0.0"),
        ({"dynamics_changed": "slow"}, "dynamics_changed is 'slow'"),
        ({"extra": 1}, "monitor has"),
        ({"networks": 2}, "does not match its own SHA-256"),
    ],
)
def test_a_wrong_part_of_the_manifest_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    for one in ("weights.safetensors", "manifest.json"):
        (tmp_path / one).write_bytes((folder / one).read_bytes())
    edit_manifest(tmp_path, lambda m: m["shield"]["monitor"].update(change))
    with pytest.raises(ModelError, match=words):
        Shield.load(tmp_path)


def test_another_monitor_is_found_by_its_answers(tmp_path: Path, tracker: Tracker) -> None:
    """A runtime, or a machine, that computes something else."""
    folder = make_shield_folder(tmp_path / "s", monitored_source(tracker))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["known_answers"]["surprises"][0] *= 1.1
    from safemesa.shield.runtime import seal_of

    manifest["seal"] = seal_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"monitor answers .* away"):
        Shield.load(folder)
    del manifest["known_answers"]["surprises"]
    manifest["seal"] = seal_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="known answers cannot be read"):
        Shield.load(folder)


def test_what_the_monitor_expects_has_no_room_for_rewards(tracker: Tracker) -> None:
    shapes = {name: tensor.shape for name, tensor in monitor_tensors(tracker).items()}
    assert shapes["monitor.weights.2"] == (3, 8, 6)
    assert shapes["monitor.changes"] == (2, 3)
    levels = monitor_tensors(tracker)["monitor.scale"][0]
    assert (np.diff(levels) >= 0.0).all()
    assert levels[-1] < 1e30  # without what fills the tracker's arrays


def test_the_black_box_keeps_the_residual(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    shield = shield_of(folder, black_box=path)
    follow(shield, 3.0)
    records = read_black_box(path)
    assert records[-1]["statistic"] == shield.dynamics.statistic
    assert records[-1]["surprise"] == shield.dynamics.surprise
