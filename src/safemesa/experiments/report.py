"""A report: one HTML file that compares finished runs, and its figures as PNG files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safemesa
from safemesa.core.errors import ConfigurationError, SafemesaError
from safemesa.core.files import write_atomic
from safemesa.experiments import analysis, figures, plane_figures, result_tables
from safemesa.experiments.arms import find_arm
from safemesa.experiments.calibrate_runs import calibrate_runs, table_rows
from safemesa.experiments.report_html import (
    Html,
    bullets,
    code,
    contents,
    heading,
    page,
    paragraph,
    picture,
    slug,
    table,
)
from safemesa.experiments.result_tables import Cell, Table
from safemesa.experiments.results import (
    RunGroup,
    RunRecord,
    RunScan,
    arm_title,
    group_runs,
    paired_rows,
    results_table,
    scan_runs,
    write_results,
)
from safemesa.phases.progress import NoProgress, Progress

BASELINE = "multitask"
"""The arm that others are compared with, seed by seed."""

Figure = figures.Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """A domain at a preset: a section of the report."""

    domain: str
    preset: str
    groups: tuple[RunGroup, ...]

    @property
    def title(self) -> str:
        return f"{self.domain} ({self.preset})"

    def shown_runs(self) -> list[tuple[RunGroup, RunRecord]]:
        """One run per group for maps and paths: of the lowest common seed, if there is one."""
        common = set.intersection(*(set(group.seeds) for group in self.groups))
        runs = []
        for group in self.groups:
            by_seed = {run.seed: run for run in group.runs}
            runs.append((group, by_seed[min(common or by_seed)]))
        return runs

    def shown_seeds(self) -> str:
        """Those runs' seeds in words."""
        seeds = dict.fromkeys(run.seed for _, run in self.shown_runs())
        if len(seeds) == 1:
            return f"All are of seed {next(iter(seeds))}."
        return "No seed is common to all arms; each row shows the lowest seed of its arm."


