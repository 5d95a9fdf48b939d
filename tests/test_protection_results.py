"""What docs/protection.md says of runs and robots is what the committed results say."""

import json
from pathlib import Path

import numpy as np
from benchmarks.own_logs.run import read_records
from benchmarks.own_logs.table import table_of

from safemesa.experiments.report.result_files import find_runs, results_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGE = (ROOT / "docs" / "protection.md").read_text()
ARMS = ("safemesa", "MESA", "Multi-Task", "RRL", "Unconstrained")


def block(mark: str) -> str:
    return PAGE.split(f"<!-- {mark}:begin -->\n")[1].split(f"<!-- {mark}:end -->")[0].strip()


def simulated_table() -> str:
    """Violations and mean return (Navigation: successes) per arm, over the seeds that all ran."""
    own = find_runs([RESULTS / "protection_cpu"])
    others = find_runs([RESULTS / "robots_cpu", RESULTS / "comparisons_cpu"])
    domains = sorted({run.domain for run in own})
    lines = [f"| domain, pairs | {' | '.join(ARMS)} |", f"|---|{'---|' * len(ARMS)}"]
    for domain in domains:
        runs = [run for run in (*own, *others) if run.domain == domain]
        seeds = {run.seed for run in runs if run in own}
        seeds &= {row.seed for row in others if row.domain == domain and row.arm == "mesa"}
        if not seeds:
            continue
        rows = {row.title: row for row in results_table([r for r in runs if r.seed in seeds])}
        cells = []
        for arm in ARMS:
            row = rows.get(arm)
            if row is None or set(row.seeds) != seeds:
                cells.append("-")
                continue
            done = "successes" if domain.startswith("navigation") else "return_mean"
            cells.append(f"{row.metrics['violations'].mean:.1f} / {row.metrics[done].mean:.0f}")
        lines.append(f"| {domain}, {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_table_of_simulated_robots_is_that_of_the_committed_runs() -> None:
    expected = simulated_table()
    assert block("simulated") == expected, f"put this between the marks:\n{expected}"


def test_the_table_of_own_logs_is_that_of_the_committed_records() -> None:
    expected = table_of(read_records(RESULTS / "own_logs" / "results.jsonl")).strip()
    assert block("own-logs") == expected, f"put this between the marks:\n{expected}"


def test_every_record_of_own_logs_names_its_commit() -> None:
    lines = (RESULTS / "own_logs" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all(record["git_commit"] for record in records)
    assert np.isfinite([record["violations"] for record in records]).all()
