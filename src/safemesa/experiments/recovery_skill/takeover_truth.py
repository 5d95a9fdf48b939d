"""When must recovery take over? Truth by simulation, and how well each signal foretells it.

A state that Phase 3 met is restored, the proposed action is taken for one step, and from there on
the recovery drives. Where that violates, it was the last moment to take over, or later. A signal
misses such a state if it is within its limit there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator
from safemesa.datasets.task_log import TaskLog
from safemesa.experiments.measures.risk_calibration import area_under_curve
from safemesa.experiments.measures.run_contents import intervened
from safemesa.experiments.recovery_skill.drivers import RecoveryDriver, recovery_driver
from safemesa.experiments.recovery_skill.rollouts import Simulator
from safemesa.experiments.recovery_skill.subjects import NamedModel

SIGNALS = {
    "risk": "risk of the proposal, Q(s, a)",
    "advantage": "advantage, Q(s, a) - V(s)",
    "next_value": "value of the next state, V(s')",
}
"""What a guard could look at. V is the risk of the recovery's action."""

ON_A_ROBOT = {"risk": True, "advantage": True, "next_value": False}
"""Whether a robot knows it before it acts; the next state comes from the simulator."""

FALSE_ALARMS = (0.5, 0.25, 0.1, 0.05, 0.01)
"""Shares of the states that recovery saves above the limits that are tried."""

MISSED = 0.05
"""Share of the states that recovery does not save within one more limit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MetStates:
    """States that Phase 3 met, with what the task policy proposed there.

    Attributes:
        obs: Raw observations.
        proposed: Proposals in [-1, 1].
        weight: Steps of the run that each state stands for.
        parts: Of each part that was drawn from: its steps in the run, and how many were drawn.
    """

    obs: Float[np.ndarray, "n obs"]
    proposed: Float[np.ndarray, "n act"]
    weight: Float[np.ndarray, " n"]
    parts: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What one model's recovery can still save, and what the model says of it.

    Attributes:
        model: `NamedModel.name`.
        fails: Whether there is a violation once the proposal was taken.
        signals: By the names of `SIGNALS`.
        limit: The risk above which the model's guard takes over; None where it has no limit yet.
    """

    model: str
    fails: Bool[np.ndarray, " n"]
    signals: Mapping[str, Float[np.ndarray, " n"]]
    limit: float | None


