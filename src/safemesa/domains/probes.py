"""Probe environments: tiny domains whose risk is known exactly.

A learner that cannot find the risk of a probe is wrong, and which probe it fails says why: a
constant target, action dependence, bootstrapping, or adaptation. `probe_base` says what risk means.
"""

from dataclasses import dataclass
from typing import final

import jax
import jax.numpy as jnp

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import Key
from safemesa.domains.probe_base import AbstractProbe, ProbeTask, Scalar


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class CertainViolation(AbstractProbe):
    """Every action violates at once: the risk is 1. Tests that a critic can learn a constant."""

    def move(self, task: ProbeTask, position: Scalar, action: Scalar, *, key: Key) -> Scalar:
        """Into the obstacle."""
        return jnp.zeros_like(position)

    def risk_before_violation(
        self, task: ProbeTask, position: Scalar, action: Scalar, gamma: Scalar
    ) -> Scalar:
        """1."""
        return jnp.ones_like(position)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class NeverViolates(AbstractProbe):
    """Nothing ever happens: the risk is 0. Tests that bootstrapping adds no risk of its own."""

    def move(self, task: ProbeTask, position: Scalar, action: Scalar, *, key: Key) -> Scalar:
        """Nowhere."""
        return position

    def risk_before_violation(
        self, task: ProbeTask, position: Scalar, action: Scalar, gamma: Scalar
    ) -> Scalar:
        """0."""
        return jnp.zeros_like(position)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ActionDependent(AbstractProbe):
    """Positive actions violate, others change nothing. Tests whether a critic reads the action.

    With v = E[Q(s, a')] = (1 + gamma v) / 2, the risk is 1 for a > 0 and gamma v =
    gamma / (2 - gamma) otherwise.
    """

    def move(self, task: ProbeTask, position: Scalar, action: Scalar, *, key: Key) -> Scalar:
        """Into the obstacle, or nowhere."""
        return jnp.where(action > 0.0, jnp.zeros_like(position), position)

    def risk_before_violation(
        self, task: ProbeTask, position: Scalar, action: Scalar, gamma: Scalar
    ) -> Scalar:
        """1 or gamma / (2 - gamma)."""
        return jnp.where(action > 0.0, jnp.ones_like(gamma), gamma / (2.0 - gamma))


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class DelayedViolation(AbstractProbe):
    """The robot falls into the obstacle after `delay` steps, whatever it does. Tests bootstrapping.

    The risk is gamma^(steps left - 1), that is gamma^(delay - 1) at the start.
    """

    delay: int = 4

    def __post_init__(self) -> None:
        """Checks that the violation comes within an episode."""
        if not 1 <= self.delay <= self.horizon:
            raise ConfigurationError(
                f"delay is {self.delay}; it must be from 1 to the horizon, {self.horizon}."
            )

    @property
    def starts(self) -> tuple[int, int]:
        """`delay` steps before the obstacle."""
        return (self.delay, self.delay)

    def move(self, task: ProbeTask, position: Scalar, action: Scalar, *, key: Key) -> Scalar:
        """One step closer."""
        return position - 1.0

    def risk_before_violation(
        self, task: ProbeTask, position: Scalar, action: Scalar, gamma: Scalar
    ) -> Scalar:
        """gamma^(position - 1)."""
        return gamma ** (position - 1.0)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDependent(AbstractProbe):
    """The hidden sign of the task says which sign of action violates; the other one is the goal.

    Episodes last one step. The risk is 1 or 0, but without data of the task nothing better than
    1/2 can be said: only adaptation helps.
    """

    has_success: bool = True

    @property
    def goal(self) -> float:
        """One step away from the obstacle."""
        return 2.0

    def move(self, task: ProbeTask, position: Scalar, action: Scalar, *, key: Key) -> Scalar:
        """Into the obstacle or to the goal."""
        return jnp.where(task.sign * action > 0.0, position - 1.0, position + 1.0)

    def risk_before_violation(
        self, task: ProbeTask, position: Scalar, action: Scalar, gamma: Scalar
    ) -> Scalar:
        """1 where the action has the sign of the task."""
        return (task.sign * action > 0.0).astype(jnp.float32)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RandomWalk(AbstractProbe):
    """A walk between the obstacle at 0 and the goal at `length`, where moves may slip.

    The robot moves by one step in the direction of its action, and with probability `slip` in the
    other one. Tests noise, bootstrapping and that a goal ends the risk. The uniform policy makes it
    the gambler's ruin: the discounted probability u(x) of ending at the obstacle solves
    u(x) = gamma (u(x - 1) + u(x + 1)) / 2 with u(0) = 1 and u(length) = 0, hence
    u(x) = sinh((length - x) t) / sinh(length t) with cosh t = 1 / gamma.
    """

    has_success: bool = True
    length: int = 5
    slip: float = 0.2

    def __post_init__(self) -> None:
        """Checks that there is a position between obstacle and goal, and the probability."""
        if self.length < 2:
            raise ConfigurationError(f"length is {self.length}; it must be at least 2.")
        if not 0.0 <= self.slip <= 1.0:
            raise ConfigurationError(f"slip is {self.slip}; it must be within [0, 1].")

    @property
    def starts(self) -> tuple[int, int]:
        """Anywhere between obstacle and goal."""
        return (1, self.length - 1)

    @property
    def goal(self) -> float:
        """The far end."""
        return float(self.length)

    def move(self, task: ProbeTask, position: Scalar, action: Scalar, *, key: Key) -> Scalar:
        """One step to the left or the right."""
        direction = jnp.where(action > 0.0, jnp.float32(1.0), jnp.float32(-1.0))
        slips = jax.random.bernoulli(key, self.slip)
        return position + jnp.where(slips, -direction, direction)

    def risk_before_violation(
        self, task: ProbeTask, position: Scalar, action: Scalar, gamma: Scalar
    ) -> Scalar:
        """U at the next position, averaged over slipping: the first step is not discounted."""
        direction = jnp.where(action > 0.0, jnp.float32(1.0), jnp.float32(-1.0))
        intended = self._ruin(position + direction, gamma)
        slipped = self._ruin(position - direction, gamma)
        return (1.0 - self.slip) * intended + self.slip * slipped

    def _ruin(self, position: Scalar, gamma: Scalar) -> Scalar:
        rate = jnp.arccosh(1.0 / gamma)
        left = self.length - position
        # The limit for gamma = 1 is the undiscounted probability; 1 keeps the other branch finite.
        safe_rate = jnp.where(rate > 1e-3, rate, jnp.ones_like(rate))
        discounted = jnp.sinh(left * safe_rate) / jnp.sinh(self.length * safe_rate)
        return jnp.where(rate > 1e-3, discounted, left / self.length)


CERTAIN = CertainViolation(name="probe_certain", gym_id="safemesa/ProbeCertain-v0")
NEVER = NeverViolates(name="probe_never", gym_id="safemesa/ProbeNever-v0")
ACTION = ActionDependent(name="probe_action", gym_id="safemesa/ProbeAction-v0")
DELAYED = DelayedViolation(name="probe_delayed", gym_id="safemesa/ProbeDelayed-v0")
TASK = TaskDependent(name="probe_task", gym_id="safemesa/ProbeTask-v0")
WALK = RandomWalk(name="probe_walk", gym_id="safemesa/ProbeWalk-v0")
