"""Checks of single transitions: values, bounds, costs, ends. The importer makes them too."""

from collections.abc import Callable, Iterator

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
    for name, values in named_columns(steps, spaces):
        # A sum is finite only if every part is; the slow way is for what is broken.
        with np.errstate(all="ignore"):
            suspicious = not np.isfinite(values.sum()) or np.abs(values).max(initial=0.0) > LARGEST
        if suspicious:
            places.tell("missing-value", np.isnan(values), name)
            places.tell("infinite-value", np.isinf(values), name)
            too_large = np.isfinite(values) & (np.abs(values) > LARGEST)
            places.tell("number-too-large", too_large, name)
    _check_precision(steps, spaces, places)
    low, high = tolerated_bounds(spaces)
    for index, name in enumerate(spaces.action_names):
        action = steps.action[:, index]
        outside = (action < low[index]) | (action > high[index])
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
    """Signals whose steps vanish when they are stored with 32 bits, as everything is.

    A large offset does it: of 500 000 m a float32 knows 0.03 m and no less. A signal that rests,
    but for the last digits of a simulator, loses nothing: its whole range vanishes.
    """
    for index, name in enumerate(spaces.obs_names):
        values = steps.obs[:, index]
        change = np.abs(steps.next_obs[:, index] - values)
        moved = change[np.isfinite(change) & (change > 0)]
        finite = values[np.isfinite(values)]
        largest = np.abs(finite).max(initial=0.0)
        if len(moved) < ENOUGH_STEPS or largest > LARGEST:
            continue
        known, step = float(np.spacing(np.float32(largest))), float(np.quantile(moved, 0.9))
        if step < known < np.ptp(finite):
            detail = f"nine in ten steps are below {step:.3g}, it is known to {known:.3g}"
            places.tell("precision-lost", change > 0, name, detail)


def named_columns(steps: Steps, spaces: Spaces) -> Iterator[tuple[str, np.ndarray]]:
    """Every number of the steps by its signal's name."""
    for index, name in enumerate(spaces.obs_names):
        yield name, steps.obs[:, index]
    for index, name in enumerate(spaces.obs_names):
        yield f"next {name}", steps.next_obs[:, index]
    for index, name in enumerate(spaces.action_names):
        yield name, steps.action[:, index]
    yield "reward", steps.reward
    yield "cost", steps.cost
