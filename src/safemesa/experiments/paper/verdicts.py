"""Holds the paper's claims against runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from safemesa.core.errors import SafemesaError
from safemesa.core.files import read_json
from safemesa.experiments.analysis import read_episode_lines
from safemesa.experiments.paper.claims import CLAIMS, Claim
from safemesa.experiments.run_records import RunRecord
from safemesa.experiments.statistics import PairedDifference, bootstrap_interval, paired_difference

Verdict = Literal["holds", "does not hold", "not measured"]

SETTLED = 1.1
"""A Brier score within this factor of its lowest one counts as adapted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A claim and what runs say about it.

    Attributes:
        claim: The claim.
        preset: Of the runs; presets are never mixed.
        verdict: Whether the means say what the claim says.
        resolved: Whether the interval says so too (of the difference to the comparison, or of the
            share): with few seeds it seldom does. None where there is no interval.
        comparison: The arm that the effect is against; empty where there is none.
        effect: Difference of means to the comparison, or the number itself.
        low: Lower end of its 95 % bootstrap interval (paired where seeds are).
        high: Upper end.
        n: Seeds, or pairs of them.
        means: Mean of each arm.
        missing: Why it is not measured.
    """

    claim: Claim
    preset: str
    verdict: Verdict
    resolved: bool | None = None
    comparison: str = ""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    means: dict[str, float] | None = None
    missing: str = ""

    def row(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        claim = asdict(self.claim)
        own = {name: value for name, value in asdict(self).items() if name != "claim"}
        return {**claim, "arms": list(self.claim.arms), **own}


def findings(
    runs: Sequence[RunRecord], preset: str, calibration: Path | None = None
) -> list[Finding]:
    """Every claim against the runs of one preset.

    `calibration` is a file of `safemesa calibration`, for the speed of adaptation.
    """
    chosen = [run for run in runs if run.preset == preset]
    return [_finding(claim, chosen, preset, calibration) for claim in CLAIMS]


def _finding(
    claim: Claim, runs: Sequence[RunRecord], preset: str, calibration: Path | None
) -> Finding:
    """One claim."""
    # Other arms, such as `oracle`, may have logs of other sizes.
    here = [run for run in runs if run.domain == claim.domain and run.arm in claim.arms]
    try:
        if claim.metric == "adaptation_steps":
            return _adaptation(claim, preset, calibration)
        if claim.test_share != 1.0:
            return _ablation(claim, here, preset)
        values = {arm: _values(claim, _whole_log(here), arm) for arm in claim.arms}
        if claim.expects in ("mostly", "rarely"):
            return _of_one_arm(claim, values[claim.arms[0]], preset)
        return _against_others(claim, values, preset)
    except _MissingError as error:
        return Finding(claim=claim, preset=preset, verdict="not measured", missing=str(error))


class _MissingError(Exception):
    """There are no runs, or no numbers, for a claim."""


BySeed = dict[int, float]


def _whole_log(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs with the largest test log among them: the others are the ablation of its size."""
    largest = max((_test_size(run) for run in runs), default=0)
    return [run for run in runs if _test_size(run) == largest]


def _test_size(run: RunRecord) -> int:
    return int(run.settings.get("data", {}).get("test_transitions", 0))


def _values(claim: Claim, runs: Sequence[RunRecord], arm: str) -> BySeed:
    """The claim's metric of an arm by seed."""
    found = {run.seed: _number(claim.metric, run) for run in runs if run.arm == arm}
    numbers = {seed: value for seed, value in found.items() if value is not None}
    if not numbers:
        raise _MissingError(f"no run of {arm} on {claim.domain} has {claim.metric}")
    return numbers


