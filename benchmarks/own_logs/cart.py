"""A cart with an unknown payload and brake, driving in an aisle towards a wall at its end.

The dynamics, the fleet, the operator, the braking rule and the starts are those of the project's
first yardstick, and so are the numbers without sensor noise: 96 collisions of 100 without a shield,
none and 100 parked with the rule.
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

DT = 0.1
SUBSTEPS = 10
WALL = 0.30
"""m: closer than this at the front is a collision."""
HALF = 1.2
"""m: half the width of the aisle; touching its side is a collision."""
PARKED = 1.1
"""m: close enough to the wall."""
CURB_MASS = 80.0
FORCE = 160.0
"""N at full drive command."""
WHEELBASE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class CartParameters:
    """Payload (kg), brake (share of the drive force), lag of the motor (s)."""

    payload: float
    brake: float
    lag: float


@final
class Cart(Machine):
    """State: distance to the wall, speed, lateral offset, heading; drive and steering lag."""

    def __init__(self, parameters: CartParameters) -> None:
        self.parameters = parameters
        self.mass = CURB_MASS + parameters.payload

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.rng = rng
        self.front = rng.uniform(2.5, 6.0)
        self.speed = rng.uniform(0.0, 0.8)
        self.lateral = rng.uniform(-0.7, 0.7)
        self.heading = rng.uniform(-0.25, 0.25)
        self.yaw_rate = self.drive = self.steer = 0.0
        return self.obs()

    def obs(self) -> np.ndarray:
        return np.array([self.front, self.speed, self.lateral, self.heading, self.yaw_rate])

    def step(self, action: np.ndarray) -> Outcome:
        h = DT / SUBSTEPS
        drive = min(max(float(action[0]), -100.0), 100.0) / 100
        steer = math.radians(min(max(float(action[1]), -30.0), 30.0))
        violated = False
        for gust in self.rng.normal(0, 0.05, size=SUBSTEPS).tolist():
            self.drive += h / self.parameters.lag * (drive - self.drive)
            self.steer += h / 0.1 * (steer - self.steer)
            # A drive against the motion brakes, as well as the brakes of this cart can.
            share = self.parameters.brake if self.drive * self.speed < 0 else 1.0
            acceleration = self.drive * FORCE * share / self.mass - 0.15 * self.speed + gust
            self.speed = min(max(self.speed + h * acceleration, -0.3), 2.5)
            self.yaw_rate = self.speed / WHEELBASE * math.tan(self.steer)
            self.heading += h * self.yaw_rate
            self.lateral += h * self.speed * math.sin(self.heading)
            self.front -= h * self.speed * math.cos(self.heading)
            violated = self.front < WALL or abs(self.lateral) > HALF
            if violated:
                break
        return Outcome(self.obs(), violated, not violated and self.front < PARKED)


@final
class CartOperator(Operator):
    """Parks in front of the wall; forgets the payload, brakes late, steers sloppily."""

    def reset(self, rng: np.random.Generator, habits: Habits) -> None:
        self.rng, self.exploration = rng, 0.35 * habits.exploration
        self.noise = np.zeros(2)
        self.care = rng.uniform(habits.least_care, habits.most_care)
        self.cruise = rng.uniform(0.7, 1.5) / math.sqrt(self.care)
        self.bias = rng.normal(0, 4)

    def act(self, obs: np.ndarray) -> np.ndarray:
        front, speed, lateral, heading, _ = obs
        fresh = self.exploration * math.sqrt(1 - 0.85**2) * self.rng.normal(size=2)
        self.noise = 0.85 * self.noise + fresh
        gap = max(front - 0.75, 0.0)
        # As if every cart braked with 0.8 m/s^2.
        wanted = min(self.cruise, math.sqrt(2 * 0.8 / self.care * gap))
        drive = 150 * (wanted - speed) + 100 * self.noise[0]
        steer = math.degrees(-0.6 * lateral - 0.9 * heading) + self.bias + 25 * self.noise[1]
        return np.array([min(max(drive, -100.0), 100.0), min(max(steer, -30.0), 30.0)])


def braking_rule(parameters: CartParameters) -> Guard:
    """Brakes fully where the stopping distance is short, on the weakest brakes of the fleet."""
    del parameters

    def guard(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        front, speed = obs[0], obs[1]
        stopping = speed * 0.4 + speed**2 / (2 * 0.45)
        if speed > 0 and front - WALL - 0.15 < stopping:
            return np.array([-100.0, action[1]])
        return action

    return guard


CART = Kind(
    name="cart",
    signals=(
        Signal(name="front", unit="m", column="lidar_front_mm", scale=1e-3, digits=0, noise=0.003),
        Signal(name="speed", unit="m/s", column="speed_mps", noise=0.005),
        Signal(name="lateral", unit="m", column="lateral_mm", scale=1e-3, digits=0, noise=0.003),
        Signal(
            name="heading", unit="rad", column="heading_deg", scale=DEGREE, digits=2, noise=0.002
        ),
        Signal(
            name="yaw_rate",
            unit="rad/s",
            column="yaw_rate_dps",
            scale=DEGREE,
            digits=2,
            noise=0.005,
        ),
    ),
    commands=(
        Command(name="drive", unit="%", column="cmd_drive_pct", low=-100.0, high=100.0),
        Command(name="steer", unit="deg", column="cmd_steer_deg", low=-30.0, high=30.0),
    ),
    dt=DT,
    steps=100,
    stated_horizon=3.0,
    alarm="bumper",
    time_column="timestamp",
    episode_column="run_id",
    dropped_rows=0.002,
    fleet={
        "agv_01": CartParameters(payload=20, brake=1.0, lag=0.10),
        "agv_02": CartParameters(payload=60, brake=0.9, lag=0.15),
        "agv_03": CartParameters(payload=120, brake=1.0, lag=0.20),
        "agv_04": CartParameters(payload=200, brake=0.8, lag=0.25),
        "agv_05": CartParameters(payload=40, brake=0.6, lag=0.15),
        "agv_06": CartParameters(payload=90, brake=1.0, lag=0.12),
    },
    careful=frozenset({"agv_06"}),
    new_name="agv_new",
    new=CartParameters(payload=160, brake=0.7, lag=0.30),
    machine=Cart,
    operator=CartOperator,
    rule=braking_rule,
)
