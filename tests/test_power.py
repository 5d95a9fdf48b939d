"""Power of paired comparisons and statistics over domains, against brute force."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from test_paper_claims import write_run

from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError
from safemesa.experiments.report.seed_power import (
    paired_power,
    power_rows,
    required_pairs,
    scale_quantile,
    t_limit,
)
from safemesa.experiments.runs.run_records import find_runs
from safemesa.experiments.statistics.across_domains import (
    improvement_interval,
    mean_of_strata,
    performance_profile,
    stratified_interval,
)
from safemesa.experiments.statistics.across_seeds import (
    bootstrap_interval,
    holm,
    probability_of_improvement,
)

NAVIGATION = Path(__file__).resolve().parents[1] / "results" / "navigation"


@pytest.mark.parametrize(
    ("freedom", "limit"), [(1, 12.7062), (2, 4.30265), (9, 2.26216), (54, 2.00488), (999, 1.96234)]
)
def test_limits_are_those_of_printed_tables(freedom: int, limit: float) -> None:
    assert t_limit(freedom) == pytest.approx(limit, abs=2e-5 * limit)


@pytest.mark.parametrize(
    ("probability", "freedom", "chi_squared"),
    [(0.05, 2, 0.102587), (0.95, 2, 5.991465), (0.95, 1, 3.841459), (0.05, 30, 18.492661)],
)
def test_quantiles_are_those_of_printed_tables(
    probability: float, freedom: int, chi_squared: float
) -> None:
    expected = math.sqrt(chi_squared / freedom)
    assert scale_quantile(probability, freedom) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("effect", "pairs"), [(0.0, 5), (1.5, 2), (0.8, 6), (0.5, 20), (-0.3, 60)])
def test_power_is_how_often_the_test_finds_the_effect(effect: float, pairs: int) -> None:
    rng, trials = np.random.default_rng(pairs), 40_000
    differences = rng.normal(effect, 1.0, (trials, pairs))
    error = differences.std(axis=1, ddof=1) / math.sqrt(pairs)
    found = np.abs(differences.mean(axis=1) / error) > t_limit(pairs - 1)
    spread = math.sqrt(0.25 / trials)
    assert paired_power(effect, pairs) == pytest.approx(np.mean(found), abs=4.0 * spread)


@pytest.mark.parametrize("effect", [0.05, 0.2, 0.385, 0.8, 1.3, 2.0, 4.0])
def test_no_fewer_pairs_would_do(effect: float) -> None:
    pairs = required_pairs(effect)
    assert pairs is not None
    assert paired_power(effect, pairs) >= 0.8
    assert pairs == 2 or paired_power(effect, pairs - 1) < 0.8


def test_as_many_pairs_as_are_ever_named_can_be_needed() -> None:
    pairs = required_pairs(0.003616)
    assert pairs is not None
    assert 2**19 < pairs < 1_000_000


def test_no_number_of_pairs_is_named_with_which_the_tables_find_nothing(tmp_path: Path) -> None:
    """A gap of six spreads: a t-test of two pairs would find it."""
    for seed, (ours, theirs) in enumerate([(50, 80), (51, 80), (49, 80)]):
        write_run(tmp_path, "mesa", "navigation1", seed, violations=ours)
        write_run(tmp_path, "multitask", "navigation1", seed, violations=theirs)
    (row,) = power_rows(find_runs([tmp_path]))
    assert (row.power, row.needed, row.fewest) == (0.0, 6, 6)


def test_a_spread_of_two_thirds_of_the_mean_needs_about_55_pairs() -> None:
    """The figure of the measurements on Navigation 1: a gap of 25 % where the spread is 65 %."""
    assert required_pairs(0.25 / 0.65) == 56
    assert required_pairs(0.0) is None
    assert required_pairs(1e-4) is None


def test_committed_runs_have_a_power_analysis() -> None:
    runs = find_runs([NAVIGATION])
    rows = power_rows(runs)
    row = next(row for row in rows if (row.pair.domain, row.pair.arm) == ("navigation1", "mesa"))
    violations = {
        arm: [
            run.summary["violations"]
            for run in runs
            if (run.domain, run.arm) == ("navigation1", arm)
        ]
        for arm in ("mesa", "multitask")
    }
    differences = np.subtract(violations["mesa"], violations["multitask"])
    assert row.spread == pytest.approx(np.std(differences, ddof=1))
    assert row.baseline_mean == pytest.approx(np.mean(violations["multitask"]))
    assert row.gap == pytest.approx(0.25 * row.baseline_mean)
    assert row.needed == required_pairs(row.gap / row.spread)
    assert row.fewest is not None
    assert row.fewest < row.needed < (row.most or math.inf)
    # Nothing can be said of a single pair, nor of a share of nothing.
    assert all(row.needed is None for row in rows if row.pair.difference.n == 1)
    assert all(row.needed is None for row in rows if row.baseline_mean == 0.0)


def test_the_range_comes_from_an_interval_of_the_spread() -> None:
    """Nine in ten samples of five have the true spread, 1, between these ends."""
    rng, count = np.random.default_rng(0), 5
    samples = rng.normal(0.0, 1.0, (20_000, count)).std(axis=1, ddof=1)
    low, high = (samples / scale_quantile(one, count - 1) for one in (0.95, 0.05))
    assert np.mean((low < 1.0) & (high > 1.0)) == pytest.approx(0.9, abs=0.01)


def test_the_verb_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", str(NAVIGATION), "--gap", "0.5"]) == 0
    text = capsys.readouterr().out
    assert "MESA - Multi-Task" in text
    assert "a gap of 50 % of Multi-Task's violations" in text
    assert main(["power", str(NAVIGATION), "--gap", "0"]) == 2
    assert main(["power", str(NAVIGATION), "--baseline", "nobody"]) == 2
    assert "no runs share a seed with nobody" in capsys.readouterr().err


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls when every intersection that holds it falls by Bonferroni's test."""
    count = len(p_values)
    subsets = [
        subset
        for size in range(1, count + 1)
        for subset in itertools.combinations(range(count), size)
    ]
    for index, adjusted in enumerate(holm(p_values)):
        worst = max(
            min(1.0, len(subset) * min(p_values[one] for one in subset))
            for subset in subsets
            if index in subset
        )
        assert adjusted == pytest.approx(worst)


