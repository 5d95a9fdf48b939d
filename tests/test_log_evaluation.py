"""Warnings on logs: by hand, intervals against SciPy, limits that keep their promise."""

import json
from dataclasses import replace
from pathlib import Path

import logs
import numpy as np
import pytest
from hypothesis import given, strategies
from tiny import tiny_config

from safemesa.cli.evaluate import print_report
from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.experiments.measures import log_evaluation
from safemesa.experiments.measures.log_evaluation import (
    Question,
    Split,
    evaluate_held_out,
    evaluate_left_out,
    few_shot_split,
    held_out_folds,
    null_test,
    with_outcomes,
)
from safemesa.experiments.measures.log_metrics import (
    NEVER,
    Predictions,
    WarningTime,
    alarm_levels,
    at_limit,
    calibration_and_test,
    choose_limit,
    exact_interval,
    join_predictions,
    limit_for_target,
    logged_outcomes,
    scores,
    short_sighted,
    time_to_act,
    warning_time,
    window_steps,
)
from safemesa.phases.adapt import adapt, scratch_prior
from safemesa.phases.config import with_names
from safemesa.phases.storage.artefacts import save_artefact


def predictions(risk, violating, episode, outcome=None, **changes) -> Predictions:
    violating = np.asarray(violating, np.bool_)
    episode = np.asarray(episode)
    bad = np.isin(episode, episode[violating])
    left = [int(np.argmax(violating[row:])) if bad[row] else NEVER for row in range(len(episode))]
    values = {
        "risk": np.asarray(risk, np.float64),
        "outcome": violating.astype(np.float64) if outcome is None else np.asarray(outcome),
        "violating": violating,
        "ends_safely": ~bad,
        "unknown": np.zeros(len(episode)),
        "steps_left": np.asarray(left, np.int64),
        "episode": episode,
        "group": np.zeros(len(episode), np.int64),
        "unit": np.ones(len(episode)),
    }
    return Predictions(**{**values, **changes})


def recordings(*risks: list[float], safe: tuple[int, ...] = ()) -> Predictions:
    """One episode each, which ends in its violation unless its number is in `safe`."""
    lengths = [len(one) for one in risks]
    episode = np.repeat(np.arange(len(risks)), lengths)
    violating = np.zeros(len(episode), np.bool_)
    violating[np.cumsum(lengths) - 1] = ~np.isin(np.arange(len(risks)), safe)
    return predictions(np.concatenate(risks), violating, episode)


TIME = WarningTime(lead=2, window=4, horizon=2.0, dt=0.5)


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
    np.testing.assert_array_equal(found["steps_left"], [2, 1, 0, *[NEVER] * 3])
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


FOUR = recordings(
    [0.0, 0.6, 0.1, 0.2, 0.9, 0.9],  # 5 to 0 steps before: .6 is 4 before, .9 comes too late
    [0.9, 0.9],  # the violation comes 1 step after the recording begins
    [0.1, 0.8, 0.7, 0.1, 0.3, 0.0, 0.0, 0.0],  # 7 to 0 before: .8 is 6 before, in calm time
    [0.1, 0.7, 0.7, 0.2, 0.6],  # safe: two alarms, one of two steps
    safe=(3,),
)


def test_announced_violations_and_false_alarms_by_hand():
    """The window is from 4 to 2 steps before; steps take half a second."""
    levels = alarm_levels(FOUR, TIME)
    np.testing.assert_allclose(levels.announcing, [0.6, 0.3])
    assert levels.unreachable == 1
    # 1 step of the first episode is calm, 3 of the third and 5 of the safe one.
    np.testing.assert_allclose(levels.calm, [0.0, 0.1, 0.8, 0.7, 0.1, 0.7, 0.7, 0.2, 0.6])
    assert levels.calm_hours == pytest.approx(4.5 / 3_600)
    found = at_limit(levels, 0.5)
    assert (found["announced"]["count"], found["announced"]["of"]) == (1, 2)
    assert (found["announced"]["low"], found["announced"]["high"]) == exact_interval(1, 2)
    assert found["false_alarms"] == 3
    assert found["false_alarms_per_hour"] == pytest.approx(3 / (4.5 / 3_600))
    assert found["calm_time_share"] == pytest.approx(5 / 9)
    assert found["useless"]
    assert not found["too_late"]
    safe = found["safe_episodes_with_alarm"]
    assert (safe["count"], safe["of"]) == (1, 1)
    # A risk that equals the limit passes the guard.
    assert at_limit(levels, 0.6)["announced"]["count"] == 0
    assert at_limit(levels, 0.6)["too_late"]
    assert at_limit(levels, 0.29)["announced"]["count"] == 2
    assert at_limit(levels, 0.8)["safe_episodes_with_alarm"]["count"] == 0


