"""`safemesa shield replay`: a replayed log or black box as one HTML file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from safemesa.core.files import write_atomic
from safemesa.datasets.moments import evenly
from safemesa.pages.charts import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PURPLE,
    RED,
    Chart,
    Line,
    Mark,
    Panel,
    chart_svg,
    drawing,
    envelope,
    spans_of,
)
from safemesa.pages.markup import (
    Html,
    code,
    contents,
    heading,
    key_numbers,
    page,
    paragraph,
    table,
)
from safemesa.pages.tables import Cell, Table
from safemesa.shield.replay import (
    Lead,
    OnTicks,
    Replay,
    leads_of,
    load_ticks,
    monitoring,
    replay_ticks,
    unneeded,
)
from safemesa.shield.runtime import Settings, Shield, read_manifest

POINTS = 700
"""Of the overview; each stands for a group of ticks."""
MOST_TICKS = 400
"""Of a moment; of a longer one every n-th is drawn."""
MOST_ACTIONS, MOST_SIGNALS = 6, 8
PLAIN_SECONDS = 5.0
"""The window where the manifest does not say how far the risk looks ahead."""
FLOOR = 1e-4
"""Lowest risk that is drawn apart from 0."""
OPEN_LOOP = (
    "The log goes on as it was driven. It shows when this shield would have taken over and what "
    "it would have sent. What the robot would have done then, no log shows."
)


class View(NamedTuple):
    """What the page is made from."""

    replay: Replay
    settings: Settings
    window: int
    """Ticks before a violation that are looked at."""
    leads: list[Lead]
    false: np.ndarray
    """Takeovers `[t, 2]` that no violation follows."""

    @property
    def dt(self) -> float:
        """Seconds per tick."""
        return self.settings.dt


class Event(NamedTuple):
    """A moment to draw: ticks from `start` to `stop`; seconds count from tick `zero`."""

    title: str
    start: int
    stop: int
    zero: int
    violates: bool = False


def write_replay(
    path: Path,
    folder: Path,
    out: Path,
    command: str,
    *,
    task: str | None = None,
    seconds: float | None = None,
    moments: int = 12,
    on_ticks: OnTicks = lambda done, of: None,
) -> Replay:
    """Replays a dataset's robot or a black box, and writes the page.

    The page has at most 700 points per line of its overview, and `moments` moments of at most 400
    ticks; it says what it leaves out. The same inputs give the same page.

    Args:
        path: a dataset folder, or a black box.
        folder: of the shield.
        out: the HTML file.
        command: what made it, for the last section.
        task: the robot of the dataset; None: the new one, or the only one.
        seconds: before a violation that are looked at; None: two effective horizons of the risk.
        moments: how many are drawn.
        on_ticks: told how many ticks are done, and how many there are.

    Raises:
        DatasetError: the log does not fit the shield.
        ModelError: the shield is damaged.
        OutputFolderError: `out` cannot be written.
    """
    shield = monitoring(folder)
    manifest = read_manifest(folder)
    ticks = load_ticks(path, shield, task)
    result = replay_ticks(shield, ticks, on_ticks)
    dt = shield.settings.dt
    window = max(round((_two_horizons(manifest, dt) if seconds is None else seconds) / dt), 1)
    leads = leads_of(result, window, dt)
    view = View(result, shield.settings, window, leads, unneeded(result, window))
    name = str(manifest.get("name"))
    title = f"Shield {name} on {ticks.name}"
    events = list(_events(view, moments))
    parts = [
        heading(1, title),
        *(_opening_box(view) if ticks.recorded else _opening_log(view)),
        *_notes(view, shield),
        contents(["Overview", "Moments", "Reasons", "How this was made"]),
        heading(2, "Overview"),
        *_overview(view),
        *_lead_table(view),
        heading(2, "Moments"),
        *_moments(view, events),
        heading(2, "Reasons"),
        *_reasons(view),
        heading(2, "How this was made"),
        code([command, *_facts(shield, manifest)]),
    ]
    write_atomic(out, page(title, parts).encode(errors="replace"))
    return result


def _two_horizons(manifest: Mapping[str, Any], dt: float) -> float:
    """Seconds within which an alarm has something to do with a violation, as in `evaluate`."""
    told = manifest.get("provenance")
    gamma = told.get("gamma_risk") if isinstance(told, Mapping) else None
    if type(gamma) is not float or not 0.0 <= gamma < 1.0:
        return PLAIN_SECONDS
    return 2.0 * dt / (1.0 - gamma)


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _opening_log(view: View) -> list[Html]:
    replay, count = view.replay, len(view.replay.ticks)
    overridden, takeovers = int(replay.overridden.sum()), len(replay.takeovers)
    total = count * view.dt
    announced = [lead for lead in view.leads if math.isfinite(lead.seconds)]
    episodes = int(replay.ticks.begins.sum())
    numbers = [
        (_share(overridden, count), f"of ticks overridden ({overridden} of {count})"),
        (str(takeovers), f"takeovers in {_duration(total)} and {episodes} episodes"),
        (
            f"{len(announced)} of {len(view.leads)}" if view.leads else "none",
            f"violations with an override in the {_duration(view.window * view.dt)} before"
            if view.leads
            else "violations are in this log",
        ),
        (str(len(view.false)), "takeovers that no violation follows"),
    ]
    parts = [key_numbers(numbers)]
    if announced:
        middle = float(np.median([lead.seconds for lead in announced]))
        parts.append(
            paragraph(
                f"Where there was one, the first override comes {_duration(middle)} before its "
                "violation (median).",
                "lead",
            )
        )
    return [*parts, paragraph(OPEN_LOOP)]


def _opening_box(view: View) -> list[Html]:
    replay, recorded = view.replay, view.replay.ticks.recorded
    assert recorded is not None
    count = len(replay.ticks)
    records = count + recorded.unreadable
    modes = ", ".join(f"{number} in {mode}" for mode, number in recorded.modes.items())
    same = int(recorded.same_model.sum())
    numbers = [
        (str(records), f"records ({modes or 'none'})"),
        (str(recorded.overridden), "overridden when they were recorded"),
        (str(int(replay.overridden.sum())), "would be overridden by this shield"),
        (f"{same} of {count}", "records are of this very model"),
    ]
    parts = [key_numbers(numbers)]
    if recorded.unreadable:
        parts.append(
            paragraph(
                f"{recorded.unreadable} of the records have no observation or no proposal, and "
                "cannot be decided again."
            )
        )
    # Replayed risks are kept in 32 bits.
    difference = np.abs(recorded.risk.astype(np.float32) - replay.risk)[recorded.same_model]
    difference = difference[np.isfinite(difference)]
    if len(difference):
        parts.append(
            paragraph(
                f"Of this model's records, the risk differs by {difference.max():.2g} at most."
            )
        )
    return [
        *parts,
        paragraph(
            "A black box holds interventions and faults, and nothing of the quiet ticks between: "
            "hysteresis begins anew where ticks are missing, and violations are not known."
        ),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _notes(view: View, shield: Shield) -> list[Html]:
    found = []
    if not shield.settings.enforce_allowed:
        found.append(
            f"This shield was exported for monitoring only: {shield.settings.enforce_because}"
        )
    if not view.replay.knows_recovery:
        found.append("Its recovery was not exported, so what it would have sent is not drawn.")
    if shield.edited:
        found.append(f"Settings were edited since the export: {'; '.join(shield.edited)}.")
    if np.isfinite(shield.settings.rate).any():
        found.append(
            "Actions have a largest rate. It is counted from the logged action before, also after "
            "an override."
        )
    return [paragraph(text, "note") for text in found]


def _overview(view: View) -> list[Html]:
    replay, count = view.replay, len(view.replay.ticks)
    if not count:
        return [paragraph("There are no ticks.")]
    risk, size = envelope(replay.risk.astype(np.float64), POINTS)
    starts = np.arange(0, count, size)
    lengths = np.diff(np.append(starts, count))
    share = np.add.reduceat(replay.overridden.astype(np.float64), starts) / lengths
    is_box = replay.ticks.recorded is not None
    x = starts.astype(np.float64) if is_box else starts * view.dt / 60.0
    panels = [
        _risk_panel([Line(y=risk, name="largest risk", colour=BLUE)], view),
        Panel(
            title="share of ticks overridden",
            lines=[Line(y=share, colour=PURPLE)],
            low=0.0,
            high=1.0,
            height=60.0,
        ),
    ]
    largest, _ = envelope(_statistic(replay).astype(np.float64), POINTS)
    if np.isfinite(largest).any():
        panels.append(_monitor_panel(Line(y=largest, name="largest", colour=BLUE), view))
    if not is_box:
        reached = np.zeros(count)
        reached[replay.ticks.violations] = 1.0
        panels.append(
            Panel(
                title="violations",
                lines=[Line(y=np.add.reduceat(reached, starts), colour=RED)],
                low=0.0,
                height=44.0,
            )
        )
    chart = Chart(
        x=x,
        x_title="record" if is_box else "minutes of the log, episodes one after the other",
        panels=panels,
        description="Risk, overrides and violations over the whole log",
    )
    what = f"Each point stands for {size} ticks." if size > 1 else "Each point is one tick."
    return [drawing(chart_svg(chart), what)]


def _statistic(replay: Replay) -> np.ndarray:
    """Of the dynamics monitor: of a black box as it was recorded."""
    recorded = replay.ticks.recorded
    return replay.statistic if recorded is None else recorded.statistic


def _monitor_panel(line: Line, view: View) -> Panel:
    monitor = view.settings.monitor
    return Panel(
        title="monitor: has the robot changed?",
        lines=[line],
        levels=[] if monitor is None else [("alarm", monitor.threshold, RED)],
        low=0.0,
        height=60.0,
    )


def _risk_panel(lines: Sequence[Line], view: View) -> Panel:
    settings = view.settings
    levels = [("limit", settings.risk_limit, RED)]
    if settings.release_limit < settings.risk_limit:
        levels.append(("release limit", settings.release_limit, GREEN))
    return Panel(
        title="risk of what was proposed",
        lines=lines,
        levels=levels,
        low=min(FLOOR, *(value for _, value, _ in levels if value > 0.0), 1.0),
        high=1.0,
        logarithmic=True,
    )


def _lead_table(view: View) -> list[Html]:
    if not view.leads:
        return []
    earliest = np.array([lead.seconds for lead in view.leads])
    rows = []
    for part in (0.0, 0.125, 0.25, 0.5, 0.75):
        least = max(round(part * view.window), 1) * view.dt
        # Half a tick forgives sums of dt their rounding.
        early = int((earliest >= least - 0.5 * view.dt).sum())
        rows.append(
            (
                Cell(_duration(least)),
                Cell(f"{early} of {len(earliest)}", (_share(early, len(earliest)),)),
            )
        )
    header = ("At least so long before", "Violations with an override by then")
    return [table(Table(header=header, rows=tuple(rows)))]


def _events(view: View, most: int) -> Iterator[Event]:
    """Violations first, then takeovers that none follows: two thirds and one third."""
    ticks, window = view.replay.ticks, view.window
    if ticks.recorded is not None:
        for start, stop in evenly_pairs(_groups(ticks.numbers, window), most):
            yield Event(f"From {_place(view, start)}", start, stop, start)
        return
    begins = np.append(np.flatnonzero(ticks.begins), len(ticks))

    def bounds(tick: int) -> tuple[int, int]:
        place = int(np.searchsorted(begins, tick, side="right"))
        return int(begins[place - 1]), int(begins[place])

    quiet = view.false[:, 0]
    share = most if not len(quiet) else max(most - most // 3, most - len(quiet))
    chosen = evenly(ticks.violations, share)
    for row in chosen:
        begin, end = bounds(row)
        start, stop = max(row + 1 - window, begin), min(row + 1 + window // 5, end)
        yield Event(f"Violation of {_place(view, row)}", start, stop, row + 1, True)
    for first in evenly(quiet, most - len(chosen)):
        begin, end = bounds(first)
        start, stop = max(first - window // 2, begin), min(first + window // 2 + 1, end)
        yield Event(f"Takeover at {_place(view, first)}", start, stop, first)


def _groups(numbers: np.ndarray, window: int) -> list[tuple[int, int]]:
    """Records `(first, stop)` that lie within `window` ticks, one group after the other."""
    groups, first = [], 0
    for row in range(1, len(numbers) + 1):
        last = row == len(numbers)
        # A program that was started again counts its ticks from 1.
        if last or numbers[row] <= numbers[row - 1] or numbers[row] - numbers[first] >= window:
            groups.append((first, row))
            first = row
    return groups if len(numbers) else []


def evenly_pairs(pairs: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most so many of them, spread evenly."""
    return [pairs[place] for place in evenly(range(len(pairs)), most)]


