"""Runs become tables, figures and one page that needs nothing but itself."""

import json
import re
import shutil
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config

from safemesa.core.errors import CheckpointError, ConfigurationError, DatasetError
from safemesa.experiments.measures.calibrate_runs import runs_with_critics
from safemesa.experiments.measures.planes import plane
from safemesa.experiments.measures.risk_calibration import CalibrationResult
from safemesa.experiments.measures.run_contents import (
    adaptation_models,
    episodes,
    risk_maps,
    typical_episodes,
)
from safemesa.experiments.report.calibration_figures import calibration_figure, reliability
from safemesa.experiments.report.overall_rows import overall_rows, violation_profiles
from safemesa.experiments.report.report_page import write_report
from safemesa.experiments.report.result_figures import (
    arm_colours,
    group_styles,
    mean_curve,
    png,
    smooth,
    step_limits,
)
from safemesa.experiments.report.result_files import (
    find_runs,
    group_runs,
    paired_rows,
    results_table,
    scan_runs,
    write_results,
)
from safemesa.experiments.report.result_tables import (
    format_number,
    overall_as_table,
    pairs_as_table,
    results_as_table,
    verdict,
)
from safemesa.experiments.statistics.across_seeds import paired_difference, summarise_metric
from safemesa.phases.collection.logs import FewViolationsWarning
from safemesa.phases.config import fitted
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import load_risk_model

VOID = {"meta", "img", "br", "hr", "link", "input"}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real runs, tiny ones: four arms, of which one has two seeds."""
    root = tmp_path_factory.mktemp("report") / "runs"
    options = RunOptions(data_dir=root.parent / "data", command="safemesa run ... --out <folder>")
    arms = [("mesa", 7), ("multitask", 7), ("multitask", 8), ("rrl", 7), ("unconstrained", 7)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewViolationsWarning)
        for arm, seed in arms:
            config = tiny_config(arm, seed=seed)
            config = replace(
                config,
                adapt=replace(config.adapt, scratch_steps=120),
                # What takes long to compile and a report does not see: Phase 3 learns nothing.
                meta=fitted(type(config.meta), config.meta, {"first_order": True}),
                sac=replace(config.sac, warmup_steps=10**6),
            )
            run([config], [root / f"{arm}-{seed}"], options)
    return root


@pytest.fixture(scope="session")
def report(runs: Path) -> Path:
    return write_report([runs], runs.parent / "out", "safemesa report <runs>")


def made_up(
    folder: Path, arm: str = "mesa", seed: int = 0, violations: int = 3, **settings
) -> Path:
    """A run folder with numbers only."""
    config = {"arm": arm, "domain": "navigation2", "preset": "quick", "seed": seed}
    config |= {"meta_learner": "maml", "guard": "none", "adapt": {"steps": 100}} | settings
    summary = {
        "episodes": 10,
        "env_steps": 500 + seed,
        "violations": violations,
        "violations_under_recovery": 1,
        "successes": 4,
        "return_mean": -12.5,
        "return_last_100": -12.5,
        "interventions": 9,
        "wall_s": {"collect": 0.5, "meta_train": 1.0, "adapt": 0.25, "deploy": 2.0},
    }
    folder.mkdir(parents=True)
    record = {"config": config, "command": f"safemesa run {arm}", "versions": {"python": "3.11"}}
    (folder / "config.json").write_text(json.dumps(record | {"git_commit": "abc"}))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


class Page(HTMLParser):
    """Checks that tags nest; collects text, links, sources and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open) and "small" not in self.open:
            self.rows[-1][-1] += data


# Finding and grouping runs


def test_runs_are_found_at_any_depth_and_once(tmp_path):
    made_up(tmp_path / "a" / "deep" / "one", seed=1)
    made_up(tmp_path / "two", arm="multitask", seed=0)
    found = find_runs([tmp_path, tmp_path / "a"])
    assert [(one.arm, one.seed) for one in found] == [("mesa", 1), ("multitask", 0)]
    assert found[0].name == f"{tmp_path.name}/a/deep/one"


