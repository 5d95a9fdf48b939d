"""Scores on logs: outcomes by hand, intervals against SciPy, limits that keep their promise."""

from dataclasses import replace

import logs
import numpy as np
import pytest
from tiny import tiny_config

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.experiments.log_evaluation import (
    Split,
    evaluate_held_out,
    evaluate_left_out,
    few_shot_split,
    held_out_folds,
    null_test,
    with_outcomes,
)
from safemesa.experiments.log_metrics import (
    Predictions,
    at_limit,
    calibration_and_test,
    choose_limit,
    exact_interval,
    join_predictions,
    logged_outcomes,
    scores,
    trade_off,
    window_steps,
)
from safemesa.phases.adapt import scratch_prior


def predictions(risk, violating, episode, outcome=None, **changes) -> Predictions:
    violating = np.asarray(violating, np.bool_)
    episode = np.asarray(episode)
    bad = np.isin(episode, episode[violating])
    values = {
        "risk": np.asarray(risk, np.float64),
        "outcome": violating.astype(np.float64) if outcome is None else np.asarray(outcome),
        "violating": violating,
        "ends_safely": ~bad,
        "unknown": np.zeros(len(episode)),
        "episode": episode,
        "group": np.zeros(len(episode), np.int64),
    }
    return Predictions(**{**values, **changes})


