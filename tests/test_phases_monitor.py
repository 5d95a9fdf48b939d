"""The dynamics monitor in runs: it notices a change, answers it, and resumes through it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import episodes_of, lines_without_wall, tiny_config

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.spaces import Spaces
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.learners.monitor.detectors import CUSUM
from safemesa.learners.monitor.surprise import HealthyScale, surprise
from safemesa.learners.monitor.tracker import FleetMonitor, look
from safemesa.phases.config import RunConfig, config_from_json, config_to_json
from safemesa.phases.monitoring import (
    Fitting,
    fleet_sample,
    held_out_rehearsals,
)
from safemesa.phases.run import RunOptions, run

SMALL = MonitorConfig(
    enabled=True,
    networks=2,
    hidden=(16,),
    batch=32,
    fleet_updates=1_500,
    log_updates=500,
    updates=100,
    every=100,
    memory=600,
    wait=400,
    fleet_robots=4,
    false_alarms_per_hour=0.5,
    tighten=0.5,
    adapt_again=True,
    forget=True,
)
SPACES = Spaces(
    obs_names=("x", "v"), action_names=("u",), action_low=(-1.0,), action_high=(1.0,), horizon=50
)


def driven(rng: np.random.Generator, count: int, gain: float, places: float = 1.0) -> np.ndarray:
    """Rows of a cart with some gain and noise, at places of some width."""
    obs = rng.uniform(-places, places, (count, 2))
    action = rng.uniform(-1.0, 1.0, (count, 1))
    x, v = obs.T
    following = (
        v + 0.3 * gain * action[:, 0] - 0.1 * np.sin(2.0 * x) + 0.02 * rng.normal(size=count)
    )
    rows = np.concatenate([obs, action, np.stack([x + 0.1 * v, following], axis=1)], axis=1)
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def fleet() -> tuple[Fitting, FleetMonitor]:
    rng = np.random.default_rng(0)
    fitting = Fitting(config=SMALL, spaces=SPACES)
    rows = fleet_sample([driven(rng, 1_000, gain) for gain in (0.8, 0.9, 1.1, 1.2)], rng)
    model = fitting.fleet_model(rows, jax.random.key(0))
    return fitting, FleetMonitor(model, rows, jnp.float32(8.0))


def test_a_row_is_surprising_as_the_statistics_say(fleet: tuple[Fitting, FleetMonitor]) -> None:
    fitting, monitor = fleet
    rows = driven(np.random.default_rng(1), 50, 1.0)
    model = monitor.model
    x = model.scaling.inputs(jnp.asarray(rows[:, :3]))
    said = model.ensemble(jnp.broadcast_to(x[None], (2, *x.shape)))
    mean, log_variance = (np.asarray(one)[..., :2] for one in (said.mean, said.log_variance))
    change = np.concatenate([rows[:, 3:] - rows[:, :2], np.zeros((50, 1))], axis=1)
    target = np.asarray(model.scaling.targets(jnp.asarray(change, jnp.float32)))[:, :2]
    seen = fitting.look(model, rows)
    np.testing.assert_allclose(seen[:, 0], surprise(mean, log_variance, target), rtol=1e-4)
    assert (seen[:, 1] >= 0.0).all()
    assert (seen[:, 1] <= 1.0).all()
    broken = look(model, *(jnp.full((1, size), jnp.nan) for size in (2, 1, 2)))
    assert float(broken.surprise[0]) == pytest.approx(1e30)


def test_the_tracker_is_the_cusum_of_its_scores(fleet: tuple[Fitting, FleetMonitor]) -> None:
    fitting, monitor = fleet
    rng = np.random.default_rng(2)
    begun = fitting.begin(monitor, driven(rng, 600, 1.0), 0, jax.random.key(1))
    rows = np.concatenate([driven(rng, 100, 1.0), driven(rng, 100, 0.3)])
    tracker, scores = fitting.follow(begun, rows, 0)
    statistic = CUSUM(reference=SMALL.reference).statistic(scores)
    assert float(tracker.statistic) == pytest.approx(statistic[-1], rel=1e-4)
    assert scores[100:].mean() > scores[:100].mean() + 1.0
    usual = begun.usual
    scale = HealthyScale(np.asarray(usual.levels), np.asarray(usual.scores))
    seen = fitting.look(begun.model, rows)
    inside = seen[:, 1] <= float(usual.outside)
    np.testing.assert_allclose(scores[inside], scale(seen[inside, 0]), atol=1e-3)
    assert (scores[~inside] <= 0.0).all()
    # The alarm says when, since when, and how high.
    row = int(np.argmax(statistic > 8.0))
    assert int(tracker.count) == 1
    step, change, height = np.asarray(tracker.alarms[0])
    assert step == row
    assert height == pytest.approx(statistic[row], rel=1e-4)
    assert statistic[int(change) - 1] == 0.0
    assert (statistic[int(change) : row] > 0.0).all()
    assert 95 <= change <= 105
    assert bool(tracker.alarm)
    assert float(tracker.limit_factor) == 0.5
    # Rows of an alarm are not remembered as usual.
    assert int(tracker.remembered) == int(begun.remembered) + row


def test_drift_of_the_policy_is_no_change(fleet: tuple[Fitting, FleetMonitor]) -> None:
    """A robot that ventures further and further is no changed robot; a weaker motor is."""
    fitting, monitor = fleet
    rng = np.random.default_rng(3)
    log = driven(rng, 600, 1.0, places=0.5)
    wider = [driven(rng, 100, 1.0, places=0.5 + 0.1 * block) for block in range(10)]
    found = fitting.rehearse(monitor, log, np.concatenate(wider), jax.random.key(2))
    statistic = CUSUM(reference=SMALL.reference).statistic(found.scores)
    changed, _ = fitting.follow(found.trackers[-1], driven(rng, 100, 0.3, places=1.4), 900)
    assert statistic.max() < 15.0
    assert float(changed.statistic) > 30.0


def test_what_cannot_be_told_is_refused(fleet: tuple[Fitting, FleetMonitor]) -> None:
    fitting, monitor = fleet
    rng = np.random.default_rng(4)
    with pytest.raises(DatasetError, match=r"300 rows of this robot.*expected at least 333"):
        fitting.begin(monitor, driven(rng, 300, 1.0), 0, jax.random.key(0))
    short = [driven(rng, count, 1.0) for count in (900, 200, 300)]
    with pytest.raises(DatasetError, match="1 of 3 have so many, expected 2"):
        held_out_rehearsals(fitting, short, 600, 0)
    wrong: list[dict[str, Any]] = [
        {"wait": 10},
        {"reference": 0.0},
        {"networks": 1},
        {"tighten": 2.0},
    ]
    for given in wrong:
        with pytest.raises(ConfigurationError, match="expected"):
            MonitorConfig(**given)


def test_a_configuration_without_a_monitor_is_an_older_one() -> None:
    config = replace(tiny_config(), monitor=SMALL)
    values = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(RunConfig, values) == config
    del values["monitor"]
    assert config_from_json(RunConfig, values) == tiny_config()


# Whole runs


def monitored(arm: str, domain: str, change: tuple[str, ...], **monitor: Any) -> RunConfig:
    config = tiny_config(arm, domain)
    return replace(
        config,
        data=replace(config.data, train_transitions=1_500, test_transitions=600),
        deploy=replace(config.deploy, episodes=10_000, steps=800, chunk_steps=100, change=change),
        monitor=replace(SMALL, **monitor),
    )


class StoppedError(Exception):
    """As a process that is killed."""


def finish(config: RunConfig, folder: Path, data: Path, stops: tuple[int, ...] = ()) -> dict:
    """Runs, is killed whenever a checkpoint of one of these steps was written, and goes on."""
    from safemesa.phases.deployment.run_recorder import Recorder

    record, left = Recorder.record, list(stops)

    def stopping(self: Recorder, chunk: Any) -> None:
        record(self, chunk)
        if left and int(chunk.state.step) >= left[0]:
            left.pop(0)
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "record", stopping)
        while True:
            try:
                return run([config], [folder], RunOptions(data_dir=data))[0]
            except StoppedError:
                continue


TURNED = '150:{"times": {"b": -1.0}}'
"""The controls act the other way."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.slow
def test_a_run_resumes_through_an_alarm_and_what_follows(tmp_path: Path, data: Path) -> None:
    """Before the alarm, between it and the answer, and after both."""
    config = monitored("safemesa", "navigation2", (TURNED,))
    whole = finish(config, tmp_path / "whole", data)
    assert any(alarm["step"] < 300 for alarm in whole["alarms"])
    parts = finish(config, tmp_path / "parts", data, (100, 300, 600, 700))
    assert {name: value for name, value in whole.items() if name != "wall_s"} == {
        name: value for name, value in parts.items() if name != "wall_s"
    }
    for name in ("replay/rows.f32", "artefacts/deployed_risk_model/model.safetensors"):
        first, second = ((tmp_path / place / name).read_bytes() for place in ("whole", "parts"))
        assert first == second, name
    lines = lines_without_wall(tmp_path / "whole" / "learning.jsonl")
    assert lines == lines_without_wall(tmp_path / "parts" / "learning.jsonl")
    assert episodes_of(tmp_path / "whole") == episodes_of(tmp_path / "parts")
    factors = [line["limit_factor"] for line in lines]
    assert 0.5 in factors  # the limit was tight,
    assert factors[-1] == 1.0  # and is not any more


