"""A report: one HTML file that compares finished runs, and its figures as PNG files."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from safemesa.core.errors import ConfigurationError
from safemesa.core.files import write_atomic
from safemesa.core.outputs import check_outputs, is_our_folder
from safemesa.experiments.arms import find_arm
from safemesa.experiments.report import result_tables
from safemesa.experiments.report.report_sections import (
    Pictures,
    Place,
    calibration_section,
    conclusion_section,
    overall_section,
    place_section,
    provenance_section,
)
from safemesa.experiments.report.result_files import write_results
from safemesa.experiments.report.result_rows import BASELINE, RunGroup, arm_title, group_runs
from safemesa.experiments.runs.run_records import RunScan, scan_runs
from safemesa.pages.markup import (
    Html,
    bullets,
    contents,
    folded,
    heading,
    page,
    paragraph,
    table,
)
from safemesa.pages.tables import Cell, Table
from safemesa.phases.progress import NoProgress, Progress


def write_report(
    paths: Sequence[Path],
    out: Path,
    command: str,
    *,
    baseline: str = BASELINE,
    progress: Progress | None = None,
    with_calibration: bool = False,
) -> Path:
    """Writes `report.html`, `results.json`, `results.md` and `figures/` into `out`.

    The page needs nothing but itself. What cannot be drawn (a run of another version, an artefact
    that was removed) is named in the page and the rest is there.

    Args:
        paths: Run folders, folders that contain some, or CSV files of other programs' episodes.
        out: Folder to write into; earlier reports there are replaced.
        command: What made the report, for its last section.
        baseline: The arm that others are compared with, seed by seed.
        progress: Told about every arm.
        with_calibration: Also measure calibration by Monte-Carlo roll-outs, which takes a while.

    Raises:
        ConfigurationError: there is no run of an arm that was named as the baseline.
        DatasetError: there is no finished run.
        OutputFolderError: `out` cannot be written, or holds files of those names that are not
            an earlier report's.
    """
    progress, out = progress or NoProgress(), Path(out)
    # Pictures say themselves that they are ours, and are looked at when they are written.
    check_outputs(out, ("report.html", "results.md", "results.json"))
    scan = scan_runs(paths)
    groups = group_runs(scan.runs)
    arms = dict.fromkeys(group.arm for group in groups)
    # Runs without the usual baseline are still worth a report.
    if baseline != BASELINE and baseline not in arms:
        raise ConfigurationError(
            f"no run is of the baseline {baseline!r}; there are runs of {', '.join(arms)}."
        )
    places = _places(groups, baseline)
    pictures = Pictures(out / "figures", replaces=is_our_folder(out))
    write_results(scan.runs, out, command, set_aside=scan.set_aside, baseline=baseline)
    progress.start("report", len(places), 0)
    opening, body = conclusion_section(places, pictures), []
    for done, place in enumerate(places, start=1):
        body += place_section(place, pictures)
        progress.update(done)
    progress.finish()
    titles = [place.title for place in places]
    for name, parts in overall_section(groups, baseline, pictures).items():
        titles.append(name)
        body += parts
    if with_calibration:
        body += calibration_section(paths, pictures, progress)
        titles.append("Calibration")
    wall = _wall_times(groups)
    title = "safemesa: " + ", ".join(dict.fromkeys(place.domain for place in places))
    parts = [
        heading(1, title),
        *opening,
        paragraph(_counts(scan, groups)),
        *_left_out(scan),
        contents([*titles, "What was compared", *wall, "All runs", "How this was made"]),
        *body,
        heading(2, "What was compared"),
        *_compared(groups),
        *itertools.chain.from_iterable(wall.values()),
        heading(2, "All runs"),
        folded(f"{len(scan.runs)} runs", [table(result_tables.runs_as_table(scan.runs))]),
        *provenance_section(scan.runs, command),
    ]
    write_atomic(out / "report.html", page(title, parts).encode())
    return out / "report.html"


def _places(groups: Sequence[RunGroup], baseline: str) -> list[Place]:
    """Groups by domain and preset."""
    keys = dict.fromkeys((group.domain, group.preset) for group in groups)
    return [
        Place(
            domain=domain,
            preset=preset,
            groups=tuple(one for one in groups if (one.domain, one.preset) == (domain, preset)),
            baseline=baseline,
        )
        for domain, preset in keys
    ]


def _counts(scan: RunScan, groups: Sequence[RunGroup]) -> str:
    counts = [len(group.runs) for group in groups]
    fewest, most = min(counts), max(counts)
    per_arm = str(fewest) if fewest == most else f"{fewest} to {most}"
    return (
        f"{len(scan.runs)} finished runs in {len(groups)} groups, {per_arm} per group. A run is "
        "one robot: seeds decide its dynamics, its log, the first networks and all noise."
    )


def _left_out(scan: RunScan) -> list[Html]:
    if not scan.set_aside:
        return []
    return [
        paragraph("These run folders were left out:", "note"),
        bullets(f"{one.name}: {one.reason}" for one in scan.set_aside),
    ]


def _wall_times(groups: Sequence[RunGroup]) -> dict[str, list[Html]]:
    """Heading and table by title; nothing where all runs are other programs'."""
    if all(group.runs[0].external for group in groups):
        return {}
    rows = table(result_tables.wall_as_table(groups))
    return {"Wall times": [heading(2, "Wall times"), folded("Seconds per phase", [rows])]}


def _compared(groups: Sequence[RunGroup]) -> list[Html]:
    """Every arm once, and how the tables that follow are read."""
    rows = []
    for arm in dict.fromkeys(group.arm for group in groups):
        run = next(group for group in groups if group.arm == arm).runs[0]
        settings = run.settings
        if run.external:
            summary = f"another program's, from {settings['external']}"
            rows.append((Cell(arm), Cell(summary), *[Cell(result_tables.ABSENT)] * 2))
            continue
        try:
            summary = find_arm(arm).summary
        except ConfigurationError:
            summary = "unknown to this version of safemesa"
        learner, guard = str(settings.get("meta_learner")), str(settings.get("guard"))
        rows.append((Cell(arm_title(arm), (arm,)), Cell(summary), Cell(learner), Cell(guard)))
    return [
        table(Table(header=("Arm", "In a line", "Meta-learner", "Guard"), rows=tuple(rows))),
        paragraph(result_tables.READING, "soft"),
        paragraph(result_tables.PAIRED_READING, "soft"),
    ]
