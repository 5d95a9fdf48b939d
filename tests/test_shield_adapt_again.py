"""`OnlineRisk` adapts again after an alarm of the shield's monitor, where it is asked to."""

from dataclasses import replace
from pathlib import Path

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from monitors import SMALL, drive, make_tracker, rows_of
from shields import SPACES, make_shield_folder, make_source

from safemesa.core.errors import ConfigurationError
from safemesa.datasets.task_log import log_of_rows
from safemesa.learners.monitor.tracker import FleetMonitor
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.monitoring import fleet_sample
from safemesa.phases.storage.artefacts import prior_template
from safemesa.shield.adapt_again import AdaptAgain
from safemesa.shield.export import Source
from safemesa.shield.gym import ShieldWrapper, VectorShieldWrapper
from safemesa.shield.online import OnlineRisk
from safemesa.shield.runtime import ModelError, Shield

CONFIG = replace(SMALL, log_updates=20, updates=10, batch=32, wait=400)


class Pushed(gymnasium.Env):
    """The robot of `monitors.drive`, whose gain a test changes in the run."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(
        np.float32(SPACES.action_low), np.float32(SPACES.action_high)
    )

    def __init__(self) -> None:
        self.gain, self.rng = 1.0, np.random.default_rng(3)

    def reset(self, **options):
        self.obs = np.linspace(-1.0, 2.0, 3)
        return self.obs.astype(np.float32), {}

    def step(self, action):
        push = self.gain * SPACES.to_unit(action)[np.arange(3) % 2]
        middle = np.linspace(-1.0, 2.0, 3)
        self.obs = 0.8 * self.obs + 0.2 * middle + 0.3 * push + 0.02 * self.rng.normal(size=3)
        cost = float(self.rng.random() < 0.05)
        return self.obs.astype(np.float32), 0.0, False, False, {"cost": cost}


@pytest.fixture(scope="module")
def source() -> Source:
    made = make_source((8,))
    config = replace(made.config, monitor=CONFIG, risk=replace(made.config.risk, hidden=(8,)))
    return replace(made, config=config, monitor=make_tracker(CONFIG))


@pytest.fixture(scope="module")
def again(source: Source) -> AdaptAgain:
    prior = prior_template(source.config, SPACES)
    model = replace(prior.model, normaliser=source.model.normaliser)
    rows = rows_of(*drive(np.random.default_rng(7), 600))
    fleet = fleet_sample([rows], np.random.default_rng(0))
    assert source.monitor is not None
    monitor = FleetMonitor(source.monitor.model, fleet, jnp.float32(15.0))
    return AdaptAgain(
        prior=replace(prior, model=model), fleet=monitor, config=source.config, spaces=SPACES
    )


def walk(env: gymnasium.Env, steps: int, rng: np.random.Generator) -> None:
    for _ in range(steps):
        env.step(rng.uniform(SPACES.action_low, SPACES.action_high).astype(np.float32))


@pytest.mark.slow
def test_an_alarm_and_enough_rows_lead_to_a_new_model_and_a_new_monitor(
    tmp_path: Path, source: Source, again: AdaptAgain
) -> None:
    folder = make_shield_folder(tmp_path / "s", source)
    online = OnlineRisk(source.model, source.config, SPACES, again=again)
    # What is learned at every step has tests of its own.
    online.learn = lambda: None
    robot, rng = Pushed(), np.random.default_rng(0)
    env = ShieldWrapper(robot, Shield.load(folder), online=online)
    env.reset()
    walk(env, 100, rng)
    monitor = env.shield.dynamics
    assert monitor is not None
    assert not monitor.alarm
    robot.gain = 3.0
    walk(env, 390, rng)
    assert monitor.alarm
    assert env.shield.dynamics is monitor  # too few rows
    walk(env, 60, rng)
    fresh = env.shield.dynamics
    assert fresh is not None
    assert fresh is not monitor
    assert fresh.alarms == 1
    assert not fresh.alarm
    assert fresh.threshold == 15.0
    assert 400 <= online.size < 470  # rows of the robot before the change are gone
    obs, action = drive(rng, 20)
    risks = online.risk_model.risk(jnp.asarray(obs[:-1]), jnp.asarray(SPACES.to_unit(action)))
    np.testing.assert_allclose(env.shield.risks(obs[:-1], action), risks, atol=1e-5)
    walk(env, 200, rng)
    assert fresh.statistic < 15.0  # what is usual now is usual for it


def test_by_default_an_alarm_leads_to_nothing(
    tmp_path: Path, source: Source, again: AdaptAgain
) -> None:
    shield = Shield.load(make_shield_folder(tmp_path / "s", source))
    assert shield.dynamics is not None
    shield.dynamics.alarm, shield.dynamics.rising = True, 10_000
    online = OnlineRisk(source.model, source.config, SPACES)
    online._written = 10_000
    assert not online.adapts_again
    assert not online.adapt_again(shield)
    waiting = OnlineRisk(source.model, source.config, SPACES, again=again)
    assert not waiting.adapt_again(shield)  # without rows
    envs = gymnasium.vector.SyncVectorEnv([Pushed])
    with pytest.raises(ConfigurationError, match="a vector environment has several"):
        VectorShieldWrapper(envs, shield, online=waiting)
    with pytest.raises(ConfigurationError, match="has no monitor, which adapting again needs"):
        AdaptAgain.load(tmp_path, source.config, SPACES)
    plain = Shield.load(make_shield_folder(tmp_path / "plain", replace(source, monitor=None)))
    with pytest.raises(ConfigurationError, match="this shield has no dynamics monitor"):
        ShieldWrapper(Pushed(), plain, online=waiting)
    other = Normaliser(source.model.normaliser.mean + 1.0, source.model.normaliser.std)
    with pytest.raises(ConfigurationError, match="its normalisation differs"):
        OnlineRisk(replace(source.model, normaliser=other), source.config, SPACES, again=again)


def test_rows_that_do_not_suffice_are_waited_for(
    tmp_path: Path, source: Source, again: AdaptAgain
) -> None:
    """All of them begin in a violation, so that nothing can be learned from them."""
    shield = Shield.load(make_shield_folder(tmp_path / "s", source))
    monitor = shield.dynamics
    assert monitor is not None
    online = OnlineRisk(source.model, source.config, SPACES, again=again)
    obs, action = drive(np.random.default_rng(0), 900)
    for row in range(900):
        if row in (400, 800):
            monitor.alarm, monitor.rising = True, row
            assert not online.adapt_again(shield)
            assert online._next_try == row + 400
        online.add(obs[row], action[row], obs[row + 1], 1.0, False, None)
    assert shield.dynamics is monitor


def test_a_monitor_is_replaced_only_whole(tmp_path: Path, source: Source) -> None:
    shield = Shield.load(make_shield_folder(tmp_path / "s", source))
    monitor = shield.dynamics
    assert monitor is not None
    broken = dict(monitor.tensors)
    del broken["monitor.scale"]
    with pytest.raises(ModelError, match="lacks or has unexpected tensors"):
        shield.replace_monitor(broken, outside=0.1)
    broken = {**monitor.tensors, "monitor.changes": np.full((2, 3), np.nan, np.float32)}
    with pytest.raises(ModelError, match="not finite"):
        shield.replace_monitor(broken, outside=0.1)
    assert shield.dynamics is monitor
    plain = Shield.load(make_shield_folder(tmp_path / "plain", replace(source, monitor=None)))
    with pytest.raises(ModelError, match="has none to replace"):
        plain.replace_monitor(monitor.tensors, outside=0.1)


def test_rows_become_a_log_with_its_episodes() -> None:
    obs, action = drive(np.random.default_rng(0), 6)
    columns = {
        "obs": obs[:-1],
        "next_obs": obs[1:],
        "action": action,
        "cost": np.zeros(6, np.float32),
        "terminated": np.array([0, 0, 1, 0, 0, 0], np.float32),
    }
    columns["obs"] = columns["obs"].copy()
    columns["obs"][4] += 1.0  # a row is missing before it
    log = log_of_rows("own", {**columns, "reward": np.zeros(6, np.float32)})
    assert log.columns["episode"].tolist() == [0, 0, 0, 1, 2, 2]
    assert log.columns["step"].tolist() == [0, 1, 2, 0, 0, 1]
    assert log.columns["truncated"].tolist() == [False, False, False, True, False, True]
    assert log.columns["terminated"].tolist() == [False, False, True, False, False, False]