def test_what_is_not_used_is_named(tmp_path):
    made_up(tmp_path / "good")
    (made_up(tmp_path / "stopped", seed=1) / "summary.json").unlink()
    (made_up(tmp_path / "broken", seed=2) / "summary.json").write_text("{}")
    made_up(tmp_path / "twin")
    (made_up(tmp_path / "stranger", seed=3) / "config.json").write_text('{"config": {}}')
    scan = scan_runs([tmp_path])
    assert len(scan.runs) == 1
    reasons = {one.path.name: one.reason for one in scan.set_aside}
    assert sorted(reasons) == ["broken", "stopped", "stranger", "twin"]
    assert "unfinished" in reasons["stopped"]
    assert "None as violations" in reasons["broken"]
    assert "no configuration of a run" in reasons["stranger"]
    assert f"{tmp_path.name}/good" in reasons["twin"]


def test_no_run_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="safemesa run ARM DOMAIN"):
        find_runs([tmp_path])
    with pytest.raises(DatasetError, match="is no folder"):
        find_runs([tmp_path / "absent"])
    (made_up(tmp_path / "stopped") / "summary.json").unlink()
    with pytest.raises(DatasetError, match=r"no finished run.*unfinished"):
        find_runs([tmp_path])


def test_runs_of_other_settings_are_never_averaged(tmp_path):
    for seed in range(3):
        made_up(tmp_path / f"slow{seed}", seed=seed, adapt={"steps": 100, "rate": 0.1})
        made_up(tmp_path / f"fast{seed}", seed=seed, adapt={"steps": 100, "rate": 1.0})
    groups = group_runs(find_runs([tmp_path]))
    assert [group.variant for group in groups] == ["adapt.rate=0.1", "adapt.rate=1.0"]
    assert [group.seeds for group in groups] == [(0, 1, 2)] * 2
    assert groups[0].title == "MESA (adapt.rate=0.1)"
    styles = group_styles(groups)
    assert styles[0].colour == styles[1].colour
    assert styles[0].line != styles[1].line


def test_settings_are_sorted_as_numbers(tmp_path):
    for size in (10_000, 625, 2_500):
        made_up(tmp_path / str(size), data={"test_transitions": size, "policy": "sac"})
    groups = group_runs(find_runs([tmp_path]))
    sizes = [int(group.variant.removeprefix("data.test_transitions=")) for group in groups]
    assert sizes == [625, 2_500, 10_000]


def test_no_two_arms_look_alike(tmp_path):
    arms = ("mesa", "maml+csc", "maml+rcpo", "maml+sqrl", "oracle", "mesa_frozen", "scratch+sqrl")
    for arm in arms:
        made_up(tmp_path / arm, arm)
    styles = group_styles(group_runs(find_runs([tmp_path])))
    assert len(set(styles)) == len(arms)


def test_rows_summarise_their_runs(tmp_path):
    for seed, violations in enumerate([4, 0, 2, 9]):
        made_up(tmp_path / str(seed), seed=seed, violations=violations)
    (row,) = results_table(find_runs([tmp_path]))
    assert row.metrics["violations"] == summarise_metric([4, 0, 2, 9])
    assert (row.seeds, row.episodes) == ((0, 1, 2, 3), 10)
    arm, n, *_ = results_as_table([row]).rows[0]
    assert (arm.text, n.text, n.details) == ("MESA", "4", ("seeds 0-3",))


def test_a_domain_without_success_has_none(tmp_path):
    folder = made_up(tmp_path / "one")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"successes": None}))
    made_up(tmp_path / "base", arm="multitask")
    ours, theirs = results_table(find_runs([tmp_path]))
    assert ours.metrics["successes"] is None
    assert theirs.metrics["successes"] is not None
    assert "n/a" in {cell.text for cell in results_as_table([ours]).rows[0]}
    assert {row.metric for row in paired_rows(find_runs([tmp_path]))} == {"violations"}