def draw_states(columns: Mapping[str, np.ndarray], count: int, before: int, seed: int) -> MetStates:
    """Up to `count` steps of a run: a third each from before violations, overrides, and all others.

    Args:
        columns: The run's replay (`analysis.replay_columns`).
        count: States to draw.
        before: Steps up to a violation that count as before it.
        seed: Of the draw.

    A part that is smaller than its third is taken whole, and the others fill up. Steps that begin
    in a violation are left out.
    """
    names = ("obs", "cost", "terminated", "episode")
    log = TaskLog(name="replay", role="test", columns={name: columns[name] for name in names})
    begins = np.zeros(log.transitions, np.bool_)
    begins[log.safe_starts] = True
    near = log.steps_to_violation <= before
    overridden = intervened(columns) & ~near
    parts = {
        f"within {before} steps of a violation": np.flatnonzero(begins & near),
        "overridden": np.flatnonzero(begins & overridden),
        "all others": np.flatnonzero(begins & ~near & ~overridden),
    }
    rng = generator(seed, Stream.TAKEOVER_TRUTH)
    drawn: dict[str, Int[np.ndarray, " some"]] = {}
    left = count
    # Smallest first, so that what they lack is left for the others.
    for done, name in enumerate(sorted(parts, key=lambda one: len(parts[one]))):
        share = min(len(parts[name]), left // (len(parts) - done))
        drawn[name] = np.sort(rng.permutation(parts[name])[:share])
        left -= share
    rows = np.concatenate([drawn[name] for name in parts])
    weights = [np.full(len(drawn[name]), len(parts[name]) / max(len(drawn[name]), 1))
               for name in parts]  # fmt: skip
    return MetStates(
        obs=np.asarray(columns["obs"])[rows],
        proposed=np.asarray(columns["proposed_action"])[rows],
        weight=np.concatenate(weights),
        parts={name: (len(parts[name]), len(drawn[name])) for name in parts},
    )


def takeover_truth(
    simulator: Simulator,
    named: NamedModel,
    met: MetStates,
    spaces: Spaces,
    horizon: int,
    seed: int,
) -> Truth:
    """Labels states for one model's recovery, and asks its critic about them.

    A state fails if the step of the proposal violates, or one of the `horizon` steps after it, in
    which the recovery drives.

    Raises:
        ConfigurationError: the robot cannot be put into an observed state.
    """
    driver = recovery_driver(named.model, spaces)
    first = spaces.from_unit(met.proposed)
    driven = simulator.drive(driver, met.obs, 1 + horizon, seed=seed, first=first)
    risk, advantage, next_value = map(
        np.asarray, _signals(driver, met.obs, met.proposed, driven.next_obs)
    )
    # Who knows the next state knows whether it violates.
    known = np.where(driven.violated_at == 0, np.float32(1.0), next_value)
    return Truth(
        model=named.name,
        fails=driven.violated,
        signals={"risk": risk, "advantage": advantage, "next_value": known},
        limit=named.limit,
    )


@jax.jit
def _signals(
    driver: RecoveryDriver,
    obs: Float[Array, "n obs"],
    action: Float[Array, "n act"],
    next_obs: Float[Array, "n obs"],
) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
    """Risk and advantage of actions in [-1, 1], and the value of the next state."""

    def value(one: Float[Array, " obs"]) -> Float[Array, ""]:
        escape, _ = driver.recovery.act(driver.critic, one, driver.recovery.begin())
        return driver.critic(one, escape)

    def single(one: Array, proposed: Array, following: Array) -> tuple[Array, Array, Array]:
        risk = driver.critic(one, proposed)
        return risk, risk - value(one), value(following)

    normalised = driver.normaliser(obs), driver.normaliser(next_obs)
    return jax.vmap(single)(normalised[0], action, normalised[1])


def signal_scores(truth: Truth, weight: Float[np.ndarray, " n"]) -> list[dict[str, Any]]:
    """A row per signal: `auc`, and errors at limits; None where there is nothing to divide by.

    `own` is the model's own limit, of risks. The other limits lie where a given share of the states
    that recovery saves is above (`false alarms`), and where few that it does not save are within
    (`misses`).
    """
    return [
        {
            "signal": name,
            "known_on_a_robot": ON_A_ROBOT[name],
            "auc": _plain(area_under_curve(signal, truth.fails)),
            "limits": [
                {"chosen_by": kind, **errors_at(limit, signal, truth.fails, weight)}
                for kind, limit in _limits(name, signal, truth)
            ],
        }
        for name, signal in truth.signals.items()
    ]


def _limits(name: str, signal: Float[np.ndarray, " n"], truth: Truth) -> list[tuple[str, float]]:
    """What chose a limit, and the limit."""
    saved, failed = signal[~truth.fails].astype(float), signal[truth.fails].astype(float)
    limits = []
    if truth.limit is not None and name != "advantage":
        limits.append(("own", truth.limit))
    if len(saved):
        limits += [
            (f"false alarms {share:g}", float(np.quantile(saved, 1.0 - share)))
            for share in FALSE_ALARMS
        ]
    if len(failed):
        # A value that is there, so that no more than the share is within.
        below = np.quantile(failed, MISSED, method="lower")
        limits.append((f"misses {MISSED:g}", float(np.nextafter(below, -math.inf))))
    return limits


def errors_at(
    limit: float,
    signal: Float[np.ndarray, " n"],
    fails: Bool[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
) -> dict[str, Any]:
    """What a takeover above `limit` would miss, and take over for nothing.

    `misses` is the share of the failing states that are within the limit, `false_alarms` that of
    the saved ones that are above. `taken_over` is the share of all steps of the run that would be
    taken over, by the weights of the drawn states.
    """
    above = signal.astype(float) > limit
    return {
        "limit": limit,
        "misses": _share(~above, fails),
        "false_alarms": _share(above, ~fails),
        "taken_over": _plain(float(np.average(above, weights=weight))) if len(above) else None,
    }


def _share(event: Bool[np.ndarray, " n"], among: Bool[np.ndarray, " n"]) -> float | None:
    return float(np.mean(event[among])) if among.any() else None


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
