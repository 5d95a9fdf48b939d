"""Who can drive a robot alone: a recovery, the action of least risk, yardsticks that learn nothing.

A driver sees one raw observation and answers with one physical action; callers `vmap`.
"""

import abc
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from safemesa.core.spaces import Spaces
from safemesa.core.types import Key, PyTree
from safemesa.domains.base import AbstractDomain
from safemesa.domains.cartpole import CartpoleLength
from safemesa.domains.maze import Maze
from safemesa.domains.navigation import Navigation
from safemesa.learners.recovery import AbstractRecovery
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.storage.artefacts import RiskModel

POLE_GAINS = (0.3, 8.0, 0.6, 1.5)
"""Of the linear controller of Cartpole, in the order of the observation: N per m, rad, m/s, rad/s,
in units of the actuator. It pushes towards where the pole falls."""


class AbstractDriver(eqx.Module):
    """Who decides every action of a rollout."""

    @abc.abstractmethod
    def act(
        self, obs: Float[Array, " obs"], memory: PyTree, *, key: Key
    ) -> tuple[Float[Array, " act"], PyTree]:
        """A physical action at a raw observation, and what is to be known at the next step."""

    def begin(self) -> PyTree:
        """The memory before the first step."""
        return ()


@final
class RecoveryDriver(AbstractDriver):
    """The recovery of a risk model, without the noise that a guard may add to it."""

    critic: RiskCritic
    recovery: AbstractRecovery
    normaliser: Normaliser
    spaces: Spaces = eqx.field(static=True)

    def act(
        self, obs: Float[Array, " obs"], memory: PyTree, *, key: Key
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The recovery's action."""
        del key
        action, memory = self.recovery.act(self.critic, self.normaliser(obs), memory)
        return self.spaces.from_unit(jnp.clip(action, -1.0, 1.0)), memory

    def begin(self) -> PyTree:
        """The recovery's."""
        return self.recovery.begin()


@final
class LeastRiskDriver(AbstractDriver):
    """The action that the critic calls least risky, of some candidates in [-1, 1]."""

    critic: RiskCritic
    normaliser: Normaliser
    candidates: Float[Array, "candidates act"]
    spaces: Spaces = eqx.field(static=True)

    def act(
        self, obs: Float[Array, " obs"], memory: PyTree, *, key: Key
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The first of the least risky candidates."""
        del key
        risks = jax.vmap(self.critic, (None, 0))(self.normaliser(obs), self.candidates)
        return self.spaces.from_unit(self.candidates[jnp.argmin(risks)]), memory


@final
class ConstantDriver(AbstractDriver):
    """One physical action for every state."""

    action: Float[Array, " act"]

    def act(
        self, obs: Float[Array, " obs"], memory: PyTree, *, key: Key
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The action."""
        del obs, key
        return self.action, memory


@final
class RandomDriver(AbstractDriver):
    """A uniform physical action, drawn anew at every step."""

    low: Float[Array, " act"]
    high: Float[Array, " act"]

    def act(
        self, obs: Float[Array, " obs"], memory: PyTree, *, key: Key
    ) -> tuple[Float[Array, " act"], PyTree]:
        """A draw."""
        del obs
        drawn = jax.random.uniform(
            key, self.low.shape, jnp.float32, minval=self.low, maxval=self.high
        )
        return drawn, memory


@final
class LinearDriver(AbstractDriver):
    """`gains @ obs`, within the bounds of the action."""

    gains: Float[Array, "act obs"]
    low: Float[Array, " act"]
    high: Float[Array, " act"]

    def act(
        self, obs: Float[Array, " obs"], memory: PyTree, *, key: Key
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The product."""
        del key
        return jnp.clip(self.gains @ obs, self.low, self.high), memory


@final
class AwayDriver(AbstractDriver):
    """A step of a point robot straight away from the nearest of some boxes, at full command."""

    lowest: Float[Array, "boxes 2"]
    highest: Float[Array, "boxes 2"]

    def act(
        self, obs: Float[Array, " obs"], memory: PyTree, *, key: Key
    ) -> tuple[Float[Array, " act"], PyTree]:
        """The unit vector from the nearest point of the boxes to the robot."""
        del key
        offsets = obs[None, :] - jnp.clip(obs[None, :], self.lowest, self.highest)
        distances = jnp.linalg.norm(offsets, axis=-1)
        nearest = jnp.argmin(distances)
        return offsets[nearest] / jnp.maximum(distances[nearest], 1e-6), memory


def recovery_driver(model: RiskModel, spaces: Spaces) -> RecoveryDriver:
    """The recovery of a risk model."""
    return RecoveryDriver(model.critic, model.recovery, model.normaliser, spaces)


def least_risk_driver(model: RiskModel, spaces: Spaces, count: int) -> LeastRiskDriver:
    """The least risky of `count` actions: a grid where there is one command, else fixed draws."""
    if spaces.action_size == 1:
        candidates = np.linspace(-1.0, 1.0, count, dtype=np.float32)[:, None]
    else:
        drawn = np.random.default_rng(0).uniform(-1.0, 1.0, (count, spaces.action_size))
        candidates = drawn.astype(np.float32)
    return LeastRiskDriver(model.critic, model.normaliser, jnp.asarray(candidates), spaces)


def no_action(spaces: Spaces) -> ConstantDriver:
    """Zero in physical units; where that is no action, the nearest one."""
    low, high = _bounds(spaces)
    return ConstantDriver(jnp.clip(jnp.zeros_like(low), low, high))


def random_actions(spaces: Spaces) -> RandomDriver:
    """Uniform over the action space."""
    return RandomDriver(*_bounds(spaces))


def hand_made(domain: AbstractDomain) -> tuple[str, AbstractDriver] | None:
    """A controller that is known to be good, with its name; None where we know none.

    It tells what is possible. That of Navigation reads the obstacles from the domain, and that of
    the maze brakes: a robot without a command stands still.
    """
    low, high = _bounds(domain.spaces)
    if isinstance(domain, CartpoleLength):
        return "linear controller", LinearDriver(jnp.asarray([POLE_GAINS]), low, high)
    if isinstance(domain, Navigation):
        corners = jnp.asarray([(box.x, box.y) for box in domain.obstacles], jnp.float32)
        return "steps away from the walls", AwayDriver(corners[..., 0], corners[..., 1])
    if isinstance(domain, Maze):
        return "brake", no_action(domain.spaces)
    return None


def _bounds(spaces: Spaces) -> tuple[Float[Array, " act"], Float[Array, " act"]]:
    low, high = (np.asarray(bound, np.float32) for bound in (spaces.action_low, spaces.action_high))
    return jnp.asarray(low), jnp.asarray(high)
