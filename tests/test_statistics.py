"""Statistics against brute force, and the laws that they obey."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.statistics import across_seeds as statistics
from safemesa.experiments.statistics.across_seeds import (
    binomial_interval,
    bootstrap_interval,
    interquartile_mean,
    mean,
    paired_difference,
    probability_of_improvement,
    sign_flip_test,
    standard_error,
    summarise_metric,
)

numbers = st.floats(-1e3, 1e3, allow_nan=False)
samples = st.lists(numbers, min_size=1, max_size=12)


@given(samples)
def test_the_interquartile_mean_is_the_middle_half_of_each_value_taken_four_times(values):
    # Four copies make n/4 whole, and change no quartile.
    copies = np.sort(np.repeat(values, 4))
    middle = copies[len(values) : 3 * len(values)]
    assert float(interquartile_mean(np.asarray(values))) == pytest.approx(middle.mean(), abs=1e-9)


def test_the_interquartile_mean_weighs_the_values_at_the_quartiles():
    assert float(interquartile_mean(np.array([4.0]))) == 4.0
    assert float(interquartile_mean(np.array([1.0, 3.0]))) == 2.0
    # Of three values 1.5 are inside: all of the middle, a quarter of both others.
    assert float(interquartile_mean(np.array([10.0, 0.0, 2.0]))) == pytest.approx(4.5 / 1.5)
    # Where n/4 is whole, the trimmed mean; outliers do not move it.
    assert float(interquartile_mean(np.array([1e9, 1.0, 2.0, -1e9]))) == 1.5


def test_statistics_reduce_the_last_axis():
    table = np.random.default_rng(0).normal(size=(5, 7))
    for statistic in (mean, interquartile_mean):
        rows = [float(statistic(row)) for row in table]
        np.testing.assert_allclose(statistic(table), rows)


def test_the_standard_error_is_the_textbook_one():
    values = [1.0, 4.0, 4.0, 7.0]
    variance = sum((value - 4.0) ** 2 for value in values) / 3
    assert standard_error(values) == pytest.approx(math.sqrt(variance / 4))
    assert standard_error([3.0]) is None


def test_the_bootstrap_interval_is_that_of_all_resamples():
    values = [0.0, 1.0, 5.0, 6.0]
    every = np.sort([np.mean(draw) for draw in itertools.product(values, repeat=4)])
    found = bootstrap_interval(values)
    assert found is not None
    for end, level in zip(found, (0.025, 0.975), strict=True):
        # A quantile of a discrete distribution: its neighbours enclose what chance may give.
        near = np.quantile(every, [level - 0.006, level + 0.006], method="nearest")
        assert near[0] - 1e-9 <= end <= near[1] + 1e-9


@given(st.lists(numbers, min_size=3, max_size=8), st.floats(0.1, 10.0), numbers)
def test_intervals_move_and_stretch_with_their_values(values, scale, shift):
    kept = bootstrap_interval(values, interquartile_mean, resamples=200)
    moved = bootstrap_interval(
        scale * np.asarray(values) + shift, interquartile_mean, resamples=200
    )
    assert kept is not None
    assert moved == pytest.approx(tuple(scale * end + shift for end in kept), abs=1e-6)


@pytest.mark.parametrize("count", [5, 10])
def test_intervals_cover_what_their_docstring_says(count):
    rng = np.random.default_rng(0)
    intervals = [
        bootstrap_interval(rng.normal(size=count), resamples=400, seed=one) or (0.0, 0.0)
        for one in range(400)
    ]
    covered = np.mean([low <= 0.0 <= high for low, high in intervals])
    assert covered == pytest.approx({5: 0.8, 10: 0.9}[count], abs=0.05)


def test_resampling_repeats_and_leaves_the_global_generator_alone():
    before = repr(np.random.get_state())  # noqa: NPY002 - that it is not used is the point
    first = bootstrap_interval([1.0, 2.0, 4.0], seed=3)
    assert first == bootstrap_interval([1.0, 2.0, 4.0], seed=3)
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_few_values_have_no_interval():
    one, two, three = (summarise_metric(range(1, n + 1)) for n in (1, 2, 3))
    assert (one.n, one.mean, one.iqm, one.standard_error) == (1, 1.0, 1.0, None)
    assert (two.mean, two.iqm, two.standard_error) == (1.5, 1.5, 0.5)
    for summary in (one, two):
        assert summary.low is summary.high is summary.iqm_low is summary.iqm_high is None
    assert three.low is not None
    assert three.high is not None
    assert three.low < three.mean < three.high


def test_equal_values_have_an_interval_without_width():
    summary = summarise_metric([2.0] * 5)
    assert (summary.standard_error, summary.low, summary.high) == (0.0, 2.0, 2.0)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=9))
def test_exchanging_arms_mirrors_the_difference(pairs):
    a, b = (np.asarray(side) for side in zip(*pairs, strict=True))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.mean == pytest.approx(-back.mean, abs=1e-9)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.below + there.equal + back.below == len(pairs)
    if there.low is not None and back.high is not None:
        assert there.low == pytest.approx(-back.high, abs=1e-6)


def test_pairing_takes_the_spread_between_seeds_out():
    seeds = np.random.default_rng(0).normal(0.0, 100.0, 8)
    difference = paired_difference(seeds - 1.0, seeds)
    assert difference.mean == pytest.approx(-1.0)
    assert difference.low == pytest.approx(-1.0)
    assert difference.below == 8
    assert difference.resolved


def test_what_cannot_be_paired_or_summarised_is_refused():
    with pytest.raises(ConfigurationError, match="2 and 1 values cannot be paired"):
        paired_difference([1.0, 2.0], [1.0])
    for values in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(ConfigurationError, match="cannot summarise"):
            summarise_metric(values)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=7))
def test_the_sign_flip_test_counts_all_assignments(values):
    observed = abs(sum(values))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    assert sign_flip_test(values) == pytest.approx(np.mean([one >= observed for one in sums]))


def test_the_sign_flip_test_of_many_pairs_approaches_the_exact_one(monkeypatch):
    values = np.random.default_rng(0).normal(0.5, 1.0, 12)
    exact = sign_flip_test(values)
    monkeypatch.setattr(statistics, "EXACT_PAIRS", 3)
    assert sign_flip_test(values) == pytest.approx(exact, abs=0.01)
    assert sign_flip_test(np.ones(40)) > 0.0


def test_no_difference_is_resolved_with_five_pairs():
    assert not paired_difference([0.0] * 5, [9.0] * 5).resolved
    assert paired_difference([0.0] * 6, [9.0] * 6).resolved


@given(samples, samples)
def test_the_probability_of_improvement_counts_pairs(a, b):
    wins = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    above = probability_of_improvement(a, b)
    assert above == pytest.approx(np.mean(wins))
    assert above + probability_of_improvement(a, b, lower_is_better=True) == pytest.approx(1.0)


@given(st.integers(1, 60), st.data())
def test_the_ends_of_wilsons_interval_are_one_z_away(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = binomial_interval(successes, trials)
    share = successes / trials
    assert 0.0 <= low <= share <= high <= 1.0
    for end in (low, high):
        if 0.0 < end < 1.0:
            z = abs(share - end) / math.sqrt(end * (1.0 - end) / trials)
            assert z == pytest.approx(1.959964, abs=1e-5)
    mirrored = binomial_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1.0 - high, 1.0 - low))


def test_wilsons_interval_covers_as_it_should():
    trials, probability = 20, 0.3
    covered = sum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(trials + 1)
        if binomial_interval(k, trials)[0] <= probability <= binomial_interval(k, trials)[1]
    )
    assert covered == pytest.approx(0.95, abs=0.03)


def test_impossible_counts_are_refused():
    assert binomial_interval(0, 0) == (0.0, 1.0)
    for successes, trials in ((3, 2), (-1, 2)):
        with pytest.raises(ConfigurationError, match="expected 0 <= successes <= trials"):
            binomial_interval(successes, trials)
