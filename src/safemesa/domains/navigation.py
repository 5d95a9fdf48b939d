"""Navigation 1 and 2: a point robot with unknown control gain between obstacles (MESA sec. 5.1).

The robot must reach the origin from x = -50. Tasks differ in the matrices of its linear dynamics,
which it does not observe. Numbers: MESA appendix, Recovery RL appendix, and what their published
experiments do where the papers are silent. Lengths have no unit; one step is one unit of time.
"""

import functools
import math
import operator
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


class LogBlock(NamedTuple):
    """One kind of rollout in the offline data: where it starts, how it acts, how long it lasts.

    An action coordinate is drawn uniformly from its interval, or, where that is None, from a
    standard normal clipped to the action space.
    """

    x: Interval
    y: Interval
    action: tuple[Interval | None, Interval | None]
    length: int


class LinearDynamics(NamedTuple):
    """A task: next position = `a` @ position + `b` @ action + noise."""

    a: Float[Array, "2 2"]
    b: Float[Array, "2 2"]


class NavigationState(NamedTuple):
    """Position of the robot and the number of steps taken in the episode."""

    position: Float[Array, " 2"]
    steps: Int[Array, ""]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Navigation(AbstractJaxDomain):
    """A point robot that must not enter the obstacles.

    Attributes:
        obstacles: Boxes whose union is the violating set. Inside it the robot cannot move.
        log_blocks: Kinds of rollouts of the data collection, drawn with equal probability.
        view: What `render` shows.
        horizon: Steps after which an episode is truncated.
        start: Mean of the start position, whose standard deviation is 1 on each coordinate.
        goal_radius: Distance from the origin below which the goal is reached.
        noise: Standard deviation of the noise on each coordinate and step.
        gain_range: Range of both diagonal entries of `b`.
        test_gain_x: Range of `b[0, 0]` of test tasks. From x = -52 the goal is out of reach within
            100 steps below a gain of 0.51, so test tasks keep a distance from that.
        a_range: Diagonal entries of `a` are 1 + U(-a_range, a_range). The paper varies `a` but
            gives no range. It must be small: at x = -50, 1.02 drifts as fast as the robot drives.
    """

    obstacles: tuple[Box, ...]
    log_blocks: tuple[LogBlock, ...]
    view: Box
    horizon: int = 100
    noise: float = 0.05
    start: tuple[float, float] = (-50.0, 0.0)
    goal_radius: float = 1.0
    gain_range: Interval = (0.5, 1.5)
    test_gain_x: Interval = (0.55, 1.5)
    a_range: float = 0.0

    @property
    def spaces(self) -> Spaces:
        """Position observed; velocity-like action in [-1, 1]^2."""
        return Spaces(
            obs_names=("x", "y"),
            action_names=("move_x", "move_y"),
            action_low=(-1.0, -1.0),
            action_high=(1.0, 1.0),
            horizon=self.horizon,
        )

    def sample_task(self, rng: np.random.Generator, split: str) -> LinearDynamics:
        """Draws diagonal dynamics; only the range of `b[0, 0]` depends on the split."""
        if split not in ("train", "test"):
            raise ConfigurationError(f"split is {split!r}; it must be 'train' or 'test'.")
        gain_x = self.test_gain_x if split == "test" else self.gain_range
        gains = rng.uniform(*gain_x), rng.uniform(*self.gain_range)
        drift = rng.uniform(1.0 - self.a_range, 1.0 + self.a_range, size=2)
        return LinearDynamics(
            a=jnp.asarray(np.diag(drift), jnp.float32), b=jnp.asarray(np.diag(gains), jnp.float32)
        )

    def task_parameters(self, task: LinearDynamics) -> dict[str, Any]:
        """`{"a": rows, "b": rows}`."""
        return {name: np.asarray(matrix).tolist() for name, matrix in task._asdict().items()}

    def task_from_parameters(self, parameters: dict[str, Any]) -> LinearDynamics:
        """Reads two finite 2 x 2 matrices.

        Raises:
            ConfigurationError: a matrix is missing, extra, not 2 x 2 or not finite.
        """
        if set(parameters) != {"a", "b"}:
            raise ConfigurationError(
                f"A {self.name} task needs exactly the parameters 'a' and 'b' (2 x 2 matrices); "
                f"given: {sorted(parameters)}."
            )
        matrices = {}
        for name, rows in parameters.items():
            try:
                matrix = np.asarray(rows, np.float32)
            except (TypeError, ValueError):
                matrix = np.full((), np.nan)
            if matrix.shape != (2, 2) or not np.isfinite(matrix).all():
                raise ConfigurationError(
                    f"Parameter {name!r} of a {self.name} task must be a finite 2 x 2 matrix; "
                    f"given: {rows!r}."
                )
            matrices[name] = jnp.asarray(matrix)
        return LinearDynamics(**matrices)

    def violates(
        self, position: Float[Array, "... 2"] | Float[np.ndarray, "... 2"]
    ) -> Bool[Array, "..."]:
        """Whether positions lie in the closed union of the obstacles."""
        x, y = jnp.moveaxis(jnp.asarray(position), -1, 0)
        inside = [
            (x >= box.x[0]) & (x <= box.x[1]) & (y >= box.y[0]) & (y <= box.y[1])
            for box in self.obstacles
        ]
        return functools.reduce(operator.or_, inside)

    def reset(
        self, task: LinearDynamics, *, key: Key
    ) -> tuple[NavigationState, Float[Array, " 2"]]:
        """Starts at (-50, 0) + N(0, I)."""
        del task
        start = jnp.asarray(self.start, jnp.float32)
        position = start + jax.random.normal(key, (2,), jnp.float32)
        return NavigationState(position, jnp.int32(0)), position

    def step(
        self,
        task: LinearDynamics,
        state: NavigationState,
        action: Float[Array, " 2"],
        *,
        key: Key,
    ) -> tuple[NavigationState, Step]:
        """Moves the robot by one step; inside an obstacle it stays where it is.

        The reward is -||s_t|| of the state before the action, and the goal, ||s_t|| < 1, is
        recognised there too: an episode ends one step after the robot arrives.
        """
        here = state.position
        noise = self.noise * jax.random.normal(key, (2,), jnp.float32)
        moved = task.a @ here + task.b @ jnp.clip(action, -1.0, 1.0) + noise
        position = jnp.where(self.violates(here), here, moved)
        violation = self.violates(position)
        distance = jnp.linalg.norm(here)
        success = distance < self.goal_radius
        terminated = (success | violation) if self.terminate_on_violation else success
        steps = state.steps + jnp.int32(1)
        return NavigationState(position, steps), Step(
            obs=position,
            reward=-distance,
            cost=violation.astype(jnp.float32),
            terminated=terminated,
            truncated=(steps >= self.horizon) & ~terminated,
            success=success,
        )

    def state_at(self, obs: Float[Array, " 2"]) -> NavigationState:
        """The position is observed."""
        return NavigationState(obs, jnp.int32(0))

    @property
    def log_max_length(self) -> int:
        """Length of the longest kind of rollout."""
        return max(block.length for block in self.log_blocks)

    def log_start(
        self, task: LinearDynamics, *, key: Key
    ) -> tuple[NavigationState, Float[Array, " 2"], Int[Array, ""], Int[Array, ""]]:
        """Draws a kind of rollout (`mode` is its index) and a start position in its rectangle.

        Rollouts of all kinds are equally frequent. The published generator gives equal numbers of
        transitions instead, which differs little: lengths are 10 and 11.
        """
        del task
        key_block, key_position = jax.random.split(key)
        mode = jax.random.randint(key_block, (), 0, len(self.log_blocks), jnp.int32)
        bounds = jnp.asarray([(block.x, block.y) for block in self.log_blocks], jnp.float32)[mode]
        position = jax.random.uniform(
            key_position, (2,), jnp.float32, minval=bounds[:, 0], maxval=bounds[:, 1]
        )
        length = jnp.asarray([block.length for block in self.log_blocks], jnp.int32)[mode]
        return NavigationState(position, jnp.int32(0)), position, mode, length

    def log_action(
        self, mode: Int[Array, ""], obs: Float[Array, " 2"], *, key: Key
    ) -> Float[Array, " 2"]:
        """Draws an action of the kind of rollout `mode`, wherever the robot is."""
        del obs
        actions = [block.action for block in self.log_blocks]
        is_normal = jnp.asarray([[part is None for part in action] for action in actions])[mode]
        bounds = jnp.asarray(
            [[part or (-1.0, 1.0) for part in action] for action in actions], jnp.float32
        )[mode]
        low, high = bounds[:, 0], bounds[:, 1]
        # Both distributions invert the same uniform draw: random bits are what takes long here.
        quantile = jax.random.uniform(key, (2,), jnp.float32)
        normal = jnp.clip(math.sqrt(2.0) * jax.lax.erf_inv(2.0 * quantile - 1.0), -1.0, 1.0)
        return jnp.where(is_normal, normal, low + quantile * (high - low))

    def render(self, task: LinearDynamics, state: NavigationState, size: int = 400) -> np.ndarray:
        """Obstacles red, goal green, robot blue. The axes have different scales."""
        del task
        canvas = Canvas(self.view, size)
        for box in self.obstacles:
            canvas.box(box, RED)
        x, y = np.asarray(state.position).tolist()
        canvas.disc(0.0, 0.0, size / 40, GREEN)
        canvas.disc(x, y, size / 60, BLUE)
        return canvas.pixels


