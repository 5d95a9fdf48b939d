"""What users and attackers did to a shield: whose state it is, who touches its inputs, what raises.

One test per kind of fault (issue 17, points 1 to 5 and 9).
"""

import copy
import math
import pickle
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from shields import SAFE_ACTION, SPACES, edit_manifest, make_shield_folder

from safemesa.core.errors import ConfigurationError
from safemesa.shield.gym import ShieldWrapper, VectorShieldWrapper
from safemesa.shield.runtime import Reason, Shield, read_black_box

OBS, MIDDLE, DT = np.zeros(3), np.array([0.0, 0.5]), SPACES.dt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shield_folder(tmp_path_factory.mktemp("shields") / "plain")


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both actions change by at most 4 units a second: 0.2 a tick."""
    folder = make_shield_folder(tmp_path_factory.mktemp("shields") / "limited", minimum_dwell=0.2)

    def limit(manifest: dict[str, Any]) -> None:
        for action in manifest["shield"]["actions"]:
            action["rate"] = 4.0

    edit_manifest(folder, limit)
    return folder


class Still(gymnasium.Env):
    """A robot of the shield's signals that does not move."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(
        np.array(SPACES.action_low, np.float32), np.array(SPACES.action_high, np.float32)
    )

    def __init__(self) -> None:
        self.executed: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self.executed.append(np.array(action))
        return np.zeros(3, np.float32), 0.0, False, False, {"cost": 0.0}


# -- hard limits come last ------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [False, True])
def test_exploration_noise_keeps_the_hard_limits(limited: Path, vector: bool) -> None:
    shield = Shield.load(limited, mode="enforce")
    robot = Still()
    if vector:
        env: Any = VectorShieldWrapper(SyncVectorEnv([lambda: robot]), shield, recovery_noise=5.0)
        lane = env._lanes[0].shield
    else:
        env = ShieldWrapper(robot, shield, recovery_noise=5.0)
        lane = shield
    lane._risk = lambda: 0.9
    env.reset(seed=0)
    for _ in range(60):
        env.step(np.array([MIDDLE], np.float32) if vector else MIDDLE.astype(np.float32))
        # The runtime remembers what ran.
        np.testing.assert_allclose(lane._last, robot.executed[-1], atol=1e-6)
    executed = np.array(robot.executed)
    steps = np.abs(np.diff(executed, axis=0))
    assert steps.max() <= 4.0 * DT + 1e-6
    assert steps.max() > 3.9 * DT, "the noise is large enough to need the limit"
    assert len(np.unique(executed[:, 0])) > 5
    assert np.all((executed >= SPACES.action_low) & (executed <= SPACES.action_high))


@pytest.mark.parametrize("policy", ["slow", "recover", "record"])
def test_every_way_to_an_action_keeps_its_rate(limited: Path, policy: str) -> None:
    shield = Shield.load(limited, mode="enforce", recovery=lambda obs: [2.0, 1.0])
    shield._outside_policy = lambda: policy if shield.tick % 3 else ""
    rng, sent = np.random.default_rng(0), []
    for _ in range(100):
        shield._risk = lambda: rng.random()
        sent.append(shield.decide(OBS, rng.uniform(SPACES.action_low, SPACES.action_high)).action)
    assert np.abs(np.diff(sent, axis=0)).max() <= 4.0 * DT + 1e-9


# -- state belongs to a lane, the mode to the owner -----------------------------------------------


def test_one_shield_in_two_wrappers_keeps_their_states_apart(limited: Path) -> None:
    shared = Shield.load(limited, mode="enforce")
    wrappers = [ShieldWrapper(Still(), shared) for _ in range(3)]
    assert wrappers[0].shield is shared
    for wrapper in wrappers:
        wrapper.reset(seed=0)
    for wrapper, risk in zip(wrappers, (0.9, 0.1, 0.1), strict=True):
        wrapper.shield._risk = lambda value=risk: value
    reasons = [wrapper.step(MIDDLE.astype(np.float32))[4]["shield_reason"] for wrapper in wrappers]
    assert reasons == ["risk", "ok", "ok"]
    assert [wrapper.shield.engaged for wrapper in wrappers] == [True, False, False]
    wrappers[0].reset()
    assert wrappers[1].shield.tick == 1


