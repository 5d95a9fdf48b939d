"""From runs to rows of results: per arm over seeds, and paired between arms."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.arms import find_arm
from safemesa.experiments.runs.run_records import METRICS, RunRecord
from safemesa.experiments.statistics.across_seeds import (
    PairedDifference,
    Summary,
    paired_difference,
    summarise_metric,
)

BASELINE = "multitask"
"""The arm that others are compared with, seed by seed, where no other is named."""


METRIC_TITLES = {
    "violations": "Violations",
    "violations_under_recovery": "Violations under recovery",
    "successes": "Successes",
    "interventions": "Interventions (steps)",
    "return_mean": "Mean return",
    "env_steps": "Steps",
}
"""What tables call the metrics; all but the return are counts per run."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunGroup:
    """Runs that differ in their seeds alone: a row of a results table.

    Attributes:
        variant: What sets its configuration apart from others of the same domain, preset and arm,
            such as `adapt.target_rate=1.0`; empty where there are none.
        runs: In the order of their seeds.
    """

    domain: str
    preset: str
    arm: str
    variant: str
    runs: tuple[RunRecord, ...]

    @property
    def title(self) -> str:
        """What tables and legends call the group."""
        name = arm_title(self.arm)
        return f"{name} ({self.variant})" if self.variant else name

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, ascending."""
        return tuple(run.seed for run in self.runs)

    def values(self, metric: str, seeds: Sequence[int] | None = None) -> list[float] | None:
        """The metric of the runs (of `seeds`, in their order); None where there is none."""
        by_seed = {run.seed: run.number(metric) for run in self.runs}
        chosen = [by_seed[seed] for seed in (self.seeds if seeds is None else seeds)]
        given = [number for number in chosen if number is not None]
        return given if len(given) == len(chosen) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One arm on one domain: a `Summary` per metric of `METRICS`, None where there is none."""

    domain: str
    preset: str
    arm: str
    variant: str
    title: str
    seeds: tuple[int, ...]
    episodes: int
    metrics: dict[str, Summary | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedRow:
    """One arm minus the baseline, over the seeds that both have."""

    domain: str
    preset: str
    arm: str
    variant: str
    title: str
    baseline: str
    metric: str
    seeds: tuple[int, ...]
    difference: PairedDifference


def arm_title(arm: str) -> str:
    """The title of an arm; its name where this version does not know it."""
    try:
        return find_arm(arm).title
    except ConfigurationError:
        return arm


def group_runs(records: Sequence[RunRecord]) -> list[RunGroup]:
    """Runs by domain, preset, arm and whatever else their configurations differ in.

    `records` are in the order in which `find_runs` returns them.
    """
    groups = []
    for key, same in itertools.groupby(records, key=lambda one: (one.domain, one.preset, one.arm)):
        by_variant: dict[str, list[RunRecord]] = {}
        members = list(same)
        for record, variant in zip(members, _variants(members), strict=True):
            by_variant.setdefault(variant, []).append(record)
        domain, preset, arm = key
        groups += [
            RunGroup(domain=domain, preset=preset, arm=arm, variant=variant, runs=tuple(runs))
            for variant, runs in sorted(by_variant.items(), key=lambda item: _by_number(item[0]))
        ]
    return groups


def results_table(records: Sequence[RunRecord]) -> list[ResultRow]:
    """One row per group of runs, with every metric summarised over its seeds."""
    rows = []
    for group in group_runs(records):
        values = {metric: group.values(metric) for metric in METRICS}
        rows.append(
            ResultRow(
                domain=group.domain,
                preset=group.preset,
                arm=group.arm,
                variant=group.variant,
                title=group.title,
                seeds=group.seeds,
                episodes=round(mean(run.summary["episodes"] for run in group.runs)),
                metrics={
                    metric: None if numbers is None else summarise_metric(numbers)
                    for metric, numbers in values.items()
                },
            )
        )
    return rows


def paired_rows(records: Sequence[RunRecord], baseline: str = BASELINE) -> list[PairedRow]:
    """Every other arm minus the baseline, by violations and by success, over common seeds.

    Only runs whose Phase 3 is as long: counts of others say nothing about each other.

    A group is compared with the baseline of the same variant; where there is none, with all.
    """
    groups = group_runs(records)
    rows = []
    for group in groups:
        for reference in _references(group, groups, baseline):
            seeds = tuple(sorted(set(group.seeds) & set(reference.seeds)))
            for metric in _paired_metrics(group, reference) if seeds else ():
                ours, theirs = group.values(metric, seeds), reference.values(metric, seeds)
                if ours is None or theirs is None:
                    continue
                rows.append(
                    PairedRow(
                        domain=group.domain,
                        preset=group.preset,
                        arm=group.arm,
                        variant=group.variant,
                        title=group.title,
                        baseline=reference.title,
                        metric=metric,
                        seeds=seeds,
                        difference=paired_difference(ours, theirs),
                    )
                )
    return rows


def _paired_metrics(*groups: RunGroup) -> tuple[str, ...]:
    """Violations, and successes; the return where the domain knows no success.

    Where it does, the return is no measure: on Navigation crashing at once has the highest.
    """
    knows_success = any(group.values("successes") is not None for group in groups)
    return "violations", "successes" if knows_success else "return_mean"


def _references(group: RunGroup, groups: list[RunGroup], baseline: str) -> list[RunGroup]:
    """What a group is compared with; nothing for the baseline itself."""
    if group.arm == baseline:
        return []
    place = (group.domain, group.preset, group.runs[0].length)
    candidates = [
        one
        for one in groups
        if one.arm == baseline and (one.domain, one.preset, one.runs[0].length) == place
    ]
    return [one for one in candidates if one.variant == group.variant] or candidates


def _by_number(variant: str) -> list[str | float]:
    """Sorts 625 before 10000: text and numbers of a variant, which alternate."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", variant)
    return [float(part) if index % 2 else part for index, part in enumerate(parts)]


def _variants(records: list[RunRecord]) -> list[str]:
    """Per record the settings, seed aside, in which the records differ."""
    flat = [_flatten({**record.settings, "seed": None}) for record in records]
    names = sorted({name for one in flat for name in one})
    differing = [name for name in names if len({repr(one.get(name)) for one in flat}) > 1]
    return [", ".join(f"{name}={one.get(name)}" for name in differing) for one in flat]


def _flatten(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{place}{name}.")
        else:
            flat[f"{place}{name}"] = value
    return flat
