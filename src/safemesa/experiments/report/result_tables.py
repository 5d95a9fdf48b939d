"""Results as tables of text, which Markdown and HTML share."""

from collections.abc import Sequence
from typing import Any

from safemesa.experiments.report.overall_rows import OverallRow, overall_rows
from safemesa.experiments.report.result_rows import (
    METRIC_TITLES,
    PairedRow,
    ResultRow,
    RunGroup,
    arm_title,
)
from safemesa.experiments.runs.run_records import METRICS, PHASES, RunRecord, SetAside
from safemesa.experiments.statistics.across_seeds import (
    MINIMUM_FOR_INTERVAL,
    MINIMUM_FOR_VERDICT,
    PairedDifference,
    Summary,
    binomial_interval,
    holm,
)
from safemesa.pages.tables import Cell, Table

READING = (
    "Tables give the mean over runs, then the interquartile mean (IQM), the standard error (s.e.) "
    "and the 95 % bootstrap interval of the mean. One run has no standard error, and fewer than "
    f"{MINIMUM_FOR_INTERVAL} have no interval. With few runs the interval is too narrow: it covers "
    "about 90 % with 10 runs, 80 % with 5 and 75 % with 3; where all runs agree it has no width."
)
"""How a results table is read."""

PAIRED_READING = (
    "Differences are taken seed by seed: runs of one seed share the test task, the test log and "
    "the first networks, so that the spread between seeds cancels. A difference is called lower "
    "or higher where the exact sign-flip test has p of at most 0.05, which needs six pairs; of "
    "many such comparisons one in twenty is called so by chance, hence the second p-value (Holm), "
    "corrected for all comparisons of the table. The last column counts seeds, with Wilson's 95 % "
    "interval of the share that is lower."
)
"""How a table of paired differences is read."""

OVERALL_READING = (
    "Each domain has the same weight, and bootstrap intervals (95 %) resample runs within their "
    "domains. The probability of improvement is that of a run, drawn at random, to have a lower "
    "share than one of the baseline on the same domain; ties count half, and seeds are not paired."
)
"""How the table over all domains is read."""

ABSENT = "n/a"
"""What a cell says where a domain lacks a metric."""


def format_number(value: float) -> str:
    """Three or four digits that matter; whole numbers whole.

    Sums of weights that are no binary fractions differ in their last bit between machines.
    """
    if abs(value - round(value)) < 1e-9:
        return str(round(value))
    size = abs(value)
    decimals = 0 if size >= 1000.0 else 1 if size >= 10.0 else 2 if size >= 0.1 else 4
    return f"{value:.{decimals}f}"


def summary_cell(summary: Summary | None) -> Cell:
    """Mean, and below it whatever else there is; `ABSENT` where the domain lacks the metric."""
    if summary is None:
        return Cell(ABSENT)
    if summary.standard_error is None:
        return Cell(format_number(summary.mean))
    parts = [f"IQM {format_number(summary.iqm)}", f"s.e. {format_number(summary.standard_error)}"]
    parts += _interval(summary.low, summary.high)
    return Cell(format_number(summary.mean), tuple(parts))


