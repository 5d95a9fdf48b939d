"""Every injected fault ends in the safe action within its tick, with one record, and no network."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shields import SAFE_ACTION, SPACES, edit_manifest, make_shield_folder

from safemesa.shield.runtime import Decision, Reason, Shield

TRIALS = 1000
DT = SPACES.dt
Injector = Callable[[Shield, np.random.Generator, float], tuple[Decision, set[Reason]]]
"""Injects one fault at a time `now`; returns the decision and the reasons that are right."""


class Clock:
    """Time that a test sets; each reading moves it by `per_reading`."""

    def __init__(self) -> None:
        self.now, self.per_reading = 100.0, 0.0

    def __call__(self) -> float:
        self.now += self.per_reading
        return self.now


CLOCK = Clock()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_shield_folder(tmp_path_factory.mktemp("shields") / "shield")
    edit_manifest(folder, lambda m: m["shield"]["observations"][0].update(low=-50.0, high=50.0))
    return folder


def draw_obs(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=3) * 2.0


def draw_action(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(SPACES.action_low, SPACES.action_high)


def pick(rng: np.random.Generator, choices: list[Any]) -> Any:
    return choices[rng.integers(len(choices))]


NOT_NUMBERS: list[Callable[[], Any]] = [
    lambda: None,
    lambda: "stop",
    lambda: {},
    lambda: object(),
    lambda: [1.0, None, 2.0],
    lambda: [[1.0], [2.0, 3.0]],
    lambda: 1.0,
    lambda: np.zeros((1, 3)),
    lambda: np.zeros(0),
    lambda: np.zeros(7),
    lambda: np.array(["1.0", "2.0", "3.0"]),
    lambda: np.zeros(3, complex),
    lambda: np.zeros(3, "datetime64[s]"),
]


def not_finite(vector: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    vector[rng.integers(len(vector))] = pick(rng, [math.nan, math.inf, -math.inf, 1e300, -1e31])
    return vector


def nan_observation(shield, rng, now):
    obs = not_finite(draw_obs(rng), rng)
    return shield.decide(obs, draw_action(rng), now=now), {Reason.NAN_OBSERVATION}


def missing_or_misshapen_observation(shield, rng, now):
    return shield.decide(pick(rng, NOT_NUMBERS)(), draw_action(rng), now=now), {
        Reason.BAD_OBSERVATION
    }


def missing_signal(shield, rng, now):
    named = dict(zip(SPACES.obs_names, draw_obs(rng), strict=True))
    del named[pick(rng, list(SPACES.obs_names))]
    return shield.decide(named, draw_action(rng), now=now), {Reason.BAD_OBSERVATION}


def masked_signal(shield, rng, now):
    mask = np.arange(3) == rng.integers(3)
    obs = np.ma.MaskedArray(draw_obs(rng), mask=mask)
    return shield.decide(obs, draw_action(rng), now=now), {Reason.NAN_OBSERVATION}


def stale_observation(shield, rng, now):
    stamp = now - rng.uniform(2.01, 100.0) * DT
    decision = shield.decide(draw_obs(rng), draw_action(rng), stamp=stamp, now=now)
    return decision, {Reason.STALE_OBSERVATION}


def clock_jump(shield, rng, now):
    bad = pick(rng, [now - rng.uniform(1.1, 1e6) * DT, math.nan, math.inf, -math.inf])
    return shield.decide(draw_obs(rng), draw_action(rng), now=bad), {Reason.CLOCK}


def observation_from_the_future(shield, rng, now):
    stamp = pick(rng, [now + rng.uniform(1.01, 1e6) * DT, math.nan, math.inf])
    decision = shield.decide(draw_obs(rng), draw_action(rng), stamp=stamp, now=now)
    return decision, {Reason.CLOCK}


def late_tick(shield, rng, now):
    action = draw_action(rng)
    late = now + rng.uniform(1.01, 1e4) * DT
    return shield.guarded_step(lambda obs: action, draw_obs(rng), now=late), {Reason.LATE_TICK}


def policy_raises(shield, rng, now):
    kinds = [ValueError, ZeroDivisionError, KeyError, MemoryError, RecursionError, StopIteration]

    def policy(obs):
        raise pick(rng, kinds)("no idea " * 100)

    return shield.guarded_step(policy, draw_obs(rng), now=now), {Reason.POLICY_RAISED}


def slow_policy(shield, rng, now):
    action = draw_action(rng)

    def policy(obs):
        CLOCK.now += DT * rng.uniform(1.01, 50.0)
        return action

    return shield.guarded_step(policy, draw_obs(rng), now=now), {Reason.SLOW_POLICY}


def policy_returns_nan(shield, rng, now):
    action = not_finite(draw_action(rng), rng)
    return shield.guarded_step(lambda obs: action, draw_obs(rng), now=now), {Reason.NAN_ACTION}


def policy_returns_nonsense(shield, rng, now):
    given = pick(rng, NOT_NUMBERS)()
    return shield.guarded_step(lambda obs: given, draw_obs(rng), now=now), {Reason.BAD_ACTION}


def policy_diverges(shield, rng, now):
    action = draw_action(rng)
    index = rng.integers(2)
    action[index] = pick(rng, [-1.0, 1.0]) * (6.0 + 10.0 ** rng.uniform(0.0, 25.0))
    return shield.guarded_step(lambda obs: action, draw_obs(rng), now=now), {Reason.WILD_ACTION}


def state_outside_its_limits(shield, rng, now):
    obs = draw_obs(rng)
    obs[0] = pick(rng, [-1.0, 1.0]) * rng.uniform(50.001, 1e6)
    return shield.decide(obs, draw_action(rng), now=now), {Reason.STATE_LIMIT}


BEFORE_ANY_NETWORK: list[Injector] = [
    nan_observation,
    missing_or_misshapen_observation,
    missing_signal,
    masked_signal,
    stale_observation,
    clock_jump,
    observation_from_the_future,
    late_tick,
    policy_raises,
    slow_policy,
    policy_returns_nan,
    policy_returns_nonsense,
    policy_diverges,
    state_outside_its_limits,
]


def refuse_networks() -> None:
    raise AssertionError("a network was asked in a tick that cannot be vouched for")


def campaign(shield: Shield, inject: Injector, networks_allowed: bool = False) -> int:
    """Number of trials in which all that is promised held."""
    rng = np.random.default_rng(0)
    good, asks, now = 0, shield._risk, 100.0
    for trial in range(TRIALS):
        for _ in range(rng.integers(0, 3)):
            now += DT
            shield.decide(draw_obs(rng), draw_action(rng), stamp=now, now=now)
        now += DT
        CLOCK.now = now
        before = shield.black_box.total
        if not networks_allowed:
            shield._risk = refuse_networks
        decision, reasons = inject(shield, rng, now)
        shield._risk = asks
        record = shield.black_box.records[-1]
        good += (
            decision.action.tolist() == list(SAFE_ACTION)
            and decision.overridden
            and decision.reason in reasons
            and shield.black_box.total == before + 1
            and record["reason"] == decision.reason
            and record["fault"] == (decision.reason is not Reason.STATE_LIMIT)
        )
        assert good == trial + 1, (trial, decision, record)
        shield.reset()
        now += DT
        shield.decide(draw_obs(rng), draw_action(rng), now=now)
    return good


@pytest.mark.parametrize("inject", BEFORE_ANY_NETWORK, ids=lambda inject: inject.__name__)
def test_1000_of_1000_faults_end_in_the_safe_action(folder: Path, inject: Injector) -> None:
    shield = Shield.load(folder, mode="enforce", clock=CLOCK)
    if inject is late_tick:
        shield.reset = lambda: None
    assert campaign(shield, inject) == TRIALS


def test_1000_of_1000_corrupted_weights_in_memory(folder: Path) -> None:
    """A weight becomes NaN or infinite while the program runs."""

    def inject(shield: Shield, rng: np.random.Generator, now: float):
        shield.settings = shield.settings._replace(risk_limit=0.5)
        layers = shield.model.critics[0].layers
        weight, bias, out = layers[-1]
        broken = bias.copy()
        broken[0] = pick(rng, [math.nan, math.inf, -math.inf])
        layers[-1] = (weight, broken, out)
        decision = shield.decide(draw_obs(rng), draw_action(rng), now=now)
        layers[-1] = (weight, bias, out)
        return decision, {Reason.MODEL_FAULT}

    shield = Shield.load(folder, mode="enforce")
    assert campaign(shield, inject, networks_allowed=True) == TRIALS


def test_1000_of_1000_faults_of_the_recovery(folder: Path) -> None:
    outcome: list[Any] = [None]

    def recovery(obs: np.ndarray) -> Any:
        return outcome[0]()

    def inject(shield: Shield, rng: np.random.Generator, now: float):
        nonsense = [*NOT_NUMBERS, lambda: 1 / 0, lambda: [math.nan, 0.0], lambda: [1e9, 0.5]]
        outcome[0] = pick(rng, nonsense)
        asks, shield._risk = shield._risk, lambda: 0.99
        decision = shield.decide(draw_obs(rng), draw_action(rng), now=now)
        shield._risk = asks
        outcome[0] = lambda: [0.0, 0.5]
        return decision, {Reason.RECOVERY_FAULT}

    outcome[0] = lambda: [0.0, 0.5]
    shield = Shield.load(folder, mode="enforce", recovery=recovery)
    assert campaign(shield, inject, networks_allowed=True) == TRIALS


def test_1000_of_1000_corrupted_model_files(tmp_path: Path) -> None:
    """One random byte of weights or manifest differs; both the manifest and the weights are read.

    A byte of the manifest that still gives a sound manifest (a digit of a limit, say) is found by
    the pin of its hash.
    """
    folder = make_shield_folder(tmp_path / "shield")
    rng, good = np.random.default_rng(0), 0
    pin = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    for _ in range(TRIALS):
        path = folder / pick(rng, ["weights.safetensors", "manifest.json"])
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        shield = Shield.load(folder, mode="enforce", emergency_action=SAFE_ACTION, sha256=pin)
        path.write_bytes(whole)
        decision = shield.decide(draw_obs(rng), draw_action(rng))
        good += (
            decision.action.tolist() == list(SAFE_ACTION)
            and decision.overridden
            and decision.reason is Reason.CORRUPT_MODEL
            and shield.black_box.total == 1
        )
    assert good == TRIALS


def test_a_defect_of_ours_also_ends_in_the_safe_action(folder: Path) -> None:
    shield = Shield.load(folder, mode="monitor")

    def broken() -> float:
        raise RuntimeError("a defect")

    shield._risk = broken
    decision = shield.decide(np.zeros(3), [0.0, 0.5])
    assert decision.reason is Reason.INTERNAL_ERROR
    assert decision.action.tolist() == list(SAFE_ACTION)
    assert "a defect" in shield.black_box.records[-1]["detail"]


def test_an_interrupt_is_no_fault_of_the_policy(folder: Path) -> None:
    def policy(obs: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Shield.load(folder, mode="enforce").guarded_step(policy, np.zeros(3))


def test_a_single_fault_costs_a_single_tick(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce")
    shield._risk = lambda: 0.1
    assert shield.decide(np.zeros(3), [0.0, 0.5], now=50.0).reason is Reason.OK
    assert shield.decide(np.zeros(3), [0.0, 0.5], now=10.0).reason is Reason.CLOCK
    assert shield.decide(np.zeros(3), [0.0, 0.5], now=10.0 + DT).reason is Reason.OK
    assert shield.decide(np.zeros(3), [0.0, 0.5], now=20.0).reason is Reason.LATE_TICK
    assert shield.decide(np.zeros(3), [0.0, 0.5], now=20.0 + DT).reason is Reason.OK


def test_records_of_faults_are_json(folder: Path, tmp_path: Path) -> None:
    shield = Shield.load(folder, mode="enforce", black_box=tmp_path / "box.jsonl")
    for nonsense in NOT_NUMBERS:
        shield.decide(nonsense(), nonsense())
    shield.decide([math.nan] * 3, [math.inf] * 2)
    lines = (tmp_path / "box.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == len(NOT_NUMBERS) + 1
    assert shield.black_box.lost == 0
