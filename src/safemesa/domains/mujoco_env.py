"""MuJoCo domains as Gymnasium environments."""

import os
import sys
from collections.abc import Sequence
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, generator
from safemesa.core.types import PyTree
from safemesa.domains.mujoco_robot import AbstractMujocoRobot, StockStep, altered
from safemesa.domains.perturbation_base import AbstractPerturbation
from safemesa.domains.perturbations import ActionNoise, ObservationNoise
from safemesa.domains.simulation import ModelValues, become, build_stock, compile_perturbed

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}


@final
class MujocoTaskEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task of a MuJoCo domain, around an environment of Gymnasium.

    Each step reports `info["cost"]` (0.0 or 1.0), `info["success"]` and `info["stock_reward"]`, the
    reward of the unchanged environment, beside its own info. An episode is a function of the seed
    of `reset` and of the actions.
    """

    metadata = METADATA

    def __init__(
        self,
        domain: AbstractMujocoRobot,
        task: PyTree,
        *,
        render_mode: str | None,
        terminate_on_violation: bool,
    ) -> None:
        """See `AbstractHostDomain.make_env`."""
        if render_mode not in (None, "rgb_array"):
            raise ConfigurationError(
                f"render_mode is {render_mode!r}; it must be None or 'rgb_array'."
            )
        if render_mode is not None:
            choose_opengl()
        self.domain = domain
        self.task = task
        self.terminate_on_violation = terminate_on_violation
        self.render_mode = render_mode
        perturbations = self._perturbations(task)
        self.stock = build_stock(
            domain.stock_id, perturbations, {**domain.stock_arguments, "render_mode": render_mode}
        )
        self.metadata = {**METADATA, "render_fps": round(1.0 / self.stock.dt)}
        self.observation_space = self.stock.observation_space
        self.action_space = self.stock.action_space
        assert isinstance(self.action_space, gymnasium.spaces.Box)
        self._low, self._high = self.action_space.low, self.action_space.high
        self._know(perturbations)
        self._noise = np.random.default_rng()
        self._horizon, self._success_return = domain.horizon, domain.success_return
        self._steps = -1
        self._return = 0.0

    def _perturbations(self, task: PyTree) -> tuple[AbstractPerturbation, ...]:
        base, extra = altered(task)
        return (*self.domain.perturbations(base), *extra)

    def _know(self, perturbations: Sequence[AbstractPerturbation]) -> None:
        """Takes what follows from task and model."""
        self._values = ModelValues(self.stock.model)
        self._rule = self.domain.rule(altered(self.task).task, self.stock.model, self.stock.data)
        self._advance = self.domain.stepper(self.stock)
        self._action_noise = [p.std for p in perturbations if isinstance(p, ActionNoise)]
        self._obs_noise = [p.std for p in perturbations if isinstance(p, ObservationNoise)]

    def change_task(self, task: PyTree) -> None:
        """Goes on from the same state, within an episode too, as the robot of another task.

        Later episodes are those of an environment that was made for it.

        Raises:
            ConfigurationError: a perturbation does not fit the robot, or the changed one has
                other parts.
        """
        perturbations = self._perturbations(task)
        become(self.stock.model, compile_perturbed(self.stock.fullpath, perturbations))
        self.task = task
        self._know(perturbations)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode as the unchanged environment does. `options` has no meaning here."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            # Another stream than that of the start state, which the stock environment draws.
            self._noise = generator(seed, Stream.SENSOR_NOISE)
        self._values.restore()
        obs, info = self.stock.reset(seed=seed)
        self._steps, self._return = 0, 0.0
        parameters = self.domain.task_parameters(altered(self.task).task)
        return self._observed(obs), {**info, "task": parameters}

    def step(
        self, action: np.ndarray | Sequence[float]
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Applies a physical action, clipped to the action space.

        Raises:
            ResetNeeded: `reset` was not called.
            ConfigurationError: the action is NaN, not numeric or of another shape.
        """
        if self._steps < 0:
            raise ResetNeeded("Call reset() before step().")
        applied = self._valid(action)
        obs, stock_reward, stock_terminated, _, stock_info = self._advance(applied)
        stock_reward = float(stock_reward)
        verdict = self._rule(StockStep(obs, applied, stock_reward, stock_terminated, stock_info))
        reward, cost, terminated, out_of_range = verdict
        self._steps += 1
        self._return += reward
        ends = self.terminate_on_violation
        terminated = terminated or (cost and ends)
        truncated = self._steps >= self._horizon or (out_of_range and not ends)
        info: dict[str, Any] = {
            **stock_info,
            "cost": 1.0 if cost else 0.0,
            "success": self._return > self._success_return,
            "stock_reward": stock_reward,
        }
        seen = self._observed(obs) if self._obs_noise else obs
        return seen, reward, terminated, truncated and not terminated, info

    def observe_again(self, obs: np.ndarray) -> bool:
        """Starts an episode in the state that is observed as `obs`; for analysis.

        Positions that are not observed, such as the distance travelled, are zero. Returns whether
        the robot is observed as `obs` then; it is not where more than the last positions and all
        velocities is observed.
        """
        self.reset(seed=0)
        stock: Any = self.stock.unwrapped
        hidden = stock.model.nq + stock.model.nv - len(obs)
        if not 0 <= hidden <= stock.model.nq:
            return False
        position, velocity = np.split(np.asarray(obs, np.float64), [len(obs) - stock.model.nv])
        stock.set_state(np.concatenate([np.zeros(hidden), position]), velocity)
        # All of Gymnasium's robots have it, though their base class does not ask for it.
        observe = getattr(stock, "_get_obs", None)
        return observe is not None and np.array_equal(observe(), np.asarray(obs, np.float64))

    def render(self) -> np.ndarray | None:
        """The current state as an image of uint8, or None without a render mode.

        Raises:
            ResetNeeded: `reset` was not called.
            ConfigurationError: there is no OpenGL to draw with.
        """
        if self.render_mode is None:
            return None
        if self._steps < 0:
            raise ResetNeeded("Call reset() before render().")
        try:
            return np.asarray(self.stock.render())
        except (
            Exception
        ) as error:  # Each OpenGL binding fails in its own way, also by AttributeError.
            raise ConfigurationError(
                f"MuJoCo cannot draw: {error}. Install OpenGL (libegl1 or libosmesa6) and set "
                "MUJOCO_GL to egl or osmesa, or make the environment without a render mode."
            ) from error

    def close(self) -> None:
        """Closes the renderer."""
        self.stock.close()

    def _observed(self, obs: np.ndarray) -> np.ndarray:
        for std in self._obs_noise:
            obs = obs + std * self._noise.standard_normal(obs.shape)
        return obs

    def _valid(self, action: np.ndarray | Sequence[float]) -> np.ndarray:
        try:
            values = np.asarray(action)
        except ValueError:  # lists of unequal lengths
            values = np.full((), np.nan)
        if values.shape == self._low.shape and values.dtype.kind in "fiu":
            for std in self._action_noise:
                values = values + std * self._noise.standard_normal(values.shape)
            values = np.minimum(np.maximum(values, self._low), self._high)
            # Bounded now, so this is NaN exactly where a value is; half the time of np.isnan.
            squares = values.dot(values)
            if squares == squares:
                return values
        raise ConfigurationError(
            f"The action must be {self._low.size} numbers within "
            f"[{self._low.tolist()}, {self._high.tolist()}]; given: {action!r}. "
            "NaN often means that the policy has diverged."
        )


def choose_opengl() -> None:
    """Draws by EGL where there is no display, unless MUJOCO_GL says otherwise."""
    headless = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.platform == "linux" and headless:
        os.environ.setdefault("MUJOCO_GL", "egl")
