"""Committed results: tables and README say what the committed runs say."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks.shield_training import read_records, table_of

from safemesa.experiments.paper.verdicts import findings
from safemesa.experiments.result_tables import compact_markdown
from safemesa.experiments.results import find_runs, paired_rows, results_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
SHOWN = {
    "navigation": ("README.md", "results"),
    "robots_cpu": ("docs/results.md", "results"),
    "test_log_cpu": ("docs/results.md", "test-log"),
    "comparisons_cpu": ("docs/guards.md", "results"),
}
"""Folder of runs to the page that shows its table, and the marks between which it does."""


@pytest.mark.parametrize("folder", SHOWN)
def test_pages_show_the_committed_results(folder: str) -> None:
    page, mark = SHOWN[folder]
    text = (ROOT / page).read_text()
    block = text.split(f"<!-- {mark}:begin -->")[1].split(f"<!-- {mark}:end -->")[0]
    expected = compact_markdown(results_table(find_runs([RESULTS / folder])))
    assert expected in block, f"put this table between the marks of {page}:\n{expected}"


@pytest.mark.parametrize("folder", SHOWN)
def test_results_json_is_made_from_the_committed_runs(folder: str) -> None:
    """`safemesa report results/FOLDER --out results/FOLDER --no-calibration` made it."""
    rows = results_table(find_runs([RESULTS / folder]))
    stored = json.loads((RESULTS / folder / "results.json").read_text())["rows"]
    assert [(row["domain"], row["arm"], row["seeds"]) for row in stored] == [
        (row.domain, row.arm, list(row.seeds)) for row in rows
    ]
    for one, two in zip(stored, rows, strict=True):
        assert one["metrics"]["violations"]["mean"] == pytest.approx(two.metrics["violations"].mean)


@pytest.mark.parametrize("name", ["robots_cpu", "test_log_cpu", "comparisons_cpu"])
def test_verdicts_are_made_from_the_committed_runs(name: str) -> None:
    """`safemesa paper claims --out results/NAME --preset cpu` made them."""
    folder = RESULTS / name
    stored = json.loads((folder / "claims.json").read_text())["findings"]
    found = [one.row() for one in findings(find_runs([folder]), "cpu")]
    assert [(one["id"], one["verdict"]) for one in stored] == [
        (one["id"], one["verdict"]) for one in found
    ]


def test_the_shield_page_shows_the_committed_trainings() -> None:
    page = (ROOT / "docs" / "shield.md").read_text()
    block = page.split("<!-- training:begin -->")[1].split("<!-- training:end -->")[0]
    expected = table_of(read_records(RESULTS / "shield" / "training.jsonl"))
    assert expected in block, f"put this table between the marks of docs/shield.md:\n{expected}"


def test_the_headroom_page_shows_the_committed_look_aheads() -> None:
    """Violations and successes of each setting, seed by seed, in one row of the table."""
    page = (ROOT / "docs" / "headroom.md").read_text().splitlines()
    folder = RESULTS / "tuning" / "cartpole_limit"
    settings = sorted(one for one in folder.iterdir() if one.is_dir())
    assert len(settings) > 1
    for setting in settings:
        runs = [json.loads(path.read_text()) for path in sorted(setting.glob("*/summary.json"))]
        cells = [", ".join(str(run[key]) for run in runs) for key in ("violations", "successes")]
        assert any(line.endswith(f"| {' | '.join(cells)} |") for line in page), (setting, cells)


def test_the_headroom_page_shows_what_recovery_does_alone() -> None:
    page = (ROOT / "docs" / "headroom.md").read_text()
    text = (RESULTS / "tuning" / "cartpole_limit" / "recovery_alone.jsonl").read_text()
    linear, *models = [json.loads(line) for line in text.splitlines()]
    assert linear == {"controller": "linear", "violated": 0.0}

    def adapted(arm: str, gamma: float, policy: str) -> list[float]:
        return [
            one["violated"][policy]
            for one in models
            if one["risk_model"] == "risk_model" and one["next_action"] == "uniform"
            if (one["arm"], one["gamma_risk"]) == (arm, gamma)
        ]

    assert adapted("multitask", 0.8, "recovery") == [0.9, 0.9]
    assert adapted("multitask", 0.8, "least_risk") == [0.875, 0.8]
    assert adapted("multitask", 0.95, "recovery") == [0.6, 0.7]
    assert adapted("multitask", 0.95, "least_risk") == [0.2, 0.35]
    assert adapted("mesa", 0.95, "least_risk") == [0.925, 0.675]
    for words in (".90 of them", ".875 and\n.80", ".60 and .70", ".20 and .35", ".925 and .675"):
        assert words in page


def test_the_results_page_shows_what_chose_the_test_log() -> None:
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for arm, title in (("mesa", "MESA"), ("multitask", "Multi-Task")):
        pairs = []
        for setting in ("keep", "quarter", "forget"):
            runs = sorted((RESULTS / "tuning" / "test_log" / setting).glob(f"{arm}-*"))
            counts = [json.loads((run / "summary.json").read_text())["violations"] for run in runs]
            pairs.append(" and ".join(map(str, counts)))
        assert f"{title} {', '.join(pairs)}" in page


def test_each_summary_counts_its_lines() -> None:
    for path in RESULTS.rglob("summary.json"):
        summary = json.loads(path.read_text())
        text = path.with_name("metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert summary["episodes"] == len(lines)
        assert summary["violations"] == sum(line["violation"] for line in lines)
        assert summary["interventions"] == sum(line["interventions"] for line in lines)


NUMBER = r"[-+]?\d*\.?\d+"
Effect = tuple[float | None, float | None, float | None]
EFFECT = re.compile(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\]")


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/fidelity.md"])
def test_each_interval_on_a_page_is_one_of_the_committed_results(page: str) -> None:
    """`-31 [-44, -18]` anywhere on a page: some mean and its interval round to that."""
    text = " ".join((ROOT / page).read_text().split())
    known = list(committed_intervals())
    shown = EFFECT.findall(text)
    strange = [one for one in shown if not any(all(map(rounds_to, row, one)) for row in known)]
    assert not strange
    assert shown or page == "README.md"


def committed_intervals() -> Iterator[Effect]:
    """Mean or difference, low and high, of everything in results/."""
    for name in SHOWN:
        record = json.loads((RESULTS / name / "results.json").read_text())
        for row in record["rows"]:
            yield from map(effect, filter(None, row["metrics"].values()))
        for row in record["overall"]:
            yield row["share"], *(row["interval"] or (None, None))
            yield row["better"], *(row["better_interval"] or (None, None))
        # `safemesa report results/NAME --baseline rrl` has the second.
        for baseline in ("multitask", "rrl"):
            for pair in paired_rows(find_runs([RESULTS / name]), baseline):
                yield effect(asdict(pair.difference))
    for path in RESULTS.glob("*/claims.json"):
        for one in json.loads(path.read_text())["findings"]:
            yield one["effect"], one["low"], one["high"]


def effect(numbers: dict[str, Any]) -> Effect:
    return numbers["mean"], numbers["low"], numbers["high"]


def rounds_to(value: float | None, text: str) -> bool:
    """Whether a number is what the text shows, to the digits that it shows."""
    digits = len(text.partition(".")[2])
    return value is not None and abs(value - float(text)) <= 0.5 * 10.0**-digits + 1e-9
