"""Records any Gymnasium environment into NPZ files that `safemesa data import` reads."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.files import atomic_path
from safemesa.core.spaces import Spaces
from safemesa.datasets.format import check_sound, make_provenance
from safemesa.datasets.importers.arrays import DECLARATION

_COLUMNS = (
    "observations",
    "actions",
    "rewards",
    "costs",
    "next_observations",
    "terminations",
    "truncations",
    "metadata/episode",
    "metadata/step",
)


class RecordLog(gymnasium.Wrapper):
    """Keeps every transition; `close` (or `save`) writes one file, the log of one task.

    The executed action is recorded as the environment received it, the cost from
    `info[cost_key]`, 0 or 1. Observations and actions must be flat boxes.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        path: str | Path,
        *,
        task: str | None = None,
        role: str = "train",
        cost_key: str = "cost",
        dt: float = 1.0,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Wraps `env`; `path` is the `.npz` file, whose stem is the task's name by default."""
        super().__init__(env)
        self.path = Path(path)
        if self.path.suffix != ".npz":
            raise ConfigurationError(f"{path} is where to record; expected a name ending in .npz.")
        self.cost_key = cost_key
        self._declaration = {
            "domain": env.spec.id if env.spec is not None else type(env.unwrapped).__name__,
            "task": task or self.path.stem,
            "role": role,
            "parameters": dict(parameters or {}),
            "spaces": asdict(_spaces_of(env, dt)),
        }
        self._rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._obs: np.ndarray | None = None
        self._episode, self._step = -1, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins the next episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._obs = np.array(obs, np.float32)
        self._episode, self._step = self._episode + 1, 0
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps and records.

        Raises:
            DatasetError: before `reset`, or where `info` has no cost.
        """
        if self._obs is None:
            raise DatasetError("step before reset; an episode begins with reset.")
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.cost_key not in info:
            raise DatasetError(
                f"info has no {self.cost_key!r}; it has {', '.join(map(str, info)) or 'nothing'}. "
                "A missing cost is never taken for safe: name the entry by cost_key=."
            )
        following = np.array(obs, np.float32)
        row = (
            self._obs,
            np.array(action, np.float32).reshape(-1),
            np.float32(reward),
            np.float32(info[self.cost_key]),
            following,
            bool(terminated),
            bool(truncated),
            self._episode,
            self._step,
        )
        for name, value in zip(_COLUMNS, row, strict=True):
            self._rows[name].append(value)
        self._obs, self._step = following, self._step + 1
        return obs, reward, terminated, truncated, info

    def save(self) -> None:
        """Writes what was recorded so far, over what was written before.

        Raises:
            DatasetError: nothing was recorded.
            OutputFolderError: the file cannot be written.
        """
        if not self._rows["costs"]:
            raise DatasetError(f"{self.path}: no step was recorded.")
        arrays = {name: np.stack(values) for name, values in self._rows.items()}
        # An episode that is still going on is cut here.
        arrays["truncations"][-1] = not arrays["terminations"][-1]
        provenance = make_provenance(command="RecordLog", seed=None, policy="as recorded")
        text = json.dumps({**self._declaration, "provenance": provenance}, allow_nan=False)
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            members: dict[str, Any] = {**arrays, DECLARATION: np.array(text)}
            np.savez(file, **members)

    def close(self) -> None:
        """Writes the file, then closes the environment."""
        if self._rows["costs"]:
            self.save()
        super().close()


def _spaces_of(env: gymnasium.Env, dt: float) -> Spaces:
    """Names by position; bounds and horizon as the environment declares them."""
    obs, action = env.observation_space, env.action_space
    for name, space in (("observation", obs), ("action", action)):
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ConfigurationError(
                f"the {name} space is {space}, expected a flat Box. Flatten it with a wrapper."
            )
    assert isinstance(obs, gymnasium.spaces.Box)
    assert isinstance(action, gymnasium.spaces.Box)
    longest = env.spec.max_episode_steps if env.spec is not None else None
    spaces = Spaces(
        obs_names=tuple(f"obs[{index}]" for index in range(obs.shape[0])),
        action_names=tuple(f"action[{index}]" for index in range(action.shape[0])),
        action_low=tuple(map(float, action.low)),
        action_high=tuple(map(float, action.high)),
        horizon=longest or 1_000,
        dt=dt,
    )
    if not all(map(math.isfinite, (*spaces.action_low, *spaces.action_high))):
        raise ConfigurationError("the action space has no finite bounds. Rescale it by a wrapper.")
    check_sound(spaces, "environment")
    return spaces
