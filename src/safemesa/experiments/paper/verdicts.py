"""Holds the paper's claims against runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from safemesa.core.errors import CheckpointError
from safemesa.core.files import read_json
from safemesa.experiments.measures.run_contents import late_return
from safemesa.experiments.paper.claims import ALONE, CLAIMS, STRICT, Claim
from safemesa.experiments.report.result_rows import group_runs
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.runs.run_records import RunRecord
from safemesa.experiments.statistics.across_seeds import (
    MINIMUM_FOR_VERDICT,
    PairedDifference,
    paired_difference,
)

Verdict = Literal["holds", "does not hold", "not measured"]

COUNTS = ("violations", "successes")
"""Metrics that compare nothing where every arm has none."""

SETTLED = 1.1
"""A Brier score within this factor of the lowest one counts as adapted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A claim and what runs say about it.

    Attributes:
        claim: The claim.
        preset: Of the runs; presets are never mixed.
        verdict: Whether the means, over the seeds that all arms have, say what the claim says.
        settled: Whether the sign-flip test finds so too, at 5 %: against every comparison where
            the claim holds, against the best one where it does not. None below six seeds, which
            that test can never settle.
        comparison: The arm that the effect is against, the best of them; empty where there is none.
        effect: Difference of means to the comparison, or the number itself.
        low: Lower end of its 95 % bootstrap interval (paired where seeds are).
        high: Upper end.
        n: Seeds.
        means: Mean of each arm.
        missing: Why it is not measured.
    """

    claim: Claim
    preset: str
    verdict: Verdict
    settled: bool | None = None
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
            return _judge(claim, preset, _adaptation(claim, preset, calibration))
        if claim.test_share != 1.0:
            return _judge(claim, preset, _ablation(claim, here))
        whole = _whole_log(here)
        _same_length(whole)
        return _judge(claim, preset, {arm: _values(claim, whole, arm) for arm in claim.arms})
    except _MissingError as error:
        return Finding(claim=claim, preset=preset, verdict="not measured", missing=str(error))


class _MissingError(Exception):
    """There are no runs, or no numbers, for a claim."""


BySeed = dict[int, float]
"""A number of an arm by seed."""


def _whole_log(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs with the largest test log among them: the others are the ablation of its size."""
    largest = max((_test_size(run) for run in runs), default=0)
    return [run for run in runs if _test_size(run) == largest]


def _test_size(run: RunRecord) -> int:
    return int(run.settings.get("data", {}).get("test_transitions", 0))


def _same_length(runs: Sequence[RunRecord]) -> None:
    """Counts of runs that end after different times say nothing about each other."""
    lengths = {run.length: run.arm for run in runs}
    if len(lengths) > 1:
        words = ", ".join(f"{arm} {length}" for length, arm in lengths.items())
        raise _MissingError(f"runs end after different times: {words}")


