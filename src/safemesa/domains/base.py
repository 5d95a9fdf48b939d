"""What a domain is: a family of tasks that differ in dynamics only (MESA section 3)."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces as Spaces
from safemesa.core.streams import task_generator
from safemesa.core.types import Key, PyTree


class Step(NamedTuple):
    """What one environment step returns. `cost` is 1 where the new state violates."""

    obs: Float[Array, " obs"]
    reward: Float[Array, ""]
    cost: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    success: Bool[Array, ""]


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractDomain(abc.ABC):
    """A task distribution. Final classes are frozen dataclasses: hashable and jit-static.

    Attributes:
        name: What the command line calls the domain.
        gym_id: Its Gymnasium id.
        has_success: Whether an episode can succeed; if not, `successes` is null in summaries.
        terminate_on_violation: Whether a violation ends the episode, as it does in Phase 3.
    """

    name: str
    gym_id: str
    has_success: bool = True
    terminate_on_violation: bool = True

    @property
    @abc.abstractmethod
    def spaces(self) -> Spaces:
        """Shapes, names and units."""

    @abc.abstractmethod
    def sample_task(self, rng: np.random.Generator, split: str) -> PyTree:
        """Draws the parameters of one task; `split` is `"train"` or `"test"`."""

    @abc.abstractmethod
    def task_parameters(self, task: PyTree) -> dict[str, Any]:
        """The task as plain JSON, for manifests and reports."""

    @abc.abstractmethod
    def task_from_parameters(self, parameters: dict[str, Any]) -> PyTree:
        """The inverse of `task_parameters`."""


def sample_test_task(domain: AbstractDomain, seed: int) -> PyTree:
    """The test task of a run seed: the same in Phase 2's log and in Phase 3, in every arm."""
    return domain.sample_task(task_generator(seed, "test"), "test")


def choose_task(domain: AbstractDomain, task: PyTree, task_seed: int) -> PyTree:
    """The task an environment is made for: one given by value or parameters, or a drawn test task.

    Drawn is the robot of the run seed `task_seed` (`sample_test_task`).

    Raises:
        ConfigurationError: it is no task of the domain, or the seed is negative.
    """
    if task_seed < 0:
        raise ConfigurationError(f"task_seed is {task_seed}; it must not be negative.")
    drawn = sample_test_task(domain, task_seed)
    if task is None:
        return drawn
    if isinstance(task, Mapping):
        return domain.task_from_parameters(dict(task))
    if type(task) is not type(drawn):
        raise ConfigurationError(
            f"A task of {domain.name} is a {type(drawn).__name__} or a dictionary of its "
            f"parameters; given: a {type(task).__name__}."
        )
    # The round trip checks the values and casts them to the types that are compiled for.
    return domain.task_from_parameters(domain.task_parameters(task))


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractJaxDomain(AbstractDomain):
    """A domain whose dynamics are pure functions, so that whole phases compile.

    A state is a NamedTuple of arrays with at least `obs`-relevant fields and `steps` (int32), the
    number of steps taken in the episode.

    Attributes:
        log_ends_on_violation: Whether a violation ends a rollout of the data collection.
    """

    log_ends_on_violation: bool = True

    @abc.abstractmethod
    def reset(self, task: PyTree, *, key: Key) -> tuple[PyTree, Float[Array, " obs"]]:
        """Draws a start state; returns `(state, obs)`."""

    @abc.abstractmethod
    def step(
        self, task: PyTree, state: PyTree, action: Float[Array, " act"], *, key: Key
    ) -> tuple[PyTree, Step]:
        """Applies one physical action; clips it to the action space first."""

    @abc.abstractmethod
    def state_at(self, obs: Float[Array, " obs"]) -> PyTree:
        """A state that is observed as `obs`, at the start of an episode; for analysis."""

    @property
    @abc.abstractmethod
    def log_max_length(self) -> int:
        """Largest `length` that `log_start` returns."""

    @abc.abstractmethod
    def log_start(
        self, task: PyTree, *, key: Key
    ) -> tuple[PyTree, Float[Array, " obs"], Int[Array, ""], Int[Array, ""]]:
        """Start of one rollout of the paper's data collection.

        Returns `(state, obs, mode, length)`: `mode` selects the random policy of the rollout (a
        domain may have several) and `length` is its largest number of steps.
        """

    @abc.abstractmethod
    def log_action(
        self, mode: Int[Array, ""], obs: Float[Array, " obs"], *, key: Key
    ) -> Float[Array, " act"]:
        """A physical action of the data-collecting policy `mode` where `obs` is observed."""

    @abc.abstractmethod
    def render(self, task: PyTree, state: PyTree, size: int = 400) -> np.ndarray:
        """An RGB image `[size, size, 3]` of uint8."""
