"""Charts as SVG within a page: no library, no script. Numbers that are not finite leave a gap.

Every function escapes its names and gives the same markup for the same numbers.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safemesa.pages.markup import Html, escaped

WIDTH = 1040.0
LEFT, RIGHT, GAP = 56.0, 12.0, 16.0
"""Pixels beside a panel, and between two."""
RED, GREEN, BLUE, ORANGE, PURPLE, GREY, INK = (
    "#D7191C",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#7B3294",
    "#9AA3AD",
    "#222222",
)
"""Okabe and Ito's, which colour-blind people can tell apart, and greys."""
GRID = "#E4E4E4"
MOST_TICKS = 5
LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """Values `[n]` over a panel's x; `x` where they have one of their own."""

    y: np.ndarray
    name: str = ""
    """In the legend; a name that comes twice is shown once, and an empty one not at all."""
    colour: str = BLUE
    x: np.ndarray | None = None
    dashed: bool = False
    width: float = 1.5
    opacity: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Lines over a common x, with levels across."""

    title: str
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float, str]] = ()
    """Name, value and colour of horizontal lines."""
    low: float | None = None
    """Of the y axis; None: that of the values."""
    high: float | None = None
    height: float = 84.0
    logarithmic: bool = False
    """Powers of ten at equal distances; values at or below 0 are drawn at the lower end."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A vertical line through all panels."""

    x: float
    colour: str = RED
    name: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """Panels above each other that share an x axis."""

    x: np.ndarray
    x_title: str
    panels: Sequence[Panel]
    marks: Sequence[Mark] = ()
    spans: Sequence[tuple[float, float]] = ()
    """From and to which x the background is shaded."""
    span_name: str = ""
    description: str = ""
    """What it shows, for who cannot see it."""
    width: float = WIDTH


def shortened(name: str) -> str:
    """A name that fits beside a chart."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def number(value: float) -> str:
    """Four digits that matter."""
    return f"{value:.4g}"


def ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Round numbers within a range: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + i) * step for i in range(count)]


def envelope(values: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """The largest value of each group of neighbours, at most `most` of them, and a group's size.

    NaN counts as nothing; a group of nothing else is NaN.
    """
    size = max(math.ceil(len(values) / most), 1)
    starts = np.arange(0, len(values), size)
    if not len(starts):
        return np.zeros(0), size
    filled = np.where(np.isnan(values), -np.inf, values)
    largest = np.maximum.reduceat(filled, starts)
    return np.where(np.isneginf(largest), np.nan, largest), size


def spans_of(x: np.ndarray, on: np.ndarray, step: float) -> list[tuple[float, float]]:
    """Where `on [n]` holds, from the first `x` of each run to `step` behind its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(np.int8), [0]])))
    return [
        (float(x[start]), float(x[stop - 1]) + step)
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]


def drawing(svg: Html, caption: str) -> Html:
    """A chart as a figure that scrolls sideways on a narrow screen."""
    return Html(
        f'<figure><div class="scroll">{svg}</div><figcaption>{escaped(caption)}</figcaption>'
        "</figure>"
    )


class _Scale:
    """From values of one axis to pixels."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        if not high > low:
            spread = abs(low) * 0.05 or 0.5
            low, high = low - spread, high + spread
        self.low, self.high, self.start, self.stop = low, high, start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def many(self, values: np.ndarray) -> np.ndarray:
        share = (values - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def svg_of(body: Sequence[str], width: float, height: float, description: str) -> Html:
    """A drawing of these elements."""
    return Html(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escaped(description)}">'
        f"<title>{escaped(description)}</title>" + "".join(body) + "</svg>"
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK) -> str:
    """Words at a place; `anchor` is start, middle or end."""
    shown = html.escape(shortened(words), quote=True)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{shown}</text>'


def segment(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    """A straight line."""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'
    )


def rectangle(x: float, y: float, width: float, height: float, colour: str, share: float) -> str:
    """A filled rectangle; `share` is how opaque it is."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}" fill-opacity="{share:.2f}"/>'
    )