def interval_text(low: float | None, high: float | None) -> str:
    """`[low, high]`; empty where there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{format_number(low)}, {format_number(high)}]"


def _interval(low: float | None, high: float | None) -> list[str]:
    text = interval_text(low, high)
    return [text] if text else []


def results_as_table(rows: Sequence[ResultRow]) -> Table:
    """One line per arm."""
    return Table(
        header=("Arm", "n", "Episodes", *(METRIC_TITLES[metric] for metric in METRICS)),
        rows=tuple(
            (
                Cell(row.title),
                Cell(str(len(row.seeds)), (f"seeds {_ranges(row.seeds)}",)),
                Cell(str(row.episodes)),
                *(summary_cell(row.metrics[metric]) for metric in METRICS),
            )
            for row in rows
        ),
    )


def brief_results_table(rows: Sequence[ResultRow]) -> Table:
    """One number per cell with its interval: what a reader looks for first."""
    counted = any(row.metrics["successes"] is not None for row in rows)
    metrics = ("violations", *(("successes",) if counted else ()), "return_mean")
    return Table(
        header=("Arm", "Runs", *(METRIC_TITLES[metric] for metric in metrics)),
        rows=tuple(
            (
                Cell(row.title),
                Cell(str(len(row.seeds))),
                *(_brief(row.metrics[metric]) for metric in metrics),
            )
            for row in rows
        ),
    )


def _brief(summary: Summary | None) -> Cell:
    if summary is None:
        return Cell(ABSENT)
    return Cell(format_number(summary.mean), tuple(_interval(summary.low, summary.high)))


def brief_pairs_table(rows: Sequence[PairedRow]) -> Table:
    """Differences of violations alone, with their intervals and what the test says."""
    chosen = [row for row in rows if row.metric == "violations"]
    return Table(
        header=("Violations", "Pairs", "Difference", "Verdict"),
        rows=tuple(
            (
                Cell(f"{row.title} - {row.baseline}"),
                Cell(str(row.difference.n)),
                Cell(
                    format_number(row.difference.mean),
                    tuple(_interval(row.difference.low, row.difference.high)),
                ),
                Cell(verdict(row.difference)),
            )
            for row in chosen
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
    adjusted = holm([row.difference.p_value for row in rows])
    return Table(
        header=("Difference", "Metric", "Pairs", "Mean", "Verdict", "Seeds lower / equal / higher"),
        rows=tuple(
            (
                Cell(f"{row.title} - {row.baseline}"),
                Cell(METRIC_TITLES[row.metric]),
                Cell(str(row.difference.n), (f"seeds {_ranges(row.seeds)}",)),
                _difference_cell(row.difference),
                Cell(
                    verdict(row.difference),
                    (f"p = {row.difference.p_value:.2g}", f"Holm {corrected:.2g}"),
                ),
                _counts_cell(row.difference),
            )
            for row, corrected in zip(rows, adjusted, strict=True)
        ),
    )


def verdict(difference: PairedDifference) -> str:
    """What the test says, in a word or two."""
    if difference.n < MINIMUM_FOR_VERDICT:
        return "too few pairs"
    if not difference.resolved:
        return "not resolved"
    return "lower" if difference.mean < 0.0 else "higher"


def _difference_cell(difference: PairedDifference) -> Cell:
    parts = []
    if difference.standard_error is not None:
        parts.append(f"s.e. {format_number(difference.standard_error)}")
    parts += _interval(difference.low, difference.high)
    return Cell(format_number(difference.mean), tuple(parts))


def _counts_cell(difference: PairedDifference) -> Cell:
    higher = difference.n - difference.below - difference.equal
    low, high = binomial_interval(difference.below, difference.n)
    share = f"lower in {100 * low:.0f} to {100 * high:.0f} %"
    return Cell(f"{difference.below} / {difference.equal} / {higher}", (share,))


def overall_as_table(rows: Sequence[OverallRow], baseline: str) -> Table:
    """One line per arm, over several domains."""

    def cell(value: float | None, interval: tuple[float, float] | None) -> Cell:
        if value is None:
            return Cell("")
        return Cell(format_number(value), tuple(_interval(*(interval or (None, None)))))

    return Table(
        header=(
            "Arm",
            "Runs",
            "Share of episodes with a violation",
            f"Probability of improvement on {arm_title(baseline)}",
        ),
        rows=tuple(
            (
                Cell(row.title),
                Cell(str(row.runs)),
                cell(row.share, row.interval),
                cell(row.better, row.better_interval),
            )
            for row in rows
        ),
    )


def wall_as_table(groups: Sequence[RunGroup]) -> Table:
    """Mean seconds per phase and run, of our own runs."""
    rows = []
    for group in (group for group in groups if not group.runs[0].external):
        seconds = [
            sum(float(run.summary["wall_s"][phase]) for run in group.runs) / len(group.runs)
            for phase in PHASES
        ]
        cells = [Cell(f"{value:.1f}") for value in (*seconds, sum(seconds))]
        where = f"{group.domain}, {group.preset}, n = {len(group.runs)}"
        rows.append((Cell(group.title, (where,)), *cells))
    names = ("Collect", "Meta-train", "Adapt", "Deploy", "All")
    return Table(header=("Arm", *(f"{name} (s)" for name in names)), rows=tuple(rows))


CALIBRATION_COLUMNS = {
    "brier": "Brier score",
    "auc": "AUC",
    "expected_calibration_error": "Calibration error",
    "bias": "Bias",
    "false_positive_rate": "False positives",
    "false_negative_rate": "False negatives",
}
"""Keys of a row of calibration, and what the table calls them."""


def calibration_as_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per arm and number of adaptation steps; numbers may be None."""
    lines = []
    for row in rows:
        values = [row[name] for name in CALIBRATION_COLUMNS]
        cells = [Cell(ABSENT if one is None else f"{one:.3f}") for one in values]
        cells[0] = Cell(f"{row['brier']:.3f} ± {row['brier_standard_error']:.3f}")
        lines.append((Cell(arm_title(row["arm"])), Cell(str(row["step"])), *cells))
    return Table(header=("Arm", "Steps", *CALIBRATION_COLUMNS.values()), rows=tuple(lines))