def test_returns_are_paired_where_no_arm_knows_success(tmp_path):
    for arm, value in (("mesa", 7.0), ("multitask", 4.0)):
        folder = made_up(tmp_path / arm, arm=arm)
        summary = json.loads((folder / "summary.json").read_text())
        summary |= {"successes": None, "return_mean": value}
        (folder / "summary.json").write_text(json.dumps(summary))
    violations, returns = paired_rows(find_runs([tmp_path]))
    assert (violations.metric, returns.metric) == ("violations", "return_mean")
    assert returns.difference.mean == 3.0


def test_settings_that_a_guard_does_not_read_set_no_runs_apart(tmp_path):
    for seed, multiplier in enumerate([100.0, 5000.0]):
        for guard in ("recovery_rl", "lagrangian"):
            # As versions wrote it that gave every guard the settings of all.
            settings = {"guard": guard, "guard_settings": {"actor_multiplier": multiplier}}
            settings["takeover"] = {"limit": None}
            made_up(tmp_path / f"{guard}{seed}", arm=f"maml+{guard}", seed=seed, **settings)
    variants = {(one.arm, one.variant) for one in group_runs(find_runs([tmp_path]))}
    assert variants == {
        ("maml+recovery_rl", ""),
        ("maml+lagrangian", "guard_settings.actor_multiplier=100.0"),
        ("maml+lagrangian", "guard_settings.actor_multiplier=5000.0"),
    }


def test_pairs_share_their_seeds(tmp_path):
    for seed, violations in {0: 1, 1: 2, 2: 3, 5: 9}.items():
        made_up(tmp_path / f"m{seed}", seed=seed, violations=violations)
    for seed, violations in {1: 7, 2: 9, 3: 100}.items():
        made_up(tmp_path / f"b{seed}", arm="multitask", seed=seed, violations=violations)
    violations, successes = paired_rows(find_runs([tmp_path]))
    assert violations.seeds == successes.seeds == (1, 2)
    assert violations.difference == paired_difference([2, 3], [7, 9])
    assert violations.baseline == "Multi-Task"
    assert pairs_as_table([violations]).rows[0][3].text == "-5.50"
    assert paired_rows(find_runs([tmp_path]), baseline="rrl") == []


def test_verdicts_need_six_pairs():
    assert verdict(paired_difference([0] * 5, [1] * 5)) == "too few pairs"
    assert verdict(paired_difference([0] * 6, [1] * 6)) == "lower"
    assert verdict(paired_difference([1] * 6, [0] * 6)) == "higher"
    assert verdict(paired_difference([1] * 6, [1] * 6)) == "not resolved"


def test_arms_are_compared_over_all_domains_that_they_have_in_common(tmp_path):
    """Violations of 10 episodes; the shares 0.2 and 0.4 have the mean 0.3, whatever their n."""
    counts = {
        ("mesa", "navigation1"): (1, 2, 3),
        ("mesa", "navigation2"): (4, 4, 4, 4),
        ("multitask", "navigation1"): (2, 2, 2),
        ("multitask", "navigation2"): (9, 9, 9),
        ("rrl", "navigation1"): (0, 0, 0),
    }
    for (arm, domain), violations in counts.items():
        for seed, count in enumerate(violations):
            folder = tmp_path / f"{arm}-{domain}-{seed}"
            made_up(folder, arm, seed, violations=count, domain=domain)
    groups = group_runs(find_runs([tmp_path]))
    mesa, multitask = overall_rows(groups)  # RRL has not run on Navigation 2
    assert (mesa.arm, mesa.runs, mesa.domains) == ("mesa", 7, ("navigation1", "navigation2"))
    assert mesa.share == pytest.approx(0.3)
    assert mesa.interval is not None
    assert mesa.interval[0] < 0.3 < mesa.interval[1]
    # Navigation 1: lower, equal and higher; Navigation 2: always lower.
    assert mesa.better == pytest.approx(0.75)
    assert (multitask.arm, multitask.better) == ("multitask", None)
    table = overall_as_table([mesa, multitask], "multitask")
    assert [row[2].text for row in table.rows] == ["0.30", "0.55"]
    profile = dict((group.arm, one) for group, one in violation_profiles(groups, "quick"))["mesa"]
    # Beyond 0.2 there are one run of three on Navigation 1 and all on Navigation 2.
    assert profile.share[np.searchsorted(profile.thresholds, 0.2)] == pytest.approx(2 / 3)
    only = [group for group in groups if group.domain == "navigation1"]
    assert overall_rows(only) == []