def test_the_mode_is_the_owners(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce")
    vector = VectorShieldWrapper(SyncVectorEnv([Still] * 2), shield)
    vector.reset(seed=0)
    for lane in vector._lanes:
        lane.shield._risk = lambda: 0.9
    actions = np.array([MIDDLE, MIDDLE], np.float32)

    def overridden() -> list[bool]:
        return vector.step(actions)[4]["shield_overridden"].tolist()

    assert overridden() == [True, True]
    vector.shield.set_mode("monitor")
    assert overridden() == [False, False]
    assert [one["overridden"] for one in vector.statistics()] == [1, 1]
    shield.set_mode("enforce")
    assert overridden() == [True, True]


def test_a_fork_follows_until_it_has_a_mode_of_its_own(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce")
    fork = shield.fork()
    of_fork = fork.fork()
    shield.set_mode("off")
    assert (fork.mode, of_fork.mode) == ("off", "off")
    fork.set_mode("monitor")
    shield.set_mode("enforce")
    assert (shield.mode, fork.mode, of_fork.mode) == ("enforce", "monitor", "monitor")


def test_normalised_observations_and_six_values_are_refused(folder: Path) -> None:
    shield = Shield.load(folder)
    normalised = gymnasium.wrappers.NormalizeObservation(Still())
    hidden = gymnasium.wrappers.TimeLimit(normalised, 10)
    for env in (normalised, hidden):
        with pytest.raises(ConfigurationError, match="NormalizeObservation is below the shield"):
            ShieldWrapper(env, shield)
    with pytest.raises(ConfigurationError, match="below the shield"):
        VectorShieldWrapper(SyncVectorEnv([lambda: hidden]), shield)
    gymnasium.wrappers.NormalizeObservation(ShieldWrapper(Still(), shield)).reset(seed=0)

    class Six(Still):
        def step(self, action: np.ndarray) -> Any:
            obs, reward, *rest = super().step(action)
            return obs, reward, 0.0, *rest

    env = ShieldWrapper(Six(), shield)
    env.reset(seed=0)
    with pytest.raises(ConfigurationError, match=r"gives 6 values.*SafetyGymnasium2Gymnasium"):
        env.step(MIDDLE)


# -- inputs are read before others touch them -----------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_a_policy_that_changes_its_input_changes_no_decision(folder: Path, named: bool) -> None:
    pure, in_place = (Shield.load(folder, mode="enforce", clock=lambda: 0.0) for _ in range(2))
    rng, overridden = np.random.default_rng(0), 0

    def normalise(obs: Any) -> np.ndarray:
        for key in SPACES.obs_names if named else range(3):
            obs[key] = (obs[key] - 5.0) / 50.0
        return MIDDLE

    for tick in range(200):
        obs = 3.0 * rng.normal(size=3)
        given = dict(zip(SPACES.obs_names, obs, strict=True)) if named else obs.copy()
        first = pure.guarded_step(lambda obs: MIDDLE, obs.copy(), now=tick * DT)
        second = in_place.guarded_step(normalise, given, now=tick * DT)
        assert (first.risk, first.reason) == (second.risk, second.reason)
        if second.reason is not Reason.OK:
            np.testing.assert_array_equal(in_place.black_box.records[-1]["obs"], obs)
        overridden += second.overridden
    assert overridden > 3


def test_the_policy_keeps_its_own_floating_point_errors(folder: Path) -> None:
    def policy(obs: np.ndarray) -> np.ndarray:
        with pytest.warns(RuntimeWarning, match="divide by zero"):
            np.divide(np.ones(1), np.zeros(1))
        return MIDDLE

    decision = Shield.load(folder).guarded_step(policy, OBS)
    assert decision.reason is not Reason.POLICY_RAISED


# -- nothing escapes ------------------------------------------------------------------------------


class NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class PanicError(BaseException):
    """What bindings to Rust raise."""


class Evil:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise NoTextError

    def __float__(self) -> float:
        raise PanicError

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise PanicError

    def __repr__(self) -> str:
        raise NoTextError


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any) -> Any:
        raise error

    return function


NO_TIMES = [
    "soon",
    b"1.0",
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    1j,
    [1.0],
    np.array([1.0]),
    np.array([1.0, 2.0]),
    datetime(2026, 1, 1),
    np.datetime64("2026-01-01"),
    True,
    object(),
    Evil(),
]
TIMES = [5, 5.0, np.float32(5.0), np.array(5.0), Decimal(5), Fraction(5, 1)]
BROKEN_CLOCKS = [
    raises(OSError("no clock")),
    raises(NoTextError()),
    raises(PanicError()),
    lambda: "noon",
]
BROKEN_CLOCKS += [lambda: None, lambda: math.nan, lambda: Evil()]


@pytest.mark.parametrize("mode", ["off", "monitor", "enforce"])
def test_no_time_escapes(folder: Path, mode: str) -> None:
    shield = Shield.load(folder, mode=mode)
    for time in NO_TIMES:
        for call in (
            lambda time=time: shield.decide(OBS, MIDDLE, now=time),
            lambda time=time: shield.decide(OBS, MIDDLE, now=1e3, stamp=time),
            lambda time=time: shield.guarded_step(lambda obs: MIDDLE, OBS, now=time),
        ):
            shield.reset()
            decision = call()
            assert decision.reason is Reason.CLOCK, time
            if mode == "enforce":
                assert decision.action.tolist() == list(SAFE_ACTION)
    for time in TIMES:
        shield.reset()
        assert shield.decide(OBS, MIDDLE, now=time, stamp=time).reason is not Reason.CLOCK


@pytest.mark.parametrize("clock", BROKEN_CLOCKS)
def test_no_clock_escapes(folder: Path, clock: Any) -> None:
    shield = Shield.load(folder, mode="enforce", clock=clock)
    for decision in (
        shield.guarded_step(lambda obs: MIDDLE, OBS),
        shield.guarded_step(lambda obs: MIDDLE, OBS, now=1.0),
        shield.decide(OBS, MIDDLE, stamp=1.0),
    ):
        assert decision.reason is Reason.CLOCK
        assert decision.action.tolist() == list(SAFE_ACTION)
    assert shield.decide(OBS, MIDDLE).reason is not Reason.CLOCK


@pytest.mark.parametrize(
    "error", [NoTextError(), PanicError(), MemoryError(), RecursionError(), Evil]
)
def test_nothing_that_is_raised_escapes(folder: Path, error: Any) -> None:
    fail = raises(error) if isinstance(error, BaseException) else error
    shield = Shield.load(folder, mode="enforce", recovery=fail)
    shield._risk = lambda: 0.9
    assert shield.decide(OBS, MIDDLE).reason is Reason.RECOVERY_FAULT
    decision = shield.guarded_step(fail, OBS)
    assert decision.reason in (Reason.POLICY_RAISED, Reason.BAD_ACTION)
    for obs, action, reason in (
        (Evil(), MIDDLE, Reason.BAD_OBSERVATION),
        (OBS, Evil(), Reason.BAD_ACTION),
    ):
        decision = shield.decide(obs, action)
        assert decision.reason is reason
        assert decision.action.tolist() == list(SAFE_ACTION)
    shield._risk = fail
    assert shield.decide(OBS, MIDDLE).reason is Reason.INTERNAL_ERROR
    assert len(shield.black_box.records) == 5


def test_what_is_meant_for_the_program_passes_and_the_shield_goes_on(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce")
    for error in (KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)):
            shield.guarded_step(raises(error), OBS)
    assert shield.decide(OBS, MIDDLE).reason is not Reason.REENTRY


# -- clocks that stand still, and what `overridden` means -----------------------------------------


@pytest.mark.parametrize("advance", [0.0, 1e-9, -1e-3])
def test_a_clock_that_stands_still_is_a_fault(limited: Path, advance: float) -> None:
    shield = Shield.load(limited, mode="enforce", recovery=lambda obs: [-2.0, 0.0])
    shield._risk = lambda: 0.1
    for tick in range(3):
        assert shield.decide(OBS, [2.0, 1.0], now=tick * DT).reason is Reason.OK
    shield._risk = lambda: 0.9
    for tick in range(1, 20):
        decision = shield.decide(OBS, [2.0, 1.0], now=2 * DT + tick * advance * DT)
        assert decision.reason is Reason.CLOCK
        assert decision.overridden
        assert decision.action.tolist() == list(SAFE_ACTION)


def test_monitoring_keeps_its_rates_while_the_clock_stands_still(limited: Path) -> None:
    shield = Shield.load(limited)
    sent = [shield.decide(OBS, [2.0 * (-1) ** tick, 0.5], now=7.0).action[0] for tick in range(10)]
    assert np.abs(np.diff(sent)).max() <= 4.0 * DT + 1e-9


def test_overridden_says_what_was_sent(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce", recovery=lambda obs: [1.0, 0.5])
    shield._risk = lambda: 0.9
    same = shield.decide(OBS, [1.0, 0.5])
    assert (same.reason, same.overridden) == (Reason.RISK, False)
    other = shield.decide(OBS, [0.9, 0.5])
    assert (other.reason, other.overridden) == (Reason.RISK, True)
    assert not shield.decide(None, SAFE_ACTION).overridden
    assert shield.decide(None, [math.nan, 0.5]).overridden
    assert shield.decide(OBS, "left").overridden
    assert shield.overridden == 3
    shield.set_mode("monitor")
    assert not shield.decide(OBS, [0.9, 0.5]).overridden


# -- threads and copies ---------------------------------------------------------------------------


def test_a_policy_that_asks_its_own_shield_gets_the_safe_action(folder: Path) -> None:
    shield, inner = Shield.load(folder, mode="enforce"), []

    def policy(obs: np.ndarray) -> np.ndarray:
        inner.append(shield.decide(obs + 100.0, MIDDLE))
        return MIDDLE

    outer = shield.guarded_step(policy, OBS)
    assert inner[0].reason is Reason.REENTRY
    assert inner[0].overridden
    assert inner[0].action.tolist() == list(SAFE_ACTION)
    assert outer.risk == Shield.load(folder).decide(OBS, MIDDLE).risk
    assert shield.statistics()["reasons"]["reentry"] == 1


def test_threads_on_one_shield_never_mix_and_forks_run_side_by_side(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce")
    inputs = [OBS, np.array([3.0, -2.0, 4.0])]
    wanted = [shield.decide(obs, MIDDLE).risk for obs in inputs]
    assert abs(wanted[0] - wanted[1]) > 1e-3
    shields = [shield, shield, shield.fork(), copy.copy(shield)]
    found: list[list[Any]] = [[] for _ in shields]

    def loop(number: int) -> None:
        for _ in range(1500):
            found[number].append(shields[number].decide(inputs[number % 2], MIDDLE))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=loop, args=(i,)) for i in range(len(shields))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for number, decisions in enumerate(found):
        for decision in decisions:
            if decision.reason is Reason.REENTRY and number < 2:
                assert decision.action.tolist() == list(SAFE_ACTION)
            else:
                assert decision.risk == wanted[number % 2]


@pytest.mark.parametrize(
    "make_copy", [copy.copy, copy.deepcopy, lambda shield: pickle.loads(pickle.dumps(shield))]
)
def test_copies_are_shields_of_their_own(folder: Path, tmp_path: Path, make_copy: Any) -> None:
    path = tmp_path / "box.jsonl"
    shield = Shield.load(folder, mode="enforce", black_box=path)
    for risk in (0.9, 0.1):
        shield._risk = lambda value=risk: value
        shield.decide(OBS, MIDDLE, now=1.0 - risk)
    del shield._risk
    shield.decide(None, None)
    other = make_copy(shield)
    arrays = [*other.model.critics[0].layers[0][:2], *other.model.recovery.layers[-1][:2]]
    arrays += [other.settings.actions.high, other.settings.safe_action, other.settings.mean]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    assert other._obs is not shield._obs
    for obs in (OBS, OBS + 2.0, OBS - 2.0):
        risk = shield.risks(obs[None], MIDDLE[None])[0]
        assert other.decide(obs, MIDDLE).risk == pytest.approx(risk, abs=1e-6)
    assert other.tick == (3 if make_copy is copy.copy else 6)
    other.decide(None, None)
    reasons = [record["reason"] for record in read_black_box(path)]
    assert reasons.count("bad_observation") == 2
    assert other.black_box.lost == 0
