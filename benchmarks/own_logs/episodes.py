"""Drives one robot for one episode, with or without a guard."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.own_logs.robot import Guard, Habits, Kind, Machine, Operator


class Moment(NamedTuple):
    """What the sensors read, the command that was executed then, and whether the state violates."""

    obs: np.ndarray
    action: np.ndarray
    violated: bool


class Episode(NamedTuple):
    """How an episode ended, and how many of its steps were not the operator's."""

    steps: int
    violated: bool
    succeeded: bool
    overridden: int


def drive(
    kind: Kind,
    machine: Machine,
    operator: Operator,
    habits: Habits,
    seed: Sequence[int],
    *,
    guard: Guard | None = None,
    record: Callable[[Moment], None] | None = None,
) -> Episode:
    """One episode, which ends at its first violation.

    The start with the disturbances, the operator and the sensors draw from generators of their own,
    so that episodes of the same seed are paired whatever the guard does.
    """
    operator.reset(np.random.default_rng((*seed, 1)), habits)
    sensor = np.random.default_rng((*seed, 2))
    spread = np.array([signal.noise for signal in kind.signals])

    def measured(obs: np.ndarray) -> np.ndarray:
        return obs + spread * sensor.normal(size=len(spread))

    obs = measured(machine.reset(np.random.default_rng(tuple(seed))))
    overridden = 0
    for step in range(kind.steps):
        proposed = operator.act(obs)
        action = proposed if guard is None else kind.clip(guard(obs, proposed))
        overridden += not np.allclose(action, proposed, rtol=0.0, atol=1e-6)
        if record is not None:
            record(Moment(obs, action, False))
        true_obs, violated, succeeded = machine.step(action)
        obs = measured(true_obs)
        if violated or step == kind.steps - 1:
            if record is not None:
                # No command follows; loggers write what stands on the bus.
                record(Moment(obs, action, violated))
            return Episode(step + 1, violated, succeeded and not violated, overridden)
    raise AssertionError("an episode has at least one step")