def test_written_results_hold_every_number(tmp_path):
    for arm in ("mesa", "multitask"):
        for seed in range(3):
            made_up(tmp_path / "runs" / f"{arm}{seed}", arm=arm, seed=seed, violations=seed)
    records = find_runs([tmp_path / "runs"])
    write_results(records, tmp_path / "out", "safemesa report runs")
    value = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["summary"]["violations"] for one in value["runs"]] == [0, 1, 2] * 2
    assert value["rows"][0]["metrics"]["violations"]["mean"] == 1.0
    assert value["paired"][0]["difference"]["equal"] == 3
    assert str(tmp_path) not in json.dumps(value)
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| MESA | 3 (seeds 0-2) | 10 | 1 (IQM 1, s.e. 0.58, [0, 2]) |" in text
    assert "safemesa run multitask" in text


def test_numbers_keep_the_digits_that_matter():
    given = [3.0, -1234.56, 12.345, 0.5, 0.01234, 0.0, 1e6]
    assert [format_number(one) for one in given] == [
        "3",
        "-1235",
        "12.3",
        "0.50",
        "0.0123",
        "0",
        "1000000",
    ]


# What figures show


def test_curves_over_steps_hold_the_last_episode_that_ended() -> None:
    """Two runs whose episodes differ in length, of 100 steps each."""

    def lines(ends: list[int]) -> list[dict]:
        return [
            {"env_steps": end, "cumulative_violations": count, "return": 10.0 * count}
            for count, end in enumerate(ends, start=1)
        ]

    runs = [lines([50, 100]), lines([10, 20, 100])]
    curve = mean_curve(runs, "cumulative_violations", 1, steps=100)
    assert curve is not None
    found = {step: curve.mean[np.searchsorted(curve.x, step)] for step in (0, 15, 30, 60, 100)}
    assert found == {0: 0.0, 15: 0.5, 30: 1.0, 60: 1.5, 100: 2.5}
    returns = mean_curve(runs, "return", 1, steps=100)
    assert returns is not None
    assert np.isnan(returns.mean[np.searchsorted(returns.x, 30)])  # one run has ended no episode
    assert returns.mean[-1] == 25.0
    by_episode = mean_curve(runs, "return", 1)
    assert by_episode is not None
    np.testing.assert_array_equal(by_episode.x, [1, 2])


def test_runs_of_other_lengths_are_not_compared(tmp_path):
    """Half as long: half as many violations, and no more to be seen beyond the end."""
    for arm, steps in (("mesa", 50), ("multitask", 100)):
        made_up(tmp_path / arm, arm=arm, deploy={"episodes": 9, "steps": steps})
    groups = group_runs(find_runs([tmp_path]))
    assert paired_rows(find_runs([tmp_path])) == []
    assert step_limits(groups) == [50, 100]
    made_up(tmp_path / "rrl", arm="rrl", deploy={"episodes": 9, "steps": None})
    with pytest.raises(DatasetError, match=r"RRL 9 episodes. Report them apart"):
        step_limits(group_runs(find_runs([tmp_path])))


def test_every_arm_has_a_colour_of_its_own():
    arms = ["mesa", "oracle", "mesa_no_adapt", "maml+sqrl"]
    colours = arm_colours(arms)
    assert len({colours[arm] for arm in arms}) == len(arms)