def _place(view: View, tick: int) -> str:
    ticks = view.replay.ticks
    number = int(ticks.numbers[tick])
    if ticks.recorded is not None:
        return f"tick {number}, record {tick}"
    return f"row {number}, episode {int(ticks.episodes[tick])}"


def _moments(view: View, events: Sequence[Event]) -> list[Html]:
    if not events:
        return [paragraph("No violation, and nothing that this shield would have overridden.")]
    ticks = view.replay.ticks
    violating = sum(event.violates for event in events)
    drawn = (
        f"{violating} of {len(ticks.violations)} violations and {len(events) - violating} of "
        f"{len(view.false)} other takeovers"
        if ticks.recorded is None
        else f"{len(events)} of {len(_groups(ticks.numbers, view.window))} groups of records "
        f"within {_duration(view.window * view.dt)}; ticks between them have no record"
    )
    parts = [paragraph(f"Drawn are {drawn}, evenly chosen.", "soft")]
    for event in events:
        stride = math.ceil(_length(view, event) / MOST_TICKS)
        caption = f"Every {stride}-th tick is drawn." if stride > 1 else ""
        if event.violates:
            lead = next(one for one in view.leads if one.row == event.zero - 1)
            when = (
                "This shield would not have taken over before it."
                if math.isnan(lead.seconds)
                else f"This shield would have taken over {_duration(lead.seconds)} before it."
            )
            caption = f"{when} {caption}".strip()
        parts += [heading(3, event.title), drawing(chart_svg(_chart(view, event, stride)), caption)]
    return parts


