"""The runtime decides as the trainer would, keeps its laws, and records what it does."""

import json
import math
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from shields import SAFE_ACTION, SPACES, edit_manifest, make_shield_folder, make_source

from safemesa.shield.export import draw_inputs, reference_answers, shield_tensors
from safemesa.shield.runtime import (
    BlackBox,
    LatencyHistogram,
    Reason,
    SettingsError,
    Shield,
    read_black_box,
)

LIMIT = 0.5
DT = SPACES.dt
IN_MIDDLE = np.array([0.0, 0.5])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shield_folder(tmp_path_factory.mktemp("shields") / "small")


def scripted(folder: Path, risks: list[float], **load: object) -> list[bool]:
    """Who acts at each tick (True: the recovery policy), where the critic says `risks`."""
    shield = Shield.load(folder, mode="enforce", **load)
    engaged = []
    for risk in risks:
        shield._risk = lambda value=risk: value
        shield.decide(np.zeros(3), IN_MIDDLE)
        engaged.append(shield.engaged)
    return engaged


# -- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("critics", [1, 2])
def test_risks_are_the_trainers_on_100_000_states(tmp_path: Path, critics: int) -> None:
    source = make_source((256, 256), critics=critics)
    shield = Shield.load(make_shield_folder(tmp_path / "shield", source))
    obs, action = draw_inputs(source.model, source.spaces, 100_000, seed=1)
    wanted, recovery = reference_answers(source.model, source.spaces, obs, action)
    risk = shield.risks(obs, action)
    assert 0.2 < np.mean(wanted > LIMIT) < 0.8, "this test needs both decisions"
    assert np.abs(risk - wanted).max() <= 1e-5
    clear = np.abs(wanted - LIMIT) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal((risk > LIMIT)[clear], (wanted > LIMIT)[clear])
    np.testing.assert_allclose(shield.recovery_actions(obs), recovery, atol=2e-5)


def assert_decides_like_the_trainer(folder: Path, source, count: int) -> None:
    shield = Shield.load(folder, mode="enforce")
    obs, action = draw_inputs(source.model, source.spaces, count, seed=2)
    wanted, recovery = reference_answers(source.model, source.spaces, obs, action)
    for row in range(count):
        decision = shield.decide(obs[row], action[row])
        assert abs(decision.risk - wanted[row]) <= 1e-5
        if abs(wanted[row] - LIMIT) > 1e-4:
            assert decision.overridden == (wanted[row] > LIMIT)
            expected = recovery[row] if decision.overridden else action[row]
            np.testing.assert_allclose(decision.action, expected, atol=2e-5)
        if not decision.overridden:
            np.testing.assert_array_equal(decision.action, action[row])


@pytest.mark.parametrize("critics", [1, 3])
def test_single_decisions_are_the_trainers(tmp_path: Path, critics: int) -> None:
    source = make_source((64, 64), critics=critics)
    assert_decides_like_the_trainer(make_shield_folder(tmp_path / "s", source), source, 1_000)


@pytest.mark.slow
def test_100_000_single_decisions_are_the_trainers(tmp_path: Path) -> None:
    source = make_source((256, 256))
    assert_decides_like_the_trainer(make_shield_folder(tmp_path / "s", source), source, 100_000)


def test_signals_by_name_are_signals_in_order(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce")
    obs = np.array([0.3, -1.0, 2.0])
    named = {"angle": 2.0, "position": 0.3, "extra": 9.0, "velocity": -1.0}
    first = shield.decide(obs, IN_MIDDLE)
    second = shield.decide(named, {"turn": 0.5, "push": 0.0})
    assert first.risk == second.risk
    np.testing.assert_array_equal(first.action, second.action)


# -- hysteresis and dwell -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shields") / "slow"
    return make_shield_folder(folder, release_limit=0.3, minimum_dwell=3 * DT)


def test_release_waits_for_the_release_limit_and_the_dwell(slow_folder: Path) -> None:
    risks = [0.4, 0.6, 0.1, 0.1, 0.1, 0.4, 0.6, 0.4, 0.4, 0.4, 0.4, 0.29]
    assert scripted(slow_folder, risks) == [
        False,
        True,  # above the limit
        True,
        True,
        False,  # three ticks held, and below the release limit
        False,  # between the limits: nothing engages
        True,
        True,
        True,
        True,
        True,  # the dwell is over, but the risk is above the release limit
        False,
    ]


@hypothesis.given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60),
)
@hypothesis.settings(max_examples=60)
def test_laws_of_hysteresis(slow_folder: Path, risks: list[float]) -> None:
    engaged = scripted(slow_folder, risks)
    for tick, (risk, now) in enumerate(zip(risks, engaged, strict=True)):
        before = tick > 0 and engaged[tick - 1]
        if risk > LIMIT:
            assert now, "above the limit the recovery always acts"
        if now and not before:
            assert risk > LIMIT, "nothing else engages"
            held = engaged[tick : tick + 3]
            assert all(held), "a recovery lasts its dwell"
        if before and not now:
            assert risk <= 0.3, "control comes back at the release limit only"


