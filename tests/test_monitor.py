"""The monitor's statistics, against closed forms and simulation."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.learners.monitor.detectors import (
    CUSUM,
    EWMA,
    SingleRow,
    WindowedZ,
    excursions,
    first_alarm,
)
from safemesa.learners.monitor.surprise import fit_healthy_scale, surprise
from safemesa.learners.monitor.threshold import extrapolate_threshold, find_threshold


def gaussian_run_length(
    reference: float, threshold: float, shift: float = 0.0, states: int = 400
) -> float:
    """Average number of rows until CUSUM exceeds a threshold, from 0, for independent scores.

    By the Markov chain of Brook and Evans (Biometrika 1972): the statistic is one of `states`
    levels. Real scores are not independent, so thresholds come from logs.

    Args:
        reference: k.
        threshold: h.
        shift: Mean of the scores, whose standard deviation is 1.
        states: Levels; the error falls with their square.
    """
    width = 2.0 * threshold / (2 * states - 1)
    normal = NormalDist(shift - reference, 1.0)
    # Probability that a step from one level leads at most to the upper edge of another.
    edges = [normal.cdf((step + 0.5) * width) for step in range(-states, states)]
    cumulative = np.array(
        [[edges[states + to - level] for to in range(states)] for level in range(states)]
    )
    move = np.diff(cumulative, axis=1, prepend=0.0)
    return float(np.linalg.solve(np.eye(states) - move, np.ones(states))[0])


@pytest.mark.parametrize(
    ("threshold", "shift", "length"),
    [(4.0, 0.0, 168.0), (5.0, 0.0, 465.0), (4.0, 1.0, 8.38), (5.0, 1.0, 10.4), (5.0, 0.5, 38.0)],
)
def test_average_run_lengths_are_the_published_ones(
    threshold: float, shift: float, length: float
) -> None:
    """Of two CUSUMs, one for each direction, with k = 1/2 (Montgomery, Introduction to Statistical
    Quality Control, 9.1); their rates of alarms add up."""
    up, down = (gaussian_run_length(0.5, threshold, one) for one in (shift, -shift))
    assert 1.0 / (1.0 / up + 1.0 / down) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_average_run_length_is_that_of_the_detector(shift: float) -> None:
    """Of 400 simulated robots; five standard errors of a nearly exponential mean are 25 %."""
    threshold, rng, lengths = 3.0, np.random.default_rng(0), []
    expected = gaussian_run_length(0.5, threshold, shift)
    for _ in range(400):
        found = first_alarm(
            CUSUM().statistic(rng.normal(shift, size=round(20 * expected))), threshold
        )
        assert found is not None
        lengths.append(found + 1)
    assert np.mean(lengths) == pytest.approx(expected, rel=5 / np.sqrt(400))


def test_cusum_is_its_recursion() -> None:
    scores, total, expected = np.random.default_rng(1).normal(0.3, size=500), 0.0, []
    for score in scores:
        total = max(0.0, total + score - 0.4)
        expected.append(total)
    found = CUSUM(reference=0.4).statistic(scores)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.array_equal(found == 0.0, np.array(expected) == 0.0)  # excursions end at just 0


@pytest.mark.parametrize("detector", [WindowedZ(window=9), EWMA(rate=0.2), SingleRow()])
def test_plain_statistics_of_healthy_scores_have_unit_variance(detector: Any) -> None:
    found = detector.statistic(np.random.default_rng(2).normal(size=200_000))
    assert np.std(found[100:]) == pytest.approx(1.0, rel=0.02)
    assert np.mean(found) == pytest.approx(0.0, abs=0.02)


def test_statistics_have_known_answers() -> None:
    ones = np.array([1.0, 1.0, 1.0, 1.0])
    window = WindowedZ(window=2).statistic(ones)
    np.testing.assert_allclose(window, np.array([1, 2, 2, 2]) / np.sqrt(2))
    mean = EWMA(rate=0.5).statistic(ones)
    np.testing.assert_allclose(mean, np.array([0.5, 0.75, 0.875, 0.9375]) * np.sqrt(3))
    for detector in (CUSUM(), WindowedZ(), EWMA()):
        whole = np.random.default_rng(3).normal(size=60)
        # What is known after a row does not depend on later rows.
        np.testing.assert_allclose(
            detector.statistic(whole)[:30], detector.statistic(whole[:30]), atol=1e-12
        )


def test_excursions_end_where_the_statistic_is_back() -> None:
    found = excursions(np.array([0.0, 1.0, 3.0, 0.0, -1.0, 2.0, 0.0, 0.0, 5.0]))
    assert found.first.tolist() == [1, 5, 8]
    assert found.peak.tolist() == [3.0, 2.0, 5.0]
    assert len(excursions(np.zeros(4)).first) == 0
    assert first_alarm(np.array([0.0, 2.0, 3.0]), 2.0) == 2
    assert first_alarm(np.zeros(3), 0.0) is None


def test_surprise_of_a_mixture() -> None:
    mean = np.array([[[0.0, 1.0]], [[2.0, 1.0]]])
    log_variance = np.log(np.array([[[1.0, 4.0]], [[3.0, 4.0]]]))
    # Variances 2 + 1 and 4 + 0; residuals 3 - 1 and 1 - 1.
    found = surprise(mean, log_variance, np.array([[3.0, 1.0]]))
    np.testing.assert_allclose(found, [0.5 * (4.0 / 3.0 + 0.0)])
    with pytest.raises(DatasetError, match="target of the predictions is not finite in 1 places"):
        surprise(mean, log_variance, np.array([[np.nan, 1.0]]))
    alone = np.zeros((1, 2, 1))
    with pytest.raises(DatasetError, match="variance of the predictions is 0 in 2 places"):
        surprise(alone, alone - 1_000.0, np.array([[0.0], [1.0]]))


def test_scores_of_healthy_rows_are_standard_normal_whatever_they_were() -> None:
    rng = np.random.default_rng(4)
    scale = fit_healthy_scale(rng.pareto(1.5, size=50_000))
    fresh = scale(rng.pareto(1.5, size=50_000))
    assert np.mean(fresh) == pytest.approx(0.0, abs=0.02)
    assert np.std(fresh) == pytest.approx(1.0, abs=0.02)
    for quantile, score in ((0.05, -1.645), (0.5, 0.0), (0.999, 3.09)):
        assert np.quantile(fresh, quantile) == pytest.approx(score, abs=0.12)
    assert scale(np.array([1e300]))[0] == scale.scores[-1] < 4.5  # one row is worth so much
    with pytest.raises(DatasetError, match="1 surprises are NaN"):
        scale(np.array([np.nan, 1.0]))


def test_equal_surprises_do_not_shift_the_scores() -> None:
    """A robot that stands still a third of the time; its scores add up to nothing all the same."""
    rng = np.random.default_rng(4)
    surprises = np.where(rng.random(20_000) < 0.3, 0.0, rng.exponential(size=20_000))
    assert np.mean(fit_healthy_scale(surprises)(surprises)) == pytest.approx(0.0, abs=0.01)
    assert fit_healthy_scale(np.ones(200))(np.ones(1))[0] == pytest.approx(0.0, abs=1e-12)


def healthy(rng: np.random.Generator, episodes: int, length: int = 50) -> np.ndarray:
    """Scores that depend on those before, and on their episode."""
    noise = rng.normal(size=(episodes, length))
    scores = np.empty_like(noise)
    scores[:, 0] = noise[:, 0]
    for step in range(1, length):
        scores[:, step] = 0.6 * scores[:, step - 1] + 0.8 * noise[:, step]
    return (scores + 0.3 * rng.normal(size=(episodes, 1))).ravel()


@pytest.mark.parametrize(
    "detector",
    [
        CUSUM(),
        pytest.param(WindowedZ(), marks=pytest.mark.slow),
        pytest.param(EWMA(), marks=pytest.mark.slow),
    ],
)
def test_thresholds_hold_on_fresh_healthy_logs(detector: Any) -> None:
    """The interval is for 95 % of fresh logs; 18 or fewer of 24 are improbable (p < 0.002)."""
    rng, episodes, rate, inside, rates = np.random.default_rng(5), 300, 1 / 500, 0, []
    number = np.repeat(np.arange(episodes), 50)
    for _ in range(24):
        found = find_threshold(detector.statistic(healthy(rng, episodes)), number, rate, rng)
        assert found.rate <= rate
        fresh = excursions(detector.statistic(healthy(rng, episodes))).peak
        rates.append(np.sum(fresh > found.value) / len(number))
        inside += found.low <= rates[-1] <= found.high
    assert inside > 18
    assert np.mean(rates) == pytest.approx(rate, rel=0.15)


def test_a_threshold_is_the_least_that_keeps_the_rate() -> None:
    peaks = np.arange(1.0, 41.0)
    statistic = np.stack([np.zeros(40), peaks], axis=1).ravel()  # 40 excursions in 80 rows
    found = find_threshold(statistic, np.repeat(np.arange(8), 10), 0.125, np.random.default_rng(0))
    assert found.value == 30.0  # ten of 80 rows: 31 to 40
    assert found.rate == 0.125
    assert (found.rows, found.episodes) == (80, 8)


def test_rates_that_a_log_cannot_show_are_refused() -> None:
    statistic, number, rng = np.ones(1_000), np.zeros(1_000, int), np.random.default_rng(0)
    with pytest.raises(DatasetError, match="Record 100000 rows"):
        find_threshold(statistic, number, 1e-4, rng)
    with pytest.raises(DatasetError, match="Record 3334 rows"):
        find_threshold(np.ones(3_333), np.zeros(3_333, int), 0.003, rng)
    find_threshold(np.ones(3_334), np.zeros(3_334, int), 0.003, rng)  # as it was told
    with pytest.raises(DatasetError, match="not finite"):
        find_threshold(np.full(1_000, np.nan), number, 0.1, rng)
    with pytest.raises(DatasetError, match="at least 100 finite surprises"):
        fit_healthy_scale(np.ones(99))
    for make in (lambda: CUSUM(reference=0.0), lambda: WindowedZ(window=0), lambda: EWMA(rate=2.0)):
        with pytest.raises(ConfigurationError, match="expected"):
            make()


def test_an_extrapolated_threshold_is_that_of_the_theory() -> None:
    """Of independent normal scores the average run length is known; the logs are a hundredth."""
    rng, rate = np.random.default_rng(6), 2e-6
    logs = [CUSUM().statistic(rng.normal(size=2_000)) for _ in range(20)]
    found = extrapolate_threshold(logs, rate, rng)
    assert rate * sum(map(len, logs)) < 0.1  # nothing of it can be counted
    length = gaussian_run_length(0.5, found.value)
    assert 0.2 / rate < length < 5.0 / rate
    assert found.low < 1.0 / length < found.high
    assert (found.rate, found.rows, found.episodes) == (rate, 40_000, 20)
    higher = extrapolate_threshold(logs, 100 * rate, rng)
    # For normal scores with k = 1/2 the tail is exp(-h).
    assert found.value - higher.value == pytest.approx(np.log(100), rel=0.3)


def test_robots_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    alike = [CUSUM().statistic(rng.normal(size=4_000)) for _ in range(10)]
    restless = [CUSUM().statistic(1.5 * rng.normal(size=4_000)) for _ in range(2)]
    narrow, wide = (
        extrapolate_threshold(logs, 1e-4, np.random.default_rng(0))
        for logs in (alike, [*alike[2:], *restless])
    )
    assert wide.high / wide.low > 2.0 * narrow.high / narrow.low


def test_tails_that_cannot_be_told_are_refused() -> None:
    rng = np.random.default_rng(8)
    logs = [CUSUM().statistic(rng.normal(size=2_000)) for _ in range(4)]
    with pytest.raises(DatasetError, match="at least 2 healthy logs"):
        extrapolate_threshold(logs[:1], 1e-4, rng)
    with pytest.raises(DatasetError, match="at least 2 healthy logs"):
        extrapolate_threshold([*logs, np.full(9, np.nan)], 1e-4, rng)
    with pytest.raises(DatasetError, match="Record longer logs, or allow more"):
        extrapolate_threshold(logs, 1e-9, rng)
    with pytest.raises(DatasetError, match="show no tail"):
        extrapolate_threshold([one[:40] for one in logs], 1e-3, rng)
