"""Figures of a report: how they look, learning curves, profiles.

Every function returns a matplotlib `Figure` and touches no global state (no pyplot). Raises
ConfigurationError at import where matplotlib is missing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.experiments.report.conclusion import comparable, reward_metric
from safemesa.experiments.report.result_rows import RunGroup
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.statistics.across_domains import Profile
from safemesa.experiments.statistics.across_seeds import Summary, summarise_metric

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
except ImportError as error:
    raise ConfigurationError("figures need matplotlib: pip install 'safemesa[plots]'.") from error

COLOURS = {
    "mesa": "#0072B2",
    "multitask": "#E69F00",
    "rrl": "#009E73",
    "unconstrained": "#555555",
    "mesa_as_printed": "#56B4E9",
    "mesa_metasgd": "#CC79A7",
    "carl": "#D55E00",
    "carl_offline": "#8C510A",
    "carl_offline_dtest": "#B8A000",
}
"""One colour per arm in every figure; Okabe and Ito's palette, which colour-blind people can tell
apart, and two darker ones."""

Line = Literal["-", "--", ":", "-."]

SPARE_COLOURS = ("#7B3294", "#35978F", "#A6761D", "#1B1B1B")
"""For arms without a colour of their own, in the order of their names."""

LINES: tuple[Line, ...] = ("-", "--", ":", "-.")
"""Variants of an arm share its colour and differ in their line."""

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Likewise where groups are points."""

MOST_BANDS = 8
"""With more curves than that, bands would hide them."""

RED, GREEN, BLUE, PURPLE, INK = "#D7191C", "#009E73", "#4477AA", "#7B3294", "#222222"
DPI = 140
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
}


class Style(NamedTuple):
    """How one group of runs is drawn."""

    colour: str
    line: Line


def group_styles(groups: Sequence[RunGroup]) -> list[Style]:
    """A colour per arm and a line per variant; where colours run out, arms too differ in lines."""
    colours = arm_colours([group.arm for group in groups])
    used: dict[str, int] = {}
    styles = []
    for group in groups:
        colour = colours[group.arm]
        number = used[colour] = used.get(colour, -1) + 1
        styles.append(Style(colour, LINES[number % len(LINES)]))
    return styles


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour per arm: its own, or a spare one."""
    others = sorted(set(arms) - set(COLOURS))
    return COLOURS | {arm: SPARE_COLOURS[i % len(SPARE_COLOURS)] for i, arm in enumerate(others)}


def step_limits(groups: Sequence[RunGroup]) -> list[int | None]:
    """Environment steps after which each group's runs end; None where episodes are counted.

    Raises:
        DatasetError: some end after steps and others after episodes.
    """
    limits = [group.runs[0].settings.get("deploy", {}).get("steps") for group in groups]
    if len({limit is None for limit in limits}) > 1:
        lengths = ", ".join(f"{group.title} {group.runs[0].length}" for group in groups)
        raise DatasetError(
            f"runs of {groups[0].domain} that end after steps and after episodes have no axis in "
            f"common: {lengths}. Report them apart."
        )
    return limits


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": "safemesa"})
    return buffer.getvalue()


@contextmanager
def styled_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of inches in the house style, which is undone afterwards."""
    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


class Curve(NamedTuple):
    """Mean over runs and its standard error (zero for one run) at each `x`."""

    x: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    standard_error: Float[np.ndarray, " points"]


