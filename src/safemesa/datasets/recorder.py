"""Records any Gymnasium environment into NPZ files that `safemesa data import` reads."""

import json
import math
import os
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from safemesa.core.costs import known_cost, known_number
from safemesa.core.errors import ConfigurationError, DatasetError, OutputFolderError
from safemesa.core.files import atomic_path
from safemesa.core.spaces import Spaces
from safemesa.core.wrapped import require_physical_observations
from safemesa.datasets.format import ROLES, check_sound, make_provenance
from safemesa.datasets.importers.arrays import DECLARATION
from safemesa.datasets.importers.identity import LONGEST_LABEL, label

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


_recorders: weakref.WeakValueDictionary[str, "RecordLog"] = weakref.WeakValueDictionary()
"""Recorders of this process that have not been closed, by where they write."""


class RecordLog(gymnasium.Wrapper):
    """Keeps every transition; `close` (or `save`) writes one file, the log of one task.

    The action is recorded as the environment received it, the cost from `info[cost_key]`, 0 or 1,
    or from the third of the six values that Safety-Gymnasium's environments return; `step` returns
    five values in either case. Observations and actions must be flat boxes.
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
        """Wraps `env`; `path` is the `.npz` file, whose stem is the task's name by default.

        Raises:
            ConfigurationError: anything that could not be recorded or saved later: a vector of
                environments, normalised observations, spaces that are no flat boxes, parameters
                that JSON does not hold.
            OutputFolderError: there is a recording at `path` already, or none can be written.
        """
        if not isinstance(env, gymnasium.Env):
            raise ConfigurationError(
                f"{type(env).__name__} is no single environment of Gymnasium. Record each of a "
                "vector's environments by itself."
            )
        require_physical_observations(env, "RecordLog")
        super().__init__(env)
        self.path = Path(path)
        if self.path.suffix != ".npz":
            raise ConfigurationError(f"{path} is where to record; expected a name ending in .npz.")
        name = self.path.stem if task is None else task
        if role not in ROLES:
            raise ConfigurationError(f"role is {role!r}, expected one of {ROLES}.")
        if not isinstance(name, str) or len(name) > LONGEST_LABEL or not label(name):
            raise ConfigurationError(
                f"task is {str(name)[:80]!r}, expected the name of a robot: at most "
                f"{LONGEST_LABEL} signs."
            )
        self.cost_key = cost_key
        self._declaration = {
            "domain": env.spec.id if env.spec is not None else type(env.unwrapped).__name__,
            "task": name,
            "role": role,
            "parameters": _plain(dict(parameters or {}), "parameters"),
            "spaces": asdict(_spaces_of(env, dt)),
        }
        self._saved = False
        self._check_path(name)
        self._rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._obs: np.ndarray | None = None
        self._episode, self._step = -1, 0
        self._ended = False
        _recorders[os.path.realpath(self.path)] = self

    def _check_path(self, task: str) -> None:
        """Finds out now whether a file can be written there at the end."""
        other = _recorders.get(os.path.realpath(self.path))
        if other is not None:
            raise OutputFolderError(
                f"{self.path}, for the log of {task!r}: a recorder of "
                f"{other._declaration['task']!r} writes there and is not closed. Close it, or "
                "choose another name."
            )
        if os.path.lexists(self.path):
            raise OutputFolderError(
                f"{self.path}, for the log of {task!r}, exists already: it holds "
                f"{_held(self.path)} and is not replaced. Choose another name, such as "
                f"{_free_name(self.path).name}; files that are given the same task= are imported "
                "as one robot."
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except OSError as error:
            raise OutputFolderError(
                f"cannot write {self.path}: {error.strerror}. Choose another place to record to."
            ) from error

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins the next episode; one that had not ended is cut off there."""
        obs, info = self.env.reset(seed=seed, options=options)
        if self._step and not self._ended:
            self._rows["truncations"][-1] = True
        self._obs = self._array(obs, self.observation_space, "observation")
        self._episode, self._step = self._episode + 1, 0
        self._ended = False
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps and records.

        Raises:
            DatasetError: before `reset`, or after the episode has ended.
            ConfigurationError: the cost is unknown, or the environment returns something else
                than it declares.
        """
        if self._obs is None:
            raise DatasetError("step before reset; an episode begins with reset.")
        if self._ended:
            raise DatasetError(
                f"step after the end of episode {self._episode}; call reset first. What follows an "
                "end would be recorded as a part of it."
            )
        sent = np.array(self._array(action, self.action_space, "action"))
        obs, reward, terminated, truncated, info = self._result(self.env.step(action))
        if self.cost_key not in info:
            raise ConfigurationError(
                f"info has no {self.cost_key!r}; it has {', '.join(map(str, info)) or 'nothing'}. "
                "A missing cost is never taken for safe: name the entry by cost_key=."
            )
        following = self._array(obs, self.observation_space, "observation")
        row = (
            self._obs,
            sent,
            np.float32(known_number(reward, "the reward", "a finite number")),
            np.float32(known_cost(info[self.cost_key], f"info[{self.cost_key!r}]")),
            following,
            bool(terminated),
            bool(truncated),
            self._episode,
            self._step,
        )
        for name, value in zip(_COLUMNS, row, strict=True):
            self._rows[name].append(value)
        self._obs, self._step = following, self._step + 1
        self._ended = bool(terminated or truncated)
        return obs, reward, terminated, truncated, info

    def _result(self, result: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Five values, of the five or six that an environment returns."""
        values = result if isinstance(result, tuple | list) else (result,)
        if len(values) == 6:
            obs, reward, cost, terminated, truncated, info = values
            return obs, reward, terminated, truncated, {**info, self.cost_key: cost}
        if len(values) != 5 or not isinstance(values[4], Mapping):
            raise ConfigurationError(
                f"step of {type(self.env.unwrapped).__name__} returned {len(values)} values, "
                "expected (obs, reward, terminated, truncated, info), or Safety-Gymnasium's six "
                "with the cost third. Old Gym environments need gymnasium's compatibility wrapper."
            )
        obs, reward, terminated, truncated, info = values
        return obs, reward, terminated, truncated, dict(info)

    @staticmethod
    def _array(value: Any, space: Any, what: str) -> np.ndarray:
        """A copy as float32 of the declared shape."""
        try:
            array = np.array(value, np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the {what} is {str(value)[:80]}, expected numbers as in {space}."
            ) from error
        if what == "action":
            array = array.reshape(-1)
        if array.shape != space.shape:
            raise ConfigurationError(
                f"the {what} has the shape {list(array.shape)}, expected {list(space.shape)}, as "
                "the environment declares."
            )
        return array

    def save(self) -> None:
        """Writes what was recorded so far, over what this recorder wrote before.

        Where somebody else wrote a file there meanwhile, it takes the next free name and warns.

        Raises:
            DatasetError: nothing was recorded.
            OutputFolderError: the file cannot be written.
        """
        if not self._rows["costs"]:
            raise DatasetError(f"{self.path}: no step was recorded.")
        if not self._saved and os.path.lexists(self.path):
            taken, self.path = self.path, _free_name(self.path)
            warnings.warn(
                f"{taken} appeared while this was recorded and is not replaced; the recording goes "
                f"to {self.path}.",
                stacklevel=2,
            )
        arrays = {name: np.stack(values) for name, values in self._rows.items()}
        # An episode that is still going on is cut here.
        arrays["truncations"][-1] |= not self._ended
        provenance = make_provenance(command="RecordLog", seed=None, policy="as recorded")
        text = json.dumps({**self._declaration, "provenance": provenance}, allow_nan=False)
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            members: dict[str, Any] = {**arrays, DECLARATION: np.array(text)}
            np.savez(file, **members)
        self._saved = True

    def close(self) -> None:
        """Writes the file, then closes the environment."""
        try:
            if self._rows["costs"]:
                self.save()
        finally:
            for path, one in list(_recorders.items()):
                if one is self:
                    del _recorders[path]
            super().close()


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """NumPy's numbers and arrays as Python's.

    Raises:
        ConfigurationError: JSON does not hold it.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if depth < 20 and isinstance(value, Mapping):
        return {str(key): _plain(one, f"{where}.{key}", depth + 1) for key, one in value.items()}
    if depth < 20 and isinstance(value, list | tuple):
        return [_plain(one, where, depth + 1) for one in value]
    number = isinstance(value, int | float) and math.isfinite(value)
    if value is None or isinstance(value, str | bool) or number:
        return value
    raise ConfigurationError(
        f"{where} is {str(value)[:80]!r} ({type(value).__name__}), expected finite numbers, texts, "
        "lists and dictionaries, which the file can hold."
    )


def _held(path: Path) -> str:
    """What there is at a path, in words."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            steps = len(archive["costs"])
            task = json.loads(str(archive[DECLARATION]))["task"]
            return f"the log of {task!r}, {steps} steps"
    except Exception:
        return "something that is no recording"


def _free_name(path: Path) -> Path:
    """The next name that nothing has: `robot-2.npz`, `robot-3.npz`, ..."""
    number = 2
    while os.path.lexists(path.with_name(f"{path.stem}-{number}.npz")):
        number += 1
    return path.with_name(f"{path.stem}-{number}.npz")


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
