"""What every simulated robot of this yardstick is: its signals, its physics, who drives it.

A `Kind` is a kind of robot, with a fleet of six and a new one. A `Machine` is one robot of it, an
`Operator` the careless controller that drives the logs and the test, and a rule the hand-written
guard that knows the physics, for scale. Everything is plain NumPy and in the units of the dataset,
that is, after the map: SI, or what engineers use.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

DEGREE = math.pi / 180
"""rad."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """An observation, and how the logger writes it (`value = scale * cell + offset`)."""

    name: str
    unit: str
    column: str
    scale: float = 1.0
    offset: float = 0.0
    digits: int = 3
    """Decimals in the log."""
    noise: float = 0.0
    """Standard deviation of the sensor, in `unit`; the log has it, and so has the test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """An action: what it is, its bounds, and how the logger writes it."""

    name: str
    unit: str
    column: str
    low: float
    high: float
    digits: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """How an operator drives: care is drawn per episode, 1 (careless) to 4 (careful)."""

    least_care: float
    most_care: float
    exploration: float = 1.0
    """Size of the noise on the commands, as a share of the usual one."""


CARELESS = Habits(least_care=1.0, most_care=1.0)
"""Drives the test."""
MIXED = Habits(least_care=1.0, most_care=4.0)
"""Drives the logs."""
CAREFUL = Habits(least_care=4.0, most_care=4.0, exploration=0.12 / 0.35)
"""Drives the logs of a fleet member where nothing ever happened."""


class Outcome(NamedTuple):
    """What a step led to. `succeeded`: the task is done if the episode ends here."""

    obs: np.ndarray
    violated: bool
    succeeded: bool


class Machine(ABC):
    """One robot, with parameters that nobody logs. An episode begins with `reset`."""

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> np.ndarray:
        """A new start; `rng` serves the whole episode. Gives the true observation."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Outcome:
        """Holds an action for one `dt`."""


class Operator(ABC):
    """The careless controller: knows the task, but not the parameters of the robot."""

    @abstractmethod
    def reset(self, rng: np.random.Generator, habits: Habits) -> None:
        """Another operator takes over; `rng` serves the whole episode."""

    @abstractmethod
    def act(self, obs: np.ndarray) -> np.ndarray:
        """The proposed action, within its bounds."""


Guard = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Turns an observation and a proposed action into the executed one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of robot. Parameters are a frozen dataclass of the kind's own."""

    name: str
    signals: tuple[Signal, ...]
    commands: tuple[Command, ...]
    dt: float
    """Seconds per step."""
    steps: int
    """Longest episode."""
    stated_horizon: float
    """Seconds: what an engineer would say the robot needs to get out of trouble."""
    alarm: str
    """Column that is 1 in the row of a violation."""
    time_column: str
    """`timestamp`: a date with a time; anything else: seconds since the file began."""
    episode_column: str
    dropped_rows: float = 0.0
    """Share of rows that the logger loses."""
    fleet: Mapping[str, Any]
    """Parameters of the robots whose logs are learned from."""
    careful: frozenset[str] = frozenset()
    """Robots of the fleet that a careful operator drives: nothing ever happens to them."""
    new_name: str
    new: Any
    """Parameters of the new robot."""
    machine: Callable[[Any], Machine]
    operator: Callable[[], Operator]
    rule: Callable[[Any], Guard]
    """The hand-written guard of a robot with these parameters."""

    def parameters(self, robot: str) -> Any:
        """Those of a robot of the fleet, or of the new one."""
        return self.new if robot == self.new_name else self.fleet[robot]

    def habits(self, robot: str) -> Habits:
        """How a robot is driven in its logs."""
        return CAREFUL if robot in self.careful else MIXED

    def clip(self, action: np.ndarray) -> np.ndarray:
        """An action within its bounds."""
        return np.clip(action, [c.low for c in self.commands], [c.high for c in self.commands])
