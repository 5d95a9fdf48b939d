"""A cart that parks in front of a wall: the robot of the ready shield, in NumPy alone.

Its payload, brake and motor are unknown to who drives it. It observes the distance to the wall and
its speed; its action is the drive command. Closer to the wall than `WALL` is a violation. It is the
cart of `benchmarks/own_logs` without an aisle and a steering wheel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.shield.runtime import Shield

DT = 0.1
SUBSTEPS = 10
STEPS = 100
"""Of the longest episode."""
WALL = 0.30
"""m: closer than this is a violation."""
PARKED = 1.1
"""m: an episode without a violation that ends closer than this is a success."""
CURB_MASS = 80.0
FORCE = 160.0
"""N at full drive command."""
NOISE = np.array([0.003, 0.005])
"""Standard deviations of the sensors: m and m/s."""

SPACES = Spaces(
    obs_names=("front", "speed"),
    action_names=("drive",),
    action_low=(-100.0,),
    action_high=(100.0,),
    horizon=STEPS,
    dt=DT,
)
"""Metres, metres per second, per cent of the drive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CartParameters:
    """Payload (kg), brake (share of the drive force), lag of the motor (s)."""

    payload: float
    brake: float
    lag: float


FLEET = {
    "cart_1": CartParameters(payload=20.0, brake=1.0, lag=0.10),
    "cart_2": CartParameters(payload=60.0, brake=0.9, lag=0.15),
    "cart_3": CartParameters(payload=120.0, brake=1.0, lag=0.20),
    "cart_4": CartParameters(payload=200.0, brake=0.8, lag=0.25),
    "cart_5": CartParameters(payload=40.0, brake=0.6, lag=0.15),
    "cart_6": CartParameters(payload=90.0, brake=1.0, lag=0.12),
}
NEW_NAME = "cart_new"
NEW = CartParameters(payload=160.0, brake=0.7, lag=0.30)
FLEET_EPISODES, NEW_EPISODES = 60, 20
LOG_SEED, TEST_SEED = 0, 77
"""First numbers of the seeds of episodes: the test shares none with a log."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One episode of `n` steps.

    `obs [n + 1, 2]` (m, m/s) as the sensors read it, `proposed [n, 1]` and `executed [n, 1]` drive
    commands (%), `risk [n]` (NaN without a shield), `overridden [n]`.
    """

    obs: np.ndarray
    proposed: np.ndarray
    executed: np.ndarray
    risk: np.ndarray
    overridden: np.ndarray
    violated: bool
    succeeded: bool


class _Cart:
    """The true state: distance to the wall, speed, drive that the motor gives now."""

    def __init__(self, parameters: CartParameters, rng: np.random.Generator) -> None:
        self.parameters, self.rng = parameters, rng
        self.mass = CURB_MASS + parameters.payload
        self.front, self.speed = rng.uniform(2.5, 6.0), rng.uniform(0.0, 0.8)
        self.drive = 0.0

    def step(self, command: float) -> bool:
        """Holds a command for one `DT`; whether the cart came too close to the wall."""
        h, wanted = DT / SUBSTEPS, min(max(command, -100.0), 100.0) / 100.0
        for gust in self.rng.normal(0.0, 0.05, size=SUBSTEPS).tolist():
            self.drive += h / self.parameters.lag * (wanted - self.drive)
            # A drive against the motion brakes, as well as the brakes of this cart can.
            share = self.parameters.brake if self.drive * self.speed < 0.0 else 1.0
            acceleration = self.drive * FORCE * share / self.mass - 0.15 * self.speed + gust
            self.speed = min(max(self.speed + h * acceleration, -0.3), 2.5)
            self.front -= h * self.speed
            if self.front < WALL:
                return True
        return False


