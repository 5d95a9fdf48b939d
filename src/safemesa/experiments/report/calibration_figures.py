"""Figures of calibration: predicted against true risk, and errors over adaptation steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from safemesa.experiments.measures.risk_calibration import CalibrationResult
from safemesa.experiments.report.result_figures import arm_colours, styled_figure
from safemesa.experiments.report.result_rows import arm_title


def calibration_figure(results: Sequence[CalibrationResult]) -> Figure:
    """Reliability diagrams before, early in and after adaptation, and Brier scores over steps."""
    arms = list(dict.fromkeys(one.arm for one in results))
    colours = arm_colours(arms)
    steps = sorted({one.step for one in results})
    shown = list(dict.fromkeys((steps[0], steps[min(1, len(steps) - 1)], steps[-1])))
    with styled_figure(2.7 * (len(shown) + 1), 3.2) as figure:
        *diagrams, scores = figure.subplots(1, len(shown) + 1)
        for axes, step in zip(diagrams, shown, strict=True):
            axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
            for one in results:
                if one.step == step:
                    _draw_reliability(axes, one, colours[one.arm])
            title = f"{step} step" if step == 1 else f"{step} steps"
            axes.set(title=title, xlabel="Predicted risk", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        diagrams[0].set_ylabel("True risk")
        for arm in arms:
            rows = [one.row() for one in results if one.arm == arm]
            _draw_brier(scores, rows, steps, colours[arm])
        scores.set(title="Brier score", xlabel="Adaptation steps", ylim=(0, None))
        scores.set_xticks(range(len(steps)), [str(step) for step in steps])
        handles = [Line2D([], [], color=colours[arm], label=arm_title(arm)) for arm in arms]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure


class Reliability(NamedTuple):
    """Means of prediction and truth, and share of all pairs, per bin that holds any."""

    predicted: Float[np.ndarray, " filled"]
    true: Float[np.ndarray, " filled"]
    share: Float[np.ndarray, " filled"]


def reliability(
    predicted: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"], bins: int = 10
) -> Reliability:
    """Sorts pairs into bins of equal width by their predicted risk."""
    index = np.minimum((predicted * bins).astype(int), bins - 1)
    filled = np.flatnonzero(np.bincount(index, minlength=bins))
    inside = [index == one for one in filled]
    return Reliability(
        np.array([predicted[one].mean() for one in inside]),
        np.array([true[one].mean() for one in inside]),
        np.array([one.mean() for one in inside]),
    )


def _draw_reliability(axes: Axes, one: CalibrationResult, colour: str) -> None:
    """A line through the bins; the area of a dot is its share of the pairs."""
    predicted, true, share = reliability(one.predicted.ravel(), one.true.ravel())
    axes.plot(predicted, true, color=colour, linewidth=1.2)
    axes.scatter(predicted, true, s=12.0 + 160.0 * share, color=colour, alpha=0.7, linewidths=0)


def _draw_brier(axes: Axes, rows: list[dict[str, Any]], steps: list[int], colour: str) -> None:
    """Mean over held-out tasks with its standard error; steps are equally far apart."""
    rows = sorted(rows, key=lambda row: row["step"])
    axes.errorbar(
        [steps.index(row["step"]) for row in rows],
        [row["brier"] for row in rows],
        yerr=[row["brier_standard_error"] for row in rows],
        color=colour,
        marker="o",
        markersize=3.5,
        linewidth=1.2,
        elinewidth=0.8,
    )