def test_an_alarm_that_rises_within_the_window_is_not_false():
    """And one that goes on from calm time into the window counts once."""
    rises = alarm_levels(recordings([0.0, 0.9, 0.9, 0.9, 0.9, 0.9]), TIME)
    assert at_limit(rises, 0.5)["false_alarms"] == 0
    goes_on = alarm_levels(recordings([0.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]), TIME)
    assert at_limit(goes_on, 0.5)["false_alarms"] == 1
    # The last step of one recording is not the one before the next.
    apart = alarm_levels(recordings([0.9], [0.9], safe=(0, 1)), TIME)
    assert at_limit(apart, 0.5)["false_alarms"] == 2


def test_right_at_the_violating_step_is_too_late():
    """The case in which 91 collisions were left and none was called missed."""
    hindsight = recordings(*[[0.0] * 8 + [1.0]] * 8)
    found = time_to_act(hindsight, TIME, 0.5, (0.01, 0.1))
    assert [row["limit"] for row in found["limits"]] == [0.01, 0.1, 0.5]
    assert [row["announced"]["value"] for row in found["limits"]] == [0.0] * 3
    assert found["at_limit"]["too_late"]
    assert scores(hindsight, 0.5)["auroc"]["value"] > 0.7


def test_where_nothing_is_known_nothing_is_said():
    safe = alarm_levels(recordings([0.1, 0.9], safe=(0,)), TIME)
    assert at_limit(safe, 0.5)["announced"]["value"] is None
    assert not at_limit(safe, 0.5)["too_late"]
    dangerous = at_limit(alarm_levels(recordings([0.1, 0.9, 0.9]), TIME), 0.5)
    assert dangerous["false_alarms_per_hour"] is None
    assert dangerous["calm_time_share"] is None
    assert dangerous["safe_episodes_with_alarm"]["value"] is None


def test_limits_are_multiples_of_what_each_model_found():
    """Two critics that rank alike, one ten times as high, have the same alarms."""
    low, high = [0.01, 0.03, 0.02, 0.0, 0.0], [0.1, 0.3, 0.2, 0.0, 0.0]
    both = replace(recordings(low, high), unit=np.repeat([0.02, 0.2], 5))
    levels = alarm_levels(both, TIME)
    np.testing.assert_allclose(levels.announcing, 1.5)
    assert at_limit(levels, 1.0)["announced"]["count"] == 2
    assert at_limit(levels, 1.6)["announced"]["count"] == 0


@given(
    episodes=strategies.lists(
        strategies.tuples(
            strategies.lists(strategies.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=1),
            strategies.booleans(),
        ),
        min_size=1,
        max_size=8,
    ),
    window=strategies.integers(1, 6),
)
def test_more_lead_and_higher_limits_never_announce_more(
    episodes: list[tuple[list[float], bool]], window: int
) -> None:
    safe = tuple(number for number, (_, violates) in enumerate(episodes) if not violates)
    judged = recordings(*(risks for risks, _ in episodes), safe=safe)
    table = np.zeros((window, 4), np.int64)
    for lead in range(1, window + 1):
        time = replace(TIME, lead=lead, window=window)
        levels = alarm_levels(judged, time)
        shares = [at_limit(levels, limit)["announced"]["value"] for limit in (0.1, 0.4, 0.6, 0.9)]
        if shares[0] is not None:
            assert shares == sorted(shares, reverse=True)
        counts = [at_limit(levels, limit)["announced"]["count"] for limit in (0.1, 0.4, 0.6, 0.9)]
        table[lead - 1] = counts
    assert (np.diff(table, axis=0) <= 0).all()
    # Shares too, among the violations that can be announced at every lead.
    lengths = np.bincount(judged.episode)[judged.episode]
    longest = judged.take(judged.ends_safely | (lengths > window))
    shares = [
        at_limit(alarm_levels(longest, replace(TIME, lead=lead, window=window)), 0.4)["announced"]
        for lead in range(1, window + 1)
    ]
    values = [share["value"] for share in shares]
    assert values == [None] * window or values == sorted(values, reverse=True)


