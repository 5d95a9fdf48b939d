"""Arms over several domains at once, by the share of episodes that ended in a violation.

Counts of different domains cannot be added up: runs differ in their numbers of episodes. The share
is between 0 and 1 everywhere, and each domain has the same weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safemesa.experiments.report.result_rows import BASELINE, RunGroup
from safemesa.experiments.statistics.across_domains import (
    Profile,
    improvement_interval,
    performance_profile,
    stratified_interval,
)

THRESHOLDS = tuple(np.linspace(0.0, 0.98, 50).tolist())
"""Shares of violating episodes at which profiles are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OverallRow:
    """One arm over the domains of a preset.

    Attributes:
        runs: Over all domains.
        share: Mean over domains of the share of episodes with a violation.
        interval: Bootstrap interval of `share`, resampled within domains; None with few runs.
        better: Probability that a run of the arm has a lower share than one of the baseline, mean
            over domains; None for the baseline and where there is none.
        better_interval: Its bootstrap interval.
    """

    preset: str
    arm: str
    title: str
    domains: tuple[str, ...]
    runs: int
    share: float
    interval: tuple[float, float] | None
    better: float | None = None
    better_interval: tuple[float, float] | None = None


Shares = dict[str, list[float]]
"""The share of violating episodes of every run, by domain."""


def violation_shares(groups: Sequence[RunGroup]) -> dict[tuple[str, str], tuple[RunGroup, Shares]]:
    """Shares by (preset, arm), for arms that ran on every domain of a preset with several.

    An arm with variants on a domain is left out: which of them it is there would be our choice.
    """
    found: dict[tuple[str, str], tuple[RunGroup, Shares]] = {}
    for preset in dict.fromkeys(group.preset for group in groups):
        here = [group for group in groups if group.preset == preset]
        domains = list(dict.fromkeys(group.domain for group in here))
        for arm in dict.fromkeys(group.arm for group in here) if len(domains) > 1 else ():
            own = [group for group in here if group.arm == arm]
            if [group.domain for group in own] == domains:
                found[preset, arm] = own[0], {group.domain: _shares(group) for group in own}
    return found


def _shares(group: RunGroup) -> list[float]:
    return [run.summary["violations"] / run.summary["episodes"] for run in group.runs]


def overall_rows(groups: Sequence[RunGroup], baseline: str = BASELINE) -> list[OverallRow]:
    """One row per preset and arm; none where a preset has one domain."""
    shares, rows = violation_shares(groups), []
    for (preset, arm), (group, own) in shares.items():
        better, interval = None, None
        if arm != baseline and (preset, baseline) in shares:
            theirs = shares[preset, baseline][1]
            better, interval = improvement_interval(own, theirs, lower_is_better=True)
        rows.append(
            OverallRow(
                preset=preset,
                arm=arm,
                title=group.title,
                domains=tuple(own),
                runs=sum(map(len, own.values())),
                share=float(np.mean([np.mean(values) for values in own.values()])),
                interval=stratified_interval(own),
                better=better,
                better_interval=interval,
            )
        )
    return rows


def violation_profiles(groups: Sequence[RunGroup], preset: str) -> list[tuple[RunGroup, Profile]]:
    """Per arm the share of runs with more than each share of violating episodes."""
    return [
        (group, performance_profile(own, THRESHOLDS))
        for (found, _), (group, own) in violation_shares(groups).items()
        if found == preset
    ]
