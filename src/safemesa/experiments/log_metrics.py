"""Scores of a risk model against logged outcomes, with intervals that hold for small counts.

The outcome of a step is gamma^k if the episode's first violation comes k steps later (k = 0: this
step), and 0 if the rest of the logged episode has none: the Monte-Carlo return of the cost. It
belongs to the policy that drove the logs. Only states before an episode's first violation count;
all others are easy, and would hide the misses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.calibration import area_under_curve, expected_calibration_error

LEVEL = 0.95
RESAMPLES = 200
LIMITS = (0.01, 0.02, 0.05, *(round(0.1 * index, 1) for index in range(1, 10)), 0.95, 0.99)
"""Risk limits of the trade-off curve."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Steps before first violations: predicted risk and what followed in the log."""

    risk: Float[np.ndarray, " n"]
    outcome: Float[np.ndarray, " n"]
    """gamma^k until the first violation, 0 without one."""
    violating: Bool[np.ndarray, " n"]
    """Whether this very step violates."""
    ends_safely: Bool[np.ndarray, " n"]
    """Whether the episode of this step has no violation at all."""
    unknown: Float[np.ndarray, " n"]
    """How much larger the outcome could be had the recording not stopped: gamma^(steps left)."""
    episode: Int[np.ndarray, " n"]
    group: Int[np.ndarray, " n"]
    """The task; calibration and test never share one where there are several."""

    def take(self, chosen: np.ndarray) -> "Predictions":
        """Some of the steps."""
        return Predictions(**{name: value[chosen] for name, value in vars(self).items()})


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """One after the other; episodes and groups stay apart."""
    joined: dict[str, list[np.ndarray]] = {name: [] for name in vars(parts[0])}
    episodes = 0
    for group, part in enumerate(parts):
        for name, value in vars(part).items():
            shifted = value + episodes if name == "episode" else value
            joined[name].append(np.full_like(value, group) if name == "group" else shifted)
        episodes += int(part.episode.max(initial=-1)) + 1
    return Predictions(**{name: np.concatenate(values) for name, values in joined.items()})


def logged_outcomes(
    cost: np.ndarray, terminated: np.ndarray, episode: np.ndarray, gamma: float
) -> dict[str, np.ndarray]:
    """What followed every row of a log, in the words of `Predictions`; `before` says which count.

    Rows are ordered by episode and step, as in a `TaskLog`.
    """
    rows = np.arange(len(cost))
    violates = np.asarray(cost) > 0.5
    number = np.cumsum(np.concatenate([[False], episode[1:] != episode[:-1]]))
    first = np.flatnonzero(np.diff(number, prepend=-1))[number]
    last = np.append(np.flatnonzero(np.diff(number)), len(cost) - 1)[number]
    following = np.minimum.accumulate(np.where(violates, rows, len(cost))[::-1])[::-1]
    comes = following <= last
    earlier = np.cumsum(violates) - violates
    open_end = ~np.asarray(terminated, np.bool_)[last] & ~comes
    return {
        "outcome": np.where(comes, gamma ** np.where(comes, following - rows, 0), 0.0),
        "violating": violates,
        "ends_safely": ~np.logical_or.reduceat(violates, np.unique(first))[number],
        "unknown": np.where(open_end, gamma ** (last - rows + 1.0), 0.0),
        "episode": number,
        "before": earlier - earlier[first] == 0,
    }