def test_the_warning_window_by_hand():
    time = warning_time(0.9, 0.05)
    assert (time.lead, time.window, time.horizon) == (5, 20, pytest.approx(10.0))
    notes = time.notes()
    assert notes["lead_s"] == pytest.approx(0.25)
    assert notes["window_s"] == pytest.approx(1.0)
    # Seconds are rounded up to whole steps, and to one at least.
    assert warning_time(0.9, 0.1, 0.3).lead == 3
    assert warning_time(0.9, 0.1, 0.31).lead == 4
    assert warning_time(0.9, 0.1, 1e-6).lead == 1
    assert warning_time(0.1, 1.0).lead == 1
    assert warning_time(0.8, 1.0).lead == 3
    assert warning_time(0.9, 0.1, 2.0).lead == 20
    with pytest.raises(ConfigurationError, match="more than 20 steps before"):
        warning_time(0.9, 0.1, 2.1)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="seconds above 0"):
            warning_time(0.9, 0.1, wrong)


def test_a_risk_that_looks_too_short_ahead():
    assert short_sighted(TIME, None) == ["steps"]
    assert short_sighted(replace(TIME, lead=3, horizon=2.9), 2.9) == ["lead", "steps"]
    enough = replace(TIME, lead=3, horizon=3.0)
    assert short_sighted(enough, 3.0) == []
    # 3 steps of half a second, and the motion lasts for more than twice as long.
    assert short_sighted(enough, 3.1) == ["motion"]


def test_the_limit_for_a_target_by_hand():
    """Nine violations announced at .1 to .9; five choose, four try."""
    risks = [0.1 * number for number in range(1, 10)]
    judged = recordings(*[[0.0, 0.0, risk, 0.0, 0.0] for risk in risks])
    first, second = calibration_and_test(judged, TIME.lead)
    chosen_by = sorted(alarm_levels(first, TIME).announcing)
    tried_on = alarm_levels(second, TIME).announcing
    assert (len(chosen_by), len(tried_on)) == (5, 4)
    # One in six may be missed: the limit is just below the lowest of five.
    found = limit_for_target(judged, TIME, 1 / 6)
    assert found["limit"] == pytest.approx(chosen_by[0])
    assert found["limit"] < chosen_by[0]
    assert found["test"]["announced"]["count"] == (tried_on > chosen_by[0]).sum()
    # Two in six: just below the second.
    assert limit_for_target(judged, TIME, 1 / 3)["limit"] == pytest.approx(chosen_by[1])
    few = limit_for_target(judged, TIME, 0.1)
    assert few["limit"] is None
    assert (few["needed_violations"], few["calibration_violations"]) == (9, 5)


def test_perfect_and_useless_scores():
    rng = np.random.default_rng(0)
    violating = rng.random(400) < 0.3
    episode = np.arange(400)
    perfect = scores(predictions(violating, violating, episode), 0.8)
    assert perfect["auroc"]["value"] == 1.0
    assert perfect["brier"]["value"] == 0.0
    assert perfect["calibration_error"]["high"] == 0.0
    useless = scores(predictions(rng.random(400), violating, episode), 0.8)
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
    first, second = calibration_and_test(given, 0)
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
        sampling=replace(config.sampling, next_action="logged"),
        risk=replace(config.risk, gamma_risk=gamma),
    )


def test_held_out_episodes_from_end_to_end():
    data = logs.cart_fleet(tasks=1, episodes=24)
    config = tiny()
    prior = scratch_prior(config, data)
    report = evaluate_held_out(config, prior, data, 3, Question(target=0.5))
    before, warns = report["scores"], report["time_to_act"]
    assert before["violations"] == data.only_log().violations == warns["violations"]
    assert before["episodes"] == 24
    assert warns["limit"] == {"found": False, "value": 0.3, "of_models": None}
    assert warns["at_limit"]["limit"] == 0.3
    assert warns["lead_s"] == pytest.approx(3 * 0.05)
    assert warns["target"]["limit"] == warns["target"]["risk_limit"] is not None
    assert report["null"]["sound"]


