"""Committed results: tables and README say what the committed runs say."""

import json
from pathlib import Path

import pytest

from safemesa.experiments.result_tables import compact_markdown
from safemesa.experiments.results import find_runs, results_table

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "results" / "navigation"


@pytest.fixture(scope="module")
def rows() -> list:
    return results_table(find_runs([RUNS]))


def test_the_readme_shows_the_committed_results(rows: list) -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.split("<!-- results:begin -->")[1].split("<!-- results:end -->")[0]
    expected = compact_markdown(rows)
    assert expected in block, f"put this table between the results marks of README.md:\n{expected}"


def test_results_json_is_made_from_the_committed_runs(rows: list) -> None:
    """`safemesa report results/navigation --out results/navigation --no-calibration` made it."""
    stored = json.loads((RUNS / "results.json").read_text())["rows"]
    assert [(row["domain"], row["arm"], row["seeds"]) for row in stored] == [
        (row.domain, row.arm, list(row.seeds)) for row in rows
    ]
    for one, two in zip(stored, rows, strict=True):
        assert one["metrics"]["violations"]["mean"] == pytest.approx(two.metrics["violations"].mean)


def test_each_summary_counts_its_lines() -> None:
    for path in RUNS.rglob("summary.json"):
        summary = json.loads(path.read_text())
        text = path.with_name("metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert summary["episodes"] == len(lines)
        assert summary["violations"] == sum(line["violation"] for line in lines)
        assert summary["interventions"] == sum(line["interventions"] for line in lines)