def _values(claim: Claim, runs: Sequence[RunRecord], arm: str) -> BySeed:
    """The claim's metric of an arm by seed."""
    groups = group_runs([run for run in runs if run.arm == arm])
    if len(groups) > 1:
        variants = "; ".join(group.variant for group in groups)
        raise _MissingError(f"runs of {arm} have different settings: {variants}")
    found = {run.seed: _number(claim.metric, run) for group in groups for run in group.runs}
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
    if metric in ("risk_bias_start", "risk_bias_change", "late_return"):
        try:
            lines = read_episode_lines(run.path)
        except CheckpointError:
            return None
        if metric == "late_return":
            return late_return(lines)
        bias = [line["risk_bias"] for line in lines]
        third = max(1, len(bias) // 3)
        first, last = float(np.mean(bias[:third])), float(np.mean(bias[-third:]))
        return first if metric == "risk_bias_start" else last - first
    value = run.summary.get(metric)
    return None if value is None else float(value)


def _judge(claim: Claim, preset: str, values: Mapping[str, BySeed]) -> Finding:
    """Holds numbers of the claim's arms against it, over the seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(found) for found in values.values())))
    if not seeds:
        raise _MissingError(f"{' and '.join(values)} have no seed in common on {claim.domain}")
    samples = {arm: np.array([found[seed] for seed in seeds]) for arm, found in values.items()}
    means = {arm: float(np.mean(sample)) for arm, sample in samples.items()}
    (subject, ours), *others = samples.items()
    if claim.expects in ALONE:
        effect = paired_difference(ours, np.zeros(len(seeds)))
        margins, comparison = {subject: _margin(claim, ours, None)}, ""
    else:
        if claim.metric in COUNTS and not any(means.values()):
            raise _MissingError(f"no arm has any {claim.metric} to compare")
        choose: Callable[..., str] = min if claim.lower_is_better else max
        comparison = choose((arm for arm, _ in others), key=means.__getitem__)
        effect = paired_difference(ours, samples[comparison])
        margins = {arm: _margin(claim, ours, sample) for arm, sample in others}
    strict = claim.expects in STRICT
    best = margins[comparison or subject]
    holds = best.mean < 0.0 or (best.mean == 0.0 and not strict)
    settled = None
    if len(seeds) >= MINIMUM_FOR_VERDICT:
        settled = all(one.resolved for one in (margins.values() if holds else [best]))
    return Finding(
        claim=claim,
        preset=preset,
        verdict="holds" if holds else "does not hold",
        settled=settled,
        comparison=comparison,
        effect=effect.mean,
        low=effect.low,
        high=effect.high,
        n=len(seeds),
        means=means,
    )


def _margin(claim: Claim, ours: np.ndarray, theirs: np.ndarray | None) -> PairedDifference:
    """What must be negative for the claim to hold, seed by seed."""
    if theirs is None:
        bar = np.full(len(ours), claim.threshold)
    elif claim.expects in ("fewer", "more", "best"):
        bar = theirs
    else:
        # A share of the rival's value, on the safe side of negative ones.
        bar = theirs - (1.0 - claim.threshold) * np.abs(theirs)
    above = claim.expects in ("mostly", "above", "at_least", "degrades", "more")
    above |= claim.expects == "best" and not claim.lower_is_better
    return paired_difference(bar, ours) if above else paired_difference(ours, bar)


def _ablation(claim: Claim, runs: Sequence[RunRecord]) -> dict[str, BySeed]:
    """Runs with a share of the test log, and those with all of it."""
    own = [run for run in runs if run.arm == claim.arms[0]]
    largest = max((_test_size(run) for run in own), default=0)
    wanted = round(claim.test_share * largest)
    small = [run for run in own if _test_size(run) == wanted]
    whole = [run for run in own if _test_size(run) == largest]
    if not small or wanted == largest:
        raise _MissingError(f"no runs with 1/{1 / claim.test_share:.0f} of the test log")
    _same_length([*small, *whole])
    return {
        "a share of the test log": _values(claim, small, claim.arms[0]),
        "all of it": _values(claim, whole, claim.arms[0]),
    }


def _adaptation(claim: Claim, preset: str, calibration: Path | None) -> dict[str, BySeed]:
    """Steps until the Brier score is near the lowest of both arms (`safemesa calibration`).

    One level for both, per seed: an arm that hardly changes is near its own lowest at once. An arm
    that never gets there has the number of steps that were made.
    """
    if calibration is None or not calibration.is_file():
        raise _MissingError(f"no file of `safemesa calibration` on {claim.domain} is given")
    scores: dict[str, dict[int, dict[int, float]]] = {arm: {} for arm in claim.arms}
    for row in read_json(calibration).get("rows", []):
        if (row.get("domain"), row.get("preset")) == (claim.domain, preset):
            by_seed = scores.get(row.get("arm"), {})
            by_seed.setdefault(row["seed"], {})[row["step"]] = row["brier"]
    for arm, found in scores.items():
        if not found:
            raise _MissingError(f"{calibration} has no {arm} on {claim.domain} ({preset})")
    steps: dict[str, BySeed] = {arm: {} for arm in claim.arms}
    for seed in set.intersection(*(set(found) for found in scores.values())):
        here = {arm: found[seed] for arm, found in scores.items()}
        near = SETTLED * min(min(one.values()) for one in here.values())
        for arm, found in here.items():
            there = [step for step, score in found.items() if score <= near]
            steps[arm][seed] = float(min(there, default=max(found)))
    return steps
