"""`safemesa data report`: a dataset as one HTML file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safemesa.core.files import write_atomic
from safemesa.core.spaces import Spaces
from safemesa.datasets.doctor.examine import Examination, examine
from safemesa.datasets.findings import NOTE, by_kind
from safemesa.datasets.importers.stream import OnRows
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.report.robots import (
    RobotView,
    edges_of,
    outside_others,
    shares_of,
    view_robots,
)
from safemesa.datasets.task_log import violations_in_words
from safemesa.pages.charts import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    Chart,
    Line,
    Mark,
    Panel,
    Strip,
    bars_svg,
    chart_svg,
    drawing,
    strips_svg,
)
from safemesa.pages.markup import (
    Html,
    bullets,
    code,
    contents,
    folded,
    heading,
    page,
    paragraph,
    row_of,
    table,
)
from safemesa.pages.tables import Cell, Table

MOST_ROBOTS = 24
"""Robots with pictures of their own, and rows of a picture that compares robots."""
MOST_SIGNALS = 24
MOST_MOMENTS = 12
PLACES = 3
"""Places of each kind of defect that are shown."""


def write_data_report(
    folder: Path, out: Path, command: str, *, before: int = 30, on_rows: OnRows | None = None
) -> Path:
    """Writes the page of a dataset folder; the same folder gives the same page.

    Its size is bounded: at most 24 robots, 24 signals and 12 violations of each robot are drawn,
    and the page says what it leaves out.

    Args:
        folder: a dataset folder.
        out: the HTML file.
        command: what made it, for the last section.
        before: rows before each violation that are drawn.
        on_rows: told how far the doctor is.

    Raises:
        DatasetError: the folder is missing, or damaged so that it cannot be read.
        OutputFolderError: `out` cannot be written.
    """
    data = OfflineTasks.load(folder, verify=False)
    examination = examine([folder], on_rows=on_rows or (lambda done, rows: None))
    views = view_robots(data, before=before, after=max(before // 5, 1), most_moments=MOST_MOMENTS)
    shown = views[:MOST_ROBOTS]
    names = [*data.spaces.obs_names, *data.spaces.action_names]
    title = f"Logs of {data.domain}"
    titles = ["Robots", "Ranges and coverage", "Before violations", "What the doctor found"]
    parts = [
        heading(1, title),
        *_opening(views, data.spaces, examination),
        contents([*titles, "How this was made"]),
        heading(2, "Robots"),
        *_robots(views, data.spaces),
        heading(2, "Ranges and coverage"),
        *_ranges(views, shown, names),
        heading(2, "Before violations"),
        *_left_out(views, names),
        *(part for view in shown for part in _robot(view, data.spaces)),
        heading(2, "What the doctor found"),
        *_findings(examination),
        heading(2, "How this was made"),
        code([command]),
    ]
    write_atomic(out, page(title, parts).encode(errors="replace"))
    return out


def _opening(views: Sequence[RobotView], spaces: Spaces, examination: Examination) -> list[Html]:
    rows = sum(view.transitions for view in views)
    events = sum(view.events for view in views)
    hours = rows * spaces.dt / 3600.0
    silent = [view.name for view in views if not view.events]
    errors = examination.findings.errors()
    lead = (
        f"{len(views)} robots, {rows} steps of {spaces.dt:g} s ({hours:.3g} hours) in "
        f"{sum(view.episodes for view in views)} episodes, {events} violations."
    )
    parts = [paragraph(lead, "lead")]
    if errors:
        parts.append(paragraph(f"{len(errors)} errors must be mended first: see below.", "note"))
    if not events:
        parts.append(paragraph("There is no violation: risk cannot be learned from this.", "note"))
    elif silent:
        parts.append(paragraph(f"Without any violation: {_some(silent)}."))
    # What could not be read is missing from the counts.
    lines = [] if errors else examination.sufficiency.lines()
    return [*parts, bullets(line.removeprefix("  - ") for line in lines)] if lines else parts


def _robots(views: Sequence[RobotView], spaces: Spaces) -> list[Html]:
    rows = tuple(
        (
            Cell(view.name, ("new robot",) if view.role == "test" else ()),
            Cell(str(view.episodes)),
            Cell(str(view.transitions), (f"{view.transitions * spaces.dt / 60.0:.3g} min",)),
            Cell(violations_in_words(view.events, view.violating_rows)),
            Cell(f"{view.events / view.episodes:.2f}"),
            Cell(f"{view.transitions / view.episodes * spaces.dt:.3g} s"),
        )
        for view in views
    )
    header = ("Robot", "Episodes", "Steps", "Violations", "Per episode", "Mean length")
    bars = [
        (view.name, min(view.events / view.episodes, 1.0), f"{view.events} of {view.episodes}")
        for view in views[:MOST_ROBOTS]
    ]
    return [
        drawing(bars_svg(bars, "Violations per episode"), "One bar for each robot; full at one."),
        table(Table(header=header, rows=rows)),
    ]


def _ranges(views: list[RobotView], shown: Sequence[RobotView], names: Sequence[str]) -> list[Html]:
    outside = outside_others(views)
    all_edges = [edges_of(views, signal) for signal in range(len(names))]
    pictures = []
    for signal, name in enumerate(names[:MOST_SIGNALS]):
        edges = all_edges[signal]
        strips = [
            Strip(
                name=view.name,
                shares=shares_of(view, signal, edges),
                median=float(np.median(view.rows[:, signal])) if len(view.rows) else float("nan"),
                colour=ORANGE if view.role == "test" else BLUE,
            )
            for view in shown
        ]
        pictures.append(strips_svg(name, edges, strips))
    caption = (
        "A row for each robot, the new one in orange; darker where it spent more steps, white "
        "where it never was. The bar is its median. The range is that of all robots, without the "
        "outermost thousandth of each."
    )
    parts = [drawing(row_of(pictures), caption)]
    if len(views) < 2:
        return [*parts, paragraph("One robot alone has no others to compare it with.")]
    rows = []
    for index, view in enumerate(views):
        worst = int(np.nanargmax(outside[index])) if np.isfinite(outside[index]).any() else -1
        cell = Cell("no sound rows")
        if worst >= 0:
            share = outside[index, worst]
            cell = Cell(f"{share:.1%}", (names[worst],)) if share > 0 else Cell("0 %")
        visited = [
            float((shares_of(view, signal, edges) > 0).mean())
            for signal, edges in enumerate(all_edges)
        ]
        least = int(np.argmin(visited))
        rows.append((Cell(view.name), cell, Cell(f"{visited[least]:.0%}", (names[least],))))
    header = ("Robot", "Steps outside the others' range, at most", "Of the range visited, at least")
    reading = (
        "The signal with the most steps outside of what all other robots did, and the one of "
        "whose range this robot saw least. A shield knows little where no robot has been."
    )
    return [*parts, table(Table(header=header, rows=tuple(rows))), paragraph(reading, "soft")]


def _left_out(views: Sequence[RobotView], names: Sequence[str]) -> list[Html]:
    words = []
    if len(views) > MOST_ROBOTS:
        words.append(f"{MOST_ROBOTS} of {len(views)} robots")
    if len(names) > MOST_SIGNALS:
        words.append(f"{MOST_SIGNALS} of {len(names)} signals")
    if any(view.events > MOST_MOMENTS for view in views):
        words.append(f"at most {MOST_MOMENTS} violations of each robot, evenly chosen")
    return [paragraph(f"Drawn are {', '.join(words)}.", "soft")] if words else []


def _robot(view: RobotView, spaces: Spaces) -> list[Html]:
    if not view.events:
        return [heading(3, view.name), paragraph("No violation.")]
    picture = drawing(
        chart_svg(_moments_chart(view, spaces)),
        f"{len(view.moments)} of {view.events} violations of {view.name}, one line each. At 0 the "
        "violating state is reached.",
    )
    places = ", ".join(f"row {one.row} (episode {one.episode})" for one in view.moments)
    where = folded("Which rows", [paragraph(places)])
    if view.role == "test":
        return [heading(3, view.name), picture, where]
    return [heading(3, view.name), folded("Signals before its violations", [picture, where])]


def _moments_chart(view: RobotView, spaces: Spaces) -> Chart:
    panels = []
    signals = [(name, "obs", i) for i, name in enumerate(spaces.obs_names)]
    signals += [(name, "action", i) for i, name in enumerate(spaces.action_names)]
    for name, kind, index in signals[:MOST_SIGNALS]:
        lines = [
            Line(
                y=(moment.obs if kind == "obs" else moment.action)[:, index],
                x=moment.seconds,
                colour=BLUE if kind == "obs" else GREY,
                opacity=0.65,
                width=1.2,
            )
            for moment in view.moments
        ]
        panels.append(Panel(title=name, lines=lines, height=64.0))
    ends = [float(moment.seconds[0]) for moment in view.moments]
    last = [float(moment.seconds[-1]) for moment in view.moments]
    return Chart(
        x=np.array([min(ends), max(last)]),
        x_title="seconds from the violation",
        panels=panels,
        marks=(Mark(x=0.0, colour=RED),),
        description=f"Signals of {view.name} before its violations",
    )


def _findings(examination: Examination) -> list[Html]:
    if not len(examination.findings):
        return [paragraph("No defects.")]
    rows = []
    for kind in by_kind(examination.findings):
        defect = kind[0].defect
        places = [
            place.place() + (f": {place.detail}" if place.detail else "") for place in kind[:PLACES]
        ]
        if len(kind) > PLACES:
            places.append(f"and in {len(kind) - PLACES} more places")
        rows.append(
            (
                Cell(defect.level),
                Cell(kind[0].code),
                Cell(str(sum(one.count for one in kind))),
                Cell(f"{defect.what}. {defect.advice}", tuple(places)),
            )
        )
    serious = any(one.defect.level != NOTE for one in examination.findings)
    parts = [table(Table(header=("Level", "Kind", "Count", "What, and where"), rows=tuple(rows)))]
    return parts if serious else [paragraph("Notes only."), *parts]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
