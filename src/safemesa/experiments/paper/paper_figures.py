"""The paper's figures, from finished runs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safemesa.core.errors import DatasetError
from safemesa.experiments.measures.planes import plane
from safemesa.experiments.measures.run_contents import late_return, risk_maps
from safemesa.experiments.report.plane_figures import risk_figure
from safemesa.experiments.report.result_figures import (
    Style,
    draw_curve,
    group_styles,
    mean_curve,
    smoothing_window,
    step_limits,
    styled_figure,
)
from safemesa.experiments.report.result_rows import RunGroup, group_runs
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.runs.run_records import RunRecord
from safemesa.experiments.statistics.across_seeds import summarise_metric

ROWS = (
    ("return", "Return"),
    ("success", "Success rate"),
    ("cumulative_violations", "Cumulative violations"),
)


def curves_figure(runs: Sequence[RunRecord], domains: Sequence[str]) -> Figure:
    """Figures 4, 5 and 6b: a column per domain; returns, successes, cumulative violations.

    Raises:
        DatasetError: there is no run of a domain.
    """
    columns = [_groups(runs, domain) for domain in domains]
    arms = list(dict.fromkeys(group.arm for groups in columns for group in groups))
    by_arm = {group.arm: group for groups in columns for group in groups}
    styles = dict(zip(arms, group_styles([by_arm[arm] for arm in arms]), strict=True))
    rows = [row for row in ROWS if row[0] != "success" or _any_success(columns)]
    with styled_figure(3.4 * len(domains), 2.4 * len(rows) + 0.5) as figure:
        axes = figure.subplots(len(rows), len(domains), squeeze=False)
        for column, (domain, groups) in enumerate(zip(domains, columns, strict=True)):
            _draw_column(list(axes[:, column]), domain, groups, styles, rows)
        handles = [
            Line2D(
                [],
                [],
                color=styles[arm].colour,
                linestyle=styles[arm].line,
                label=_label(arm, columns),
            )
            for arm in arms
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)))
    return figure


def _label(arm: str, columns: Sequence[Sequence[RunGroup]]) -> str:
    counts = {len(group.runs) for groups in columns for group in groups if group.arm == arm}
    title = next(group.title for groups in columns for group in groups if group.arm == arm)
    fewest, most = min(counts), max(counts)
    return f"{title}, n = {fewest}" + (f" to {most}" if most > fewest else "")


def _groups(runs: Sequence[RunRecord], domain: str) -> list[RunGroup]:
    found = group_runs([run for run in runs if run.domain == domain])
    if not found:
        raise DatasetError(f"there is no finished run on {domain} to draw.")
    return found


def _any_success(columns: Sequence[Sequence[RunGroup]]) -> bool:
    return any(group.values("successes") for groups in columns for group in groups)


def _draw_column(
    axes: list[Axes],
    domain: str,
    groups: Sequence[RunGroup],
    styles: dict[str, Style],
    rows: Sequence[tuple[str, str]],
) -> None:
    lines = [[read_episode_lines(run.path) for run in group.runs] for group in groups]
    window = smoothing_window(min(len(one) for group in lines for one in group))
    limits = step_limits(groups)
    for panel, (metric, title) in zip(axes, rows, strict=True):
        width = 1 if metric.startswith("cumulative") else window
        drawn = False
        for group, episodes, limit in reversed(list(zip(groups, lines, limits, strict=True))):
            curve = mean_curve(episodes, metric, width, limit)
            if curve is not None:
                draw_curve(panel, curve, styles[group.arm])
                drawn = True
        panel.set_visible(drawn)
        panel.set_title(f"{domain}: {title}")
        panel.set_xlabel("Episode" if limits[0] is None else "Environment steps")


def sizes_figure(runs: Sequence[RunRecord]) -> Figure:
    """Figure 6a: violations and late return of MESA by the size of its test log."""
    sizes: dict[int, list[RunRecord]] = {}
    for run in runs:
        sizes.setdefault(int(run.settings["data"]["test_transitions"]), []).append(run)
    if not sizes:
        raise DatasetError("there is no finished run to draw.")
    order = sorted(sizes, reverse=True)
    with styled_figure(7.0, 3.2) as figure:
        for axes, number, title in zip(
            np.atleast_1d(figure.subplots(1, 2)),
            (_violations, _late_return),
            ("Violations", "Return in the last third"),
            strict=True,
        ):
            summaries = [summarise_metric([number(run) for run in sizes[size]]) for size in order]
            axes.errorbar(
                range(len(order)),
                [one.mean for one in summaries],
                yerr=[one.standard_error or 0.0 for one in summaries],
                marker="o",
                color="#0072B2",
                capsize=3,
            )
            axes.set_xticks(range(len(order)), [str(size) for size in order])
            axes.set(title=title, xlabel="Transitions of the test log")
    return figure


def _violations(run: RunRecord) -> float:
    return float(run.summary["violations"])


def _late_return(run: RunRecord) -> float:
    return late_return(read_episode_lines(run.path))


def maps_figure(runs: Sequence[RunRecord]) -> Figure:
    """Figure 2: risk over the plane after some numbers of adaptation steps, per arm.

    Raises:
        DatasetError: there is no run with a critic on a plane, or no seed that all arms have.
    """
    seeds = [set(group.seeds) for group in group_runs(runs)]
    common = set.intersection(*seeds) if seeds else set()
    if runs and not common:
        raise DatasetError("the arms have no seed in common whose critics could be drawn.")
    maps = []
    for group in group_runs([run for run in runs if run.seed == min(common)]):
        seed = min(common)
        where = plane(group.domain, seed)
        if where is not None:
            found = risk_maps(group.runs[0].path, group.title.split(" (")[0], where)
            maps += [found] if found is not None else []
    if not maps:
        raise DatasetError("there is no run with a safety critic on a plane to draw.")
    return risk_figure(maps)