class _Pictures:
    """Writes figures to a folder and puts them into the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, figure: Figure, alternative: str, caption: str) -> Html:
        """Saves a figure as `name`.png; returns it as markup."""
        data = figures.png(figure)
        write_atomic(self.folder / f"{name}.png", data)
        return picture(data, alternative, caption)


def write_report(
    paths: Sequence[Path],
    out: Path,
    command: str,
    *,
    progress: Progress | None = None,
    with_calibration: bool = False,
) -> Path:
    """Writes `report.html`, `results.json`, `results.md` and `figures/` into `out`.

    The page needs nothing but itself. What cannot be drawn (a run of another version, an artefact
    that was removed) is named in the page and the rest is there.

    Args:
        paths: Run folders, or folders that contain some.
        out: Folder to write into; earlier reports there are replaced.
        command: What made the report, for its last section.
        progress: Told about every arm.
        with_calibration: Also measure calibration by Monte-Carlo roll-outs, which takes a while.

    Raises:
        DatasetError: there is no finished run.
        OutputFolderError: `out` cannot be written.
    """
    progress, out = progress or NoProgress(), Path(out)
    scan = scan_runs(paths)
    groups = group_runs(scan.runs)
    keys = dict.fromkeys((group.domain, group.preset) for group in groups)
    places = [
        _Place(
            domain=domain,
            preset=preset,
            groups=tuple(one for one in groups if (one.domain, one.preset) == (domain, preset)),
        )
        for domain, preset in keys
    ]
    pictures = _Pictures(out / "figures")
    write_results(scan.runs, out, command, set_aside=scan.set_aside, baseline=BASELINE)
    progress.start("report", len(places), 0)
    body = []
    for done, place in enumerate(places, start=1):
        body += _place_section(place, pictures)
        progress.update(done)
    progress.finish()
    if with_calibration:
        body += _calibration_section(paths, pictures, progress)
    title = "safemesa: " + ", ".join(keys_title for keys_title in dict.fromkeys(k[0] for k in keys))
    last = ["Wall times", "All runs", "How this was made"]
    links = [*(place.title for place in places), *(["Calibration"] if with_calibration else [])]
    parts = [
        heading(1, title),
        paragraph(_opening(scan, groups)),
        contents([*links, *last]),
        *_left_out(scan),
        heading(2, "What was compared"),
        table(_arms_table(groups)),
        paragraph(result_tables.READING, "soft"),
        paragraph(result_tables.PAIRED_READING, "soft"),
        *body,
        heading(2, last[0]),
        table(result_tables.wall_as_table(groups)),
        heading(2, last[1]),
        table(result_tables.runs_as_table(scan.runs)),
        *_provenance(scan.runs, command),
    ]
    write_atomic(out / "report.html", page(title, parts).encode())
    return out / "report.html"


def _opening(scan: RunScan, groups: Sequence[RunGroup]) -> str:
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
        paragraph(f"{len(scan.set_aside)} run folders were left out:", "note"),
        bullets(f"{one.name}: {one.reason}" for one in scan.set_aside),
    ]


def _arms_table(groups: Sequence[RunGroup]) -> Table:
    """Every arm once: what it is called and what it is."""
    rows = []
    for arm in dict.fromkeys(group.arm for group in groups):
        settings = next(group for group in groups if group.arm == arm).runs[0].settings
        try:
            summary = find_arm(arm).summary
        except ConfigurationError:
            summary = "unknown to this version of safemesa"
        learner, guard = settings.get("meta_learner"), settings.get("guard")
        rows.append(
            (Cell(arm_title(arm), (arm,)), Cell(summary), Cell(str(learner)), Cell(str(guard)))
        )
    return Table(header=("Arm", "In a line", "Meta-learner", "Guard"), rows=tuple(rows))


def _place_section(place: _Place, pictures: _Pictures) -> list[Html]:
    """Tables, curves, maps and paths of one domain and preset."""
    runs = [run for group in place.groups for run in group.runs]
    pairs = paired_rows(runs, BASELINE)
    parts = [
        heading(2, place.title),
        table(result_tables.results_as_table(results_table(runs))),
    ]
    if pairs:
        parts += [
            heading(3, f"Paired differences against {arm_title(BASELINE)}: {place.title}"),
            table(result_tables.pairs_as_table(pairs)),
        ]
    elif any(group.arm != BASELINE for group in place.groups):
        parts.append(
            paragraph(f"No {arm_title(BASELINE)} runs with common seeds to compare with.", "soft")
        )
    parts += [heading(3, f"Learning curves: {place.title}"), _curves(place, pictures)]
    domain = analysis.planar_domain(place.domain)
    if domain is not None:
        where = analysis.plane(domain)
        parts += _maps(place, where, pictures) + _paths(place, where, pictures)
    return parts


def _curves(place: _Place, pictures: _Pictures) -> Html:
    return pictures.add(
        slug(f"{place.title} curves"),
        figures.learning_curves(place.groups),
        f"Learning curves on {place.title}",
        "Episodes of Phase 3, means over runs; shading is one standard error. Where curves "
        "coincide, the first arm is on top.",
    )


def _maps(place: _Place, where: analysis.Plane, pictures: _Pictures) -> list[Html]:
    """Risk over the plane for every arm with a critic."""
    maps, problems = [], []
    for group, run in place.shown_runs():
        try:
            found = analysis.risk_maps(run.path, group.title, where)
        except SafemesaError as error:
            problems.append(f"No risk map of {group.title}: {error}")
            continue
        if found is not None:
            maps.append(found)
    parts = [heading(3, f"Risk while the prior adapts: {place.title}")] if maps or problems else []
    parts += [paragraph(problem, "note") for problem in problems]
    if maps:
        parts.append(
            pictures.add(
                slug(f"{place.title} risk"),
                plane_figures.risk_figure(maps, where),
                f"Risk over the plane per arm and number of adaptation steps on {place.title}",
                "Risk of a uniformly random action (mean over a fixed set), by steps on the test "
                "log; blue is low, red is high, lines are obstacles. Maps are of the critic before "
                f"Phase 3. {place.shown_seeds()}",
            )
        )
    return parts


def _paths(place: _Place, where: analysis.Plane, pictures: _Pictures) -> list[Html]:
    """First, middle and last episodes of every arm."""
    rows, problems = [], []
    for group, run in place.shown_runs():
        chosen = analysis.typical_episodes(int(run.summary["episodes"]))
        try:
            rows.append((group.title, [analysis.episodes(run.path, some) for some in chosen]))
        except SafemesaError as error:
            problems.append(f"No trajectories of {group.title}: {error}")
    parts = [heading(3, f"Trajectories: {place.title}")]
    parts += [paragraph(problem, "note") for problem in problems]
    if rows:
        parts.append(
            pictures.add(
                slug(f"{place.title} trajectories"),
                plane_figures.trajectory_figure(rows, where),
                f"Paths of the first, middle and last episodes per arm on {place.title}",
                f"Paths of Phase 3; grey is an obstacle. {place.shown_seeds()}",
            )
        )
    return parts


def _calibration_section(
    paths: Sequence[Path], pictures: _Pictures, progress: Progress
) -> list[Html]:
    """Predicted risk against Monte-Carlo truth, per domain and preset."""
    parts = [heading(2, "Calibration")]
    try:
        found = calibrate_runs(paths, progress=progress)
    except SafemesaError as error:
        return [*parts, paragraph(f"Not measured: {error}", "note")]
    for (domain, preset), results in found.items():
        title = f"{domain} ({preset})"
        parts += [
            heading(3, f"Calibration: {title}"),
            pictures.add(
                slug(f"{title} calibration"),
                figures.calibration_figure(results),
                f"Predicted against true risk per arm and number of adaptation steps on {title}",
                "Each arm's prior (that of its lowest seed), adapted to held-out tasks. Truth is "
                "the discounted frequency of violations when all later actions are uniform, by "
                "Monte-Carlo roll-outs. Dots: share of pairs in a bin. Bars: standard error over "
                "tasks.",
            ),
            table(result_tables.calibration_as_table(table_rows({(domain, preset): results}))),
        ]
    parts.append(
        paragraph(
            "Means over held-out tasks. False positives and negatives are counted at the risk "
            "limit; AUC ranks pairs by whether their true risk exceeds it.",
            "soft",
        )
    )
    return parts


def _provenance(runs: Sequence[RunRecord], command: str) -> list[Html]:
    """Commands, versions and commits."""
    versions = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in run.versions.items()) or "not recorded"
        for run in runs
    )
    commits = dict.fromkeys(run.git_commit or "not recorded" for run in runs)
    commands = dict.fromkeys(run.command for run in runs if run.command)
    silent = sum(not run.command for run in runs)
    parts = [
        heading(2, "How this was made"),
        paragraph(f"This report, by safemesa {safemesa.__version__}:"),
        code([command or "write_report(...), from Python"]),
        paragraph(f"Its {len(runs)} runs:"),
    ]
    if commands:
        parts.append(code(commands))
    if silent:
        parts.append(paragraph(f"{silent} runs were started from Python, without a command."))
    facts = [f"Versions: {one}" for one in versions] + [f"Commit: {one}" for one in commits]
    return [*parts, bullets(facts)]
