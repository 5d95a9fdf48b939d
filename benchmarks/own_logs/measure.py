"""Counts the accidents of the new robot with a shield, with the hand-written rule and without.

from benchmarks.own_logs.kinds import KINDS
from benchmarks.own_logs.measure import measure, shield_guard

measure(KINDS["cart"], shield_guard("my_shield"))
measure(KINDS["cart"], lambda obs, action: action)
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.own_logs.episodes import drive
from benchmarks.own_logs.robot import CARELESS, Guard, Habits, Kind
from safemesa.shield.runtime import Shield

SEED = 77
"""Of the test's episodes: starts, disturbances, operators and sensors are the same in every arm."""


class Counts(NamedTuple):
    """What happened in the episodes of an arm."""

    violations: int
    successes: int
    episodes: int
    overridden_share: float


class ShieldGuard:
    """An exported shield as a guard; `reset` begins an episode."""

    def __init__(self, shield: Shield) -> None:
        self.shield = shield

    def reset(self) -> None:
        self.shield.reset()

    def __call__(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.array(self.shield.decide(obs, action).action)


def shield_guard(folder: str | Path) -> ShieldGuard:
    """The shield of an export folder, which acts even where the export would only monitor."""
    return ShieldGuard(Shield.load(folder, mode="enforce", force=True))


def measure(
    kind: Kind,
    guard: Guard | None,
    *,
    robot: str | None = None,
    habits: Habits = CARELESS,
    episodes: int = 100,
    seed: int = SEED,
) -> Counts:
    """Drives a robot (default: the new one) behind a guard (None: none), and counts."""
    machine = kind.machine(kind.parameters(robot or kind.new_name))
    operator = kind.operator()
    violations = successes = overridden = steps = 0
    for number in range(episodes):
        if isinstance(guard, ShieldGuard):
            guard.reset()
        episode = drive(kind, machine, operator, habits, (seed, number), guard=guard)
        violations += episode.violated
        successes += episode.succeeded
        overridden += episode.overridden
        steps += episode.steps
    return Counts(violations, successes, episodes, overridden / steps)