@hypothesis.given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
@hypothesis.settings(max_examples=40)
def test_without_hysteresis_each_tick_stands_alone(folder: Path, risks: list[float]) -> None:
    assert scripted(folder, risks) == [risk > LIMIT for risk in risks]


def test_reasons_and_forks(slow_folder: Path) -> None:
    shield = Shield.load(slow_folder, mode="enforce")
    fork = shield.fork()
    reasons = []
    for risk in (0.6, 0.4, 0.1, 0.1):
        shield._risk = lambda value=risk: value
        reasons.append(shield.decide(np.zeros(3), IN_MIDDLE).reason)
    assert reasons == [Reason.RISK, Reason.HOLDING, Reason.HOLDING, Reason.OK]
    assert not fork.engaged
    assert fork.tick == 0
    shield._risk = lambda: 0.9
    shield.decide(np.zeros(3), IN_MIDDLE)
    shield.reset()
    assert not shield.engaged


# -- modes and hard limits ------------------------------------------------------------------------


def test_monitor_records_what_it_would_do_and_passes_the_proposal(folder: Path) -> None:
    shield = Shield.load(folder)
    shield._risk = lambda: 0.9
    decision = shield.decide(np.zeros(3), IN_MIDDLE)
    assert (decision.reason, decision.overridden, decision.risk) == (Reason.RISK, False, 0.9)
    np.testing.assert_array_equal(decision.action, IN_MIDDLE)
    assert shield.black_box.total == 1
    assert shield.decide(np.full(3, np.nan), IN_MIDDLE).reason is Reason.NAN_OBSERVATION
    assert shield.black_box.records[-1]["overridden"] is False


def test_off_asks_no_network(folder: Path) -> None:
    shield = Shield.load(folder, mode="off")
    shield._risk = lambda: pytest.fail("a network was asked")
    decision = shield.decide(np.zeros(3), IN_MIDDLE)
    assert math.isnan(decision.risk)
    assert decision.reason is Reason.OK
    np.testing.assert_array_equal(decision.action, IN_MIDDLE)


@pytest.mark.parametrize("mode", ["off", "monitor", "enforce"])
@hypothesis.given(
    st.lists(st.floats(-5.9, 5.9), min_size=2, max_size=2), st.floats(0.0, 1.0), st.booleans()
)
@hypothesis.settings(max_examples=30)
def test_actions_leave_within_their_limits_in_every_mode(
    folder: Path, mode: str, proposed: list[float], risk: float, custom: bool
) -> None:
    recovery = (lambda obs: np.array([3.0, 1.4])) if custom else None
    shield = Shield.load(folder, mode=mode, recovery=recovery)
    shield._risk = lambda: risk
    action = shield.decide(np.zeros(3), proposed).action
    assert np.all(action >= SPACES.action_low)
    assert np.all(action <= SPACES.action_high)


@pytest.mark.parametrize("mode", ["off", "monitor", "enforce"])
def test_a_proposal_that_is_no_action_is_replaced_in_every_mode(folder: Path, mode: str) -> None:
    shield = Shield.load(folder, mode=mode)
    for nonsense in (None, [math.nan, 0.0], "left", [1.0], [1e9, 0.0]):
        decision = shield.decide(np.zeros(3), nonsense)
        assert decision.action.tolist() == list(SAFE_ACTION)
        assert decision.overridden


