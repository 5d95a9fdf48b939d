"""Results as tables of text, which Markdown and HTML share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from safemesa.experiments.result_rows import METRIC_TITLES, PairedRow, ResultRow, RunGroup
from safemesa.experiments.run_records import METRICS, PHASES, RunRecord, SetAside
from safemesa.experiments.statistics import (
    MINIMUM_FOR_INTERVAL,
    PairedDifference,
    Summary,
    binomial_interval,
)

READING = (
    "Cells give the mean over runs, then the interquartile mean (IQM), the standard error (s.e.) "
    "and the 95 % bootstrap interval of the mean. One run has no standard error, and fewer than "
    f"{MINIMUM_FOR_INTERVAL} have no interval. With few runs the interval is too narrow: by about "
    "a tenth for 10, by a third for 3; where all runs agree it has no width at all."
)
"""How a results table is read."""

PAIRED_READING = (
    "Differences are taken seed by seed: runs of one seed share the test task, the test log and "
    "the first networks, so that the spread between seeds cancels. A difference is called lower "
    "or higher where its 95 % bootstrap interval leaves out zero; many comparisons are made, so "
    "one in twenty will do so by chance. The last column counts seeds, with Wilson's 95 % "
    "interval of the share of seeds that are lower."
)
"""How a table of paired differences is read."""


class Cell(NamedTuple):
    """What a cell says, and smaller print below it."""

    text: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A header and rows of as many cells; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def format_number(value: float) -> str:
    """Three or four digits that matter; whole numbers whole."""
    if value == round(value):
        return str(round(value))
    size = abs(value)
    decimals = 0 if size >= 1000.0 else 1 if size >= 10.0 else 2 if size >= 0.1 else 4
    return f"{value:.{decimals}f}"


def summary_cell(summary: Summary | None) -> Cell:
    """Mean, and below it whatever else there is; a dash where the domain lacks the metric."""
    if summary is None:
        return Cell("–")
    if summary.standard_error is None:
        return Cell(format_number(summary.mean))
    parts = [f"IQM {format_number(summary.iqm)}", f"s.e. {format_number(summary.standard_error)}"]
    parts += _interval(summary.low, summary.high)
    return Cell(format_number(summary.mean), ", ".join(parts))


def _interval(low: float | None, high: float | None) -> list[str]:
    if low is None or high is None:
        return []
    return [f"[{format_number(low)}, {format_number(high)}]"]


def results_as_table(rows: Sequence[ResultRow]) -> Table:
    """One line per arm."""
    return Table(
        header=("Arm", "n", "Episodes", *(METRIC_TITLES[metric] for metric in METRICS)),
        rows=tuple(
            (
                Cell(row.title),
                Cell(str(len(row.seeds)), f"seeds {_ranges(row.seeds)}"),
                Cell(str(row.episodes)),
                *(summary_cell(row.metrics[metric]) for metric in METRICS),
            )
            for row in rows
        ),
    )


def _ranges(seeds: Sequence[int]) -> str:
    """`0, 1, 2, 5` as `0-2, 5`."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def pairs_as_table(rows: Sequence[PairedRow]) -> Table:
    """One line per arm and metric."""
    return Table(
        header=("Difference", "Metric", "Pairs", "Mean", "Verdict", "Seeds lower / equal / higher"),
        rows=tuple(
            (
                Cell(f"{row.title} - {row.baseline}"),
                Cell(METRIC_TITLES[row.metric]),
                Cell(str(row.difference.n), f"seeds {_ranges(row.seeds)}"),
                _difference_cell(row.difference),
                Cell(verdict(row.difference)),
                _counts_cell(row.difference),
            )
            for row in rows
        ),
    )


def verdict(difference: PairedDifference) -> str:
    """What the interval of a difference says, in a word or two."""
    if difference.low is None:
        return "too few pairs"
    if not difference.resolved:
        return "not resolved"
    return "lower" if difference.mean < 0.0 else "higher"


