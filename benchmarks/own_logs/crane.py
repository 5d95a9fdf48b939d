"""A gantry crane that carries a load along its rail, with an unknown rope and drive.

Every change of the trolley's speed swings the load. It must not swing beyond an angle, and the
trolley must not run into the stops at the ends of the rail. The drive follows its command with a
lag and no faster than it can: who brakes late hits the stop, who brakes hard swings the load.
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
SUBSTEPS = 5
STEPS = 200
GRAVITY = 9.81
RAIL = 7.2
"""m: the trolley must stay between 0 and this."""
SWING = 12.0 * DEGREE
"""rad: beyond this angle the load may hit something."""
TOP_SPEED = 2.0
"""m/s at full command."""
REACHED = 0.4
"""m: close enough to the place of the load."""
DAMPING = 0.03
"""1/s, of the swing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CraneParameters:
    """Length of the rope (m), largest acceleration of the drive (m/s^2) and its lag (s)."""

    rope: float
    acceleration: float
    lag: float


@final
class Crane(Machine):
    """State: place and speed of the trolley, angle of the rope and its rate."""

    def __init__(self, parameters: CraneParameters) -> None:
        self.parameters = parameters

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.rng = rng
        self.place = rng.uniform(1.0, 2.5)
        self.target = rng.uniform(5.8, 6.6)
        self.speed = 0.0
        self.angle = rng.uniform(-0.03, 0.03)
        self.rate = rng.uniform(-0.03, 0.03)
        return self.obs()

    def obs(self) -> np.ndarray:
        return np.array([self.place, self.speed, self.angle, self.rate, self.target])

    def step(self, action: np.ndarray) -> Outcome:
        h = DT / SUBSTEPS
        wanted = min(max(float(action[0]), -100.0), 100.0) / 100 * TOP_SPEED
        one = self.parameters
        violated = False
        for wind in self.rng.normal(0, 0.02, size=SUBSTEPS).tolist():
            acceleration = (wanted - self.speed) / one.lag
            acceleration = min(max(acceleration, -one.acceleration), one.acceleration)
            pull = GRAVITY * math.sin(self.angle) + acceleration * math.cos(self.angle)
            self.rate += h * (-pull / one.rope - DAMPING * self.rate + wind)
            self.angle += h * self.rate
            self.speed += h * acceleration
            self.place += h * self.speed
            violated = abs(self.angle) > SWING or not 0.0 < self.place < RAIL
            if violated:
                break
        near = abs(self.place - self.target) < REACHED
        return Outcome(self.obs(), violated, near and not violated)


@final
class CraneOperator(Operator):
    """Drives to the target by speed alone, and does not look at the load."""

    def reset(self, rng: np.random.Generator, habits: Habits) -> None:
        self.rng, self.exploration = rng, 7.0 * habits.exploration
        self.noise = 0.0
        self.care = rng.uniform(habits.least_care, habits.most_care)
        self.cruise = rng.uniform(1.2, 1.9) / self.care**0.15
        self.ramp = rng.uniform(0.8, 1.3) / self.care**0.6
        self.lever = 0.0

    def act(self, obs: np.ndarray) -> np.ndarray:
        place, _, _, _, target = obs.tolist()
        fresh = self.exploration * math.sqrt(1 - 0.9**2) * self.rng.normal()
        self.noise = 0.9 * self.noise + fresh
        error = target - place
        braking = 1.5 / math.sqrt(self.care)
        speed = min(self.cruise, math.sqrt(2 * braking * abs(error)), 1.5 * abs(error))
        wanted = math.copysign(speed, error)
        change = self.ramp * DT
        self.lever += min(max(wanted - self.lever, -2 * change), change)
        lever = 100.0 * self.lever / TOP_SPEED + self.noise
        return np.array([min(max(lever, -100.0), 100.0)])


def swing_rule(parameters: CraneParameters) -> Guard:
    """The acceleration next to the wanted one that leaves a small swing; brakes early at stops."""
    one = parameters
    frequency = math.sqrt(GRAVITY / one.rope)
    # A command is held for DT, and the drive has followed it after its lag.
    ahead = DT + 0.5 * one.lag
    cosine, sine = math.cos(frequency * ahead), math.sin(frequency * ahead)
    choices = np.linspace(-one.acceleration, one.acceleration, 25)
    centres = -choices / GRAVITY
    gentle = 0.3
    largest = 0.7 * SWING

    def guard(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        place, speed, angle, rate, _ = obs.tolist()
        room = RAIL - place if speed > 0 else place
        near_stop = room - 0.3 < speed**2 / (2 * gentle) + abs(speed) * (one.lag + 0.4)
        wanted = (float(action[0]) / 100 * TOP_SPEED - speed) / one.lag
        if near_stop:
            brake = -math.copysign(min(0.8, abs(speed) / one.lag), speed)
            wanted = min(wanted, brake) if speed > 0 else max(wanted, brake)
        # The free swing that is left by each acceleration.
        later = centres + (angle - centres) * cosine + rate / frequency * sine
        later_rate = rate / frequency * cosine - (angle - centres) * sine
        swing = np.hypot(later, later_rate)
        nearest = int(np.argmin(np.abs(choices - wanted)))
        if swing[nearest] < largest:
            if not near_stop:
                return action
            best = nearest
        elif (allowed := np.flatnonzero(swing < largest)).size:
            best = int(allowed[np.argmin(np.abs(choices[allowed] - wanted))])
        else:
            best = int(np.argmin(swing))
        return np.array([100.0 * (speed + choices[best] * one.lag) / TOP_SPEED])

    return guard


CRANE = Kind(
    name="crane",
    signals=(
        Signal(name="place", unit="m", column="trolley_mm", scale=1e-3, digits=0, noise=0.005),
        Signal(name="speed", unit="m/s", column="trolley_mmps", scale=1e-3, digits=0, noise=0.01),
        Signal(
            name="angle", unit="rad", column="rope_deg", scale=DEGREE, digits=2, noise=0.1 * DEGREE
        ),
        Signal(
            name="rate", unit="rad/s", column="rope_dps", scale=DEGREE, digits=2, noise=0.3 * DEGREE
        ),
        Signal(name="target", unit="m", column="target_mm", scale=1e-3, digits=0),
    ),
    commands=(Command(name="lever", unit="%", column="lever_pct", low=-100.0, high=100.0),),
    dt=DT,
    steps=STEPS,
    stated_horizon=3.0,
    alarm="interlock",
    time_column="t",
    episode_column="lift",
    fleet={
        "crane_1": CraneParameters(rope=2.1, acceleration=0.80, lag=0.15),
        "crane_2": CraneParameters(rope=2.5, acceleration=0.75, lag=0.25),
        "crane_3": CraneParameters(rope=3.3, acceleration=0.85, lag=0.20),
        "crane_4": CraneParameters(rope=3.0, acceleration=0.60, lag=0.40),
        "crane_5": CraneParameters(rope=2.2, acceleration=0.70, lag=0.35),
        "crane_6": CraneParameters(rope=3.2, acceleration=0.70, lag=0.30),
    },
    new_name="crane_new",
    new=CraneParameters(rope=2.4, acceleration=0.65, lag=0.40),
    machine=Crane,
    operator=CraneOperator,
    rule=swing_rule,
)
