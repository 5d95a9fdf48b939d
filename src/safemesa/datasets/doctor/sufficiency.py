"""Do the data suffice to learn risk from? Counts, coverage, and what to collect next.

The thresholds are rules of thumb: they come from what Navigation and locomotion needed, not from a
theorem. The proof is `safemesa evaluate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safemesa.datasets.doctor.task_scan import TaskScan
from safemesa.datasets.task_log import FEW_VIOLATIONS

TASKS = 5
VIOLATING_EPISODES = 10
"""Episodes with a violation that each training task should have."""
ACTION_BINS = 10
COVERAGE = 0.5
"""Share of the bins of each action's range that should be visited."""


@dataclass(frozen=True, kw_only=True)
class Sufficiency:
    """What there is, and what is missing; `advice` is empty where nothing is."""

    tasks: tuple[dict[str, Any], ...]
    advice: tuple[str, ...]

    @property
    def sufficient(self) -> bool:
        """Whether nothing needs to be collected first."""
        return not self.advice

    def lines(self) -> list[str]:
        """The report in words."""
        train = [one for one in self.tasks if one["role"] == "train"]
        violations = sum(one["violations"] for one in train)
        lines = [
            f"{len(train)} training tasks with {violations} violations in "
            f"{sum(one['violating_episodes'] for one in train)} of "
            f"{sum(one['episodes'] for one in train)} episodes."
        ]
        lines += [
            f"New robot {one['task']!r}: {one['transitions']} transitions, {one['violations']} "
            f"violations in {one['episodes']} episodes."
            for one in self.tasks
            if one["role"] == "test"
        ]
        if not any(one["role"] == "test" for one in self.tasks):
            lines.append("No new robot is named: `test` of the map's [tasks], or --test, does it.")
        if self.sufficient:
            return [*lines, "The data suffice to start; `safemesa evaluate` says how well."]
        return [*lines, "Collect next:", *(f"  - {one}" for one in self.advice)]


def judge(scans: Sequence[TaskScan]) -> Sufficiency:
    """Counts and advice."""
    tasks = tuple(
        {
            "task": scan.task,
            "role": scan.role,
            "transitions": scan.transitions,
            "violations": scan.violations,
            "violation_events": scan.violation_events,
            "episodes": scan.episodes.episodes,
            "violating_episodes": scan.episodes.violating,
            "action_coverage": _coverage(scan),
        }
        for scan in scans
    )
    train = [one for one in tasks if one["role"] == "train"]
    advice = []
    if 0 < len(train) < TASKS:
        advice.append(
            f"logs of {TASKS - len(train)} more robots or faults: {len(train)} tell little about "
            "how robots differ."
        )
    poor = [one["task"] for one in train if one["violating_episodes"] < VIOLATING_EPISODES]
    if poor:
        advice.append(
            f"more episodes that violate (or come close) of {_some(poor)}: fewer than "
            f"{VIOLATING_EPISODES} episodes there end badly. Drive nearer to the limit, add noise "
            "to the actions."
        )
    safe = [one["task"] for one in train if 0 < one["transitions"] == one["violations"]]
    if safe:
        advice.append(f"safe behaviour of {_some(safe)}: everything there is a violation.")
    narrow = [one["task"] for one in tasks if min(one["action_coverage"], default=1.0) < COVERAGE]
    if narrow:
        advice.append(
            f"more varied actions of {_some(narrow)}: less than {COVERAGE:.0%} of some action's "
            "range is visited, and risk is asked of actions that were never tried."
        )
    for one in tasks:
        few = one["violation_events"]
        if one["role"] == "test" and few < FEW_VIOLATIONS:
            advice.append(
                f"{FEW_VIOLATIONS - few} more violations of the new robot {one['task']!r}: its "
                f"{few} are all that tells it from the others."
            )
    return Sufficiency(tasks=tasks, advice=tuple(advice))


def _coverage(scan: TaskScan) -> list[float]:
    """Per action, the share of equal parts of its range in which a sampled row lies."""
    spaces, shares = scan.spaces, []
    for index in range(spaces.action_size):
        edges = np.linspace(spaces.action_low[index], spaces.action_high[index], ACTION_BINS + 1)
        counts, _ = np.histogram(scan.signals.rows[:, spaces.obs_size + index], edges)
        shares.append(float(np.mean(counts > 0)))
    return shares


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
