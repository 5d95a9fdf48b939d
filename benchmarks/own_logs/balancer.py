"""A platform that balances on two wheels while it drives to a goal, with an unknown load and motor.

To go on standing it must be able to accelerate under its own lean, and the faster the wheels turn,
the less the motor can: at speed, a lean that is harmless otherwise ends on the floor. To become
slower it must first lean back, for which it must become faster still.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from benchmarks.own_logs.robot import (
    DEGREE,
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
STEPS = 200
GRAVITY = 9.81
FALLEN = 25.0 * DEGREE
REACHED = 0.8
"""m: close enough to the goal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BalancerParameters:
    """Height of the centre of mass (m), acceleration at rest (m/s^2), top speed (m/s), lag (s)."""

    height: float
    acceleration: float
    top_speed: float
    lag: float


@final
class Balancer(Machine):
    """State: tilt and its rate, speed, distance to the goal; what the motor does."""

    def __init__(self, parameters: BalancerParameters) -> None:
        self.parameters = parameters

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.rng = rng
        self.tilt = rng.uniform(-0.05, 0.05)
        self.rate = rng.uniform(-0.1, 0.1)
        self.speed = rng.uniform(-0.3, 0.3)
        self.way = rng.uniform(7.0, 11.0)
        self.motor = 0.0
        return self.obs()

    def obs(self) -> np.ndarray:
        return np.array([self.tilt, self.rate, self.speed, self.way])

    def step(self, action: np.ndarray) -> Outcome:
        h = DT / SUBSTEPS
        wanted = min(max(float(action[0]), -100.0), 100.0) / 100
        one = self.parameters
        violated = False
        for push in self.rng.normal(0, 0.5, size=SUBSTEPS).tolist():
            self.motor += h / one.lag * (wanted - self.motor)
            # The motor's voltage is used up by its own turning.
            share = self.speed / one.top_speed
            force = min(max(self.motor, -1.0 - share), 1.0 - share)
            acceleration = one.acceleration * force
            fall = GRAVITY * math.sin(self.tilt) - acceleration * math.cos(self.tilt)
            self.rate += h * (fall / one.height + push)
            self.tilt += h * self.rate
            self.speed += h * acceleration
            self.way -= h * self.speed
            violated = abs(self.tilt) > FALLEN
            if violated:
                break
        return Outcome(self.obs(), violated, not violated and abs(self.way) < REACHED)


@final
class BalancerOperator(Operator):
    """Leans as the way and the speed ask for; does not know that the motor has an end."""

    def reset(self, rng: np.random.Generator, habits: Habits) -> None:
        self.rng, self.exploration = rng, 8.0 * habits.exploration
        self.noise = 0.0
        self.care = rng.uniform(habits.least_care, habits.most_care)
        self.cruise = rng.uniform(2.1, 3.2) / self.care**0.25
        self.lean = rng.uniform(0.08, 0.15) / self.care**0.25

    def act(self, obs: np.ndarray) -> np.ndarray:
        tilt, rate, speed, way = obs.tolist()
        fresh = self.exploration * math.sqrt(1 - 0.9**2) * self.rng.normal()
        self.noise = 0.9 * self.noise + fresh
        wanted = min(max(0.7 * way, -self.cruise), self.cruise)
        lean = min(max(0.12 * (wanted - speed), -self.lean), self.lean)
        acceleration = GRAVITY * tilt + 14.0 * (tilt - lean) + 4.0 * rate
        return np.array([min(max(100.0 * acceleration / 4.0 + self.noise, -100.0), 100.0)])


def capture_rule(parameters: BalancerParameters) -> Guard:
    """Leans back where the motor's reserve no longer exceeds the lean by far."""
    one = parameters
    time = math.sqrt(one.height / GRAVITY)

    def guard(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        tilt, rate, speed, _ = obs.tolist()
        # Where the body goes if nothing is done; it can be caught if it is less than the reserve.
        capture = tilt + rate * time
        side = math.copysign(1.0, speed)
        reserve = one.acceleration / GRAVITY * (1.0 - abs(speed) / one.top_speed)
        spare = reserve - side * capture
        if spare > 0.16 and abs(capture) < 0.5 * one.acceleration / GRAVITY:
            return action
        lean = -0.08 * side if abs(speed) > 0.3 else 0.0
        acceleration = GRAVITY * tilt + 14.0 * (tilt - lean) + 4.0 * rate
        return np.array([100.0 * acceleration / one.acceleration])

    return guard


BALANCER = Kind(
    name="balancer",
    signals=(
        Signal(
            name="tilt", unit="rad", column="pitch_deg", scale=DEGREE, digits=2, noise=0.1 * DEGREE
        ),
        Signal(
            name="rate", unit="rad/s", column="gyro_dps", scale=DEGREE, digits=1, noise=0.5 * DEGREE
        ),
        Signal(name="speed", unit="m/s", column="wheel_kmh", scale=1 / 3.6, digits=2, noise=0.02),
        Signal(name="way", unit="m", column="goal_cm", scale=0.01, digits=1, noise=0.02),
    ),
    commands=(Command(name="motor", unit="%", column="pwm_pct", low=-100.0, high=100.0),),
    dt=DT,
    steps=STEPS,
    stated_horizon=2.0,
    alarm="fallen",
    time_column="t_s",
    episode_column="trip",
    fleet={
        "balancer_a": BalancerParameters(height=0.6, acceleration=4.2, top_speed=2.9, lag=0.04),
        "balancer_b": BalancerParameters(height=0.9, acceleration=4.0, top_speed=3.2, lag=0.05),
        "balancer_c": BalancerParameters(height=0.7, acceleration=4.8, top_speed=2.8, lag=0.06),
        "balancer_d": BalancerParameters(height=1.1, acceleration=4.2, top_speed=3.4, lag=0.05),
        "balancer_e": BalancerParameters(height=0.8, acceleration=3.6, top_speed=3.5, lag=0.04),
        "balancer_f": BalancerParameters(height=1.0, acceleration=4.6, top_speed=2.9, lag=0.06),
    },
    new_name="balancer_new",
    new=BalancerParameters(height=0.9, acceleration=3.8, top_speed=3.0, lag=0.06),
    machine=Balancer,
    operator=BalancerOperator,
    rule=capture_rule,
)