@pytest.mark.parametrize("mode", ["off", "monitor", "enforce"])
def test_signals_outside_their_hard_limits_win_over_everything(tmp_path: Path, mode: str) -> None:
    folder = make_shield_folder(tmp_path / "s")
    edit_manifest(folder, lambda m: m["shield"]["observations"][1].update(low=-1.0, high=1.5))
    shield = Shield.load(folder, mode=mode)
    shield._risk = lambda: 0.0
    assert shield.decide([0.0, 1.5, 0.0], IN_MIDDLE).reason is Reason.OK
    for speed in (1.6, -1.1):
        decision = shield.decide([0.0, speed, 0.0], IN_MIDDLE)
        assert decision.reason is Reason.STATE_LIMIT
        assert decision.action.tolist() == list(SAFE_ACTION)
    # What cannot be seen cannot be vouched for.
    assert shield.decide([0.0, math.nan, 0.0], IN_MIDDLE).action.tolist() == list(SAFE_ACTION)


def test_the_rate_of_actions_is_limited_but_the_safe_action_is_not(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "s")
    edit_manifest(folder, lambda m: m["shield"]["actions"][0].update(rate=10.0))
    shield = Shield.load(folder, mode="enforce")
    shield._risk = lambda: 0.0
    pushes = [shield.decide(np.zeros(3), [x, 0.5]).action[0] for x in (0.0, 2.0, 2.0, -2.0)]
    np.testing.assert_allclose(pushes, [0.0, 0.5, 1.0, 0.5])
    assert shield.decide(None, [2.0, 0.5]).action.tolist() == list(SAFE_ACTION)


def test_rates_and_dwell_are_of_seconds_also_in_a_faster_loop(tmp_path: Path) -> None:
    """Ten ticks within one dt may move an action, and count, as much as one tick."""
    folder = make_shield_folder(tmp_path / "s", minimum_dwell=0.1)
    edit_manifest(folder, lambda m: m["shield"]["actions"][0].update(rate=10.0))
    shield = Shield.load(folder, mode="enforce")
    dt, risks = shield.settings.dt, iter([0.0] * 11 + [0.9] + [0.0] * 40)
    shield._risk = lambda: next(risks)
    for tick in range(11):
        decision = shield.decide(np.zeros(3), [2.0 if tick else 0.0, 0.5], now=tick * dt / 10)
    np.testing.assert_allclose(decision.action[0], 10.0 * dt)
    reasons = [
        shield.decide(np.zeros(3), [0.5, 0.5], now=(11 + tick) * dt / 10).reason
        for tick in range(40)
    ]
    held = [reason in (Reason.RISK, Reason.HOLDING) for reason in reasons]
    assert held.index(False) == round(0.1 / (dt / 10))


def test_fallback_hold_repeats_the_last_executed_action(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "s", fallback="hold")
    shield = Shield.load(folder, mode="enforce")
    shield._risk = lambda: 0.0
    assert shield.decide(None, IN_MIDDLE).action.tolist() == list(SAFE_ACTION)
    shield.decide(np.zeros(3), [1.0, 0.75])
    assert shield.decide(None, IN_MIDDLE).action.tolist() == [1.0, 0.75]


def test_outside_of_hard_limits_the_action_that_led_there_is_not_held(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "s", fallback="hold")
    edit_manifest(folder, lambda m: m["shield"]["observations"][1].update(high=1.5))
    shield = Shield.load(folder, mode="enforce")
    shield._risk = lambda: 0.0
    shield.decide(np.zeros(3), [1.0, 0.75])
    for _ in range(3):
        decision = shield.decide([0.0, 1.6, 0.0], [-1.0, 0.5])
        assert decision.reason is Reason.STATE_LIMIT
        assert decision.action.tolist() == list(SAFE_ACTION)


@pytest.mark.parametrize("action", [[99.0], [0.0], [0.0, 99.0]])
def test_an_emergency_action_is_an_action(folder: Path, action: list[float]) -> None:
    with pytest.raises(SettingsError, match="expected 2 numbers from"):
        Shield.load(folder, emergency_action=action)


