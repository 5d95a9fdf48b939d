"""Compares tasks: units, swapped columns, signs, copies, and episodes that leak into the test."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from safemesa.datasets.doctor.cells import Report
from safemesa.datasets.doctor.task_scan import TaskScan
from safemesa.datasets.findings import Finding

ENOUGH_ROWS = 100
ENOUGH_TASKS = 3
"""Tasks that a comparison needs: with two, nobody knows which one is odd."""
OTHER_UNIT = 20.0
ALIKE, UNLIKE = 1.0, 3.0
"""Distance of two distributions, in interquartile ranges, below and above which they count so."""
MOST_SWAPPED = 64
UNUSED_RANGE = 0.02
CONVERSIONS = {57.29578: "degrees and radians", 1000.0: "milli", 100.0: "centi", 1e6: "micro"}


def check_fleet(scans: Sequence[TaskScan], horizon: int | None, report: Report) -> None:
    """Reports what only a comparison of tasks shows, and what a whole task lacks."""
    for scan in scans:
        _check_task(scan, horizon, report)
    _check_constant(scans, report)
    _check_equal(scans, report)
    _check_leaks(scans, report)
    large = [scan for scan in scans if len(scan.signals.rows) >= ENOUGH_ROWS]
    if len(large) >= ENOUGH_TASKS:
        quartiles = np.stack(
            [np.quantile(scan.signals.rows, [0.25, 0.5, 0.75], axis=0) for scan in large]
        )
        sizes = np.stack([np.quantile(np.abs(one.signals.rows), 0.95, axis=0) for one in large])
        _check_units(large, sizes, report)
        _check_swaps(large, quartiles, report)
        _check_signs(large, quartiles, report)


def _of(
    scan: TaskScan, code: str, column: str = "", detail: str = "", row: bool = False
) -> Finding:
    """A finding about a whole task, or at its first row."""
    place = scan.place or Finding(code=code, task=scan.task)
    found = replace(place, code=code, column=column, detail=detail)
    return found if row else replace(found, row=None, episode="")


def _check_task(scan: TaskScan, horizon: int | None, report: Report) -> None:
    if horizon is not None and scan.longest > horizon and scan.too_long is not None:
        report(replace(scan.too_long, detail=f"{scan.longest} steps, horizon {horizon}"))
    episodes = scan.episodes.episodes
    if scan.role == "train" and episodes < 2:
        report(_of(scan, "too-few-episodes", detail=f"{episodes}"))
    if scan.violations == scan.transitions and scan.transitions > 1 and scan.longest > 1:
        report(_of(scan, "only-violations", "cost"))
    if scan.role == "train" and scan.violations == 0:
        report(_of(scan, "no-violations", "cost"))
    spaces = scan.spaces
    for index, name in enumerate(spaces.action_names):
        used = float(scan.signals.action_high[index] - scan.signals.action_low[index])
        if scan.transitions < 2:
            continue
        if used == 0:
            report(_of(scan, "constant-action", name, f"{scan.signals.action_low[index]:.6g}"))
        elif used < UNUSED_RANGE * (spaces.action_high[index] - spaces.action_low[index]):
            low, high = scan.signals.action_low[index], scan.signals.action_high[index]
            report(_of(scan, "action-range-unused", name, f"[{low:.4g}, {high:.4g}] is used"))


def _check_constant(scans: Sequence[TaskScan], report: Report) -> None:
    for index, name in enumerate(scans[0].spaces.obs_names) if scans else ():
        still = [one.signals.low[index].value == one.signals.high[index].value for one in scans]
        values = {one.signals.low[index].value for one in scans}
        if all(still) and len(values) == 1:
            report(_of(scans[0], "unused-signal", name, f"always {values.pop():.6g}"))
            continue
        for scan, constant in zip(scans, still, strict=True):
            if constant and not all(still) and scan.transitions >= ENOUGH_ROWS:
                value = scan.signals.low[index].value
                report(_of(scan, "constant-signal", name, f"always {value:.6g}"))


def _check_equal(scans: Sequence[TaskScan], report: Report) -> None:
    """Signals that are equal in every row of every task, and do change."""
    scans = [scan for scan in scans if scan.transitions]
    if not scans:
        return
    # Equal in every task: the same group in each of them.
    _, group = np.unique(
        np.stack([scan.signals.alike for scan in scans]), axis=1, return_inverse=True
    )
    names = scans[0].spaces.obs_names
    seen: dict[int, int] = {}
    for second, number in enumerate(group.reshape(-1).tolist()):
        first = seen.setdefault(number, second)
        if first == second:
            continue
        low = {scan.signals.low[first].value for scan in scans}
        high = {scan.signals.high[first].value for scan in scans}
        if low != high or len(low) > 1:
            report(_of(scans[0], "duplicate-signal", names[second], f"equals {names[first]!r}"))


def _check_leaks(scans: Sequence[TaskScan], report: Report) -> None:
    """Episodes of the test log that a training log holds too, and copies between tasks."""
    owners: dict[int, TaskScan] = {}
    for scan in sorted(scans, key=lambda one: one.role != "train"):
        for number, (file, episode, row) in scan.episodes.seen.items():
            other = owners.setdefault(number, scan)
            if other is scan:
                continue
            leak = scan.role == "test" and other.role == "train"
            known = other.episodes.seen[number][1]
            report(
                Finding(
                    code="leaked-episode" if leak else "duplicate-episode",
                    file=file,
                    task=scan.task,
                    episode=episode,
                    row=row,
                    detail=f"equals episode {known} of task {other.task!r}",
                )
            )


def _check_units(scans: Sequence[TaskScan], sizes: np.ndarray, report: Report) -> None:
    for index, name in enumerate((*scans[0].spaces.obs_names, *scans[0].spaces.action_names)):
        for number, scan in enumerate(scans):
            others = np.delete(sizes[:, index], number)
            usual = float(np.median(others))
            # Where the others differ among themselves, nothing is odd.
            if usual <= 0 or others.min() <= 0 or others.max() > 5 * others.min():
                continue
            ratio = float(sizes[number, index]) / usual
            if ratio > OTHER_UNIT or 0 < ratio < 1 / OTHER_UNIT:
                report(_of(scan, "other-unit", name, _factor(ratio)))


def _factor(ratio: float) -> str:
    factor = max(ratio, 1 / ratio)
    near = min(CONVERSIONS, key=lambda one: abs(np.log(factor / one)))
    known = f", as between {CONVERSIONS[near]}" if 0.5 < factor / near < 2 else ""
    return f"{ratio:.4g} times the others'{known}"


def _check_swaps(scans: Sequence[TaskScan], quartiles: np.ndarray, report: Report) -> None:
    """Two signals that each look like the other's in the remaining tasks."""
    names = scans[0].spaces.obs_names
    for number, scan in enumerate(scans):
        usual = np.median(np.delete(quartiles, number, axis=0), axis=0)
        spread = np.maximum(usual[2] - usual[0], 1e-9)
        own = quartiles[number]
        with np.errstate(over="ignore"):
            straight = _distance(own, usual, spread, slice(len(names)), slice(len(names)))
        # Only signals that are unlike themselves can be swapped; with many, the robot is another.
        odd = np.flatnonzero(straight > UNLIKE)
        if not 2 <= len(odd) <= MOST_SWAPPED:
            continue
        crossed = _distance(own, usual, spread, odd[:, None], odd[None])
        for one in range(len(odd)):
            for other in range(one + 1, len(odd)):
                if max(crossed[one, other], crossed[other, one]) < ALIKE:
                    first, second = names[odd[one]], names[odd[other]]
                    report(_of(scan, "swapped-columns", first, f"{first!r} and {second!r}"))


def _distance(
    own: np.ndarray, usual: np.ndarray, spread: np.ndarray, mine: Any, theirs: Any
) -> np.ndarray:
    """How unlike each other own signals and the others' are, of `[3, signals]` quartiles."""
    middle = np.abs(own[1][mine] - usual[1][theirs]) / spread[theirs]
    width = np.log(np.maximum(own[2] - own[0], 1e-9)[mine] / spread[theirs])
    return middle + np.abs(width)


def _check_signs(scans: Sequence[TaskScan], quartiles: np.ndarray, report: Report) -> None:
    names = scans[0].spaces.obs_names
    for index, name in enumerate(names):
        low, high = quartiles[:, 0, index], quartiles[:, 2, index]
        side = np.where(low > 0, 1, np.where(high < 0, -1, 0))
        for number, scan in enumerate(scans):
            others = np.delete(side, number)
            if side[number] != 0 and (others == -side[number]).all():
                report(_of(scan, "mirrored-signal", name))