def test_outcomes_by_hand():
    """Two episodes: safe, safe, violation, after it; then two safe steps of a cut recording."""
    found = logged_outcomes(
        cost=np.array([0, 0, 1, 0, 0, 0]),
        terminated=np.array([False, False, False, True, False, False]),
        episode=np.array([7, 7, 7, 7, 9, 9]),
        gamma=0.5,
    )
    np.testing.assert_allclose(found["outcome"], [0.25, 0.5, 1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(found["before"], [True, True, True, False, True, True])
    np.testing.assert_array_equal(found["ends_safely"], [False] * 4 + [True] * 2)
    np.testing.assert_array_equal(found["violating"], [False, False, True, False, False, False])
    np.testing.assert_allclose(found["unknown"], [0, 0, 0, 0, 0.25, 0.5])
    np.testing.assert_array_equal(found["episode"], [0, 0, 0, 0, 1, 1])


def test_outcomes_agree_with_a_loop():
    log, gamma = logs.cart_log("a", 3, 40), 0.8
    cost, episode = log.columns["cost"], log.columns["episode"]
    found = logged_outcomes(cost, log.columns["terminated"], episode, gamma)
    for row in range(len(cost)):
        rest = [i for i in range(row, len(cost)) if episode[i] == episode[row] and cost[i] > 0]
        expected = gamma ** (rest[0] - row) if rest else 0.0
        assert found["outcome"][row] == pytest.approx(expected)


@pytest.mark.parametrize("trials", [1, 5, 27, 400])
def test_exact_intervals_agree_with_scipy(trials):
    stats = pytest.importorskip("scipy.stats")
    for successes in sorted({0, 1, trials // 3, trials - 1, trials}):
        expected = stats.binomtest(successes, trials).proportion_ci(method="exact")
        given = exact_interval(successes, trials)
        assert given == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_exact_intervals_refuse_nonsense():
    with pytest.raises(ConfigurationError, match="3 successes of 2"):
        exact_interval(3, 2)


def test_misses_and_alarms_are_counted_per_episode():
    """Episode 0 violates with risk 0.2, episode 1 with 0.9; 2 alarms twice; 3 never."""
    given = predictions(
        risk=[0.9, 0.2, 0.9, 0.6, 0.7, 0.1, 0.2],
        violating=[False, True, True, False, False, False, False],
        episode=[0, 0, 1, 2, 2, 3, 3],
    )
    found = at_limit(given, 0.5)
    assert (found["miss_rate"]["count"], found["miss_rate"]["of"]) == (1, 2)
    alarms = found["false_alarm_episodes"]
    assert (alarms["count"], alarms["of"]) == (1, 2)
    assert found["false_alarm_steps"] == 0.5
    # A risk that equals the limit passes the guard.
    assert at_limit(given, 0.9)["miss_rate"]["count"] == 2
    curve = [one["miss_rate"]["value"] for one in trade_off(given)]
    assert curve == sorted(curve)


def test_perfect_and_useless_scores():
    rng = np.random.default_rng(0)
    violating = rng.random(400) < 0.3
    episode = np.arange(400)
    perfect = scores(predictions(violating, violating, episode), 0.5, 0.8)
    assert perfect["auroc"]["value"] == 1.0
    assert perfect["brier"]["value"] == 0.0
    assert perfect["calibration_error"]["high"] == 0.0
    useless = scores(predictions(rng.random(400), violating, episode), 0.5, 0.8)
    assert useless["auroc"]["low"] < 0.5 < useless["auroc"]["high"]
    assert useless["brier"]["value"] > useless["base_rate_brier"]
    assert window_steps(0.8) == 5


def test_the_chosen_limit_keeps_its_promise():
    """Over many draws the next violation is missed at most as often as promised."""
    rng, target, missed = np.random.default_rng(0), 0.2, []
    for _ in range(4_000):
        risks = rng.beta(2, 2, 13).astype(np.float32)
        limit = choose_limit(risks, target)
        assert limit is not None
        missed.append(np.float32(rng.beta(2, 2)) <= limit)
    assert np.mean(missed) <= target + 3 * np.sqrt(target * (1 - target) / 4_000)
    assert np.mean(missed) > target - 0.1


def test_too_few_violations_promise_nothing():
    assert choose_limit(np.linspace(0.1, 0.9, 18), 0.05) is None
    assert choose_limit(np.linspace(0.1, 0.9, 19), 0.05) == pytest.approx(0.1)
    with pytest.raises(ConfigurationError, match="target miss rate"):
        choose_limit(np.ones(3), 1.0)


@pytest.mark.parametrize("groups", [1, 6])
def test_calibration_and_test_share_no_unit(groups):
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(60), 5)
    given = predictions(rng.random(300), rng.random(300) < 0.1, episode, group=episode % groups)
    first, second = calibration_and_test(given)
    unit = "group" if groups > 1 else "episode"
    assert not set(getattr(first, unit)) & set(getattr(second, unit))
    assert len(first.risk) + len(second.risk) == 300
    assert first.violating.any()
    assert second.violating.any()


def test_joined_predictions_keep_episodes_apart():
    one = predictions([0.1, 0.2], [False, True], [0, 1])
    joined = join_predictions([one, one])
    assert len(np.unique(joined.episode)) == 4
    np.testing.assert_array_equal(joined.group, [0, 0, 1, 1])


def test_folds_ask_about_every_episode_once_and_fit_none_of_it():
    log = logs.cart_log("a", 0, 23)
    splits = held_out_folds(log, 5, seed=1)
    asked = np.concatenate([one.asked for one in splits])
    np.testing.assert_array_equal(np.sort(asked), np.arange(log.transitions))
    assert len({len(one.fitted) for one in splits}) == 1
    for one in splits:
        episode = log.columns["episode"]
        assert not set(episode[one.asked]) & set(episode[one.fitted])
        # What was cut off to make folds equal is not a violation.
        others = np.setdiff1d(np.arange(log.transitions), one.asked)
        assert log.columns["cost"][one.fitted].sum() == log.columns["cost"][others].sum()
    with pytest.raises(DatasetError, match="Lower --folds"):
        held_out_folds(logs.cart_log("a", 0, 3), 5, seed=0)


def test_a_few_shots_leave_whole_episodes():
    log = logs.cart_log("a", 0, 10)
    split = few_shot_split(log, 50, seed=0)
    assert len(split.fitted) == 50
    episode = log.columns["episode"]
    assert not set(episode[split.asked]) & set(episode[split.fitted])
    with pytest.raises(DatasetError, match="adapt-transitions"):
        few_shot_split(log, 10_000, seed=0)


def test_the_null_test_sees_a_leak():
    """Risk that knows the shuffled costs of what it is asked about can only have seen them."""
    log = logs.cart_log("a", 0, 40)
    rows = np.arange(log.transitions)
    split = Split(log=log, fitted=rows, asked=rows)
    rng = np.random.default_rng(0)
    assert null_test([split], [rng.random(log.transitions)])["sound"]
    leaked = log.columns["cost"] + rng.normal(0, 0.5, log.transitions)
    assert not null_test([split], [leaked])["sound"]


def test_only_steps_before_the_first_violation_count():
    log = logs.cart_log("a", 0, 10)
    log.columns["cost"][:] = 0
    log.columns["cost"][[2, 4]] = 1
    rows = np.arange(log.transitions)
    found = with_outcomes(Split(log=log, fitted=rows, asked=rows), rows / 1_000.0, 0.5)
    length = int((log.columns["episode"] == 0).sum())
    assert len(found.risk) == log.transitions - (length - 3)
    np.testing.assert_allclose(found.outcome[:4], [0.25, 0.5, 1.0, 0.0])


def tiny(gamma: float = 0.8):
    config = tiny_config("mesa", "navigation1", seed=0)
    return replace(
        config,
        domain="cart",
        data=replace(config.data, next_action="logged"),
        risk=replace(config.risk, gamma_risk=gamma),
    )


def test_held_out_episodes_from_end_to_end():
    data = logs.cart_fleet(tasks=1, episodes=24)
    config = tiny()
    report = evaluate_held_out(config, scratch_prior(config, data), data, 3, 0.5)
    before = report["scores"]
    assert before["violations"] == data.only_log().violations
    assert before["episodes"] == 24
    assert report["target"]["limit"] is not None
    assert report["null"]["sound"]


@pytest.mark.slow
def test_leaving_one_task_out_finds_risk_that_transfers():
    """The cart's gain differs by task; where it is and how fast it goes matters in all of them."""
    data = logs.cart_fleet(tasks=4, episodes=150)
    config = tiny()
    config = replace(
        config,
        meta=replace(config.meta, iterations=1_500, tasks=3, support_batch=64, query_batch=64),
        risk=replace(config.risk, hidden=(32, 32)),
        adapt=replace(config.adapt, steps=50, batch=64),
    )
    told = []
    names = ["robot-0", "robot-2"]
    report = evaluate_left_out(config, data, names, 300, 0.2, told.append)
    assert [one["task"] for one in report["tasks"]] == names
    assert len(told) == 3
    assert report["scores"]["auroc"]["low"] > 0.7
    assert report["scores"]["brier"]["value"] < report["scores"]["base_rate_brier"]
    assert report["null"]["sound"]
