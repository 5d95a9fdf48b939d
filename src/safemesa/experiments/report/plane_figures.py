"""Figures over the plane: the risk while a prior adapts, and trajectories."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safemesa.experiments.measures.planes import Plane
from safemesa.experiments.measures.run_contents import Episode, Paths, RiskMaps
from safemesa.experiments.report.result_figures import BLUE, GREEN, INK, PURPLE, RED, styled_figure

GOAL = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgecolor": GREEN,
    "markeredgewidth": 1.2,
}


def _draw_obstacles(axes: Axes, where: Plane, fill: bool) -> None:
    """Outlines (and greys) what violates the constraint."""
    blocked = where.blocked.astype(float)
    if not 0.0 < blocked.mean() < 1.0:
        return
    if fill:
        axes.contourf(where.x, where.y, blocked, levels=[0.5, 1.5], colors=["#D9D9D9"])
    axes.contour(where.x, where.y, blocked, levels=[0.5], colors=[INK], linewidths=0.8)


def _draw_goal(axes: Axes, where: Plane) -> None:
    """A ring, as the goal itself is but a few points wide."""
    if where.goal is not None:
        axes.plot(*where.goal, **GOAL)


def _bare(axes: Axes, where: Plane) -> None:
    """A map: no grid, the view's bounds, few ticks."""
    axes.grid(False)
    axes.set(xlim=where.view.x, ylim=where.view.y)
    axes.locator_params(nbins=4)


def _name_row(axes: Axes, title: str) -> None:
    """Writes an arm beside its row, and smaller what sets its variant apart."""
    name, _, variant = title.partition(" (")
    lines = [name, *textwrap.wrap(variant.removesuffix(")"), 30)]
    axes.set_ylabel("\n".join(lines), fontsize=6.5 if variant else None)


def _shape(where: Plane, flattest: float) -> float:
    """Height over width of a panel: that of the view, but neither flat nor tall."""
    ratio = (where.view.y[1] - where.view.y[0]) / (where.view.x[1] - where.view.x[0])
    return min(max(ratio, flattest), 1.0)


def risk_figure(maps: Sequence[RiskMaps]) -> Figure:
    """Figure 2 of the paper: rows are arms, columns are steps; all share one colour scale."""
    steps = sorted({step for one in maps for step in one.steps})
    panel = 1.45 * _shape(maps[0].where, 0.75) + 0.15
    width, height = 1.55 * len(steps) + 1.2, panel * len(maps) + 0.7
    with styled_figure(width, height) as figure:
        grid = figure.subplots(len(maps), len(steps), squeeze=False, sharex=True, sharey=True)
        image = None
        for row, one in zip(grid, maps, strict=True):
            where, risks = one.where, dict(zip(one.steps, one.risk, strict=True))
            for axes, step in zip(row, steps, strict=True):
                if step not in risks:
                    axes.set_axis_off()
                    continue
                image = axes.imshow(
                    risks[step],
                    origin="lower",
                    extent=(*where.view.x, *where.view.y),
                    aspect="auto",
                    cmap="RdYlBu_r",
                    vmin=0.0,
                    vmax=1.0,
                    interpolation="bilinear",
                )
                _draw_obstacles(axes, where, fill=False)
                _bare(axes, where)
            _name_row(row[0], one.title)
        for axes, step in zip(grid[0], steps, strict=True):
            axes.set_title(f"{step} step" if step == 1 else f"{step} steps")
        if image is not None:
            figure.colorbar(image, ax=grid.ravel().tolist(), label="Risk", shrink=0.9, pad=0.01)
    return figure


def trajectory_figure(rows: Sequence[Paths]) -> Figure:
    """Paths of the first, middle and last episodes, a row per arm."""
    panels = max(len(one.panels) for one in rows)
    height = 2.9 * _shape(rows[0].where, 0.5) + 0.3
    with styled_figure(3.3 * panels + 0.4, height * len(rows) + 0.6) as figure:
        grid = figure.subplots(len(rows), panels, squeeze=False, sharex=True, sharey=True)
        above: list[str] = []
        for row, one in zip(grid, rows, strict=True):
            for axes, some in zip(row, one.panels, strict=False):
                _draw_obstacles(axes, one.where, fill=True)
                _draw_goal(axes, one.where)
                for episode in some:
                    _draw_episode(axes, episode)
                _bare(axes, one.where)
            titles = [_numbers(some) for some in one.panels]
            if titles != above:
                for axes, name in zip(row, titles, strict=False):
                    axes.set_title(name)
            above = titles
            for axes in row[len(one.panels) :]:
                axes.set_axis_off()
            _name_row(row[0], one.title)
        kinds = (
            ("start", "o", INK, 3),
            ("guard acts", ".", PURPLE, 6),
            ("violation", "X", RED, 7),
            ("success", "*", GREEN, 9),
        )
        handles = [
            Line2D(
                [], [], linestyle="none", label=name, marker=marker, color=color, markersize=size
            )
            for name, marker, color, size in kinds
        ]
        handles.append(Line2D([], [], label="goal", **GOAL))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _numbers(some: Sequence[Episode]) -> str:
    """Episodes as a title calls them, counted from one."""
    first, last = some[0].number + 1, some[-1].number + 1
    return f"Episodes {first} to {last}" if last > first else f"Episode {last}"


def _draw_episode(axes: Axes, one: Episode) -> None:
    x, y = one.positions.T
    axes.plot(x, y, color=BLUE, linewidth=0.8, alpha=0.75)
    acted = one.positions[:-1][one.intervened]
    axes.plot(*acted.T, linestyle="none", marker=".", markersize=2.5, color=PURPLE, alpha=0.8)
    axes.plot(x[0], y[0], marker="o", markersize=2.5, color=INK)
    if one.violation:
        axes.plot(x[-1], y[-1], marker="X", markersize=6, color=RED, markeredgecolor="white")
    elif one.success:
        axes.plot(x[-1], y[-1], marker="*", markersize=8, color=GREEN, markeredgecolor="white")