def _length(view: View, event: Event) -> int:
    """Ticks from the first to behind the last of a moment; a black box lacks some of them."""
    if view.replay.ticks.recorded is None:
        return event.stop - event.start
    numbers = view.replay.ticks.numbers
    return int(numbers[event.stop - 1] - numbers[event.start]) + 1


def _chart(view: View, event: Event, stride: int) -> Chart:
    replay, settings = view.replay, view.settings
    ticks, recorded = replay.ticks, replay.ticks.recorded
    length, rows = _length(view, event), slice(event.start, event.stop)

    def over_time(values: np.ndarray) -> np.ndarray:
        """One value per tick `[length]`, NaN where there is no record, then every n-th."""
        dense = np.full(length, np.nan)
        numbers = ticks.numbers[rows]
        dense[numbers - numbers[0]] = values[rows]
        return dense[::stride]

    x = (np.arange(length)[::stride] + event.start - event.zero) * view.dt
    risks = [Line(y=over_time(replay.risk), name="risk", colour=BLUE)]
    if recorded is not None:
        risks.append(
            Line(y=over_time(recorded.risk), name="recorded risk", colour=INK, dashed=True)
        )
    panels = [_risk_panel(risks, view)]
    statistic = over_time(_statistic(replay))
    if np.isfinite(statistic).any():
        panels.append(_monitor_panel(Line(y=statistic, colour=BLUE), view))
    changed = over_time(replay.overridden) == 1.0
    for i, name in enumerate(settings.actions.names[:MOST_ACTIONS]):
        would = np.where(changed, over_time(replay.action[:, i]), np.nan)
        lines = [
            Line(y=over_time(ticks.proposed[:, i]), name="proposed", colour=GREY, width=2.0),
            Line(y=would, name="would be sent", colour=PURPLE),
        ]
        if recorded is not None:
            sent = over_time(recorded.action[:, i])
            lines.append(Line(y=sent, name="sent", colour=INK, dashed=True))
        panels.append(Panel(title=_with_unit(name, settings.actions.units[i]), lines=lines))
    for i, name in enumerate(settings.observations.names[:MOST_SIGNALS]):
        values, where = over_time(ticks.obs[:, i]), x
        if ticks.next_obs is not None:
            # The state that the last step reached, which may be the violating one.
            values = np.append(values, ticks.next_obs[event.stop - 1, i])
            where = np.append(x, (event.stop - event.zero) * view.dt)
        limits = [
            ("hard limit", float(bound[i]), RED)
            for bound in (settings.observations.low, settings.observations.high)
            if math.isfinite(bound[i])
        ]
        panels.append(
            Panel(
                title=_with_unit(name, settings.observations.units[i]),
                lines=[Line(y=values, x=where, colour=GREEN)],
                levels=limits,
                height=56.0,
            )
        )
    last = (event.start + length - event.zero) * view.dt
    return Chart(
        x=np.append(x, last),
        x_title="seconds from the violation" if event.violates else "seconds",
        panels=[_padded(panel, len(x)) for panel in panels],
        marks=(Mark(x=0.0, colour=RED, name="violation"),) if event.violates else (),
        spans=spans_of(x, changed, stride * view.dt),
        span_name="overridden",
        description=f"{event.title}: risk, actions and signals",
    )