def test_an_assured_recovery_takes_the_learned_ones_place(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce", recovery=lambda obs: [-obs[0], 0.1])
    shield._risk = lambda: 0.9
    decision = shield.decide([1.5, 0.0, 0.0], IN_MIDDLE)
    assert decision.reason is Reason.RISK
    assert decision.action.tolist() == [-1.5, 0.1]


def test_enforcing_must_be_allowed(tmp_path: Path) -> None:
    folder = make_shield_folder(tmp_path / "few", make_source(violations=9))
    with pytest.raises(SettingsError, match="9 violations"):
        Shield.load(folder, mode="enforce")
    shield = Shield.load(folder)
    with pytest.raises(SettingsError, match="monitoring only"):
        shield.set_mode("enforce")
    assert shield.mode == "monitor"
    assert Shield.load(folder, mode="enforce", force=True).mode == "enforce"
    with pytest.raises(SettingsError, match="expected off, monitor or enforce"):
        shield.set_mode("on")


def test_weights_cannot_be_written_and_are_replaced_only_whole(folder: Path) -> None:
    shield = Shield.load(folder, mode="enforce")
    fork = shield.fork()
    weight = shield.model.critics[0].layers[0][0]
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 1.0
    other = make_source(seed=5)
    tensors = shield_tensors(other.model)
    obs, action = draw_inputs(other.model, SPACES, 4)
    broken = {**tensors, "critic.biases.0": np.full((1, 8), np.nan, np.float32)}
    before = shield.risks(obs, action)
    with pytest.raises(ValueError, match="not finite"):
        shield.replace_weights(broken)
    np.testing.assert_array_equal(shield.risks(obs, action), before)
    shield.replace_weights(tensors)
    wanted, _ = reference_answers(other.model, SPACES, obs, action)
    np.testing.assert_allclose(fork.risks(obs, action), wanted, atol=1e-6)


# -- black box and latency ------------------------------------------------------------------------


def test_the_black_box_replays_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    shield = Shield.load(folder, mode="enforce", black_box=path)
    rng = np.random.default_rng(0)
    decisions = [
        shield.decide(rng.normal(size=3) * 3, rng.uniform([-2, 0], [2, 1])) for _ in range(300)
    ]
    shield.decide([math.nan, math.inf, 0.0], IN_MIDDLE)
    records = read_black_box(path)
    assert len(records) == sum(d.reason is not Reason.OK for d in decisions) + 1 > 15
    again = Shield.load(folder, mode="enforce")
    for record in records[:-1]:
        decision = again.decide(record["obs"], record["proposed"])
        assert (decision.risk, str(decision.reason)) == (record["risk"], record["reason"])
        np.testing.assert_array_equal(decision.action, record["action"])
    np.testing.assert_array_equal(records[-1]["obs"], [math.nan, math.inf, 0.0])


def test_the_black_box_is_bounded_and_never_disturbs(tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    box = BlackBox(path, maximum_bytes=2_000, keep=5)
    for number in range(200):
        box.add({"number": number, "obs": None, "proposed": None, "action": None})
    sizes = [one.stat().st_size for one in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 2_000
    numbers = [record["number"] for record in read_black_box(path)]
    assert numbers == list(range(numbers[0], 200))
    assert len(numbers) > 20
    assert [record["number"] for record in box.records] == [195, 196, 197, 198, 199]
    box.close()
    box.add({"obs": None})
    assert (box.lost, box.total) == (1, 201)


def test_a_torn_record_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    whole = {"obs": [1.0], "proposed": None, "action": None}
    path.write_text(json.dumps(whole) + "\n" + '{"obs": [1.')
    box = BlackBox(path, flush="disk")
    box.add(whole)
    assert len(read_black_box(path)) == 2


def test_the_histogram_is_right_to_its_resolution() -> None:
    histogram = LatencyHistogram()
    durations = np.random.default_rng(0).lognormal(10.0, 1.0, 20_000).astype(int)
    for duration in durations:
        histogram.add(int(duration))
    for share in (0.01, 0.5, 0.99, 0.999):
        exact = np.quantile(durations, share) * 1e-9
        assert exact * 0.99 <= histogram.quantile(share) <= exact * 1.05
    assert histogram.quantile(1.0) == durations.max() * 1e-9
    for duration in (0, 1, 31, 32, 63, 64, 2**40):
        one = LatencyHistogram()
        one.add(duration)
        assert one.quantile(0.5) == duration * 1e-9


def test_every_tick_is_timed(folder: Path) -> None:
    shield = Shield.load(folder)
    for _ in range(7):
        shield.decide(np.zeros(3), IN_MIDDLE)
    assert shield.latency.summary()["ticks"] == 7
    assert shield.latency.summary()["p50_ms"] > 0.0
