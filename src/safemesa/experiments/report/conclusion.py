"""What a report says first: who violated least, and whether that can be trusted."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from safemesa.experiments.report.result_rows import RunGroup
from safemesa.experiments.report.result_tables import format_number, interval_text
from safemesa.experiments.statistics.across_seeds import (
    LEVEL,
    MINIMUM_FOR_VERDICT,
    PairedDifference,
    holm,
    paired_difference,
    summarise_metric,
)

CAUTION = (
    "The sign-flip test compares runs of the same seeds and allows for the number of comparisons "
    "(Holm), not for picking the arm with the fewest violations after seeing them."
)
"""How the conclusion's test is read."""

MOST_NAMES = 6
"""With more arms than that a sentence says how many, not which."""


class Comparison(NamedTuple):
    """The arm with the fewest violations less another one.

    Attributes:
        p_value: Of the sign-flip test, corrected for all comparisons that it can settle; 1 with too
            few pairs.
    """

    title: str
    difference: PairedDifference
    p_value: float

    @property
    def enough(self) -> bool:
        """Whether there are pairs enough for the test."""
        return self.difference.n >= MINIMUM_FOR_VERDICT


def comparable(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Groups whose Phase 3 is as long as that of most: counts of others say nothing about them."""
    (length, _), *_ = Counter(group.runs[0].length for group in groups).most_common(1)
    return [group for group in groups if group.runs[0].length == length]


def conclusion(title: str, groups: Sequence[RunGroup]) -> str:
    """Who violated least on a domain at a preset, whether that is chance, and at what return."""
    compared = comparable(groups)
    means = {group.title: _mean(group, "violations") for group in compared}
    fewest = min(means.values())
    leaders = [group for group in compared if means[group.title] == fewest]
    leader, others = leaders[0], [group for group in compared if group not in leaders]
    sentences = [_who(title, leaders, others, means), *_trust(leader, others)]
    sentences += _price(leader, compared) if others and len(leaders) == 1 else []
    if len(compared) < len(groups):
        left = [group.title for group in groups if group not in compared]
        sentences.append(f"Left out, because their runs are of another length: {_names(left)}.")
    return " ".join(sentences)


def _who(
    title: str, leaders: Sequence[RunGroup], others: Sequence[RunGroup], means: dict[str, float]
) -> str:
    leader = leaders[0]
    summary = summarise_metric(leader.values("violations") or [])
    interval = interval_text(summary.low, summary.high)
    episodes = round(mean(run.summary["episodes"] for run in leader.runs))
    count = (
        f"{format_number(summary.mean)}{f' {interval}' if interval else ''} violations per run of "
        f"{episodes} episodes"
    )
    names = _names([group.title for group in leaders])
    if not others:
        every = "all arms have" if len(leaders) > 1 else f"{names} has"
        return f"On {title} {every} {count}; there is no other to compare with."
    most = max(others, key=lambda group: means[group.title])
    each = " each" if len(leaders) > 1 else ""
    return (
        f"On {title} {names} violated least: {count}{each}; most did {most.title}, "
        f"{format_number(means[most.title])}."
    )


def _trust(leader: RunGroup, others: Sequence[RunGroup]) -> list[str]:
    """Whether the leader's lead is more than chance."""
    if not others:
        return []
    compared = comparisons(leader, others)
    if not compared:
        return ["No other arm has runs of the same seeds, so that the lead cannot be tested."]
    tested = [one for one in compared if one.enough]
    trusted = [one for one in tested if one.p_value <= 1.0 - LEVEL]
    doubtful = [one for one in tested if one not in trusted]
    few = [one for one in compared if not one.enough]
    sentences = []
    if trusted:
        largest = max(one.p_value for one in trusted)
        sentences.append(
            f"The difference to {_titles(trusted)} can be trusted (sign-flip test, p "
            f"{'at most' if len(trusted) > 1 else '='} {largest:.2g})."
        )
    if doubtful:
        nearest = max(doubtful, key=lambda one: one.difference.mean)
        interval = interval_text(nearest.difference.low, nearest.difference.high)
        smallest = f", the smallest is to {nearest.title}" if len(doubtful) > 1 else ""
        sentences.append(
            f"The difference to {_titles(doubtful)} may be chance{smallest}: "
            f"{format_number(nearest.difference.mean)} {interval}, p = {nearest.p_value:.2g}."
        )
    if few:
        pairs = max(one.difference.n for one in few)
        sentences.append(
            f"Whether the difference to {_titles(few)} is chance cannot be told: {pairs} "
            f"{'pairs' if pairs > 1 else 'pair'} of runs at most, and the test needs "
            f"{MINIMUM_FOR_VERDICT}."
        )
    return sentences


def comparisons(leader: RunGroup, others: Sequence[RunGroup]) -> list[Comparison]:
    """The leader's violations less those of each other arm, over common seeds."""
    differences = {}
    for group in others:
        seeds = sorted(set(leader.seeds) & set(group.seeds))
        ours, theirs = leader.values("violations", seeds), group.values("violations", seeds)
        if seeds and ours is not None and theirs is not None:
            differences[group.title] = paired_difference(ours, theirs)
    enough = [title for title, one in differences.items() if one.n >= MINIMUM_FOR_VERDICT]
    adjusted = dict(
        zip(enough, holm([differences[title].p_value for title in enough]), strict=True)
    )
    return [
        Comparison(title, difference, adjusted.get(title, 1.0))
        for title, difference in differences.items()
    ]


def reward_metric(groups: Sequence[RunGroup]) -> str:
    """Successes where the domain counts them: there an early crash may have the best return."""
    counted = all(group.values("successes") is not None for group in groups)
    return "successes" if counted else "return_mean"


def _price(leader: RunGroup, compared: Sequence[RunGroup]) -> list[str]:
    metric = reward_metric(compared)
    name = "number of successes" if metric == "successes" else "mean return"
    best = max(compared, key=lambda group: _mean(group, metric))
    ours, theirs = _mean(leader, metric), _mean(best, metric)
    if ours == theirs:
        return [f"No arm has a higher {name} ({format_number(ours)})."]
    return [
        f"Its {name} is {format_number(ours)}; the highest is {format_number(theirs)}, of "
        f"{best.title}."
    ]


def _mean(group: RunGroup, metric: str) -> float:
    return mean(group.values(metric) or [])


def _titles(compared: Sequence[Comparison]) -> str:
    return _names([comparison.title for comparison in compared])


def _names(titles: Sequence[str]) -> str:
    if len(titles) > MOST_NAMES:
        return f"{len(titles)} arms"
    *most, last = titles
    return f"{', '.join(most)} and {last}" if most else last
