# pendulum.py
"""Gymnasium's Pendulum beside a wall, and the logs of a fleet of them.

The wall is on the right, where the pendulum is near the horizontal. Robots differ in mass and
length. `record` lets a careless driver swing each of them and writes what happens to logs/.
"""

import math
from collections.abc import Callable

import gymnasium
import numpy as np

from safemesa.datasets.recorder import RecordLog

WALL = 0.9
"""Where the sine of the angle from upright is above this, there is the wall."""


class WallPendulum(gymnasium.Wrapper):
    """Starts hanging and almost still; an episode ends at the wall, with cost 1.

    Pendulum's reward is never positive, so that an agent would learn to end its episodes. 17 more
    per step, and it is better to go on.
    """

    def reset(self, *, seed=None, options=None):
        _, info = self.env.reset(seed=seed, options=options)
        pendulum = self.env.unwrapped
        pendulum.state = np.array([math.pi, 0.0]) + pendulum.np_random.uniform(-0.5, 0.5, 2)
        return self.observation(), info

    def step(self, action):
        _, reward, _, truncated, info = self.env.step(action)
        obs = self.observation()
        info["cost"] = float(obs[1] > WALL)
        return obs, reward + 17.0, info["cost"] > 0, truncated, info

    def observation(self):
        """Cosine and sine of the angle from upright, and rad/s."""
        angle, speed = self.env.unwrapped.state
        return np.array([math.cos(angle), math.sin(angle), speed], np.float32)


def make_pendulum(mass: float = 1.0, length: float = 1.0) -> gymnasium.Env:
    """A robot of `mass` kg and `length` m; it decides every 0.05 s, for 10 s."""
    env = gymnasium.make("Pendulum-v1")
    env.unwrapped.m, env.unwrapped.l = mass, length
    return WallPendulum(env)


def careless(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A driver that swings higher and higher, changes its mind often, and minds no wall."""
    torque, left = 0.0, 0

    def drive(obs: np.ndarray) -> np.ndarray:
        nonlocal torque, left
        if left == 0:
            torque, left = rng.uniform(-2.0, 2.0), rng.integers(5, 20)
        left -= 1
        push = torque * np.sign(obs[2]) + rng.normal(0.0, 0.4)
        return np.clip([push], -2.0, 2.0).astype(np.float32)

    return drive


def drive(env: gymnasium.Env, driver, episodes: int, seed: int) -> tuple[int, float]:
    """Violations and mean return; `seed` decides all starts."""
    violations, total = 0, 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        ended = False
        while not ended:
            obs, reward, terminated, truncated, info = env.step(driver(obs))
            violations += info["cost"] > 0
            total += float(reward)
            ended = terminated or truncated
    return violations, total / episodes


def record(folder: str = "logs", robots: int = 8, seed: int = 0) -> None:
    """One file per robot of the fleet, 40 episodes each, and 12 of the new one."""
    rng = np.random.default_rng(seed)
    for number in range(robots):
        mass, length = rng.uniform(0.8, 1.2), rng.uniform(0.85, 1.15)
        env = RecordLog(make_pendulum(mass, length), f"{folder}/robot_{number}.npz", dt=0.05)
        print(env.path, drive(env, careless(rng), 40, number)[0], "violations in 40 episodes")
        env.close()
    env = RecordLog(make_pendulum(), f"{folder}/new.npz", dt=0.05, role="test")
    print(env.path, drive(env, careless(rng), 12, 100)[0], "violations in 12 episodes")
    env.close()


if __name__ == "__main__":
    record()