def chart_svg(chart: Chart) -> Html:
    """Draws panels above each other."""
    finite = [float(x) for x in (chart.x[:1], chart.x[-1:]) for x in x if math.isfinite(x)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    x_scale = _Scale(low, high, LEFT, chart.width - RIGHT)
    body = _legend(chart)
    top = 20.0 if body else 4.0
    marks_from = top
    for panel in chart.panels:
        body += _panel(panel, chart, x_scale, top)
        top += panel.height + GAP + 14
    bottom = top - GAP
    for mark in chart.marks:
        if low <= mark.x <= high:
            x = x_scale(mark.x)
            body.append(segment(x, marks_from, x, bottom, mark.colour, 'stroke-width="1.2"'))
    for value in ticks(x_scale.low, x_scale.high, 8):
        body.append(text(x_scale(value), bottom + 14, number(value), anchor="middle"))
    body.append(text((LEFT + chart.width) / 2, bottom + 30, chart.x_title, anchor="middle"))
    return svg_of(body, chart.width, bottom + 38, chart.description or chart.x_title)


def _legend(chart: Chart) -> list[str]:
    entries: dict[str, tuple[str, bool]] = {}
    for panel in chart.panels:
        entries |= {one.name: (one.colour, one.dashed) for one in panel.lines if one.name}
        entries |= {name: (colour, True) for name, _, colour in panel.levels if name}
    entries |= {mark.name: (mark.colour, False) for mark in chart.marks if mark.name}
    body, x = [], float(LEFT)
    for name, (colour, dashed) in entries.items():
        dash = 'stroke-width="2"' + (' stroke-dasharray="5 3"' if dashed else "")
        body += [segment(x, 10.0, x + 18.0, 10.0, colour, dash), text(x + 22.0, 14.0, name)]
        x += 34 + 6.3 * len(shortened(name))
    if chart.spans and chart.span_name:
        body += [rectangle(x, 4.0, 18.0, 12.0, ORANGE, 0.22), text(x + 22.0, 14.0, chart.span_name)]
    return body


def _panel(panel: Panel, chart: Chart, x_scale: _Scale, top: float) -> list[str]:
    upper, lower = top + 14, top + 14 + panel.height
    low, high = _range(panel)
    y_scale = _Scale(low, high, lower, upper)
    right = chart.width - RIGHT
    body = [text(LEFT, top + 10, panel.title)]
    for start, stop in chart.spans:
        a, b = (min(max(x_scale(x), LEFT), right) for x in (start, stop))
        if b > a:
            body.append(rectangle(a, upper, b - a, panel.height, ORANGE, 0.22))
    for value in _y_ticks(panel, y_scale):
        y = y_scale(value)
        shown = number(10.0**value if panel.logarithmic else value)
        body += [
            segment(LEFT, y, right, y, GRID),
            text(LEFT - 5.0, y + 3.5, shown, anchor="end"),
        ]
    for _, value, colour in panel.levels:
        y = y_scale(float(_transformed(panel, np.array([value]), low)[0]))
        if upper <= y <= lower:
            body.append(segment(LEFT, y, right, y, colour, 'stroke-dasharray="5 3"'))
    for line in panel.lines:
        x = chart.x if line.x is None else line.x
        y = _transformed(panel, np.asarray(line.y, np.float64), low)
        body += _polylines(line, x_scale.many(x), y_scale.many(y))
    body.append(segment(LEFT, lower, right, lower, "#666666"))
    return body


def _y_ticks(panel: Panel, scale: _Scale) -> list[float]:
    if not panel.logarithmic:
        return ticks(scale.low, scale.high, 3)
    powers = range(math.ceil(scale.low - 1e-9), math.floor(scale.high + 1e-9) + 1)
    return [float(power) for power in powers][:: math.ceil(len(powers) / 4) or 1]


def _transformed(panel: Panel, values: np.ndarray, low: float) -> np.ndarray:
    """In the units of the axis, whose lower end is `low`."""
    if not panel.logarithmic:
        return values
    with np.errstate(invalid="ignore"):
        return np.log10(np.maximum(values, 10.0**low))


def _range(panel: Panel) -> tuple[float, float]:
    """Of the y axis: what was asked for, else that of all finite values with a little room."""
    parts = [np.asarray(line.y, np.float64) for line in panel.lines]
    parts.append(np.array([value for _, value, _ in panel.levels]))
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    bounds = [panel.low, panel.high]
    if panel.logarithmic:
        values = np.log10(values[values > 0.0])
        bounds = [None if bound is None else math.log10(bound) for bound in bounds]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = 0.05 * (high - low)
    return (
        low - room if bounds[0] is None else bounds[0],
        high + room if bounds[1] is None else bounds[1],
    )


def _polylines(line: Line, across: np.ndarray, up: np.ndarray) -> list[str]:
    """A polyline for each part without a gap; a point that stands alone is a dot."""
    finite = np.isfinite(across) & np.isfinite(up)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    style = (
        f'stroke="{line.colour}" stroke-width="{line.width:g}" stroke-opacity="{line.opacity:g}"'
    )
    if line.dashed:
        style += ' stroke-dasharray="5 3"'
    body = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start == 1:
            body.append(
                f'<circle cx="{across[start]:.1f}" cy="{up[start]:.1f}" r="1.6" '
                f'fill="{line.colour}" fill-opacity="{line.opacity:g}"/>'
            )
            continue
        points = " ".join(
            f"{a:.1f},{b:.1f}" for a, b in zip(across[start:stop], up[start:stop], strict=True)
        )
        body.append(f'<polyline points="{points}" fill="none" {style}/>')
    return body


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """How the values of one robot are spread: `shares [bins]` of its rows, and its median."""

    name: str
    shares: np.ndarray
    median: float
    colour: str = BLUE


def strips_svg(
    title: str,
    edges: np.ndarray,
    strips: Sequence[Strip],
    *,
    width: float = 370.0,
    names: float = 92.0,
) -> Html:
    """A row for each robot over the same range: darker where it has more rows, white where none.

    `edges [bins + 1]` are the bounds of the bins; `names` pixels hold the names.
    """
    scale = _Scale(float(edges[0]), float(edges[-1]), names, width - RIGHT)
    height = 16.0
    body = [text(4.0, 12.0, title)]
    top = 20.0
    for strip in strips:
        body.append(text(names - 6, top + 12, strip.name[:14], anchor="end"))
        # Shares of some ten-thousandths are still seen, and none is not.
        for left, right, share in zip(edges[:-1], edges[1:], strip.shares, strict=True):
            if share > 0.0:
                a, b = scale(float(left)), scale(float(right))
                opacity = 0.12 + 0.88 * math.sqrt(min(float(share) / 0.3, 1.0))
                body.append(rectangle(a, top, b - a, height - 3, strip.colour, opacity))
        if math.isfinite(strip.median):
            x = min(max(scale(strip.median), names), width - RIGHT)
            body.append(segment(x, top - 1, x, top + height - 2, INK, 'stroke-width="1.6"'))
        top += height
    body.append(segment(names, top, width - RIGHT, top, "#666666"))
    for value in ticks(scale.low, scale.high, 4):
        body.append(text(scale(value), top + 14, number(value), anchor="middle"))
    return svg_of(body, width, top + 22, f"{title}: spread of {len(strips)} robots")


def bars_svg(rows: Sequence[tuple[str, float, str]], title: str, *, width: float = WIDTH) -> Html:
    """Shares from 0 to 1 as bars: name, share and the words behind the bar."""
    names, height = 130.0, 18.0
    scale = _Scale(0.0, 1.0, names, width - 150)
    body = [text(4.0, 12.0, title)]
    for row, (name, share, words) in enumerate(rows):
        top = 20.0 + row * height
        body += [
            text(names - 6, top + 12, name[:20], anchor="end"),
            rectangle(names, top + 1, scale(1.0) - names, height - 5, GREY, 0.18),
            rectangle(names, top + 1, max(scale(share) - names, 0.0), height - 5, RED, 0.75),
            text(scale(1.0) + 8, top + 12, words),
        ]
    return svg_of(body, width, 26.0 + len(rows) * height, title)
