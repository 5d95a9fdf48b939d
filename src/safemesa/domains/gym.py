"""Pure-JAX domains as Gymnasium environments."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import gymnasium
import jax
import numpy as np
from gymnasium.error import ResetNeeded
from jaxtyping import Array, Float, UInt32

from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, root_key
from safemesa.core.types import Key, PyTree
from safemesa.domains.base import AbstractJaxDomain, Step, choose_task
from safemesa.domains.registry import domain as domain_of_name

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}


class _Compiled(NamedTuple):
    reset: Callable[..., Any]
    step: Callable[..., Any]


@functools.cache
def _compiled(domain: AbstractJaxDomain) -> _Compiled:
    """Compiles a domain once for all environments of the process; tasks are arguments."""

    def reset(task: PyTree, seed: UInt32[Array, ""]) -> tuple[Key, PyTree, Float[Array, " obs"]]:
        key_reset, key_steps = jax.random.split(root_key(seed, Stream.GYM_EPISODE))
        state, obs = domain.reset(task, key=key_reset)
        return key_steps, state, obs

    def step(
        task: PyTree, state: PyTree, action: Float[Array, " act"], key_steps: Key
    ) -> tuple[PyTree, Step]:
        return domain.step(task, state, action, key=jax.random.fold_in(key_steps, state.steps))

    return _Compiled(jax.jit(reset), jax.jit(step))


@final
class JaxDomainEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task of a domain. Each step reports `info["cost"]` (0.0 or 1.0) and `info["success"]`.

    The dynamics of the task are not observed; `reset` reports them as `info["task"]`. An episode
    is a function of its seed: step t uses the t-th key folded from it.
    """

    metadata = METADATA

    def __init__(
        self,
        domain: str | AbstractJaxDomain,
        *,
        task: PyTree = None,
        task_seed: int = 0,
        terminate_on_violation: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Makes the environment of one task.

        Args:
            domain: A domain or its name.
            task: The task, as `sample_task` or as `task_parameters` gives it.
            task_seed: Draws the test task, where `task` is not given.
            terminate_on_violation: Whether a violation ends the episode. False for data
                collection.
            render_mode: None or `"rgb_array"`.

        Raises:
            ConfigurationError: an argument is not one of these.
        """
        chosen = domain_of_name(domain) if isinstance(domain, str) else domain
        if not isinstance(chosen, AbstractJaxDomain):
            raise ConfigurationError(
                f"{domain!r} is not a pure-JAX domain. Make it by its Gymnasium id, as in "
                "gymnasium.make('safemesa/Navigation1-v0')."
            )
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigurationError(
                f"render_mode is {render_mode!r}; it must be None or 'rgb_array'."
            )
        self.domain: AbstractJaxDomain = dataclasses.replace(
            chosen, terminate_on_violation=terminate_on_violation
        )
        self.task = choose_task(self.domain, task, task_seed)
        self.render_mode = render_mode
        spaces = self.domain.spaces
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (spaces.obs_size,), np.float32
        )
        self.action_space = gymnasium.spaces.Box(
            np.asarray(spaces.action_low, np.float32), np.asarray(spaces.action_high, np.float32)
        )
        self._functions = _compiled(self.domain)
        self._key: Key | None = None
        self._state: PyTree = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode. `options` has no meaning here."""
        super().reset(seed=seed, options=options)
        episode_seed = self.np_random.integers(2**32, dtype=np.uint32)
        self._key, self._state, obs = self._functions.reset(self.task, episode_seed)
        return np.array(obs), {"task": self.domain.task_parameters(self.task)}

    def change_task(self, task: PyTree) -> None:
        """Goes on from the same state, within an episode too, with the dynamics of another task.

        Raises:
            ConfigurationError: it is no task of the domain.
        """
        self.task = choose_task(self.domain, task, 0)

    def step(
        self, action: np.ndarray | Sequence[float]
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Applies a physical action, clipped to the action space.

        Raises:
            ResetNeeded: `reset` was not called.
            ConfigurationError: the action is NaN, not numeric or of another shape.
        """
        if self._key is None:
            raise ResetNeeded("Call reset() before step().")
        self._state, step = self._functions.step(
            self.task, self._state, self._valid(action), self._key
        )
        step = jax.device_get(step)
        info = {"cost": float(step.cost), "success": bool(step.success)}
        # The copy is writable and the caller's own; device_get may return a view of JAX memory.
        obs = np.array(step.obs)
        return obs, float(step.reward), bool(step.terminated), bool(step.truncated), info

    def render(self) -> np.ndarray | None:
        """The current state as an image `[400, 400, 3]`, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._key is None:
            raise ResetNeeded("Call reset() before render().")
        return self.domain.render(self.task, self._state)

    def _valid(self, action: np.ndarray | Sequence[float]) -> np.ndarray:
        box = self.action_space
        assert isinstance(box, gymnasium.spaces.Box)
        try:
            values = np.asarray(action, np.float64)
        except (TypeError, ValueError):
            values = np.full((), np.nan)
        if values.shape != box.shape or np.isnan(values).any():
            raise ConfigurationError(
                f"The action must be {box.shape[0]} numbers within "
                f"[{box.low.tolist()}, {box.high.tolist()}]; given: {action!r}. "
                "NaN often means that the policy has diverged."
            )
        # In float64 first: a large value must become the bound, not overflow.
        return np.clip(values, box.low, box.high).astype(np.float32)