def test_smoothing_looks_back():
    np.testing.assert_allclose(smooth(np.array([4.0, 0.0, 2.0, 6.0]), 2), [4.0, 2.0, 1.0, 4.0])


def test_reliability_bins_hold_every_pair():
    predicted, true = np.array([0.0, 0.05, 0.55, 1.0]), np.array([0.0, 0.2, 0.5, 0.9])
    bins = reliability(predicted, true)
    np.testing.assert_allclose(bins.predicted, [0.025, 0.55, 1.0])
    np.testing.assert_allclose(bins.true, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(bins.share, [0.5, 0.25, 0.25])


def test_a_run_whose_prior_is_not_there_is_not_calibrated(tmp_path, monkeypatch):
    """Fresh networks in its place would be scored under the arm's name."""
    monkeypatch.chdir(tmp_path)
    for arm in ("mesa", "rrl"):
        run([tiny_config(arm)], [tmp_path / arm], RunOptions(data_dir=tmp_path / "data"))
    chosen = {config.arm for config, _ in runs_with_critics([tmp_path])}
    assert chosen == {"mesa", "rrl"}
    shutil.rmtree(tmp_path / "mesa" / "artefacts" / "prior")
    with pytest.warns(UserWarning, match="left out, as the prior .* is not there: .*mesa"):
        assert {config.arm for config, _ in runs_with_critics([tmp_path])} == {"rrl"}
    shutil.rmtree(tmp_path / "rrl")
    with pytest.raises(ConfigurationError, match="the prior that it learned"):
        runs_with_critics([tmp_path])


def test_calibration_is_drawn_for_one_step_and_for_several():
    rng = np.random.default_rng(0)
    results = [
        CalibrationResult(
            arm=arm,
            seed=0,
            step=step,
            predicted=rng.uniform(size=(2, 30)),
            true=rng.uniform(size=(2, 30)),
            risk_limit=0.3,
        )
        for arm in ("mesa", "of another version")
        for step in (0, 1, 10)
    ]
    for some in (results, results[:1]):
        assert png(calibration_figure(some)).startswith(b"\x89PNG")


def test_typical_episodes_are_early_middle_and_late():
    assert typical_episodes(60) == [range(0, 5), range(27, 32), range(55, 60)]
    assert typical_episodes(6) == [range(0, 2), range(2, 4), range(4, 6)]
    assert typical_episodes(2) == [range(0, 1), range(1, 2)]
    assert typical_episodes(1) == [range(0, 1)]


def test_only_known_domains_of_positions_have_maps():
    assert plane("navigation1", 0) is not None
    assert plane("probe_walk", 0) is None
    assert plane("of another version", 0) is None


def test_a_plane_knows_its_obstacles():
    where = plane("navigation2", 0, columns=75, rows=40)
    assert where is not None
    block = 10.0 * 15.0 / (75.0 * 40.0)
    assert where.blocked.mean() == pytest.approx(block, rel=0.1)
    np.testing.assert_array_equal(where.points[1] - where.points[0], [1.0, 0.0])


@pytest.mark.parametrize(("name", "goal"), [("navigation1", (0, 0)), ("maze", (0.25, 0))])
def test_a_plane_knows_its_goal(name, goal):
    where = plane(name, 0)
    assert where is not None
    assert where.goal is not None
    cell = [where.x[1] - where.x[0], where.y[1] - where.y[0]]
    assert np.all(np.abs(where.goal - goal) <= cell)
    assert 0 < where.reached.mean() < 0.02


@pytest.mark.parametrize(("arm", "steps"), [("mesa", 6), ("rrl", 120)])
def test_adapting_again_gives_the_model_that_was_deployed(runs, arm, steps):
    folder = runs / f"{arm}-7"
    start, last = adaptation_models(folder, [0, steps])
    saved, _, _ = load_risk_model(folder / "artefacts" / "risk_model")
    for one, two in zip(jax.tree.leaves(last), jax.tree.leaves(saved), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(jax.tree.leaves(start)[0], jax.tree.leaves(last)[0])


def test_risk_maps_average_over_actions(runs):
    where = plane("navigation2", 7, columns=6, rows=4)
    assert where is not None
    maps = risk_maps(runs / "rrl-7", "RRL", where, (0, 5))
    assert maps is not None
    # The steps that were asked for, then the model that was deployed.
    assert maps.steps == (0, 5, 120)
    assert {risk.shape for risk in maps.risk} == {(4, 6)}
    assert risk_maps(runs / "unconstrained-7", "Unconstrained", where) is None


def test_episodes_are_those_of_the_metrics(runs):
    folder = runs / "mesa-7"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = episodes(folder, range(len(lines)))
    assert [len(one.intervened) for one in found] == [line["length"] for line in lines]
    assert [len(one.positions) for one in found] == [line["length"] + 1 for line in lines]
    assert [one.violation for one in found] == [bool(line["violation"]) for line in lines]
    # A recovery action may be the proposed one, where both are at the bounds; rarely so.
    acted = sum(one.intervened.sum() for one in found)
    assert 0.9 < acted / sum(line["interventions"] for line in lines) <= 1.0
    free = episodes(runs / "unconstrained-7", range(6))
    assert not any(one.intervened.any() for one in free)


def test_a_shortened_replay_is_an_error(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "unconstrained-7", folder)
    rows = folder / "replay" / "rows.f32"
    rows.write_bytes(rows.read_bytes()[: -4 * 11])
    with pytest.raises(CheckpointError, match="it was shortened"):
        episodes(folder, [0])
    # A run of an earlier version, which vouches for nothing.
    (folder / "files.json").unlink()
    with pytest.raises(CheckpointError, match="one of them was changed"):
        episodes(folder, [0])


# The page


def without_pictures(text: str) -> str:
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "PICTURE", text)


def test_the_page_needs_nothing_but_itself(report):
    page = Page(report.read_text())
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
        elif tag == "a":
            assert attributes["href"].removeprefix("#") in anchors
        else:
            assert not {"src", "href", "srcset"} & set(attributes)
    plain = without_pictures(report.read_text())
    assert not re.search(r"https?:|url\(|@import", plain)


def test_the_page_shows_the_numbers_of_every_run(runs, report):
    page = Page(report.read_text())
    header = next(row for row in page.rows if row[0] == "Run")
    shown = [row for row in page.rows if len(row) == len(header) and row[0] != "Run"]
    expected = []
    for record in find_runs([runs]):
        summary = json.loads((record.path / "summary.json").read_text())
        names = ("violations", "violations_under_recovery", "successes", "interventions")
        counts = [str(summary[name]) for name in names]
        numbers = [*counts, format_number(summary["return_mean"]), str(summary["env_steps"])]
        assert any(row[1:] == numbers for row in shown), record.name
        expected.append(numbers)
    assert len(expected) == 5
    mean = np.mean([float(row[0]) for row in expected[1:3]])
    results = next(row for row in page.rows if row[0] == "Multi-Task" and len(row) == 9)
    assert results[1:4] == ["2", "6", format_number(float(mean))]


def test_the_page_says_how_it_was_made(report):
    text = Page(report.read_text()).text
    assert "safemesa report <runs>" in text
    assert "safemesa run ... --out <folder>" in text
    for fact in ("jax ", "Commit: ", "MAML critic", "SAC that ignores constraints"):
        assert fact in text
    for section in ("Paired differences against Multi-Task", "Trajectories", "Wall times"):
        assert section in text


def test_every_picture_is_a_file_too(report):
    pictures = sorted(path.name for path in (report.parent / "figures").iterdir())
    kinds = ("curves", "risk", "trajectories")
    expected = [f"navigation2-quick-{kind}.png" for kind in kinds]
    assert pictures == [*expected, "violations-against-return.png"]
    assert (report.parent / "results.json").is_file()


@pytest.fixture
def one_run(runs: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; without a critic, so that its report is quick."""
    shutil.copytree(runs / "unconstrained-7", tmp_path / "runs" / "one")
    return tmp_path / "runs" / "one"


def change_config(folder: Path, **changes) -> None:
    """As if the run had been made with another record; nothing vouches for it then."""
    (folder / "files.json").unlink()
    record = json.loads((folder / "config.json").read_text())
    record |= {name: value for name, value in changes.items() if name != "config"}
    record["config"] |= changes.get("config", {})
    (folder / "config.json").write_text(json.dumps(record))
    summary = json.loads((folder / "summary.json").read_text())
    same = {name: record["config"][name] for name in ("arm", "domain", "preset", "seed")}
    (folder / "summary.json").write_text(json.dumps(summary | same))


def test_text_from_files_is_escaped(one_run, tmp_path):
    evil = "<script>alert('x')</script>&\"|`$title"
    change_config(
        one_run,
        command=evil,
        versions={evil: evil},
        git_commit=evil,
        config={"arm": evil, "domain": evil, "preset": evil, "guard": evil},
    )
    report = write_report([one_run], tmp_path / "out", evil)
    page = Page(report.read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) >= 6
    assert sorted(path.name for path in (tmp_path / "out" / "figures").iterdir()) == [
        "script-alert-x-script-title-script-alert-x-script-title-curves.png",
        "violations-against-return.png",
    ]


def test_a_report_of_one_run_repeats_to_the_byte(one_run, tmp_path):
    first, second = (
        write_report([one_run], tmp_path / name, "command").read_bytes() for name in "ab"
    )
    assert first == second


def test_any_arm_that_has_runs_can_be_the_baseline(tmp_path):
    for arm, violations in (("mesa", 3), ("rrl", 8)):
        made_up(tmp_path / "runs" / arm, arm=arm, violations=violations)
    out = tmp_path / "out"
    write_report([tmp_path / "runs"], out, "command", baseline="rrl")
    assert "Paired differences against RRL" in Page((out / "report.html").read_text()).text
    paired = json.loads((out / "results.json").read_text())["paired"]
    assert (paired[0]["arm"], paired[0]["baseline"]) == ("mesa", "RRL")
    assert paired[0]["difference"]["mean"] == -5.0
    with pytest.raises(ConfigurationError, match="'carl'; there are runs of mesa, rrl"):
        write_report([tmp_path / "runs"], out, "command", baseline="carl")


def test_domains_and_presets_are_kept_apart(runs, one_run, tmp_path):
    other = one_run.parent / "two"
    shutil.copytree(one_run, other)
    change_config(other, config={"domain": "of another version", "preset": "paper"})
    (made_up(one_run.parent / "stopped", seed=5) / "summary.json").unlink()
    page = Page(write_report([one_run.parent], tmp_path / "out", "command").read_text())
    assert "navigation2 (quick)" in page.text
    assert "of another version (paper)" in page.text
    assert "These run folders were left out" in page.text
    assert "Paired differences against" not in page.text
    assert "All domains together" not in page.text  # no two domains of one preset
    pictures = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert "of-another-version-paper-trajectories.png" not in pictures
    assert "navigation2-quick-trajectories.png" in pictures


def test_what_cannot_be_drawn_is_named_and_the_rest_is_there(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "mesa-7", folder)
    shutil.rmtree(folder / "artefacts" / "prior")
    (folder / "replay" / "rows.f32").unlink()
    (folder / "files.json").unlink()
    (folder / "metrics.jsonl").unlink()
    text = Page(write_report([folder], tmp_path / "out", "command").read_text()).text
    for note in ("No curves: ", "No risk map of MESA: ", "No trajectories of MESA: "):
        assert note in text
    assert "All runs" in text