def watched_and_not(folder: Path, data: Path) -> None:
    """A run whose monitor answers nothing, `off`, and one without a monitor, `unwatched`."""
    on = monitored("safemesa", "navigation2", (TURNED,))
    usual = MonitorConfig()
    quiet = replace(
        on.monitor, tighten=usual.tighten, adapt_again=usual.adapt_again, forget=usual.forget
    )
    for name, monitor in {"off": quiet, "unwatched": usual}.items():
        finish(replace(on, monitor=monitor), folder / name, data)


@pytest.mark.slow
def test_by_default_an_alarm_is_recorded_and_nothing_else(tmp_path: Path, data: Path) -> None:
    # By the compiler as users have it: these are two programs, and the flags of the tests round
    # them differently (to 5e-6).
    code = (
        "import sys; from pathlib import Path; from test_phases_monitor import watched_and_not; "
        "watched_and_not(*map(Path, sys.argv[1:]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(data)],
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    folders = ("off", "unwatched")
    rows = [(tmp_path / name / "replay" / "rows.f32").read_bytes() for name in folders]
    assert rows[0] == rows[1]  # a monitor that answers nothing disturbs nothing
    summary = json.loads((tmp_path / "off" / "summary.json").read_text())
    assert summary["alarms"]
    assert "alarms" not in json.loads((tmp_path / "unwatched" / "summary.json").read_text())


@pytest.mark.slow
def test_a_simulated_run_resumes_through_an_alarm(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("mujoco")
    dead = '150:{"times": {"gains": 0}}'
    # Five hundredths of a second a step: a rate that logs of a minute can show.
    config = monitored("safemesa", "halfcheetah", (dead,), false_alarms_per_hour=50.0)
    config = replace(config, data=replace(config.data, train_policy="random"))
    whole = finish(config, tmp_path / "whole", data)
    assert whole["alarms"]
    parts = finish(config, tmp_path / "parts", data, (200, 400, 700))
    assert whole["alarms"] == parts["alarms"]
    rows = [(tmp_path / name / "replay" / "rows.f32").read_bytes() for name in ("whole", "parts")]
    assert rows[0] == rows[1]
    factors = [line["limit_factor"] for line in
               lines_without_wall(tmp_path / "whole" / "learning.jsonl")]  # fmt: skip
    assert 0.5 in factors