def test_found_limits_are_those_of_each_model():
    """And the one that a user gets is that of `adapt` to the whole log."""
    data = logs.cart_fleet(tasks=1, episodes=40)
    config = with_names(tiny(), guard="takeover")
    config = replace(config, sampling=replace(config.sampling, safe_starts=True))
    prior = scratch_prior(config, data)
    report = evaluate_held_out(config, prior, data, 3, Question(target=0.5))
    warns = report["time_to_act"]
    limit, target = warns["limit"], warns["target"]
    only = replace(data, train=())
    (model,) = adapt([config], [prior], [only])
    assert model.limit is not None
    assert limit["found"]
    assert limit["value"] == pytest.approx(float(model.limit))
    assert len(set(limit["of_models"])) == 3
    assert warns["at_limit"]["limit"] == 1.0
    assert target["risk_limit"] == pytest.approx(target["limit"] * limit["value"])


def said(report: dict, capsys: pytest.CaptureFixture) -> list[str]:
    known = {"policy_of_risk": "logged", "seen_by_prior": False, "dt_declared": True}
    print_report({**known, **report})
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch):
    """Evaluates a risk that is written down in place of one that is learned."""

    def evaluate(risk_of_split, question: Question, gamma: float = 0.8, **changes) -> dict:
        changed = {
            "adapt_to": lambda c, p, splits, d: [risk_of_split] * len(splits),
            "adapt_to_noise": lambda c, p, splits, d: [coin] * len(splits),
            "asked_risk": lambda model, split, s: model(split),
            "limit_found": lambda m, c, split, s: 0.1 if c.guard == "takeover" else 1.0,
        }
        for name, function in changed.items():
            monkeypatch.setattr(log_evaluation, name, function)
        data = logs.cart_fleet(tasks=1, episodes=40)
        config = with_names(tiny(gamma), **changes)
        return evaluate_held_out(config, scratch_prior(tiny(), data), data, 4, question)

    return evaluate


def coin(split: Split) -> np.ndarray:
    """Knows nothing."""
    return np.random.default_rng(0).random(len(split.asked))


def hindsight(split: Split) -> np.ndarray:
    """Certain of the step that violates, and of nothing before it."""
    return split.log.columns["cost"][split.asked].astype(np.float64)


def foresight(split: Split, gamma: float = 0.8) -> np.ndarray:
    """gamma to the steps that are left."""
    columns = split.log.columns
    cost, ends, episode = (columns[name] for name in ("cost", "terminated", "episode"))
    return logged_outcomes(cost, ends, episode, gamma)["outcome"][split.asked]


def test_a_critic_that_is_right_too_late_is_warned_of(judge, capsys: pytest.CaptureFixture):
    report = judge(hindsight, Question(lead=0.15))
    lines = said(report, capsys)
    of = report["time_to_act"]["at_limit"]["announced"]["of"]
    assert of > 8
    assert lines[0] == (
        f"WARNING: a shield at this limit comes too late: 0 of {of} violations were announced at "
        "least 0.15 s before (limit 0.3)."
    )
    assert sum(line.startswith("WARNING") for line in lines) == 1
    assert [row["announced"]["value"] for row in report["time_to_act"]["limits"]] == [0.0] * 9


def test_what_is_printed(judge, capsys: pytest.CaptureFixture):
    report = judge(lambda split: foresight(split, 0.9), Question(target=0.3, lead=0.5), 0.9)
    lines = said(report, capsys)
    warns = report["time_to_act"]
    assert lines[0].startswith("Held-out episodes of 'new': ")
    assert "above the limit 0.5 s (10 steps) to 1 s (20 steps) before it" in lines[1]
    assert warns["unreachable"] > 0
    assert lines[2].startswith(f"{warns['unreachable']} of {warns['violations']} violations come")
    assert lines[3] == "The limit is that of the settings: 0.3."
    (used,) = [line for line in lines if line.startswith("0.3 used")]
    of = warns["at_limit"]["announced"]["of"]
    assert f"{of}/{of} = 1.000 [" in used
    assert "0 per hour     0.0%" in used
    chosen = next(line for line in lines if line.startswith("Risk limit for at most 30.0%"))
    # The lowest score of a violation with a whole window is gamma to the lead.
    assert f" {0.9**10:.4g}, chosen on {(of + 1) // 2} violations" in chosen
    assert "To use it: `safemesa adapt --guard-settings.risk-limit 0.3487`." in lines
    ranking = lines.index("Ranking and calibration; they say nothing about time to act:")
    assert "AUROC (violation in the next 10 steps)" in lines[ranking + 1]


