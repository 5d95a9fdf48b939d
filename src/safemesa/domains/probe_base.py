"""What probe environments share: a walk on a line, and the meaning of risk.

The robot observes its position, and positions of 0 and less violate. Risk here is
Q(s, a) = E[c + (1 - c)(1 - terminated) gamma Q(s', a')] with c = 1 where s' violates, and a' drawn
from the reference policy: uniform on [-1, 1], which also collects the data. Truncation is
bootstrapped through, so the horizon does not enter.
"""

import abc
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import Key
from safemesa.domains.base import AbstractJaxDomain, Spaces, Step
from safemesa.domains.raster import BLUE, GREEN, RED, Box, Canvas

Scalar = Float[Array, ""]


class ProbeTask(NamedTuple):
    """The hidden task: +1 or -1. Only `probes.TaskDependent` has dynamics that depend on it."""

    sign: Scalar


class ProbeState(NamedTuple):
    """Position on the line and the number of steps taken in the episode."""

    position: Scalar
    steps: Int[Array, ""]


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractProbe(AbstractJaxDomain):
    """A walk on a line with a known risk; a subclass gives the move and the risk.

    Arriving at `goal` terminates with success. The reward is the action, so that a task policy is
    drawn to the side that violates in the probes where the action matters.
    """

    has_success: bool = False
    horizon: int = 20

    @abc.abstractmethod
    def move(self, task: ProbeTask, position: Scalar, action: Scalar, *, key: Key) -> Scalar:
        """The next position from one that does not violate; `action` is within [-1, 1]."""

    @abc.abstractmethod
    def risk_before_violation(
        self, task: ProbeTask, position: Scalar, action: Scalar, gamma: Scalar
    ) -> Scalar:
        """`true_risk` at a position that does not violate."""

    @property
    def starts(self) -> tuple[int, int]:
        """First and last position of the uniform distribution over start positions."""
        return (1, 1)

    @property
    def goal(self) -> float:
        """Position from which on the episode is a success; infinite where there is none."""
        return math.inf

    def true_risk(
        self,
        task: ProbeTask,
        obs: Float[Array, " 1"],
        action: Float[Array, " 1"],
        gamma: float | Scalar,
    ) -> Scalar:
        """The exact risk of the uniform policy on [-1, 1] after `action`, for 0 < gamma <= 1."""
        position = obs[0]
        risk = self.risk_before_violation(
            task, position, jnp.clip(action[0], -1.0, 1.0), jnp.asarray(gamma, jnp.float32)
        )
        return jnp.where(self.violates(position), jnp.float32(1.0), risk)

    def violates(self, position: Float[Array, "..."]) -> Bool[Array, "..."]:
        """Whether positions are at or beyond the obstacle."""
        return position <= 0.0

    @property
    def spaces(self) -> Spaces:
        """One observed position, one action in [-1, 1]."""
        return Spaces(
            obs_names=("position",),
            action_names=("push",),
            action_low=(-1.0,),
            action_high=(1.0,),
            horizon=self.horizon,
        )

    def sample_task(self, rng: np.random.Generator, split: str) -> ProbeTask:
        """Either sign with probability 1/2, in both splits."""
        if split not in ("train", "test"):
            raise ConfigurationError(f"split is {split!r}; it must be 'train' or 'test'.")
        return ProbeTask(jnp.float32(rng.choice((-1.0, 1.0))))

    def task_parameters(self, task: ProbeTask) -> dict[str, Any]:
        """`{"sign": 1.0}` or `{"sign": -1.0}`."""
        return {"sign": float(task.sign)}

    def task_from_parameters(self, parameters: dict[str, Any]) -> ProbeTask:
        """The inverse of `task_parameters`."""
        if set(parameters) != {"sign"} or parameters["sign"] not in (-1, 1):
            raise ConfigurationError(
                f"A {self.name} task is {{'sign': 1}} or {{'sign': -1}}; given: {parameters!r}."
            )
        return ProbeTask(jnp.float32(parameters["sign"]))

    def reset(self, task: ProbeTask, *, key: Key) -> tuple[ProbeState, Float[Array, " 1"]]:
        """Draws one of the start positions."""
        del task
        first, last = self.starts
        position = jax.random.randint(key, (), first, last + 1, jnp.int32).astype(jnp.float32)
        return ProbeState(position, jnp.int32(0)), position[None]

    def step(
        self, task: ProbeTask, state: ProbeState, action: Float[Array, " 1"], *, key: Key
    ) -> tuple[ProbeState, Step]:
        """Moves along the line; a robot that violates stays where it is."""
        here, push = state.position, jnp.clip(action[0], -1.0, 1.0)
        position = jnp.where(self.violates(here), here, self.move(task, here, push, key=key))
        violation = self.violates(position)
        success = position >= self.goal
        terminated = (success | violation) if self.terminate_on_violation else success
        steps = state.steps + jnp.int32(1)
        return ProbeState(position, steps), Step(
            obs=position[None],
            reward=push,
            cost=violation.astype(jnp.float32),
            terminated=terminated,
            truncated=(steps >= self.horizon) & ~terminated,
            success=success,
        )

    def state_at(self, obs: Float[Array, " 1"]) -> ProbeState:
        """The position is observed."""
        return ProbeState(obs[0], jnp.int32(0))

    @property
    def log_max_length(self) -> int:
        """Rollouts of the data collection are whole episodes."""
        return self.horizon

    def log_start(
        self, task: ProbeTask, *, key: Key
    ) -> tuple[ProbeState, Float[Array, " 1"], Int[Array, ""], Int[Array, ""]]:
        """Starts as `reset` does; there is one kind of rollout."""
        state, obs = self.reset(task, key=key)
        return state, obs, jnp.int32(0), jnp.int32(self.horizon)

    def log_action(
        self, mode: Int[Array, ""], obs: Float[Array, " 1"], *, key: Key
    ) -> Float[Array, " 1"]:
        """Draws from the reference policy, uniform on [-1, 1]."""
        del mode, obs
        return jax.random.uniform(key, (1,), jnp.float32, minval=-1.0, maxval=1.0)

    def render(self, task: ProbeTask, state: ProbeState, size: int = 400) -> np.ndarray:
        """The line from left to right: violation red, goal green, robot blue."""
        del task
        right = (self.goal if math.isfinite(self.goal) else self.starts[1]) + 1.0
        canvas = Canvas(Box(x=(-1.0, right), y=(-1.0, 1.0)), size)
        canvas.box(Box(x=(-1.0, 0.0), y=(-1.0, 1.0)), RED)
        canvas.box(Box(x=(self.goal, math.inf), y=(-1.0, 1.0)), GREEN)
        canvas.disc(float(state.position), 0.0, size / 40, BLUE)
        return canvas.pixels
