"""Scores of a risk model against logged outcomes, with intervals that hold for small counts.

What a shield needs is time to act. A violation is *announced* where the risk of a logged action was
above the limit at some step of the warning window before it: at least `lead` steps before, so that
something can still be done, and at most `window` steps before, because an alarm long ago has
nothing to do with it. An alarm in calm time, with no violation within the window after it, is
false. What the risk says of the violating step itself is hindsight, and decides nothing.

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
from safemesa.core.streams import Stream, generator
from safemesa.experiments.measures.risk_calibration import (
    area_under_curve,
    expected_calibration_error,
)
from safemesa.phases.rehearsal import CALM_HORIZONS

LEVEL = 0.95
RESAMPLES = 200
LIMITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Limits of the table, where the limit is a risk."""
MULTIPLES = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 4.0)
"""Limits of the table as multiples of the found one, where each critic has a limit of its own."""
ANNOUNCED = 0.5
"""Share of violations below which a shield comes too late."""
USELESS = 0.5
"""Share of calm time above which a limit flags so much that nearly everything is overridden."""
FEWEST_STEPS = 3
"""Steps in which something can be done."""
NEVER = np.iinfo(np.int64).max
"""Steps until a violation that does not come."""


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
    steps_left: Int[np.ndarray, " n"]
    """Steps until the episode's first violation; `NEVER` without one."""
    episode: Int[np.ndarray, " n"]
    """The steps of an episode lie together and in their order."""
    group: Int[np.ndarray, " n"]
    """The task; calibration and test never share one where there are several."""
    unit: Float[np.ndarray, " n"]
    """What limits are multiples of: 1, or the limit found for the critic that gave the risk."""

    @property
    def level(self) -> Float[np.ndarray, " n"]:
        """What is compared with limits: the risk in that unit."""
        return np.asarray(self.risk, np.float64) / self.unit

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
        "steps_left": np.where(comes, following - rows, NEVER),
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


@dataclass(frozen=True, kw_only=True)
class WarningTime:
    """When an alarm announces a violation: from `lead` to `window` steps before it."""

    lead: int
    window: int
    horizon: float
    """Effective horizon of the risk, 1 / (1 - gamma), in steps."""
    dt: float
    """Seconds per step."""

    def notes(self) -> dict[str, Any]:
        """For reports."""
        return {
            "lead_steps": self.lead,
            "lead_s": self.lead * self.dt,
            "window_steps": self.window,
            "window_s": self.window * self.dt,
            "horizon_steps": self.horizon,
            "horizon_s": self.horizon * self.dt,
            "dt_s": self.dt,
        }


def warning_time(gamma: float, dt: float, lead: float | None = None) -> WarningTime:
    """The warning window of a risk: two effective horizons; beyond them states are calm.

    Args:
        gamma: discount of the risk per step.
        dt: seconds per step.
        lead: seconds that are needed to act, rounded up to whole steps, at least one; None: half
            the effective horizon.

    Raises:
        ConfigurationError: the lead is no duration, or longer than the window.
    """
    horizon = 1.0 / (1.0 - gamma)
    window = math.floor(CALM_HORIZONS * horizon + 1e-9)
    if lead is not None and not 0.0 < lead < math.inf:
        raise ConfigurationError(f"the lead is {lead} s; expected seconds above 0.")
    wanted = 0.5 * horizon if lead is None else lead / dt
    steps = max(1, math.ceil(wanted - 1e-9))
    if steps > window:
        raise ConfigurationError(
            f"the lead of {lead:g} s is {steps} steps of {dt:g} s, and the risk has an effective "
            f"horizon of {horizon:.3g} steps: what it says more than {window} steps before a "
            "violation has nothing to do with it. Learn the prior with a longer horizon "
            "(`meta-train --risk.horizon SECONDS`), or shorten the lead."
        )
    return WarningTime(lead=steps, window=window, horizon=horizon, dt=dt)


def short_sighted(time: WarningTime, motion: float | None) -> list[str]:
    """Why a risk of this horizon cannot be relied on to warn in time; empty: nothing says so.

    `lead`: it looks less far ahead than the lead. `motion`: much less far than the motion of the
    robot lasts (seconds; None where the lead was given). `steps`: fewer than `FEWEST_STEPS`.
    """
    slack = 1.0 - 1e-9
    found = {
        "lead": time.horizon < time.lead * slack,
        "motion": motion is not None and time.horizon * time.dt < 0.5 * motion,
        "steps": time.horizon < FEWEST_STEPS * slack,
    }
    return [name for name, is_so in found.items() if is_so]


@dataclass(frozen=True, kw_only=True, eq=False)
class AlarmLevels:
    """Levels that a limit is compared with: where an alarm announces, and where it is false."""

    announcing: Float[np.ndarray, " violations"]
    """The highest level in the warning window of each violation that can be announced."""
    unreachable: int
    """Violations that come so soon in their recording that no step is early enough."""
    calm: Float[np.ndarray, " calm"]
    """Of each calm step."""
    before: Float[np.ndarray, " calm"]
    """Of the step before each calm step; minus infinity where its recording begins."""
    safe: Float[np.ndarray, " episodes"]
    """The highest level of each episode without a violation."""
    dt: float

    @property
    def calm_hours(self) -> float:
        """Robot time without a violation within the window after it."""
        return len(self.calm) * self.dt / 3_600.0