NAVIGATION1 = Navigation(
    name="navigation1",
    gym_id="safemesa/Navigation1-v0",
    # A corridor along y = 0 that is closed at its left end.
    obstacles=(
        Box(x=(-100.0, 150.0), y=(5.0, 10.0)),
        Box(x=(-100.0, 150.0), y=(-10.0, -5.0)),
        Box(x=(-100.0, -80.0), y=(-10.0, 10.0)),
    ),
    # Rollouts begin near the walls, on both sides alike.
    log_blocks=(
        LogBlock(x=(-80.0, 50.0), y=(-5.0, -2.0), action=(None, None), length=11),
        LogBlock(x=(-80.0, 50.0), y=(2.0, 5.0), action=(None, None), length=11),
    ),
    view=Box(x=(-105.0, 55.0), y=(-20.0, 20.0)),
)

NAVIGATION2 = Navigation(
    name="navigation2",
    gym_id="safemesa/Navigation2-v0",
    # One block between start and goal.
    obstacles=(Box(x=(-30.0, -20.0), y=(-7.5, 7.5)),),
    # Rollouts are driven at the block from its left, right, top and bottom.
    log_blocks=(
        LogBlock(x=(-35.0, -30.0), y=(-12.0, 12.0), action=((0.5, 1.0), None), length=11),
        LogBlock(x=(-20.0, -15.0), y=(-12.0, 12.0), action=((-1.0, -0.5), None), length=11),
        LogBlock(x=(-30.0, -20.0), y=(10.0, 15.0), action=(None, (-1.0, -0.5)), length=10),
        LogBlock(x=(-30.0, -20.0), y=(-15.0, -10.0), action=(None, (0.5, 1.0)), length=10),
    ),
    view=Box(x=(-60.0, 15.0), y=(-20.0, 20.0)),
)
