"""A climate chamber that must not overheat what is in it, with unknown heater, load and vent.

The heating element stores heat: after it is switched off, the air goes on warming for a minute or
two. The vent cools slowly and follows its command with a lag. A trip above the limit ends the run.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from benchmarks.own_logs.robot import (
    Command,
    Guard,
    Habits,
    Kind,
    Machine,
    Operator,
    Outcome,
    Signal,
)

DT = 5.0
SUBSTEPS = 10
STEPS = 120
LIMIT = 90.0
"""Degrees Celsius of the air: above it the chamber trips."""
ROOM = 21.0
REACHED = 4.0
"""K: close enough to the temperature that is asked for."""
AIR = 6.0
"""kJ/K of air and walls."""
TO_AIR, TO_LOAD, TO_ROOM = 0.030, 0.010, 0.012
"""kW/K from the element to the air, from the air to the load and to the room."""
VENT_LAG = 12.0
"""s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OvenParameters:
    """Heater (kW), heat capacities of element and load (kJ/K), open vent (kW/K)."""

    heater: float
    element: float
    load: float
    vent: float


@final
class Oven(Machine):
    """State: temperatures of air, element and load (which nobody measures); the vent's opening."""

    def __init__(self, parameters: OvenParameters) -> None:
        self.parameters = parameters

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.rng = rng
        self.target = rng.uniform(76.0, 84.0)
        self.air = rng.uniform(35.0, 60.0)
        self.load = self.air - rng.uniform(0.0, 8.0)
        self.element = self.air + rng.uniform(0.0, 40.0)
        self.vent = 0.0
        return self.obs()

    def obs(self) -> np.ndarray:
        return np.array([self.air, self.element, 100.0 * self.vent, self.target])

    def step(self, action: np.ndarray) -> Outcome:
        h = DT / SUBSTEPS
        power = min(max(float(action[0]), 0.0), 100.0) / 100 * self.parameters.heater
        opening = min(max(float(action[1]), 0.0), 100.0) / 100
        one = self.parameters
        violated = False
        for draught in self.rng.normal(0, 0.05, size=SUBSTEPS).tolist():
            self.vent += h / VENT_LAG * (opening - self.vent)
            given = TO_AIR * (self.element - self.air)
            taken = TO_LOAD * (self.air - self.load)
            lost = (TO_ROOM + one.vent * self.vent) * (self.air - ROOM)
            self.element += h * (power - given) / one.element
            self.load += h * taken / one.load
            self.air += h * ((given - taken - lost) / AIR + draught)
            violated = self.air > LIMIT
            if violated:
                break
        near = abs(self.air - self.target) < REACHED
        return Outcome(self.obs(), violated, near and not violated)


@final
class OvenOperator(Operator):
    """Heats with full power until the air is nearly warm; does not think of the element."""

    def reset(self, rng: np.random.Generator, habits: Habits) -> None:
        self.rng, self.exploration = rng, habits.exploration
        self.noise = np.zeros(2)
        self.care = rng.uniform(habits.least_care, habits.most_care)
        self.band = rng.uniform(1.0, 7.0) * self.care
        self.bias = rng.normal(0.0, 4.0)

    def act(self, obs: np.ndarray) -> np.ndarray:
        air, element, _, target = obs.tolist()
        size = np.array([18.0, 18.0]) * self.exploration
        self.noise = 0.9 * self.noise + size * math.sqrt(1 - 0.9**2) * self.rng.normal(size=2)
        error = target - air
        # What holds the temperature, and more below it. A careful one looks at the element too.
        stored = 0.02 * (self.care - 1.0) * max(element - air - 30.0, 0.0)
        heat = 15.0 + 100.0 * (error - stored) / self.band + self.bias + self.noise[0]
        vent = -15.0 * error - 10.0 + self.noise[1]
        return np.array([min(max(heat, 0.0), 100.0), min(max(vent, 0.0), 100.0)])


def overshoot_rule(parameters: OvenParameters) -> Guard:
    """Heater off and vent open where the heat of the element would carry the air too far."""
    # With the heater off, the distance d of element and air obeys d' = lost / AIR - d / settling,
    # and the air rises while TO_AIR * d is more than what is lost.
    settling = 1.0 / (TO_AIR * (1.0 / parameters.element + 1.0 / AIR))

    def rise(air: float, element: float) -> float:
        """K by which the air will still rise. The load takes a little, the vent nothing yet."""
        lost = TO_ROOM * (air - ROOM) + TO_LOAD * 8.0
        distance, top, rest = element - air, lost / TO_AIR, lost * settling / AIR
        if distance <= top:
            return 0.0
        seconds = settling * math.log((distance - rest) / (top - rest))
        given = TO_AIR * (settling * (distance - top) + rest * seconds)
        return (given - lost * seconds) / AIR

    # What another step of full power brings, which the element does not show yet.
    step = parameters.heater * DT / parameters.element

    def guard(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        air, element, _, _ = obs.tolist()
        heater = float(action[0]) / 100
        if air + rise(air, element + heater * step) > LIMIT - 2.0:
            return np.array([0.0, 100.0])
        return action

    return guard


def fahrenheit(name: str, column: str, noise: float) -> Signal:
    """A temperature in degrees Celsius that is logged in degrees Fahrenheit."""
    scale = 5.0 / 9.0
    return Signal(
        name=name,
        unit="degC",
        column=column,
        scale=scale,
        offset=-32.0 * scale,
        digits=1,
        noise=noise,
    )


OVEN = Kind(
    name="oven",
    signals=(
        fahrenheit("air", "air_degF", 0.2),
        fahrenheit("element", "element_degF", 1.0),
        Signal(name="vent", unit="%", column="vent_pos_pct", digits=1, noise=0.5),
        fahrenheit("target", "setpoint_degF", 0.0),
    ),
    commands=(
        Command(name="heater", unit="%", column="heater_cmd_pct", low=0.0, high=100.0),
        Command(name="vent_command", unit="%", column="vent_cmd_pct", low=0.0, high=100.0),
    ),
    dt=DT,
    steps=STEPS,
    stated_horizon=120.0,
    alarm="trip",
    time_column="timestamp",
    episode_column="batch_no",
    fleet={
        "oven_1": OvenParameters(heater=7.0, element=2.0, load=20.0, vent=0.008),
        "oven_2": OvenParameters(heater=7.5, element=3.0, load=30.0, vent=0.008),
        "oven_3": OvenParameters(heater=8.0, element=2.0, load=15.0, vent=0.010),
        "oven_4": OvenParameters(heater=7.5, element=4.0, load=25.0, vent=0.006),
        "oven_5": OvenParameters(heater=7.5, element=4.0, load=12.0, vent=0.006),
        "oven_6": OvenParameters(heater=8.5, element=3.0, load=35.0, vent=0.008),
    },
    new_name="oven_new",
    new=OvenParameters(heater=8.0, element=3.5, load=18.0, vent=0.005),
    machine=Oven,
    operator=OvenOperator,
    rule=overshoot_rule,
)
