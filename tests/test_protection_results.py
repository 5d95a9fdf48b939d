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
    """Violations and mean return per arm, over the seeds that `safemesa` has on a domain."""
    own = find_runs([RESULTS / "protection_cpu"])
    seeds = {row.domain: row.seeds for row in results_table(own)}
    others = [
        run for run in find_runs([RESULTS / "robots_cpu"]) if run.seed in seeds.get(run.domain, ())
    ]
    rows = {(row.domain, row.title): row for row in results_table([*own, *others])}
    lines = [f"| domain, pairs | {' | '.join(ARMS)} |", f"|---|{'---|' * len(ARMS)}"]
    for domain in sorted(seeds):
        cells = []
        for arm in ARMS:
            row = rows.get((domain, arm))
            if row is None or set(row.seeds) != set(seeds[domain]):
                cells.append("-")
                continue
            violations, returns = row.metrics["violations"], row.metrics["return_mean"]
            cells.append(f"{violations.mean:.1f} / {returns.mean:.0f}")
        lines.append(f"| {domain}, {len(seeds[domain])} | {' | '.join(cells)} |")
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
