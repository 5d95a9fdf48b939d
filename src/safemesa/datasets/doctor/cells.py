"""Checks of single transitions: values, bounds, costs, ends. The importer makes them too."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.assemble import Steps
from safemesa.datasets.validation import tolerated_bounds

Report = Callable[[Finding], None]
LARGEST = float(np.finfo(np.float32).max)
ENOUGH_STEPS = 20
"""Fewer changes of a signal in a block say nothing about what is typical."""


class Places:
    """Turns positions within a block of steps into findings."""

    def __init__(self, steps: Steps, files: list[str], report: Report) -> None:
        self.steps = steps
        self.files = files
        self.report = report

    def tell(self, code: str, wrong: np.ndarray, column: str = "", detail: str = "") -> None:
        """Reports the first true entry of `wrong` and how many there are."""
        count = int(np.count_nonzero(wrong))
        if count:
            self.report(self.finding(code, int(np.argmax(wrong)), column, detail, count))

    def finding(
        self, code: str, index: int, column: str = "", detail: str = "", count: int = 1
    ) -> Finding:
        """A finding at one position."""
        steps = self.steps
        return Finding(
            code=code,
            file=self.files[int(steps.file[index])],
            task=steps.task,
            episode=str(steps.label[index]),
            row=int(steps.row[index]),
            column=column,
            count=count,
            detail=detail,
        )


def check_cells(steps: Steps, spaces: Spaces, files: list[str], report: Report) -> None:
    """Reports every transition that cannot be stored as it is."""
    places = Places(steps, files, report)
    for names, values in _matrices(steps, spaces):
        # A sum is finite only if every part is; the slow way is for what is broken.
        with np.errstate(all="ignore"):
            largest = np.abs(values).max(axis=0, initial=0.0)
            suspicious = ~np.isfinite(values.sum(axis=0)) | ~(largest <= LARGEST)
        for index in np.flatnonzero(suspicious).tolist():
            name, column = names[index], values[:, index]
            places.tell("missing-value", np.isnan(column), name)
            places.tell("infinite-value", np.isinf(column), name)
            too_large = np.isfinite(column) & (np.abs(column) > LARGEST)
            places.tell("number-too-large", too_large, name)
    _check_precision(steps, spaces, places)
    low, high = tolerated_bounds(spaces)
    beyond = (steps.action < low) | (steps.action > high)
    for index in np.flatnonzero(beyond.any(axis=0)).tolist():
        name, action, outside = spaces.action_names[index], steps.action[:, index], beyond[:, index]
        bounds = f"[{spaces.action_low[index]:.6g}, {spaces.action_high[index]:.6g}]"
        given = f"{action[np.argmax(outside)]:.6g} is not in {bounds}"
        places.tell("action-outside-bounds", outside, name, given)
    cost = steps.cost
    places.tell("cost-negative", cost < 0, "cost", f"{cost.min(initial=0.0):.6g}")
    odd = np.isfinite(cost) & (cost != 0) & (cost != 1) & (cost >= 0)
    places.tell("cost-not-binary", odd, "cost", f"{cost[np.argmax(odd)]:.6g}" if len(cost) else "")
    for name, flags in (("terminated", steps.terminated), ("truncated", steps.truncated)):
        places.tell("flag-not-binary", (flags != 0) & (flags != 1) & ~np.isnan(flags), name)
        places.tell("missing-value", np.isnan(flags), name)
    places.tell("two-ends", (steps.terminated == 1) & (steps.truncated == 1), "truncated")


def _check_precision(steps: Steps, spaces: Spaces, places: Places) -> None:
    """Signals whose values become equal when they are stored with 32 bits, as everything is.

    A large offset does it: of 500 000 m a float32 knows 0.03 m and no less. A signal that rests,
    but for the last digits of a simulator, loses nothing: its whole range vanishes. Where the
    range, and not an offset, is what is large, small steps are lost but no `offset` helps.
    """
    with np.errstate(all="ignore"):
        change = np.abs(steps.next_obs - steps.obs)
        sound = np.isfinite(change).all(axis=0)
        low, high = steps.obs.min(axis=0, initial=LARGEST), steps.obs.max(axis=0, initial=-LARGEST)
        largest = np.minimum(np.maximum(np.abs(low), np.abs(high)), LARGEST)
        known = np.spacing(largest.astype(np.float32)).astype(np.float64)
        fine = ((change > 0) & (change < known)).sum(axis=0) >= ENOUGH_STEPS
    for index in np.flatnonzero(fine | ~sound).tolist():
        moved = change[:, index]
        moved = moved[np.isfinite(moved) & (moved > 0)]
        values = steps.obs[:, index]
        values = values[np.isfinite(values)]
        if len(moved) < ENOUGH_STEPS or not len(values) or np.abs(values).max() > LARGEST:
            continue
        digits, step = _spacing(np.abs(values).max()), float(np.quantile(moved, 0.9))
        reach = float(np.ptp(values))
        if step < digits < reach:
            helps = _spacing(reach / 2) <= 0.1 * digits
            code = "precision-lost" if helps else "fine-steps"
            detail = f"nine in ten steps are below {step:.3g}, 32 bits tell {digits:.3g} apart"
            if helps:
                detail += f"; declare offset = {-float(np.median(values)):.6g}, after scale"
            places.tell(code, change[:, index] > 0, spaces.obs_names[index], detail)


def _spacing(value: float) -> float:
    return float(np.spacing(np.float32(value)))


def _matrices(steps: Steps, spaces: Spaces) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """Every number of the steps, with the names of its columns."""
    yield spaces.obs_names, steps.obs
    yield [f"next {name}" for name in spaces.obs_names], steps.next_obs
    yield spaces.action_names, steps.action
    yield ("reward", "cost"), np.stack([steps.reward, steps.cost], axis=1)