def smooth(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """Mean of the last `window` values (of fewer at the start)."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return (sums[stop] - sums[start]) / (stop - start)


def smoothing_window(episodes: int) -> int:
    """A fifteenth of a run: long enough to see a trend, short enough not to invent one."""
    return max(1, episodes // 15)


STEP_POINTS = 200
"""Points of a curve over environment steps."""


def mean_curve(
    episodes: Sequence[Sequence[dict[str, Any]]], metric: str, window: int, steps: int | None = None
) -> Curve | None:
    """A field of the lines of several runs, smoothed; None where the domain has none.

    Over episodes, as far as all runs have them, or over `steps` environment steps: there a run has
    the value of its last episode that has ended.
    """
    runs = [[line[metric] for line in lines] for lines in episodes]
    if any(value is None for run in runs for value in run):
        return None
    values = [smooth(np.asarray(run, np.float64), window) for run in runs]
    if steps is None:
        shortest = min(len(run) for run in runs)
        x = np.arange(1.0, shortest + 1.0)
        table = np.stack([run[:shortest] for run in values])
    else:
        x = np.linspace(0.0, steps, STEP_POINTS)
        before = 0.0 if metric.startswith("cumulative") else math.nan
        table = np.stack(
            [
                np.concatenate([[before], run])[
                    np.searchsorted([line["env_steps"] for line in lines], x, side="right")
                ]
                for run, lines in zip(values, episodes, strict=True)
            ]
        )
    spread = np.zeros(len(x))
    if len(runs) > 1:
        spread = np.std(table, axis=0, ddof=1) / math.sqrt(len(runs))
    return Curve(x, np.mean(table, axis=0), spread)


def learning_curves(groups: Sequence[RunGroup]) -> Figure:
    """Return, success rate and cumulative violations: one line per group.

    Over episodes, or over environment steps where runs end after a number of those.

    Raises:
        CheckpointError: a run's `metrics.jsonl` is damaged.
        DatasetError: some runs end after steps and others after episodes.
    """
    limits = step_limits(groups)
    lines = [[read_episode_lines(run.path) for run in group.runs] for group in groups]
    styles = group_styles(groups)
    summaries = [run.summary for group in groups for run in group.runs]
    changes = change_marks(summaries, over_steps=limits[0] is not None)
    alarms = alarm_marks(summaries, over_steps=limits[0] is not None)
    window = smoothing_window(min(len(run) for group in lines for run in group))
    smoothed = f"mean of {window} episodes" if window > 1 else "per episode"
    panels = [
        ("return", window, f"Return ({smoothed})"),
        ("success", window, f"Success rate ({smoothed})"),
        ("cumulative_violations", 1, "Cumulative violations"),
    ]
    curves = {
        metric: [
            mean_curve(runs, metric, width, limit)
            for runs, limit in zip(lines, limits, strict=True)
        ]
        for metric, width, _ in panels
    }
    panels = [panel for panel in panels if any(curves[panel[0]])]
    with styled_figure(3.5 * len(panels), 3.1 + 0.22 * ((len(groups) + 2) // 3)) as figure:
        for axes, (metric, _, title) in zip(
            np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
        ):
            # The first arm is drawn last, so that it is seen where curves coincide.
            for style, curve in reversed(list(zip(styles, curves[metric], strict=True))):
                if curve is not None:
                    draw_curve(axes, curve, style, with_band=len(groups) <= MOST_BANDS)
            draw_changes(axes, changes)
            draw_alarms(axes, alarms)
            axes.set(title=title, xlabel="Episode" if limits[0] is None else "Environment steps")
            if metric == "success":
                axes.set_ylim(-0.03, 1.03)
            elif metric == "cumulative_violations":
                top = max(1.0, axes.get_ylim()[1])
                axes.set_ylim(-0.03 * top, top)
        handles = [
            Line2D([], [], color=style.colour, linestyle=style.line, label=_legend(group))
            for style, group in zip(styles, groups, strict=True)
        ]
        if changes:
            handles.append(Line2D([], [], color=INK, linestyle=":", label="the robot changes"))
        if alarms:
            handles.append(Line2D([], [], color=RED, linewidth=1.0, label="alarm of a monitor"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)))
    return figure


def change_marks(
    summaries: Iterable[Mapping[str, Any]], over_steps: bool
) -> list[tuple[float, float]]:
    """Where robots change in runs, on the axis of curves: where a change begins and is complete.

    Over episodes, the episode in which it begins, twice. Changes that a run did not come to are
    left out.
    """
    marks = set()
    for summary in summaries:
        for change in summary.get("changes", []):
            if change["episode"] is None:
                continue
            number = change["episode"] + 1
            ends = (change["step"], change["complete"]) if over_steps else (number, number)
            marks.add((float(ends[0]), float(ends[1])))
    return sorted(marks)


def draw_changes(axes: Axes, marks: Sequence[tuple[float, float]]) -> None:
    """A dotted line where a change begins, shading until it is complete."""
    for begins, complete in marks:
        axes.axvline(begins, color=INK, linestyle=":", linewidth=1.0)
        if complete > begins:
            axes.axvspan(begins, complete, color=INK, alpha=0.06, linewidth=0.0)


def alarm_marks(summaries: Iterable[Mapping[str, Any]], over_steps: bool) -> list[float]:
    """Where monitors raised an alarm in runs, on the axis of curves."""
    marks = set()
    for summary in summaries:
        for alarm in summary.get("alarms", []):
            marks.add(float(alarm["step"] if over_steps else alarm["episode"] + 1))
    return sorted(marks)


def draw_alarms(axes: Axes, marks: Sequence[float]) -> None:
    """A thin line at each alarm."""
    for place in marks:
        axes.axvline(place, color=RED, linewidth=0.6, alpha=0.7)


def _legend(group: RunGroup) -> str:
    return f"{group.title}, n = {len(group.runs)}"


def return_figure(places: Mapping[str, Sequence[RunGroup]]) -> Figure:
    """Violations against return, a panel per place: means of groups and their 95 % intervals.

    Against successes where the domain counts them (`reward_metric`). Groups whose runs are of
    another length than most are left out.
    """
    shown = {title: comparable(groups) for title, groups in places.items()}
    everyone = [group for groups in shown.values() for group in groups]
    columns = 2 if len(shown) == 4 else min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    # One look per title over all panels; groups of one colour differ in their markers.
    colours = arm_colours([group.arm for group in everyone])
    markers: dict[str, str] = {}
    used: dict[str, int] = {}
    for title, arm in {group.title: group.arm for group in everyone}.items():
        number = used[colours[arm]] = used.get(colours[arm], -1) + 1
        markers[title] = MARKERS[number % len(MARKERS)]
    handles: dict[str, Line2D] = {}
    height = 2.9 * rows + 0.22 * math.ceil(len({group.title for group in everyone}) / 3)
    with styled_figure(max(4.6, 3.5 * columns), height) as figure:
        panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axes, (title, groups) in zip(panels, shown.items(), strict=False):
            metric = reward_metric(groups)
            for group in groups:
                x, y = (
                    summarise_metric(group.values(name) or []) for name in ("violations", metric)
                )
                drawn = axes.errorbar(
                    [x.mean],
                    [y.mean],
                    xerr=_reach(x),
                    yerr=_reach(y),
                    marker=markers[group.title],
                    color=colours[group.arm],
                    linestyle="none",
                    capsize=2,
                )
                handles.setdefault(group.title, drawn.lines[0])
            label = "Successes" if metric == "successes" else "Mean return"
            axes.set(title=_verbatim(title), xlabel="Violations (fewer is safer)", ylabel=label)
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        figure.legend(
            handles.values(),
            [_verbatim(title) for title in handles],
            loc="outside lower center",
            ncols=min(3, len(handles)),
        )
    return figure


def _verbatim(text: str) -> str:
    """Text in which dollars are dollars: two of them would enclose a formula."""
    return text.replace("$", r"\$")


def _reach(summary: Summary) -> list[list[float]] | None:
    """Lengths of error bars down and up; None without an interval."""
    if summary.low is None or summary.high is None:
        return None
    return [[summary.mean - summary.low], [summary.high - summary.mean]]


def profile_figure(profiles: Sequence[tuple[RunGroup, Profile]]) -> Figure:
    """Performance profiles: the share of runs beyond each share of violating episodes."""
    styles = group_styles([group for group, _ in profiles])
    with styled_figure(5.0, 3.1) as figure:
        axes = figure.subplots()
        for style, (group, profile) in reversed(list(zip(styles, profiles, strict=True))):
            axes.plot(
                profile.thresholds,
                profile.share,
                color=style.colour,
                linestyle=style.line,
                drawstyle="steps-post",
                label=group.title,
            )
            banded = len(profiles) <= MOST_BANDS
            if banded and profile.low is not None and profile.high is not None:
                axes.fill_between(
                    profile.thresholds,
                    profile.low,
                    profile.high,
                    step="post",
                    color=style.colour,
                    alpha=0.12,
                    linewidth=0.0,
                )
        axes.set(
            xlabel="Share of episodes with a violation", ylabel="Runs with more", ylim=(-0.03, 1.03)
        )
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
    return figure


def draw_curve(axes: Axes, curve: Curve, style: Style, *, with_band: bool = True) -> None:
    """A line, and a band of one standard error where there is any."""
    axes.plot(curve.x, curve.mean, color=style.colour, linestyle=style.line)
    if with_band and np.any(curve.standard_error > 0.0):
        low, high = curve.mean - curve.standard_error, curve.mean + curve.standard_error
        axes.fill_between(curve.x, low, high, color=style.colour, alpha=0.18, linewidth=0.0)