def _number(metric: str, run: RunRecord) -> float | None:
    """A metric of a run; None where the domain has none."""
    episodes = int(run.summary["episodes"])
    if metric in ("success", "violation"):
        total = run.summary["successes" if metric == "success" else "violations"]
        return None if total is None else float(total) / episodes
    if metric in ("risk_bias_start", "risk_bias_change"):
        try:
            bias = [line["risk_bias"] for line in read_episode_lines(run.path)]
        except SafemesaError:
            return None
        third = max(1, len(bias) // 3)
        first, last = float(np.mean(bias[:third])), float(np.mean(bias[-third:]))
        return first if metric == "risk_bias_start" else last - first
    value = run.summary.get(metric)
    return None if value is None else float(value)


def _of_one_arm(claim: Claim, values: BySeed, preset: str) -> Finding:
    """A number against its threshold."""
    sample = list(values.values())
    mean = float(np.mean(sample))
    low, high = bootstrap_interval(sample) or (None, None)
    limit, above = claim.threshold, claim.expects == "mostly"
    holds = mean >= limit if above else mean <= limit
    resolved = None
    if low is not None and high is not None:
        resolved = (low >= limit or high < limit) if above else (high <= limit or low > limit)
    return Finding(
        claim=claim,
        preset=preset,
        verdict="holds" if holds else "does not hold",
        resolved=resolved,
        effect=mean,
        low=low,
        high=high,
        n=len(sample),
        means={claim.arms[0]: mean},
    )


def _against_others(claim: Claim, values: dict[str, BySeed], preset: str) -> Finding:
    """The first arm against the best of the others, over the seeds that both have."""
    subject, *others = claim.arms
    means = {arm: float(np.mean(list(found.values()))) for arm, found in values.items()}
    choose: Callable[..., str] = min if claim.lower_is_better else max
    rival = choose(others, key=lambda arm: means[arm])
    return _compare(claim, preset, values[subject], values[rival], rival, means)


def _compare(
    claim: Claim,
    preset: str,
    ours: BySeed,
    theirs: BySeed,
    rival: str,
    means: dict[str, float],
) -> Finding:
    """Whether `ours` stands to `theirs` as the claim says; `fewer` and `best` have threshold 1."""
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        raise _MissingError(f"no seed is common to {claim.arms[0]} and {rival} on {claim.domain}")
    first = np.array([ours[seed] for seed in seeds])
    second = np.array([theirs[seed] for seed in seeds])
    # What must be negative (positive) for the claim to hold.
    margin = paired_difference(first - _bar(claim, second), np.zeros(len(seeds)))
    below = claim.expects in ("fewer", "at_most") or (
        claim.expects == "best" and claim.lower_is_better
    )
    strict = claim.expects == "fewer"
    holds = (margin.mean < 0.0 if strict else margin.mean <= 0.0) if below else margin.mean >= 0.0
    difference = paired_difference(first, second)
    return Finding(
        claim=claim,
        preset=preset,
        verdict="holds" if holds else "does not hold",
        resolved=_excludes_zero(margin),
        comparison=rival,
        effect=difference.mean,
        low=difference.low,
        high=difference.high,
        n=len(seeds),
        means=means,
    )


def _bar(claim: Claim, rival: np.ndarray) -> np.ndarray:
    """What is asked for: a share of the rival's value, on the safe side of negative ones."""
    if claim.expects in ("fewer", "best"):
        return rival
    return rival - (1.0 - claim.threshold) * np.abs(rival)


def _excludes_zero(margin: PairedDifference) -> bool | None:
    if margin.low is None or margin.high is None:
        return None
    return margin.low > 0.0 or margin.high < 0.0


def _ablation(claim: Claim, runs: Sequence[RunRecord], preset: str) -> Finding:
    """Runs with a share of the test log against those with all of it."""
    own = [run for run in runs if run.arm == claim.arms[0]]
    largest = max((_test_size(run) for run in own), default=0)
    wanted = round(claim.test_share * largest)
    small = [run for run in own if _test_size(run) == wanted]
    whole = [run for run in own if _test_size(run) == largest]
    if not small or wanted == largest:
        raise _MissingError(f"no runs with 1/{1 / claim.test_share:.0f} of the test log")
    ours, theirs = (_values(claim, group, claim.arms[0]) for group in (small, whole))
    means = {
        "all of the test log": float(np.mean(list(theirs.values()))),
        "a share of it": float(np.mean(list(ours.values()))),
    }
    return _compare(claim, preset, ours, theirs, "all of the test log", means)


def _adaptation(claim: Claim, preset: str, calibration: Path | None) -> Finding:
    """Steps until the Brier score is near its lowest, from a file of `safemesa calibration`."""
    if calibration is None or not calibration.is_file():
        raise _MissingError(f"no file of `safemesa calibration` on {claim.domain} is given")
    rows = read_json(calibration).get("rows", [])
    values: dict[str, BySeed] = {}
    for arm in claim.arms:
        scores: dict[int, dict[int, float]] = {}
        for row in rows:
            where = (row.get("domain"), row.get("preset"), row.get("arm"))
            if where == (claim.domain, preset, arm):
                scores.setdefault(row["seed"], {})[row["step"]] = row["brier"]
        if not scores:
            raise _MissingError(f"{calibration} has no {arm} on {claim.domain} ({preset})")
        values[arm] = {seed: _steps_to_settle(found) for seed, found in scores.items()}
    return _against_others(claim, values, preset)


def _steps_to_settle(scores: Mapping[int, float]) -> float:
    """The first of the steps asked about whose Brier score is near the lowest of them all."""
    near = SETTLED * min(scores.values())
    return float(min(step for step, score in scores.items() if score <= near))
