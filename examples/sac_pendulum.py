# sac_pendulum.py
"""Stable-Baselines3's SAC on the pendulum beside the wall, with and without its shield.

    python sac_pendulum.py [STEPS [SEEDS]]

Appends a row per episode to sac.csv, which `safemesa report` reads. pendulum.py, fleet, risk and
shield are where this is run.
"""

import csv
import sys
from pathlib import Path

import gymnasium
from pendulum import make_pendulum
from stable_baselines3 import SAC

import safemesa
from safemesa.shield.gym import ShieldWrapper
from safemesa.shield.online import OnlineRisk
from safemesa.shield.runtime import Shield

ARMS = ("no shield", "shield", "learning shield")


class Episodes(gymnasium.Wrapper):
    """Keeps return, violation and length of each episode, and counts overridden steps."""

    def __init__(self, env):
        super().__init__(env)
        self.done, self.overridden = [], 0

    def reset(self, **options):
        self.total, self.violation, self.length = 0.0, 0, 0
        return self.env.reset(**options)

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.total, self.length = self.total + float(reward), self.length + 1
        self.violation = max(self.violation, int(info["cost"] > 0))
        self.overridden += bool(info.get("shield_overridden", False))
        if terminated or truncated:
            self.done.append((self.total, self.violation, self.length))
        return obs, reward, terminated, truncated, info


def train(arm: str, seed: int, steps: int) -> Episodes:
    """SAC as the library has it. The shield is part of what SAC takes for its environment."""
    env = make_pendulum()
    if arm != "no shield":
        online = None
        if arm == "learning shield":
            log = safemesa.OfflineTasks.load("fleet")
            online = OnlineRisk.load(Path("risk"), log=log, seed=seed)
        shield = Shield.load("shield", mode="enforce")
        env = ShieldWrapper(env, shield, online=online, seed=seed)
    episodes = Episodes(env)
    agent = SAC("MlpPolicy", episodes, seed=seed, device="cpu")
    agent.learn(steps)
    return episodes


def main(steps: int = 4000, seeds: int = 3) -> None:
    with open("sac.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["arm", "seed", "episode", "return", "violation", "length", "steps"])
        for seed in range(seeds):
            for arm in ARMS:
                episodes = train(arm, seed, steps)
                for number, (total, violation, length) in enumerate(episodes.done):
                    table.writerow([arm, seed, number, total, violation, length, steps])
                share = episodes.overridden / steps
                violations = sum(violation for _, violation, _ in episodes.done)
                text = f"{violations} violations in {len(episodes.done)} episodes"
                print(f"{arm}, seed {seed}: {text}, {share:.0%} overridden", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