def runs_as_table(records: Sequence[RunRecord]) -> Table:
    """Every run with its numbers as `summary.json` has them."""
    rows = []
    for record in records:
        numbers = [record.number(metric) for metric in METRICS]
        cells = [Cell(ABSENT if one is None else format_number(one)) for one in numbers]
        where = f"{record.domain}, {record.preset}, seed {record.seed}"
        rows.append((Cell(arm_title(record.arm), (where, record.name)), *cells))
    return Table(header=("Run", *(METRIC_TITLES[metric] for metric in METRICS)), rows=tuple(rows))


def markdown_table(table: Table) -> str:
    """GitHub's Markdown; details follow in parentheses."""

    def text(cell: Cell) -> str:
        whole = f"{cell.text} ({', '.join(cell.details)})" if cell.details else cell.text
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
    baseline: str,
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
    overall = overall_rows(groups, baseline)
    for preset in dict.fromkeys(row.preset for row in overall):
        here = [row for row in overall if row.preset == preset]
        parts += [
            f"## {', '.join(here[0].domains)} together, preset `{preset}`",
            markdown_table(overall_as_table(here, baseline)),
        ]
    if overall:
        parts.append(OVERALL_READING)
    if any(not group.runs[0].external for group in groups):
        parts += ["## Seconds per run", markdown_table(wall_as_table(groups))]
    if set_aside:
        lines = [f"- `{one.name}`: {one.reason}" for one in set_aside]
        parts += ["## Left out", "\n".join(lines)]
    runs = [run for group in groups for run in group.runs]
    commits = sorted({run.git_commit or "unknown" for run in runs if not run.external})
    made = ["## How it was made", f"Table: `{command}`"]
    if commits:
        made.append(f"Commits: {', '.join(commits)}")
    made += [f"By another program: `{file}`" for file in external_files(runs)]
    commands = [run.command for run in runs if run.command]
    if commands:
        made.append("Runs:\n\n```sh\n" + "\n".join(dict.fromkeys(commands)) + "\n```")
    return "\n\n".join(parts + made) + "\n"


def external_files(runs: Sequence[RunRecord]) -> list[str]:
    """Names of the CSV files that runs of other programs came from."""
    return sorted({run.settings["external"] for run in runs if run.external})


def compact_markdown(rows: Sequence[ResultRow]) -> str:
    """The table of the README: per domain and arm, means over runs with their standard errors."""

    def text(summary: Summary | None) -> str:
        if summary is None:
            return "-"
        spread = "" if summary.standard_error is None else f" ± {summary.standard_error:.1f}"
        return f"{summary.mean:.1f}{spread}"

    names = (
        "violations",
        "violations_under_recovery",
        "successes",
        "interventions",
        "return_mean",
    )
    lines = [
        "| domain | arm | runs | violations | under recovery | successes | interventions "
        "| mean return |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.domain, row.title, str(len(row.seeds))]
        cells += [text(row.metrics[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