def exact_interval(successes: int, trials: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval of a probability (1934): covers with at least `level`.

    Raises:
        ConfigurationError: more successes than trials, or negative numbers.
    """
    if not 0 <= successes <= trials:
        raise ConfigurationError(
            f"{successes} successes of {trials} trials; expected 0 <= successes <= trials."
        )
    tail = 0.5 * (1.0 - level)
    low = 0.0 if successes == 0 else _solve(successes, trials, tail)
    # At most k successes are trials minus k failures or more.
    high = 1.0 if successes == trials else 1.0 - _solve(trials - successes, trials, tail)
    return low, high


def _solve(successes: int, trials: int, tail: float) -> float:
    """The p at which `successes` or more of `trials` have the probability `tail`."""
    count = np.arange(successes, trials + 1)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    choose = factorial[trials] - factorial[count] - factorial[trials - count]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        terms = choose + count * math.log(middle) + (trials - count) * math.log1p(-middle)
        low, high = (middle, high) if np.exp(terms).sum() < tail else (low, middle)
    return 0.5 * (low + high)


def scores(
    predictions: Predictions, limit: float, gamma: float, *, seed: int = 0
) -> dict[str, Any]:
    """All scores at a risk limit; intervals of AUROC, Brier and calibration resample episodes."""
    result: dict[str, Any] = {
        "steps": len(predictions.risk),
        "episodes": len(np.unique(predictions.episode)),
        "violations": int(predictions.violating.sum()),
        "auroc_window_steps": window_steps(gamma),
        "base_rate_brier": float(np.var(predictions.outcome)),
        "unknown_outcome": float(predictions.unknown.mean()),
        "risk_limit": limit,
    }
    names = ("auroc", "brier", "calibration_error")
    draws = _resampled(predictions, gamma, seed)
    for index, (name, value) in enumerate(zip(names, _errors(predictions, gamma), strict=True)):
        known = draws[:, index][np.isfinite(draws[:, index])]
        edges = np.quantile(known, [0.025, 0.975]).tolist() if len(known) else [None, None]
        result[name] = {"value": _plain(value), "low": edges[0], "high": edges[1]}
    return result | at_limit(predictions, limit)


def at_limit(predictions: Predictions, limit: float) -> dict[str, Any]:
    """Misses and false alarms at a limit, with exact intervals.

    A violation is missed if the step that violates has a risk of at most the limit: the guard
    would have let that action pass. Every episode counts once, so the counts are independent.
    """
    missed = predictions.violating & (predictions.risk <= limit)
    safe = predictions.ends_safely
    flagged = predictions.risk > limit
    alarmed = len(np.unique(predictions.episode[safe & flagged]))
    return {
        "miss_rate": _share(int(missed.sum()), int(predictions.violating.sum())),
        "false_alarm_episodes": _share(alarmed, len(np.unique(predictions.episode[safe]))),
        "false_alarm_steps": float(flagged[safe].mean()) if safe.any() else None,
    }


def trade_off(predictions: Predictions, limits: Sequence[float] = LIMITS) -> list[dict[str, Any]]:
    """Misses against false alarms over a range of limits."""
    return [{"limit": limit, **at_limit(predictions, limit)} for limit in limits]


def choose_limit(risk_of_violations: Float[np.ndarray, " n"], target: float) -> float | None:
    """The largest limit that misses the next violation with probability at most `target`.

    Split conformal prediction: with n exchangeable violations, the next one's risk is below the
    k-th smallest with probability at most k / (n + 1), and k is the largest with k / (n + 1) <=
    target. None if n is too small for any k, that is n < 1 / target - 1.

    Raises:
        ConfigurationError: the target is not within (0, 1).
    """
    if not 0.0 < target < 1.0:
        raise ConfigurationError(f"target miss rate is {target}, expected a number in (0, 1).")
    risks = np.sort(np.asarray(risk_of_violations, np.float64))
    rank = math.floor(target * (len(risks) + 1) + 1e-9)
    if rank == 0:
        return None
    # A risk that equals the limit passes the guard, so the limit is just below.
    return float(max(np.nextafter(np.float32(risks[rank - 1]), np.float32(-1.0)), 0.0))


def calibration_and_test(
    predictions: Predictions, seed: int = 0
) -> tuple[Predictions, Predictions]:
    """Two halves that share no task, or where there is one task, no episode."""
    several = len(np.unique(predictions.group)) >= 4
    unit = predictions.group if several else predictions.episode
    violating = np.unique(unit[predictions.violating])
    others = np.setdiff1d(np.unique(unit), violating)
    rng = np.random.default_rng(seed)
    # Units with violations are dealt first, so that both halves get some.
    order = np.concatenate([rng.permutation(violating), rng.permutation(others)])
    first = np.isin(unit, order[::2])
    return predictions.take(first), predictions.take(~first)


def window_steps(gamma: float) -> int:
    """Effective horizon 1 / (1 - gamma): AUROC asks for violations within so many steps."""
    return math.ceil(1.0 / (1.0 - gamma) - 1e-9)


def soon(predictions: Predictions, gamma: float) -> Bool[np.ndarray, " n"]:
    """Whether the first violation comes within the window."""
    return predictions.outcome >= gamma ** (window_steps(gamma) - 1) * (1.0 - 1e-9)


def _errors(predictions: Predictions, gamma: float) -> tuple[float, float, float]:
    risk, outcome = predictions.risk, predictions.outcome
    return (
        area_under_curve(risk, soon(predictions, gamma)),
        float(np.mean(np.square(risk - outcome))),
        expected_calibration_error(risk, outcome),
    )


def _resampled(predictions: Predictions, gamma: float, seed: int) -> np.ndarray:
    """The errors of `RESAMPLES` draws of episodes with replacement, `[draws, 3]`."""
    order = np.argsort(predictions.episode, kind="stable")
    begins = np.flatnonzero(np.diff(predictions.episode[order], prepend=-1))
    rows = np.split(order, begins[1:])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(rows), len(rows))
        taken = np.concatenate([rows[index] for index in chosen])
        draws.append(_errors(predictions.take(taken), gamma))
    return np.asarray(draws)


def _share(count: int, total: int) -> dict[str, Any]:
    low, high = exact_interval(count, total) if total else (0.0, 1.0)
    value = count / total if total else None
    return {"value": value, "count": count, "of": total, "low": low, "high": high}


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
