"""A drone that flies to heights in a hall, with an unknown load, weak rotors and slow motors.

The rotors follow the throttle with a lag, and the thrust goes with the square of their speed. On
its way down the heavy drone needs its last reserve of thrust for a second or more before it stops;
on its way up only gravity stops it.
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

DT = 0.05
SUBSTEPS = 5
STEPS = 160
GRAVITY = 9.81
FLOOR, CEILING = 0.15, 4.0
"""m: between these the body of the drone may be."""
REACHED = 0.35
"""m: close enough to the height that is asked for."""
DRAG = 0.35
"""1/s."""
FULL_SPEED = 9000.0
"""rpm of the rotors at full throttle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DroneParameters:
    """Mass with load (kg), thrust of all rotors at full speed (N), lag of the motors (s)."""

    mass: float
    thrust: float
    lag: float


@final
class Drone(Machine):
    """State: height, climb rate, rotor speed (share of full); the second half has a new height."""

    def __init__(self, parameters: DroneParameters) -> None:
        self.parameters = parameters

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.rng = rng
        # From high to low or from low to high; then the other way.
        low, high = rng.uniform(0.5, 0.9), rng.uniform(2.6, 3.3)
        self.targets = (low, high) if rng.random() < 0.5 else (high, low)
        self.height = rng.uniform(1.6, 2.4)
        self.climb = rng.uniform(-0.5, 0.5)
        self.rotors = math.sqrt(self.parameters.mass * GRAVITY / self.parameters.thrust)
        self.steps = 0
        return self.obs()

    def obs(self) -> np.ndarray:
        target = self.targets[2 * self.steps >= STEPS]
        return np.array([self.height, self.climb, self.rotors * FULL_SPEED, target])

    def step(self, action: np.ndarray) -> Outcome:
        h = DT / SUBSTEPS
        throttle = min(max(float(action[0]), 0.0), 100.0) / 100
        one = self.parameters
        violated = False
        for gust in self.rng.normal(0, 0.6, size=SUBSTEPS).tolist():
            self.rotors += h / one.lag * (throttle - self.rotors)
            lift = one.thrust * self.rotors**2 / one.mass
            self.climb += h * (lift - GRAVITY - DRAG * self.climb + gust)
            self.height += h * self.climb
            violated = not FLOOR < self.height < CEILING
            if violated:
                break
        self.steps += 1
        near = abs(self.height - self.targets[1]) < REACHED
        return Outcome(self.obs(), violated, near and not violated)


@final
class DroneOperator(Operator):
    """Flies to the heights; as if every drone were light and its rotors strong."""

    def reset(self, rng: np.random.Generator, habits: Habits) -> None:
        self.rng, self.exploration = rng, habits.exploration
        self.noise = 0.0
        self.care = rng.uniform(habits.least_care, habits.most_care)
        self.fastest = rng.uniform(2.6, 3.6) / self.care**0.25
        self.braking = 7.0 / math.sqrt(self.care)

    def act(self, obs: np.ndarray) -> np.ndarray:
        height, climb, _, target = obs.tolist()
        fresh = 10.0 * self.exploration * math.sqrt(1 - 0.9**2) * self.rng.normal()
        self.noise = 0.9 * self.noise + fresh
        error = target - height
        fast = min(self.fastest, math.sqrt(2 * self.braking * abs(error)), 3.0 * abs(error))
        wanted = math.copysign(fast, error)
        throttle = 72.0 + 28.0 * (wanted - climb) + self.noise
        return np.array([min(max(throttle, 0.0), 100.0)])


def stopping_rule(parameters: DroneParameters) -> Guard:
    """Full throttle, or none, where the way to a stop is long."""
    full = parameters.thrust / parameters.mass
    lag = parameters.lag

    def guard(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        height, climb, rotors, _ = obs.tolist()
        share = min(max(rotors / FULL_SPEED, 0.0), 1.0)
        # Until the rotors have their full speed, this much climb rate is lost: the integral of
        # full * (1 - (1 - (1 - share) * exp(-t / lag))**2).
        lost = full * lag * (2.0 * (1.0 - share) - (1.0 - share) ** 2 / 2)
        falls = max(lost - climb, 0.0)
        way = falls**2 / (2 * 0.9 * (full - GRAVITY)) + max(-climb, 0.0) * (lag + DT)
        if climb < 0.3 and height - FLOOR - 0.1 < way:
            return np.array([100.0])
        # And until they have stopped, this much is won.
        rises = climb + full * lag * share**2 / 2
        way = max(rises, 0.0) ** 2 / (2 * GRAVITY) + max(climb, 0.0) * (lag + DT)
        if climb > 0 and CEILING - height - 0.1 < way:
            return np.array([0.0])
        return action

    return guard


DRONE = Kind(
    name="drone",
    signals=(
        Signal(name="height", unit="m", column="range_cm", scale=0.01, digits=1, noise=0.01),
        Signal(name="climb", unit="m/s", column="climb_cmps", scale=0.01, digits=1, noise=0.03),
        Signal(name="rotors", unit="rpm", column="esc_rpm", digits=0, noise=40.0),
        Signal(name="target", unit="m", column="setpoint_cm", scale=0.01, digits=0),
    ),
    commands=(Command(name="throttle", unit="%", column="throttle_pct", low=0.0, high=100.0),),
    dt=DT,
    steps=STEPS,
    stated_horizon=1.5,
    alarm="contact",
    time_column="t_s",
    episode_column="flight",
    fleet={
        "drone_a": DroneParameters(mass=1.8, thrust=27.5, lag=0.12),
        "drone_b": DroneParameters(mass=2.2, thrust=33.0, lag=0.12),
        "drone_c": DroneParameters(mass=2.3, thrust=33.0, lag=0.14),
        "drone_d": DroneParameters(mass=1.7, thrust=25.0, lag=0.12),
        "drone_e": DroneParameters(mass=2.5, thrust=34.5, lag=0.10),
        "drone_f": DroneParameters(mass=2.0, thrust=27.5, lag=0.13),
    },
    new_name="drone_new",
    new=DroneParameters(mass=2.4, thrust=34.0, lag=0.14),
    machine=Drone,
    operator=DroneOperator,
    rule=stopping_rule,
)