def alarm_levels(predictions: Predictions, time: WarningTime) -> AlarmLevels:
    """What the table of limits needs of the predictions."""
    level, left = predictions.level, predictions.steps_left
    number = np.unique(predictions.episode, return_inverse=True)[1]
    episodes = int(number.max(initial=-1)) + 1

    def highest(rows: np.ndarray) -> np.ndarray:
        found = np.full(episodes, -np.inf)
        np.maximum.at(found, number[rows], level[rows])
        return found[np.unique(number[rows])]

    announcing = highest((left >= time.lead) & (left <= time.window))
    begins = np.diff(number, prepend=-1) != 0
    before = np.where(begins, -np.inf, np.concatenate([[-np.inf], level[:-1]]))
    calm = left > time.window
    return AlarmLevels(
        announcing=announcing,
        unreachable=int(predictions.violating.sum()) - len(announcing),
        calm=level[calm],
        before=before[calm],
        safe=highest(predictions.ends_safely),
        dt=time.dt,
    )


def at_limit(levels: AlarmLevels, limit: float) -> dict[str, Any]:
    """Announced violations and false alarms at a limit.

    Violations and episodes count once each, so their intervals are exact. A false alarm is a rise
    above the limit in calm time. A shield at the limit is `too_late` where fewer than half of the
    violations are announced, and `useless` where it flags more than half of calm time.
    """
    flagged = levels.calm > limit
    rises = int((flagged & (levels.before <= limit)).sum())
    announced = _share(int((levels.announcing > limit).sum()), len(levels.announcing))
    calm_share = float(flagged.mean()) if len(flagged) else None
    return {
        "limit": limit,
        "announced": announced,
        "false_alarms": rises,
        "false_alarms_per_hour": rises / levels.calm_hours if len(flagged) else None,
        "calm_time_share": calm_share,
        "safe_episodes_with_alarm": _share(int((levels.safe > limit).sum()), len(levels.safe)),
        "too_late": announced["value"] is not None and announced["value"] < ANNOUNCED,
        "useless": calm_share is not None and calm_share > USELESS,
    }


def time_to_act(
    predictions: Predictions, time: WarningTime, used: float, limits: Sequence[float]
) -> dict[str, Any]:
    """How early the risk warns at the limit that is used, and at others."""
    levels = alarm_levels(predictions, time)
    return {
        **time.notes(),
        "violations": len(levels.announcing) + levels.unreachable,
        "unreachable": levels.unreachable,
        "calm_hours": levels.calm_hours,
        "at_limit": at_limit(levels, used),
        "limits": [at_limit(levels, limit) for limit in sorted({*limits, used})],
    }


def limit_for_target(
    predictions: Predictions, time: WarningTime, target: float, seed: int = 0
) -> dict[str, Any]:
    """The largest limit at which at most a share `target` of violations comes unannounced.

    It is chosen on one half of the violations and tried on the other.
    """
    calibration, test = calibration_and_test(predictions, time.lead, seed)
    announcing = alarm_levels(calibration, time).announcing
    limit = choose_limit(announcing, target)
    return {
        "miss_rate": target,
        "calibration_violations": len(announcing),
        "needed_violations": math.ceil(1.0 / target - 1e-9) - 1,
        "limit": limit,
        "test": None if limit is None else at_limit(alarm_levels(test, time), limit),
    }


def scores(predictions: Predictions, gamma: float, *, seed: int = 0) -> dict[str, Any]:
    """Ranking and calibration of the risk; intervals resample episodes."""
    result: dict[str, Any] = {
        "steps": len(predictions.risk),
        "episodes": len(np.unique(predictions.episode)),
        "violations": int(predictions.violating.sum()),
        "auroc_window_steps": window_steps(gamma),
        "base_rate_brier": float(np.var(predictions.outcome)),
        "unknown_outcome": float(predictions.unknown.mean()),
    }
    names = ("auroc", "brier", "calibration_error")
    draws = _resampled(predictions, gamma, seed)
    for index, (name, value) in enumerate(zip(names, _errors(predictions, gamma), strict=True)):
        known = draws[:, index][np.isfinite(draws[:, index])]
        edges = np.quantile(known, [0.025, 0.975]).tolist() if len(known) else [None, None]
        result[name] = {"value": _plain(value), "low": edges[0], "high": edges[1]}
    return result


def choose_limit(announcing: Float[np.ndarray, " n"], target: float) -> float | None:
    """The largest limit that misses the next violation with probability at most `target`.

    Split conformal prediction: with n exchangeable violations, the next one's highest level in its
    warning window is below the k-th smallest with probability at most k / (n + 1), and k is the
    largest with k / (n + 1) <= target. None if n is too small for any k, that is n < 1 / target -
    1.

    Raises:
        ConfigurationError: the target is not within (0, 1).
    """
    if not 0.0 < target < 1.0:
        raise ConfigurationError(f"target miss rate is {target}, expected a number in (0, 1).")
    levels = np.sort(np.asarray(announcing, np.float64))
    rank = math.floor(target * (len(levels) + 1) + 1e-9)
    if rank == 0:
        return None
    # A risk that equals the limit passes the guard, so the limit is just below.
    return float(max(np.nextafter(np.float32(levels[rank - 1]), np.float32(-1.0)), 0.0))


def calibration_and_test(
    predictions: Predictions, lead: int, seed: int = 0
) -> tuple[Predictions, Predictions]:
    """Two halves that share no task, or where there is one task, no episode."""
    several = len(np.unique(predictions.group)) >= 4
    unit = predictions.group if several else predictions.episode
    announceable = np.unique(unit[predictions.steps_left == lead])
    others = np.setdiff1d(np.unique(unit), announceable)
    rng = generator(seed, Stream.LIMIT_HALVES)
    # Units with violations that can be announced are dealt first, so that both halves get some.
    order = np.concatenate([rng.permutation(announceable), rng.permutation(others)])
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
    rng = generator(seed, Stream.RESAMPLED_EPISODES)
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