def _padded(panel: Panel, ticks: int) -> Panel:
    """Lines over the ticks end one before the chart does."""
    lines = [
        Line(
            y=np.append(np.asarray(line.y, np.float64), np.nan),
            name=line.name,
            colour=line.colour,
            dashed=line.dashed,
            width=line.width,
        )
        if line.x is None and len(line.y) == ticks
        else line
        for line in panel.lines
    ]
    return Panel(
        title=panel.title,
        lines=lines,
        levels=panel.levels,
        low=panel.low,
        high=panel.high,
        height=panel.height,
        logarithmic=panel.logarithmic,
    )


def _with_unit(name: str, unit: str | None) -> str:
    return name if unit is None else f"{name} ({unit})"


def _reasons(view: View) -> list[Html]:
    counts, total = view.replay.reasons(), len(view.replay.ticks)
    recorded = view.replay.ticks.recorded
    names = list(counts)
    if recorded is not None:
        names += [name for name in recorded.reasons if name not in counts]
    rows = []
    for name in names:
        cells = [
            Cell(name),
            Cell(str(counts.get(name, 0))),
            Cell(_share(counts.get(name, 0), total)),
        ]
        if recorded is not None:
            cells.append(Cell(str(recorded.reasons.get(name, 0))))
        rows.append(tuple(cells))
    header = ("Reason", "Ticks", "Share", *(("Recorded",) if recorded is not None else ()))
    if not rows:
        return [paragraph("There are no ticks.")]
    return [table(Table(header=header, rows=tuple(rows)))]


def _facts(shield: Shield, manifest: Mapping[str, Any]) -> list[str]:
    settings = shield.settings
    return [
        f"shield: {manifest.get('name')}, made by {manifest.get('software')}",
        f"manifest: {shield.digest} (first 16 digits of its SHA-256)",
        f"risk limit: {settings.risk_limit:.6g}, release limit: {settings.release_limit:.6g}, "
        f"minimum dwell: {settings.minimum_dwell:g} s, dt: {settings.dt:g} s",
    ]