class _Operator:
    """Parks in front of the wall; forgets the payload and brakes late.

    `care` is 1 (careless) to 4 (careful).
    """

    def __init__(self, rng: np.random.Generator, care: float) -> None:
        self.rng, self.care, self.noise = rng, care, 0.0
        self.cruise = rng.uniform(0.7, 1.5) / math.sqrt(care)

    def act(self, obs: np.ndarray) -> float:
        fresh = 0.35 * math.sqrt(1.0 - 0.85**2) * self.rng.normal()
        self.noise = 0.85 * self.noise + fresh
        # As if every cart braked with 0.8 m/s^2.
        wanted = min(self.cruise, math.sqrt(1.6 / self.care * max(obs[0] - 0.75, 0.0)))
        return min(max(150.0 * (wanted - obs[1]) + 100.0 * self.noise, -100.0), 100.0)


def drive(
    parameters: CartParameters,
    seed: Sequence[int],
    *,
    shield: Shield | None = None,
    most_care: float = 1.0,
) -> Episode:
    """Drives one episode, which ends at a violation or after `STEPS` steps.

    Cart, operator and sensors draw from generators of their own, so that episodes of one seed are
    paired, whatever the shield does. `shield` is reset first; it acts if its mode is `enforce`.
    The care of the operator is drawn from 1 to `most_care`.
    """
    cart = _Cart(parameters, np.random.default_rng((*seed, 0)))
    rng, sensor = (np.random.default_rng((*seed, stream)) for stream in (1, 2))
    operator = _Operator(rng, rng.uniform(1.0, most_care))

    def measured() -> np.ndarray:
        return np.array([cart.front, cart.speed]) + NOISE * sensor.normal(size=2)

    if shield is not None:
        shield.reset()
    obs, proposals, commands = [measured()], [], []
    risks, overrides = [], []
    violated = False
    while not violated and len(commands) < STEPS:
        command = proposed = np.array([operator.act(obs[-1])])
        risk, overridden = math.nan, False
        if shield is not None:
            command, risk, overridden, _ = shield.decide(obs[-1], proposed)
        violated = cart.step(float(command[0]))
        obs.append(measured())
        for column, value in (
            (proposals, proposed),
            (commands, command),
            (risks, risk),
            (overrides, overridden),
        ):
            column.append(value)
    return Episode(
        obs=np.array(obs),
        proposed=np.array(proposals),
        executed=np.array(commands),
        risk=np.array(risks),
        overridden=np.array(overrides, np.bool_),
        violated=violated,
        succeeded=not violated and cart.front < PARKED,
    )


def log_of(name: str, role: str, episodes: Sequence[Episode]) -> TaskLog:
    """What a logger writes of these episodes."""
    lengths = [len(episode.executed) for episode in episodes]
    ends = np.cumsum(lengths) - 1
    violated = np.array([episode.violated for episode in episodes])
    cost = np.zeros(sum(lengths), np.float32)
    cost[ends] = violated
    truncated = np.zeros(len(cost), np.bool_)
    truncated[ends] = ~violated
    columns = {
        "obs": np.concatenate([episode.obs[:-1] for episode in episodes]).astype(np.float32),
        "next_obs": np.concatenate([episode.obs[1:] for episode in episodes]).astype(np.float32),
        "action": np.concatenate([episode.executed for episode in episodes]).astype(np.float32),
        "reward": np.zeros(len(cost), np.float32),
        "cost": cost,
        "terminated": cost > 0.5,
        "truncated": truncated,
        "episode": np.repeat(np.arange(len(episodes)), lengths).astype(np.int32),
        "step": np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
    }
    return TaskLog(name=name, role=role, columns=columns)


def demo_logs() -> OfflineTasks:
    """The logs that the ready shield was made from: six carts, and a small log of the new one."""
    robots = {**FLEET, NEW_NAME: NEW}
    logs = []
    for number, (name, parameters) in enumerate(robots.items()):
        is_new = name == NEW_NAME
        episodes = [
            drive(parameters, (LOG_SEED, number, episode), most_care=4.0)
            for episode in range(NEW_EPISODES if is_new else FLEET_EPISODES)
        ]
        logs.append(log_of(name, "test" if is_new else "train", episodes))
    return OfflineTasks(
        domain="demo_cart",
        spaces=SPACES,
        train=tuple(logs[:-1]),
        test=logs[-1],
        provenance={"source": "safemesa.shield.demo.cart", "policy": "operators of mixed care"},
    )