strata = st.dictionaries(
    st.sampled_from("abc"), st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1
)


@given(strata)
def test_profiles_count(values: dict[str, list[int]]) -> None:
    thresholds = [-1.0, 2.0, 4.5, 9.0]
    profile = performance_profile(values, thresholds, resamples=50)
    for threshold, share in zip(thresholds, profile.share, strict=True):
        shares = [sum(one > threshold for one in runs) / len(runs) for runs in values.values()]
        assert share == pytest.approx(sum(shares) / len(shares))
    assert (profile.low is None) == (min(map(len, values.values())) < 3)
    if profile.low is not None and profile.high is not None:
        assert (profile.low <= profile.share + 1e-9).all()
        assert (profile.share <= profile.high + 1e-9).all()


def test_stratified_resampling_keeps_the_spread_between_domains_out() -> None:
    rng = np.random.default_rng(0)
    values = {"easy": rng.normal(0.0, 1.0, 8), "hard": rng.normal(100.0, 1.0, 8)}
    interval, pooled = (
        stratified_interval(values),
        bootstrap_interval(np.concatenate(list(values.values()))),
    )
    assert interval is not None
    assert pooled is not None
    assert interval[1] - interval[0] < 1.5 < 20.0 < pooled[1] - pooled[0]
    assert stratified_interval({"one": values["easy"]}) == bootstrap_interval(values["easy"])
    assert stratified_interval({**values, "short": [1.0, 2.0]}) is None


def test_a_stratified_interval_is_that_of_all_resamples() -> None:
    values = {"a": [0.0, 1.0, 5.0], "b": [2.0, 2.5, 9.0]}
    draws = [
        [np.mean(one) for one in itertools.product(runs, repeat=3)] for runs in values.values()
    ]
    exact = np.quantile([0.5 * (x + y) for x, y in itertools.product(*draws)], [0.025, 0.975])
    assert stratified_interval(values, mean_of_strata) == pytest.approx(exact, abs=0.15)


def test_improvement_over_domains() -> None:
    a, b = {"x": [1, 2, 3], "y": [5, 5, 5]}, {"x": [2, 3, 4], "y": [1, 5, 9]}
    share, interval = improvement_interval(a, b, lower_is_better=True)
    per_domain = [
        probability_of_improvement(a[name], b[name], lower_is_better=True) for name in ("x", "y")
    ]
    assert share == pytest.approx(np.mean(per_domain))
    assert interval is not None
    assert interval[0] < share < interval[1]
    back, _ = improvement_interval(b, a, lower_is_better=True)
    assert share + back == pytest.approx(1.0)


def test_what_cannot_be_aggregated_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="finite numbers"):
        stratified_interval({"a": [1.0, math.nan]})
    with pytest.raises(ConfigurationError, match="finite numbers"):
        stratified_interval({})
    with pytest.raises(ConfigurationError, match="ascend"):
        performance_profile({"a": [1.0]}, [1.0, 1.0])
    with pytest.raises(ConfigurationError, match="cannot compare domains"):
        improvement_interval({"a": [1.0]}, {"b": [1.0]})


def test_rows_without_pairs_are_refused() -> None:
    records = [one for one in find_runs([NAVIGATION]) if one.arm == "mesa"]
    with pytest.raises(ConfigurationError, match="nothing can be paired"):
        power_rows([replace(one) for one in records])
