"""The sections of a report: per domain its tables and figures, calibration, provenance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safemesa
from safemesa.core.errors import SafemesaError
from safemesa.core.files import write_atomic
from safemesa.core.outputs import check_output
from safemesa.experiments.measures import run_contents
from safemesa.experiments.measures.calibrate_runs import calibrate_runs, table_rows
from safemesa.experiments.measures.planes import Plane, plane
from safemesa.experiments.report import plane_figures, result_figures, result_tables
from safemesa.experiments.report.calibration_figures import calibration_figure
from safemesa.experiments.report.conclusion import CAUTION, conclusion
from safemesa.experiments.report.overall_rows import overall_rows, violation_profiles
from safemesa.experiments.report.result_rows import (
    RunGroup,
    arm_title,
    paired_rows,
    results_table,
)
from safemesa.experiments.runs.run_records import RunRecord
from safemesa.pages.markup import (
    Html,
    bullets,
    code,
    folded,
    heading,
    paragraph,
    picture,
    slug,
    table,
)
from safemesa.phases.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A domain at a preset: a section of the report."""

    domain: str
    preset: str
    groups: tuple[RunGroup, ...]
    baseline: str

    @property
    def title(self) -> str:
        """What headings call it."""
        return f"{self.domain} ({self.preset})"

    def shown_runs(self) -> list[tuple[RunGroup, RunRecord]]:
        """One run per group for maps and paths: of the lowest common seed, if there is one.

        None of other programs, which leave no models and no positions.
        """
        groups = [group for group in self.groups if not group.runs[0].external]
        common = set.intersection(*(set(group.seeds) for group in groups)) if groups else set()
        runs = []
        for group in groups:
            by_seed = {run.seed: run for run in group.runs}
            runs.append((group, by_seed[min(common or by_seed)]))
        return runs

    def shown_seeds(self) -> str:
        """Those runs' seeds in words."""
        seeds = dict.fromkeys(run.seed for _, run in self.shown_runs())
        if len(seeds) == 1:
            return f"All are of seed {next(iter(seeds))}."
        return "No seed is common to all arms; each row shows the lowest seed of its arm."


class Pictures:
    """Writes figures to a folder and puts them into the page."""

    def __init__(self, folder: Path, *, replaces: bool = True) -> None:
        """`replaces`: whether pictures that are there may be replaced, whoever made them."""
        self.folder, self.replaces = folder, replaces

    def add(self, name: str, figure: result_figures.Figure, alternative: str, caption: str) -> Html:
        """Saves a figure as `name`.png; returns it as markup."""
        data = result_figures.png(figure)
        if not self.replaces:
            check_output(self.folder / f"{name}.png")
        write_atomic(self.folder / f"{name}.png", data)
        return picture(data, alternative, caption)


def conclusion_section(places: Sequence[Place], pictures: Pictures) -> list[Html]:
    """Who violated least on each place, whether that can be trusted, and one chart."""
    figure = result_figures.return_figure({place.title: place.groups for place in places})
    caption = (
        "Violations against return, or against successes where the domain counts them (there a "
        "robot that crashes at once may have the best return). Means over runs with 95 % bootstrap "
        "intervals; upper left is best."
    )
    alternative = "Violations against return of each arm"
    return [
        *(paragraph(conclusion(place.title, place.groups), "lead") for place in places),
        pictures.add("violations-against-return", figure, alternative, caption),
        paragraph(CAUTION, "soft"),
    ]


def place_section(place: Place, pictures: Pictures) -> list[Html]:
    """Tables, curves, maps and paths of one domain and preset."""
    runs = [run for group in place.groups for run in group.runs]
    pairs, baseline = paired_rows(runs, place.baseline), arm_title(place.baseline)
    rows = results_table(runs)
    parts = [
        heading(2, place.title),
        table(result_tables.brief_results_table(rows)),
        folded("All statistics of these runs", [table(result_tables.results_as_table(rows))]),
    ]
    if pairs:
        parts += [
            heading(3, f"Paired differences against {baseline}: {place.title}"),
            table(result_tables.brief_pairs_table(pairs)),
            folded("All paired differences", [table(result_tables.pairs_as_table(pairs))]),
        ]
    elif any(group.arm != place.baseline for group in place.groups):
        text = f"No {baseline} runs of the same seeds and the same length to compare with."
        parts.append(paragraph(text, "soft"))
    parts += [heading(3, f"Learning curves: {place.title}"), *_curves(place, pictures)]
    planes = {run.seed: plane(place.domain, run.seed) for _, run in place.shown_runs()}
    planar = {seed: one for seed, one in planes.items() if one is not None}
    if planar:
        parts += _maps(place, planar, pictures) + _paths(place, planar, pictures)
    return parts


