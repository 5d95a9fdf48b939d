"""One driver from many states of a simulated robot: where and when does it violate?

Compiled domains run all states at once. Robots of MuJoCo step one after the other, and their
driver is asked about all of them in one compiled call.
"""

import abc
import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.costs import binary_cost
from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, root_key
from safemesa.core.types import Key, PyTree
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.domains.mujoco_domain import AbstractMujocoDomain
from safemesa.experiments.recovery_skill.drivers import AbstractDriver

NEVER = -1
"""`violated_at` of a rollout that does not violate."""

TOGETHER = 32
"""Robots of MuJoCo that are driven at a time: each takes a few MiB and 10 to 40 ms to build."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Driven:
    """What became of rollouts.

    Attributes:
        violated_at: The step that violated, counted from 0; `NEVER` where none did.
        next_obs: What was observed after the first step.
    """

    violated_at: Int[np.ndarray, " n"]
    next_obs: Float[np.ndarray, "n obs"]

    @property
    def violated(self) -> np.ndarray:
        """Whether each rollout violated, `[n]`."""
        return self.violated_at != NEVER


class Simulator(abc.ABC):
    """The robot of one task, which can be put into an observed state."""

    @abc.abstractmethod
    def drive(
        self,
        driver: AbstractDriver,
        starts: Float[np.ndarray, "n obs"],
        steps: int,
        *,
        seed: int,
        first: Float[np.ndarray, "n act"] | None = None,
    ) -> Driven:
        """Drives from each start until a violation, another end of the episode, or `steps`.

        Args:
            driver: Decides all actions, but for the first where `first` gives it; it begins with
                what it remembers of nothing.
            starts: Observations to start from.
            steps: The most steps.
            seed: Of the driver's draws and the robot's noise; start i has the same ones whatever
                the other starts are.
            first: Physical actions of the first step.

        Raises:
            ConfigurationError: the robot cannot be put into a state.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Gives back what the simulator holds."""


def make_simulator(domain: AbstractDomain, task: PyTree) -> Simulator:
    """The simulator of a task.

    Raises:
        ConfigurationError: a state of the domain cannot be restored from what is observed.
    """
    if isinstance(domain, AbstractJaxDomain):
        return CompiledSimulator(domain=domain, task=task)
    if isinstance(domain, AbstractMujocoDomain):
        return MujocoSimulator(domain=domain, task=task)
    raise ConfigurationError(
        f"the states of {domain.name} cannot be restored from observations; expected a domain in "
        "JAX (state_at), or a MuJoCo robot of Gymnasium that observes its state."
    )


@final
@dataclass(frozen=True, kw_only=True)
class CompiledSimulator(Simulator):
    """A domain in JAX."""

    domain: AbstractJaxDomain
    task: PyTree

    def drive(
        self,
        driver: AbstractDriver,
        starts: Float[np.ndarray, "n obs"],
        steps: int,
        *,
        seed: int,
        first: Float[np.ndarray, "n act"] | None = None,
    ) -> Driven:
        """In one compiled call."""
        domain = dataclasses.replace(self.domain, terminate_on_violation=True)
        given = None if first is None else jnp.asarray(first, jnp.float32)
        violated_at, next_obs = _drive(
            domain, self.task, driver, jnp.asarray(starts, jnp.float32), given, _keys(seed, starts),
            steps,
        )  # fmt: skip
        return Driven(violated_at=np.asarray(violated_at), next_obs=np.asarray(next_obs))

    def close(self) -> None:
        """Nothing is held."""


@partial(jax.jit, static_argnums=(0, 6))
def _drive(
    domain: AbstractJaxDomain,
    task: PyTree,
    driver: AbstractDriver,
    starts: Float[Array, "n obs"],
    first: Float[Array, "n act"] | None,
    keys: Array,
    steps: int,
) -> tuple[Int[Array, " n"], Float[Array, "n obs"]]:
    def rollout(start: Array, given: Array | None, key: Key) -> tuple[Array, Array]:
        def step(carry: tuple, index: Array) -> tuple[tuple, None]:
            state, obs, memory, running, violated_at, following = carry
            key_act, key_step = jax.random.split(jax.random.fold_in(key, index))
            action, kept = driver.act(obs, memory, key=key_act)
            if given is not None:
                action = jnp.where(index == 0, given, action)
                kept = jax.tree.map(lambda new, old: jnp.where(index == 0, old, new), kept, memory)
            state, result = domain.step(task, state, action, key=key_step)
            violates = result.cost > 0.5
            violated_at = jnp.where(running & violates, index, violated_at)
            following = jnp.where(index == 0, result.obs, following)
            running = running & ~violates & ~result.terminated
            return (state, result.obs, kept, running, violated_at, following), None

        never, running = jnp.int32(NEVER), jnp.asarray(True)
        carry = (domain.state_at(start), start, driver.begin(), running, never, start)
        final = jax.lax.scan(step, carry, jnp.arange(steps, dtype=jnp.int32))[0]
        return final[4], final[5]

    if first is None:
        return jax.vmap(lambda start, key: rollout(start, None, key))(starts, keys)
    return jax.vmap(rollout)(starts, first, keys)


@final
@dataclass(kw_only=True)
class MujocoSimulator(Simulator):
    """Robots of MuJoCo that observe their state; they are built when they are first needed."""

    domain: AbstractMujocoDomain
    task: PyTree
    robots: list[Any] = field(default_factory=list)

    def drive(
        self,
        driver: AbstractDriver,
        starts: Float[np.ndarray, "n obs"],
        steps: int,
        *,
        seed: int,
        first: Float[np.ndarray, "n act"] | None = None,
    ) -> Driven:
        """`TOGETHER` starts at a time."""
        keys = _keys(seed, starts)
        violated_at = np.full(len(starts), NEVER, np.int32)
        next_obs = np.array(starts, np.float32)
        for begin in range(0, len(starts), TOGETHER):
            some = slice(begin, min(begin + TOGETHER, len(starts)))
            self._place(starts[some])
            given = None if first is None else first[some]
            violated_at[some], next_obs[some] = self._together(
                driver, np.asarray(starts[some], np.float32), steps, keys[some], given
            )
        return Driven(violated_at=violated_at, next_obs=next_obs)

    def _place(self, starts: Float[np.ndarray, "n obs"]) -> None:
        """Puts one robot into each state."""
        while len(self.robots) < len(starts):
            # The type of the environment is known where its simulator is installed.
            made: Any = self.domain.make_env(self.task, terminate_on_violation=True)
            self.robots.append(made)
        for robot, start in zip(self.robots, starts, strict=False):
            if not robot.observe_again(start):
                raise ConfigurationError(
                    f"the states of {self.domain.name} cannot be restored from observations: they "
                    "hold more than the last positions and all velocities, or less. Expected a "
                    "robot that observes its state, such as cartpole, halfcheetah or ant."
                )

    def _together(
        self,
        driver: AbstractDriver,
        starts: Float[np.ndarray, "n obs"],
        steps: int,
        keys: Array,
        first: Float[np.ndarray, "n act"] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        count = len(starts)
        # Always as many rows, so that a driver is compiled once.
        obs = np.concatenate([starts, np.repeat(starts[-1:], TOGETHER - count, axis=0)])
        keys = jnp.concatenate([keys, jnp.repeat(keys[-1:], TOGETHER - count, axis=0)])
        memory = jax.tree.map(
            lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], TOGETHER, axis=0), driver.begin()
        )
        violated_at, next_obs = np.full(count, NEVER, np.int32), starts
        running = np.ones(count, np.bool_)
        for step in range(steps):
            if step == 0 and first is not None:
                actions = np.asarray(first)
            else:
                acted, memory = _act(driver, obs, memory, keys, np.int32(step))
                actions = np.asarray(acted)
            for row in np.flatnonzero(running):
                seen, _, terminated, _, info = self.robots[row].step(actions[row])
                obs[row] = seen
                violates = binary_cost(info.get("cost"), f"info['cost'] of robot {row}") == 1.0
                violated_at[row] = step if violates else NEVER
                running[row] = not (violates or terminated)
            if step == 0:
                next_obs = obs[:count].copy()
            if not running.any():
                break
        return violated_at, next_obs

    def close(self) -> None:
        """Closes the environments."""
        for robot in self.robots:
            robot.close()
        self.robots.clear()


@jax.jit
def _act(
    driver: AbstractDriver,
    obs: Float[Array, "n obs"],
    memory: PyTree,
    keys: Array,
    step: Array | np.int32,
) -> tuple[Float[Array, "n act"], PyTree]:
    def single(one: Array, kept: PyTree, key: Key) -> tuple[Array, PyTree]:
        key_act, _ = jax.random.split(jax.random.fold_in(key, step))
        return driver.act(one, kept, key=key_act)

    return jax.vmap(single)(obs, memory, keys)


def _keys(seed: int, starts: np.ndarray) -> Array:
    """A key per start."""
    root = root_key(seed, Stream.SKILL_ROLLOUTS)
    return jax.vmap(partial(jax.random.fold_in, root))(jnp.arange(len(starts), dtype=jnp.uint32))