def test_a_target_that_is_out_of_reach_says_what_it_needs(judge, capsys: pytest.CaptureFixture):
    lines = said(judge(foresight, Question(target=0.01)), capsys)
    (line,) = [line for line in lines if line.startswith("No limit can promise")]
    assert "at most 1.0% come unannounced: that needs 99 violations" in line
    assert line.endswith("The limit stays the one of the settings, 0.3.")
    lines = said(judge(foresight, Question(target=0.01), guard="takeover"), capsys)
    (line,) = [line for line in lines if line.startswith("No limit can promise")]
    assert line.endswith("The limit stays the one found from calm states, 0.1.")


def test_found_limits_are_printed_as_multiples(judge, capsys: pytest.CaptureFixture):
    question = Question(target=0.3, lead=0.15)
    lines = said(judge(foresight, question, guard="takeover"), capsys)
    assert lines[2] == (
        "The limit is found from calm states, for each adapted model anew: 0.1 to 0.1 in 4 models; "
        "`adapt` to the whole log finds 0.1. Limits below are multiples of the found one."
    )
    assert any(line.startswith("1 x found") for line in lines)
    assert any("unannounced: 0.512 (5.12 x the found one), chosen on" in line for line in lines)


@pytest.mark.parametrize(
    ("gamma", "lead", "words"),
    [
        (0.8, 0.4, "the risk looks 0.25 s ahead (5 steps), which is less than the lead of 0.4 s"),
        (0.5, 0.1, "the risk looks 0.1 s ahead (2 steps): in so few steps hardly anything can"),
        (0.8, None, "no --lead was given, so it is half of what this risk looks ahead, 0.15 s"),
    ],
)
def test_a_horizon_that_is_too_short_is_warned_of(
    judge, capsys: pytest.CaptureFixture, gamma: float, lead: float | None, words: str
):
    """The cart's motion lasts for a second."""
    report = judge(foresight, Question(lead=lead), gamma)
    assert any(line.startswith("WARNING: " + words) for line in said(report, capsys))
    assert len(report["time_to_act"]["short_sighted"]) == 1


def test_a_limit_that_flags_everything_is_useless(judge, capsys: pytest.CaptureFixture):
    lines = said(judge(lambda split: np.full(len(split.asked), 0.9), Question()), capsys)
    assert any(
        line.startswith("WARNING: a shield at this limit is useless: 100% of calm time is flagged")
        for line in lines
    )


def test_evaluate_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    data = logs.cart_fleet(tasks=1, episodes=24)
    config = tiny()
    save_artefact(tmp_path / "prior", scratch_prior(config, data), config, data.spaces, {})
    data.save(tmp_path / "log")
    places = ["evaluate", str(tmp_path / "prior"), str(tmp_path / "log")]
    out = ["--out", str(tmp_path / "evaluation.json")]
    assert main([*places, "--folds", "3", "--lead", "0.1", "--target-miss-rate", "0.5", *out]) == 0
    assert "0.1 s (2 steps) to 0.5 s (10 steps) before it" in capsys.readouterr().out
    report = json.loads((tmp_path / "evaluation.json").read_text())
    warns = report["time_to_act"]
    assert warns["lead_steps"] == 2
    assert len(warns["limits"]) == 9
    assert report["scores"]["auroc"]["value"] is not None
    for wrong, words in (
        (["--lead", "0"], "expected seconds above 0"),
        (["--lead", "0.6"], "more than 10 steps before"),
        (["--target-miss-rate", "1"], "between 0 and 1"),
    ):
        assert main([*places, *wrong]) == 2
        assert words in " ".join(capsys.readouterr().err.split())


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
    report = evaluate_left_out(config, data, names, 300, Question(target=0.2), told.append)
    assert [one["task"] for one in report["tasks"]] == names
    assert report["time_to_act"]["at_limit"]["announced"]["of"] > 20
    assert len(told) == 3
    assert report["scores"]["auroc"]["low"] > 0.7
    assert report["scores"]["brier"]["value"] < report["scores"]["base_rate_brier"]
    assert report["null"]["sound"]
