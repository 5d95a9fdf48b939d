"""One gradient step of SAC in Stable-Baselines3 (PyTorch) and in SBX (JAX)."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np


class _Signals(gymnasium.Env):
    """Spaces of the benchmark's size; never stepped."""

    def __init__(self, obs: int, action: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action,), np.float32)

    def reset(self, **_: Any) -> tuple[np.ndarray, dict]:
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, _: np.ndarray) -> tuple:
        return np.zeros(self.observation_space.shape, np.float32), 0.0, False, False, {}


def _fill(model: Any, obs: int, action: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(rows):
        model.replay_buffer.add(
            rng.normal(size=(1, obs)).astype(np.float32),
            rng.normal(size=(1, obs)).astype(np.float32),
            rng.uniform(-1, 1, (1, action)).astype(np.float32),
            np.zeros(1, np.float32),
            np.zeros(1, bool),
            [{}],
        )


def sac_steps(
    library: str, obs: int, action: int, hidden: int, batch: int, steps: int
) -> Callable[[], None]:
    """Gradient steps on a filled buffer; `library` is `sb3` or `sbx`."""
    if library == "sb3":
        from stable_baselines3 import SAC
        from stable_baselines3.common.logger import configure

        keywords: dict[str, Any] = {"device": "cpu"}
    else:
        from sbx import SAC
        from stable_baselines3.common.logger import configure

        keywords = {}
    model = SAC(
        "MlpPolicy",
        _Signals(obs, action),
        batch_size=batch,
        buffer_size=20_000,
        ent_coef=0.2,
        policy_kwargs={"net_arch": [hidden, hidden]},
        **keywords,
    )
    model.set_logger(configure(None, [""]))
    _fill(model, obs, action, 5_000)

    def run() -> None:
        model.train(gradient_steps=steps, batch_size=batch)

    return run
