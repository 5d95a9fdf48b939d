"""How good a critic is where a guard needs it: before first violations. And how recovery fares.

Everything here is arithmetic on rows of episodes. A label is gamma_risk^k if the episode's first
violation comes k steps later, and 0 if it has none (`log_metrics.logged_outcomes`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from safemesa.experiments.measures.log_metrics import logged_outcomes
from safemesa.experiments.measures.risk_calibration import risk_errors

LOOK_BACK = (0, 2, 4, 8, 10)
"""Steps before a violation at which it is asked whether the critic warns."""

UNKNOWN = 0.01
"""Rows whose label could be larger by more than this, had the recording gone on, are not scored."""

SAFE = -1
"""`steps_left` of an episode without a violation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstViolations:
    """The rows up to the first violation of each episode, that one included.

    Attributes:
        obs: Raw observations.
        action: Actions in [-1, 1].
        outcome: The label.
        steps_left: Steps to the violation, 0 on the row that violates; `SAFE` without one.
        scored: Rows of the error rates: of the log proper, and with a label that is known.
    """

    obs: Float[np.ndarray, "n obs"]
    action: Float[np.ndarray, "n act"]
    outcome: Float[np.ndarray, " n"]
    steps_left: Int[np.ndarray, " n"]
    scored: Bool[np.ndarray, " n"]


def first_violations(
    columns: Mapping[str, np.ndarray],
    action: Float[np.ndarray, "n act"],
    gamma: float,
    log_length: int | None = None,
) -> FirstViolations:
    """Takes the rows of a log that a critic can be asked about.

    Args:
        columns: Rows in order of episode and step, as in a `TaskLog`.
        action: Their actions in [-1, 1].
        gamma: Discount of the label.
        log_length: Steps of an episode that are scored; later ones are there for the labels. None
            scores all of them.
    """
    episode = np.asarray(columns["episode"])
    cost, terminated = np.asarray(columns["cost"]), np.asarray(columns["terminated"]) > 0.5
    followed = logged_outcomes(cost, terminated, episode, gamma)
    before = followed["before"]
    rows = np.flatnonzero(before)
    number = followed["episode"][before]
    last = np.append(np.flatnonzero(np.diff(number)), len(rows) - 1)
    ends = rows[last][np.cumsum(np.diff(number, prepend=number[:1]) > 0)]
    violating = followed["violating"][ends]
    known = followed["unknown"][before] <= UNKNOWN
    if log_length is not None:
        known &= np.asarray(columns["step"])[before] < log_length
    return FirstViolations(
        obs=np.asarray(columns["obs"])[before],
        action=action[before],
        outcome=followed["outcome"][before],
        steps_left=np.where(violating, ends - rows, SAFE),
        scored=known,
    )


def critic_scores(
    risk: Float[np.ndarray, " n"], rows: FirstViolations, limit: float
) -> dict[str, Any]:
    """Errors, warnings and false alarms of one critic; None where nothing can be said.

    `auc`, `brier` and the false rates at the limit are those of `risk_errors` against the labels.
    `caught_h` is the share of violating episodes (that are long enough) in which the action h steps
    before the violation is above the limit. `warning_steps_median`: see `warning_steps`.
    `false_alarm_steps` is the share of steps above the limit in episodes without a violation.
    """
    scored, left = rows.scored, rows.steps_left
    flagged = risk > limit
    errors = risk_errors(risk[scored], rows.outcome[scored], limit) if scored.any() else {}
    warned = warning_steps(flagged, left)
    numbers = {
        **errors,
        **{f"caught_{steps}": _share(flagged, left == steps) for steps in LOOK_BACK},
        "warning_steps_median": float(np.median(warned)) if len(warned) else math.nan,
        "false_alarm_steps": _share(flagged, scored & (left == SAFE)),
    }
    counts = {
        "states": int(scored.sum()),
        "states_above_limit": int((rows.outcome[scored] > limit).sum()),
        "violations": int((left == 0).sum()),
    }
    plain = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return counts | plain


def warning_steps(
    flagged: Bool[np.ndarray, " n"], steps_left: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " violations"]:
    """Per violating episode, how many actions in a row up to the violating one are above the limit.

    0 is a miss; 1 warns at the violating action only, when that action alone can be replaced.
    """
    ends = np.flatnonzero(steps_left == 0)
    found = np.zeros(len(ends), np.int64)
    for index, end in enumerate(ends):
        row = end
        # Within the episode `steps_left` rises by one from row to row, going back.
        while row >= 0 and flagged[row] and steps_left[row] == end - row:
            row -= 1
        found[index] = end - row
    return found


def label_steps(gamma: float) -> int:
    """Steps after which a violation would change the label by less than `UNKNOWN`."""
    return math.ceil(math.log(UNKNOWN) / math.log(gamma))


def longest_warning(gamma: float, limit: float) -> int:
    """The most actions that an exact critic can warn of: gamma^h > limit for h = 0 to one less."""
    return math.ceil(math.log(limit) / math.log(gamma) - 1e-9) if limit > 0.0 else 0


def escapes(
    intervened: Bool[np.ndarray, " n"],
    violation: Bool[np.ndarray, " n"],
    episode: Int[np.ndarray, " n"],
) -> dict[str, Any]:
    """What became of the entries into recovery of a run of Phase 3.

    An entry is a span of interventions without a gap within an episode. It fails if its last step
    violates. `steps_to_violation_median` is the length of the spans that fail: how late recovery
    took over. Shares are None where there is nothing to divide by.
    """
    starts, ends = spans(intervened, episode)
    failed = violation[ends]
    lengths = (ends - starts + 1)[failed]
    under = violation & intervened
    return {
        "steps": len(intervened),
        "entries": len(starts),
        "escaped": _divide(int((~failed).sum()), len(starts)),
        "violations": int(violation.sum()),
        "violations_under_recovery": _divide(int(under.sum()), int(violation.sum())),
        "recovery_steps": _divide(int(intervened.sum()), len(intervened)),
        "steps_to_violation_median": float(np.median(lengths)) if len(lengths) else None,
    }


def spans(
    intervened: Bool[np.ndarray, " n"], episode: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " spans"], Int[np.ndarray, " spans"]]:
    """First and last rows of interventions without a gap within an episode."""
    new = np.diff(episode, prepend=episode[:1] - 1) != 0
    enters = intervened & (new | ~np.roll(intervened, 1))
    leaves = intervened & (np.roll(new, -1) | ~np.roll(intervened, -1))
    leaves[-1] = intervened[-1]
    return np.flatnonzero(enters), np.flatnonzero(leaves)


def _share(event: np.ndarray, among: np.ndarray) -> float:
    return float(np.mean(event[among])) if among.any() else math.nan


def _divide(count: int, total: int) -> float | None:
    return count / total if total else None