def _difference_cell(difference: PairedDifference) -> Cell:
    parts = []
    if difference.standard_error is not None:
        parts.append(f"s.e. {format_number(difference.standard_error)}")
    parts += _interval(difference.low, difference.high)
    return Cell(format_number(difference.mean), ", ".join(parts))


def _counts_cell(difference: PairedDifference) -> Cell:
    higher = difference.n - difference.below - difference.equal
    low, high = binomial_interval(difference.below, difference.n)
    share = f"lower in {100 * low:.0f} to {100 * high:.0f} %"
    return Cell(f"{difference.below} / {difference.equal} / {higher}", share)


def wall_as_table(groups: Sequence[RunGroup]) -> Table:
    """Mean seconds per phase and run."""
    rows = []
    for group in groups:
        seconds = [
            sum(float(run.summary["wall_s"][phase]) for run in group.runs) / len(group.runs)
            for phase in PHASES
        ]
        cells = [Cell(f"{value:.1f}") for value in (*seconds, sum(seconds))]
        rows.append(
            (Cell(group.title, f"{group.domain}, {group.preset}, n = {len(group.runs)}"), *cells)
        )
    names = ("Collect", "Meta-train", "Adapt", "Deploy", "All")
    return Table(header=("Arm", *(f"{name} (s)" for name in names)), rows=tuple(rows))


def runs_as_table(records: Sequence[RunRecord]) -> Table:
    """Every run with its numbers as `summary.json` has them."""
    rows = []
    for record in records:
        numbers = [record.number(metric) for metric in METRICS]
        cells = [Cell("–" if one is None else format_number(one)) for one in numbers]
        where = f"{record.domain}, {record.preset}, seed {record.seed}"
        rows.append((Cell(arm_and_name(record), where), *cells))
    return Table(header=("Run", *(METRIC_TITLES[metric] for metric in METRICS)), rows=tuple(rows))


def arm_and_name(record: RunRecord) -> str:
    """How lists of runs call a run."""
    return f"{record.arm}: {record.name}"


def markdown_table(table: Table) -> str:
    """GitHub's Markdown; details follow in parentheses."""

    def text(cell: Cell) -> str:
        whole = f"{cell.text} ({cell.detail})" if cell.detail else cell.text
        return whole.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(table.header) + " |"]
    lines.append("|" + " --- |" * len(table.header))
    lines += ["| " + " | ".join(map(text, row)) + " |" for row in table.rows]
    return "\n".join(lines)


def results_markdown(
    rows: Sequence[ResultRow],
    pairs: Sequence[PairedRow],
    groups: Sequence[RunGroup],
    command: str,
    set_aside: Sequence[SetAside],
) -> str:
    """`results.md`: the tables of each domain, and how they were made."""
    parts = ["# Results", READING]
    for domain, preset in dict.fromkeys((row.domain, row.preset) for row in rows):
        here = [row for row in rows if (row.domain, row.preset) == (domain, preset)]
        parts += [f"## {domain}, preset `{preset}`", markdown_table(results_as_table(here))]
        compared = [pair for pair in pairs if (pair.domain, pair.preset) == (domain, preset)]
        if compared:
            parts += ["Paired differences:", markdown_table(pairs_as_table(compared))]
    if pairs:
        parts.append(PAIRED_READING)
    parts += ["## Seconds per run", markdown_table(wall_as_table(groups))]
    if set_aside:
        lines = [f"- `{one.name}`: {one.reason}" for one in set_aside]
        parts += ["## Left out", "\n".join(lines)]
    commits = sorted({run.git_commit or "unknown" for group in groups for run in group.runs})
    made = ["## How it was made", f"Table: `{command}`", f"Commits: {', '.join(commits)}"]
    commands = [run.command for group in groups for run in group.runs if run.command]
    if commands:
        made.append("Runs:\n\n```sh\n" + "\n".join(dict.fromkeys(commands)) + "\n```")
    return "\n\n".join(parts + made) + "\n"
