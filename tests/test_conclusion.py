"""What a report says first is what its runs say."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from safemesa.experiments.report.conclusion import comparable, comparisons, conclusion
from safemesa.experiments.report.report_page import write_report
from safemesa.experiments.report.result_figures import png, return_figure
from safemesa.experiments.report.result_files import paired_rows, results_table
from safemesa.experiments.report.result_rows import RunGroup, group_runs
from safemesa.experiments.report.result_tables import (
    brief_pairs_table,
    brief_results_table,
)
from safemesa.experiments.runs.run_records import find_runs


def made_up(folder: Path, arm: str, seed: int, violations: int, **changed: Any) -> None:
    config = {"arm": arm, "domain": "navigation2", "preset": "quick", "seed": seed}
    config |= {"meta_learner": "maml", "guard": "none", "deploy": {"episodes": 100}}
    summary = {
        "episodes": 100,
        "env_steps": 500,
        "violations": violations,
        "violations_under_recovery": 0,
        "successes": None,
        "return_mean": 10.0 - violations,
        "interventions": 9,
        "wall_s": {"collect": 0.5, "meta_train": 1.0, "adapt": 0.25, "deploy": 2.0},
    }
    place = folder / f"{arm}-{seed}"
    place.mkdir(parents=True)
    record = {"config": config | changed.pop("config", {}), "command": "", "versions": {}}
    (place / "config.json").write_text(json.dumps(record))
    (place / "summary.json").write_text(json.dumps(summary | changed))


def groups_of(folder: Path, **violations: list[int]) -> list[RunGroup]:
    """Arms with the violations of their seeds 0, 1, ..."""
    for arm, counts in violations.items():
        for seed, count in enumerate(counts):
            made_up(folder, arm, seed, count)
    return group_runs(find_runs([folder]))


def test_a_lead_in_enough_pairs_can_be_trusted(tmp_path: Path) -> None:
    groups = groups_of(
        tmp_path,
        multitask=[3, 4, 5, 3, 4, 5, 3, 4],
        mesa=[3, 5, 4, 4, 4, 6, 3, 4],
        unconstrained=[50, 60, 55, 58, 61, 49, 52, 57],
    )
    text = conclusion("navigation2 (quick)", groups)
    assert "On navigation2 (quick) Multi-Task violated least: 3.88 [" in text
    assert "violations per run of 100 episodes; most did Unconstrained, 55.2." in text
    assert re.search(r"difference to Unconstrained can be trusted \(sign-flip test, p = 0\.0", text)
    assert re.search(r"difference to MESA may be chance: -0.25 \[.*\], p = ", text)
    assert "No arm has a higher mean return (6.12)." in text


def test_few_pairs_cannot_tell_whatever_they_say(tmp_path: Path) -> None:
    """Also beside arms that have enough, whose p-values they do not spoil."""
    wide = [0, 0, 0, 0, 0, 0]
    groups = groups_of(tmp_path, mesa=wide, rrl=[9, 8, 9, 8, 9, 8], unconstrained=[99] * 5)
    text = conclusion("here", groups)
    assert "The difference to RRL can be trusted (sign-flip test, p = 0.031)." in text
    assert "difference to Unconstrained is chance cannot be told: 5 pairs of runs at most" in text
    leader, *others = groups
    values = {one.title: one.p_value for one in comparisons(leader, others)}
    assert values["Unconstrained"] == 1.0
    assert values["RRL"] == pytest.approx(2 / 2**6)


def test_holm_allows_for_the_number_of_comparisons(tmp_path: Path) -> None:
    """Six pairs find one difference at 5 %, and not two."""
    lead = [0, 0, 0, 0, 0, 0]
    groups = groups_of(tmp_path, mesa=lead, rrl=[1] * 6, multitask=[2] * 6)
    text = conclusion("here", groups)
    assert "can be trusted" not in text
    assert "difference to Multi-Task and RRL may be chance, the smallest is to RRL: -1" in text


def test_arms_that_tie_lead_together(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, mesa=[1, 1], multitask=[2, 0], rrl=[7, 7])
    text = conclusion("here", groups)
    assert "MESA and Multi-Task violated least: 1 violations per run of 100 episodes each" in text
    assert "mean return" not in text


def test_one_arm_has_nothing_to_compare_with(tmp_path: Path) -> None:
    text = conclusion("here", groups_of(tmp_path, mesa=[4]))
    assert (
        text
        == "On here MESA has 4 violations per run of 100 episodes; there is no other to "
        + ("compare with.")
    )
    (tmp_path / "more").mkdir()
    text = conclusion("here", groups_of(tmp_path / "more", mesa=[4], rrl=[4]))
    assert "all arms have 4 violations" in text


def test_arms_without_a_seed_in_common_are_not_tested(tmp_path: Path) -> None:
    made_up(tmp_path, "mesa", 0, 1)
    made_up(tmp_path, "rrl", 1, 5)
    text = conclusion("here", group_runs(find_runs([tmp_path])))
    assert "No other arm has runs of the same seeds" in text


def test_runs_of_another_length_are_left_out(tmp_path: Path) -> None:
    made_up(tmp_path, "carl", 0, 0, config={"deploy": {"episodes": 10}})
    groups = groups_of(tmp_path, mesa=[4, 4], rrl=[5, 5])
    assert [group.arm for group in comparable(groups)] == ["mesa", "rrl"]
    text = conclusion("here", groups)
    assert "MESA violated least" in text
    assert text.endswith("because their runs are of another length: CARL.")


def test_successes_count_where_the_domain_has_them(tmp_path: Path) -> None:
    for seed in (0, 1):
        made_up(tmp_path, "mesa", seed, 2, successes=70)
        made_up(tmp_path, "unconstrained", seed, 90, successes=5, return_mean=1e6)
    groups = group_runs(find_runs([tmp_path]))
    assert "No arm has a higher number of successes (70)." in conclusion("here", groups)
    (axes,) = return_figure({"here": groups}).axes
    assert axes.get_ylabel() == "Successes"


def test_the_chart_shows_means_of_every_arm_and_place(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, mesa=[1, 2, 6], multitask=[2, 2, 2], rrl=[9, 8, 7])
    figure = return_figure({"here": groups, "there": groups[:2]})
    first, second = figure.axes
    points = [[float(line.get_xdata()[0]), float(line.get_ydata()[0])] for line in first.lines[::3]]
    assert [3.0, 7.0] in points
    assert (first.get_title(), second.get_title()) == ("here", "there")
    assert first.get_xlabel().startswith("Violations")
    assert first.get_ylabel() == "Mean return"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["MESA", "Multi-Task", "RRL"]


@pytest.mark.parametrize("name", [r"$\frac{$", "$$", "a $ b $ c", "_^{"])
def test_names_are_drawn_as_they_are(tmp_path: Path, name: str) -> None:
    for number, seed in enumerate((0, 1)):
        made_up(tmp_path, "mesa", seed, 2, config={"arm": name})
        made_up(tmp_path / "more", "rrl", number, 3)
    figure = return_figure({f"{name} {name}": group_runs(find_runs([tmp_path]))})
    assert png(figure)


def test_brief_tables_have_one_number_per_cell_with_its_interval(tmp_path: Path) -> None:
    groups_of(tmp_path, mesa=[1, 2, 6], multitask=[2, 2, 3])
    runs = find_runs([tmp_path])
    brief = brief_results_table(results_table(runs))
    assert brief.header == ("Arm", "Runs", "Violations", "Mean return")
    assert [cell.text for cell in brief.rows[0]] == ["MESA", "3", "3", "7"]
    for row in brief.rows:
        assert all(re.fullmatch(r"\[.*, .*\]", "".join(cell.details)) for cell in row[2:])
    pairs = brief_pairs_table(paired_rows(runs))
    ((name, count, difference, verdict),) = pairs.rows
    assert (name.text, count.text, verdict.text) == ("MESA - Multi-Task", "3", "too few pairs")
    assert difference.text == "0.67"
    assert len(difference.details) == 1


class Outline(HTMLParser):
    """Texts by the tags around them, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[tuple[str, ...], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.seen.append((tuple(self.open), f"picture: {dict(attrs)['alt']}"))
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.seen.append((tuple(self.open), data.strip()))


def test_a_report_opens_with_its_conclusion(tmp_path: Path) -> None:
    groups_of(tmp_path / "runs", mesa=[1, 2, 6], multitask=[9, 9, 9])
    report = write_report([tmp_path / "runs"], tmp_path / "out", "command")
    seen = Outline(report.read_text()).seen
    body = [(tags, text) for tags, text in seen if "body" in tags]
    assert body[0][0][-1] == "h1"
    assert body[1][1].startswith("On navigation2 (quick) MESA violated least: 3 [1, 6] violations")
    assert "cannot be told" in body[1][1]
    assert body[2][1] == "picture: Violations against return of each arm"
    assert (report.parent / "figures" / "violations-against-return.png").is_file()
    # Outside of what is folded, no cell has more than a number and its interval.
    shown = [text for tags, text in body if "details" not in tags]
    assert not [text for text in shown if text.startswith(("IQM", "s.e."))]
    folded = [text for tags, text in body if "details" in tags]
    assert any(text.startswith("IQM") for text in folded)
