"""Results of finished runs: find them, tabulate them, write `results.json` and `results.md`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safemesa.core.files import write_atomic, write_json
from safemesa.experiments.report.overall_rows import overall_rows
from safemesa.experiments.report.result_rows import (
    BASELINE as BASELINE,
    PairedRow as PairedRow,
    ResultRow as ResultRow,
    RunGroup as RunGroup,
    arm_title as arm_title,
    group_runs as group_runs,
    paired_rows as paired_rows,
    results_table as results_table,
)
from safemesa.experiments.report.result_tables import results_markdown
from safemesa.experiments.runs.run_records import (
    RunRecord as RunRecord,
    RunScan as RunScan,
    SetAside as SetAside,
    find_runs as find_runs,
    scan_runs as scan_runs,
)

FORMAT = 1
"""Version of `results.json`."""


def write_results(
    records: Sequence[RunRecord],
    folder: Path,
    command: str,
    *,
    set_aside: Sequence[SetAside] = (),
    baseline: str = BASELINE,
) -> None:
    """Writes `results.json` (every number of every run, and the tables) and `results.md`."""
    rows, pairs = results_table(records), paired_rows(records, baseline)
    groups = group_runs(records)
    value = {
        "format": FORMAT,
        "command": command,
        "rows": [asdict(row) for row in rows],
        "paired": [asdict(pair) for pair in pairs],
        "overall": [asdict(row) for row in overall_rows(groups, baseline)],
        "set_aside": [{"run": one.name, "reason": one.reason} for one in set_aside],
        "runs": [
            {
                "run": record.name,
                "command": record.command,
                "git_commit": record.git_commit,
                "versions": record.versions,
                "summary": record.summary,
                "settings": record.settings,
            }
            for record in records
        ],
    }
    write_json(Path(folder) / "results.json", value)
    text = results_markdown(rows, pairs, groups, command, set_aside, baseline)
    write_atomic(Path(folder) / "results.md", text.encode())
