"""Maze: a cylinder that pushes itself through two walls with unknown gaps (MESA figure 2).

The robot must reach a goal on the right without touching anything. Tasks differ in where the gaps
of the two walls are, which it does not observe. Numbers: the published experiments, as the paper
prints none. Lengths are in metres; one step is one second.

The published simulator integrates 500 steps of MuJoCo for one action, at rest before and after.
The robot moves freely until it touches a wall, which ends the episode, so the motion has a closed
form: a displacement proportional to the action, cut short where the swept disc meets a wall.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import Key
from safemesa.domains.base import AbstractJaxDomain, Spaces, Step
from safemesa.domains.raster import BLUE, GREEN, RED, Box, Canvas, Interval
from safemesa.domains.sweep import nonzero, time_to_box, time_to_disc

GAIN = 0.24667751
"""Displacement in metres of one action of 1: a force of 0.05 N on 0.0981748 kg for 500 steps of
2 ms, against a damping of 0.01 N s/m integrated implicitly."""

MAX_ACTION = 0.1
ARENA = 0.3
"""Half the side of the square that the robot must not leave; its borders are walls too."""

WALL_HALF = (0.005, 0.2)
WALL_X = (-0.1, -0.1, 0.1, 0.1)
WALL_Y = (0.5, -0.25, 0.4, -0.25)
"""Centres of the four walls where both shifts are 0: upper and lower part of the left wall, then of
the right one."""

UNIFORM, SCRIPTED = 0, 1
"""The two modes of the data collection."""


class WallShifts(NamedTuple):
    """A task: by how many metres each of the two walls is shifted along y."""

    left: Float[Array, ""]
    right: Float[Array, ""]


class MazeState(NamedTuple):
    """Position of the robot, whether it has touched anything, and steps taken in the episode."""

    position: Float[Array, " 2"]
    touched: Bool[Array, ""]
    steps: Int[Array, ""]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Maze(AbstractJaxDomain):
    """A disc that must not touch the walls; after a contact it cannot move.

    Attributes:
        horizon: Steps after which an episode is truncated.
        goal: Where the robot must go.
        goal_radius: The goal is reached where the root mean square of the two coordinates of the
            distance to it, which is the negative reward, is below this.
        shift_range: Range of both shifts, of training and test tasks alike.
        start_x: Range of the start position: left of both walls.
        start_y: The same along y.
        radius: Radius of the robot.
        log_length: Steps of one rollout of the data collection.
    """

    log_ends_on_violation: bool = False
    horizon: int = 100
    goal: tuple[float, float] = (0.25, 0.0)
    goal_radius: float = 0.03
    shift_range: Interval = (-0.1, 0.1)
    start_x: Interval = (-0.22, -0.13)
    start_y: Interval = (-0.22, 0.22)
    radius: float = 0.025
    log_length: int = 20

    @property
    def spaces(self) -> Spaces:
        """Position observed; a force in [-0.1, 0.1]^2, in units of the actuator."""
        return Spaces(
            obs_names=("x", "y"),
            action_names=("push_x", "push_y"),
            action_low=(-MAX_ACTION, -MAX_ACTION),
            action_high=(MAX_ACTION, MAX_ACTION),
            horizon=self.horizon,
        )

    @property
    def view(self) -> Box:
        """What `render` shows: the arena with its border."""
        return Box(x=(-ARENA - 0.01, ARENA + 0.01), y=(-ARENA - 0.01, ARENA + 0.01))

    def sample_task(self, rng: np.random.Generator, split: str) -> WallShifts:
        """Draws two shifts; both splits have the same distribution."""
        if split not in ("train", "test"):
            raise ConfigurationError(f"split is {split!r}; it must be 'train' or 'test'.")
        left, right = rng.uniform(*self.shift_range, size=2)
        return WallShifts(jnp.float32(left), jnp.float32(right))

    def task_parameters(self, task: WallShifts) -> dict[str, Any]:
        """`{"left": metres, "right": metres}`."""
        return {"left": float(task.left), "right": float(task.right)}

    def task_from_parameters(self, parameters: dict[str, Any]) -> WallShifts:
        """Reads two finite numbers.

        Raises:
            ConfigurationError: a shift is missing, extra or not a finite number.
        """
        if set(parameters) == {"left", "right"}:
            try:
                shifts = np.asarray([parameters["left"], parameters["right"]], np.float32)
            except (TypeError, ValueError):
                shifts = np.full((), np.nan)
            if shifts.shape == (2,) and np.isfinite(shifts).all():
                return WallShifts(jnp.asarray(shifts[0]), jnp.asarray(shifts[1]))
        raise ConfigurationError(
            f"A {self.name} task needs exactly 'left' and 'right', finite shifts of the two walls "
            f"in metres; given: {parameters!r}."
        )

    def touches(
        self, task: WallShifts, position: Float[Array, "... 2"] | Float[np.ndarray, "... 2"]
    ) -> Bool[Array, "..."]:
        """Whether the robot touches a wall or the border of the arena at these positions."""

        def touches_one(position: Float[Array, " 2"]) -> Bool[Array, ""]:
            reach = jnp.abs(position[None, :] - _wall_centres(task))
            outside = jnp.maximum(reach - jnp.asarray([WALL_HALF], jnp.float32), 0.0)
            near_wall = jnp.any(jnp.sum(outside**2, axis=-1) <= self.radius**2)
            return near_wall | jnp.any(jnp.abs(position) >= ARENA - self.radius)

        return jnp.vectorize(touches_one, signature="(n)->()")(jnp.asarray(position))

    def reset(self, task: WallShifts, *, key: Key) -> tuple[MazeState, Float[Array, " 2"]]:
        """Starts left of the walls, never in contact."""
        del task
        bounds = jnp.asarray((self.start_x, self.start_y), jnp.float32)
        position = jax.random.uniform(
            key, (2,), jnp.float32, minval=bounds[:, 0], maxval=bounds[:, 1]
        )
        return MazeState(position, jnp.bool_(False), jnp.int32(0)), position

    def step(
        self,
        task: WallShifts,
        state: MazeState,
        action: Float[Array, " 2"],
        *,
        key: Key,
    ) -> tuple[MazeState, Step]:
        """Moves in a straight line up to the first contact; there the robot stays.

        The reward is -sqrt(mean((goal - s_{t+1})^2)), and the goal is recognised after the step.
        """
        del key
        move = jnp.float32(GAIN) * jnp.clip(action, -MAX_ACTION, MAX_ACTION)
        free = self._free_fraction(task, state.position, move)
        here = state.touched | self.touches(task, state.position)
        position = state.position + jnp.where(here, jnp.float32(0.0), free) * move
        violation = here | (free < 1.0)
        goal = jnp.asarray(self.goal, jnp.float32)
        distance = jnp.sqrt(jnp.mean((goal - position) ** 2))
        success = (distance < self.goal_radius) & ~violation
        terminated = (success | violation) if self.terminate_on_violation else success
        steps = state.steps + jnp.int32(1)
        return MazeState(position, violation, steps), Step(
            obs=position,
            reward=-distance,
            cost=violation.astype(jnp.float32),
            terminated=terminated,
            truncated=(steps >= self.horizon) & ~terminated,
            success=success,
        )

    def _free_fraction(
        self, task: WallShifts, position: Float[Array, " 2"], move: Float[Array, " 2"]
    ) -> Float[Array, ""]:
        """The part of a move, up to 1, after which the disc first meets a wall or the border."""
        half = jnp.asarray(WALL_HALF, jnp.float32)
        starts = position[None, :] - _wall_centres(task)
        # A disc meets a box where its centre meets the box widened by the radius along one axis...
        to_box = jax.vmap(time_to_box, in_axes=(0, None, None))
        wider = self.radius * jnp.eye(2, dtype=jnp.float32)
        faces = [to_box(starts, move, half + widening) for widening in wider]
        # ... or comes within the radius of a corner.
        signs = jnp.asarray([(-1, -1), (-1, 1), (1, -1), (1, 1)], jnp.float32)
        from_corners = (starts[:, None, :] - (signs * half[None, :])[None]).reshape(-1, 2)
        to_disc = jax.vmap(time_to_disc, in_axes=(0, None, None))
        corners = to_disc(from_corners, move, self.radius)
        side = jnp.where(move > 0.0, ARENA - self.radius, self.radius - ARENA)
        border = jnp.where(move == 0.0, jnp.inf, (side - position) / nonzero(move))
        times = jnp.concatenate([*faces, corners, border])
        return jnp.clip(jnp.min(times), 0.0, 1.0)

    def state_at(self, obs: Float[Array, " 2"]) -> MazeState:
        """The position is observed."""
        return MazeState(obs, jnp.bool_(False), jnp.int32(0))

    @property
    def log_max_length(self) -> int:
        """All rollouts have the same length."""
        return self.log_length

    def log_start(
        self, task: WallShifts, *, key: Key
    ) -> tuple[MazeState, Float[Array, " 2"], Int[Array, ""], Int[Array, ""]]:
        """Draws the mode (half uniform, half scripted) and a start in one of the three chambers."""
        del task
        key_mode, key_chamber, key_position = jax.random.split(key, 3)
        mode = jax.random.bernoulli(key_mode, 0.5).astype(jnp.int32)
        chambers = jnp.asarray([self.start_x, (-0.04, 0.04), (0.14, 0.22)], jnp.float32)
        shares = jnp.log(jnp.asarray((0.4, 0.3, 0.3), jnp.float32))
        along_x = chambers[jax.random.categorical(key_chamber, shares)]
        bounds = jnp.stack([along_x, jnp.asarray(self.start_y, jnp.float32)])
        position = jax.random.uniform(
            key_position, (2,), jnp.float32, minval=bounds[:, 0], maxval=bounds[:, 1]
        )
        state = MazeState(position, jnp.bool_(False), jnp.int32(0))
        return state, position, mode, jnp.int32(self.log_length)

    def log_action(
        self, mode: Int[Array, ""], obs: Float[Array, " 2"], *, key: Key
    ) -> Float[Array, " 2"]:
        """A uniform action, or one towards the next of three waypoints.

        The waypoints ignore where the gaps are, so that scripted rollouts violate too.
        """
        uniform = jax.random.uniform(key, (2,), jnp.float32, minval=-MAX_ACTION, maxval=MAX_ACTION)
        waypoints = jnp.asarray([(-0.15, -0.125), (0.15, 0.125), self.goal], jnp.float32)
        passed = (obs[0] > -0.151).astype(jnp.int32) + (obs[0] > 0.149).astype(jnp.int32)
        scripted = jnp.float32(1.05) * (waypoints[passed] - obs)
        action = jnp.where(mode == SCRIPTED, scripted, uniform)
        return jnp.clip(action, -MAX_ACTION, MAX_ACTION)

    def render(self, task: WallShifts, state: MazeState, size: int = 400) -> np.ndarray:
        """Walls and border red, goal green, robot blue; the robot is drawn to scale."""
        canvas = Canvas(self.view, size)
        for x in (-ARENA, ARENA):
            canvas.box(Box(x=(x - 0.01, x + 0.01), y=(-1.0, 1.0)), RED)
            canvas.box(Box(x=(-1.0, 1.0), y=(x - 0.01, x + 0.01)), RED)
        for x, y in np.asarray(_wall_centres(task)).tolist():
            half_x, half_y = WALL_HALF
            across, along = (x - half_x, x + half_x), (y - half_y, y + half_y)
            canvas.box(Box(x=across, y=along), RED)
        pixels = size / (2.0 * (ARENA + 0.01))
        canvas.disc(*self.goal, math.sqrt(2.0) * self.goal_radius * pixels, GREEN)
        x, y = np.asarray(state.position).tolist()
        canvas.disc(x, y, self.radius * pixels, BLUE)
        return canvas.pixels


def _wall_centres(task: WallShifts) -> Float[Array, "4 2"]:
    shifts = jnp.stack([task.left, task.left, task.right, task.right])
    x, y = jnp.asarray(WALL_X, jnp.float32), jnp.asarray(WALL_Y, jnp.float32)
    return jnp.stack([x, y + shifts], axis=-1)


MAZE = Maze(name="maze", gym_id="safemesa/Maze-v0")