def _curves(place: Place, pictures: Pictures) -> list[Html]:
    try:
        figure = result_figures.learning_curves(place.groups)
    except SafemesaError as error:
        return [paragraph(f"No curves: {error}", "note")]
    caption = (
        "Episodes of Phase 3, means over runs; shading is one standard error (left out where there "
        "are many arms). Where curves coincide, the first arm is on top."
    )
    summaries = [run.summary for group in place.groups for run in group.runs]
    if result_figures.change_marks(summaries, over_steps=True):
        caption += " Dotted: the robot changes, gradually where shaded."
    if result_figures.alarm_marks(summaries, over_steps=True):
        caption += " Thin red: an alarm of a monitor."
    name = slug(f"{place.title} curves")
    return [pictures.add(name, figure, f"Learning curves on {place.title}", caption)]


def _maps(place: Place, planes: dict[int, Plane], pictures: Pictures) -> list[Html]:
    """Risk over the plane for every arm with a critic."""
    maps, problems = [], []
    for group, run in place.shown_runs():
        try:
            found = run_contents.risk_maps(run.path, group.title, planes[run.seed])
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
                plane_figures.risk_figure(maps),
                f"Risk over the plane per arm and number of adaptation steps on {place.title}",
                "Risk of a uniformly random action (mean over a fixed set), by steps on the test "
                "log; blue is low, red is high, lines are obstacles. Maps are of the critic before "
                f"Phase 3. {place.shown_seeds()}",
            )
        )
    return parts


def _paths(place: Place, planes: dict[int, Plane], pictures: Pictures) -> list[Html]:
    """First, middle and last episodes of every arm."""
    rows, problems = [], []
    for group, run in place.shown_runs():
        try:
            rows.append(run_contents.typical_paths(run.path, group.title, planes[run.seed]))
        except SafemesaError as error:
            problems.append(f"No trajectories of {group.title}: {error}")
    parts = [heading(3, f"Trajectories: {place.title}")]
    parts += [paragraph(problem, "note") for problem in problems]
    if rows:
        parts.append(
            pictures.add(
                slug(f"{place.title} trajectories"),
                plane_figures.trajectory_figure(rows),
                f"Paths of the first, middle and last episodes per arm on {place.title}",
                f"Paths of Phase 3; grey is an obstacle. {place.shown_seeds()}",
            )
        )
    return parts


def overall_section(
    groups: Sequence[RunGroup], baseline: str, pictures: Pictures
) -> dict[str, list[Html]]:
    """Table and profiles over the domains of each preset that has several, by title."""
    rows, found = overall_rows(groups, baseline), {}
    for preset in dict.fromkeys(row.preset for row in rows):
        here = [row for row in rows if row.preset == preset]
        title = f"All domains together, {preset}"
        caption = (
            f"Share of runs on {', '.join(here[0].domains)} with more than so many violating "
            "episodes; lower is safer. Shading: pointwise 95 % bootstrap intervals, where there "
            "are three runs or more per domain and not too many arms."
        )
        figure = result_figures.profile_figure(violation_profiles(groups, preset))
        found[title] = [
            heading(2, title),
            table(result_tables.overall_as_table(here, baseline)),
            paragraph(result_tables.OVERALL_READING, "soft"),
            pictures.add(slug(title), figure, f"Performance profiles: {title}", caption),
        ]
    return found


def calibration_section(
    paths: Sequence[Path], pictures: Pictures, progress: Progress
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
                calibration_figure(results),
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
            "Means over held-out tasks, Brier's score with its standard error. Arms without a "
            "Phase 1 take more steps than these before they are deployed. False positives and "
            "negatives are counted at the risk limit; AUC ranks pairs by whether their true risk "
            "exceeds it.",
            "soft",
        )
    )
    return parts


def provenance_section(runs: Sequence[RunRecord], command: str) -> list[Html]:
    """Commands, versions and commits; of runs of other programs, their files."""
    files = result_tables.external_files(runs)
    count, runs = len(runs), [run for run in runs if not run.external]
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
        paragraph(f"Its {count} runs:"),
    ]
    if commands:
        parts.append(code(commands))
    if silent:
        parts.append(paragraph(f"{silent} runs were started from Python, without a command."))
    facts = [f"Versions: {one}" for one in versions] + [f"Commit: {one}" for one in commits]
    facts += [f"By another program: {file}" for file in files]
    return [*parts, bullets(facts)]
