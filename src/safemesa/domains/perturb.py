"""Any MuJoCo environment of Gymnasium as a family of tasks, in a few lines.

`PerturbedTasks` needs three things: the id of an environment, a distribution over perturbations
(who is disabled, heavier, on ice?), and a cost rule (what must not happen?).
"""

import functools
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import gymnasium
import numpy as np
from jaxtyping import Float

from safemesa.core.costs import binary_cost
from safemesa.core.errors import ConfigurationError
from safemesa.core.types import PyTree
from safemesa.domains.base import Spaces
from safemesa.domains.host import check_split
from safemesa.domains.mujoco_domain import (
    AbstractMujocoDomain,
    Rule,
    StockStep,
    Verdict,
    registered_horizon,
)
from safemesa.domains.perturbation_base import (
    PERTURBATIONS as PERTURBATIONS,
    AbstractModelPerturbation as AbstractModelPerturbation,
    AbstractNoise as AbstractNoise,
    AbstractPerturbation as AbstractPerturbation,
    AbstractShapePerturbation as AbstractShapePerturbation,
    Data,
    Model,
    perturbation_from_parameters as perturbation_from_parameters,
    perturbation_parameters as perturbation_parameters,
)
from safemesa.domains.perturbation_length import ScaleLength as ScaleLength
from safemesa.domains.perturbations import (
    ActionNoise as ActionNoise,
    DisableActuator as DisableActuator,
    ObservationNoise as ObservationNoise,
    ScaleDamping as ScaleDamping,
    ScaleFriction as ScaleFriction,
    ScaleGravity as ScaleGravity,
    ScaleMass as ScaleMass,
    WeakenActuator as WeakenActuator,
)

Perturbations = tuple[AbstractPerturbation, ...]
"""A task: what is different about its robot. The empty one is the unchanged robot."""

Distribution = Callable[[np.random.Generator, str], Perturbations]
"""Draws a task of a split, `"train"` or `"test"`."""

Cost = Callable[[Model, Data, Float[np.ndarray, " obs"]], Any]
"""Whether the state after a step violates: true or false, 1 or 0; nothing else is a verdict.
Contacts, positions and forces in the data are those of that state; the observation is without
noise."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PerturbedTasks(AbstractMujocoDomain):
    """A MuJoCo environment of Gymnasium whose robot differs from task to task.

    Rewards, observations, starts and terminations are those of the environment; costs are the
    user's. `PerturbedTasks("Walker2d-v5", distribution, cost=cost)` is complete.

    Attributes:
        stock_id: The Gymnasium id.
        distribution: Draws the tasks.
        cost: Judges states.
        arguments: Keywords of the environment, as pairs of name and value.
        horizon: Steps after which an episode is truncated; without one, the id's time limit.
    """

    stock_id: str = field(kw_only=False)
    distribution: Distribution = field(kw_only=False)
    cost: Cost
    arguments: tuple[tuple[str, Any], ...] = ()
    name: str = ""
    gym_id: str = ""
    has_success: bool = False
    horizon: int = 0

    def __post_init__(self) -> None:
        """Fills in what follows from the id.

        Raises:
            ConfigurationError: Gymnasium does not know the id, or another value is impossible.
        """
        _check_arguments(self.arguments)
        whole = isinstance(self.horizon, numbers.Integral) and not isinstance(self.horizon, bool)
        if not whole or self.horizon < 0:
            raise ConfigurationError(
                f"horizon is {self.horizon!r}; expected a number of steps, or 0 for the time limit "
                "of the id."
            )
        try:
            horizon = registered_horizon(self.stock_id)
        except gymnasium.error.Error as error:
            raise ConfigurationError(str(error)) from error
        # The way to set fields of a frozen dataclass while it is made.
        object.__setattr__(self, "horizon", self.horizon or horizon)
        object.__setattr__(self, "name", self.name or f"perturbed_{self.stock_id}")
        object.__setattr__(self, "gym_id", self.gym_id or self.stock_id)

    @property
    def spaces(self) -> Spaces:
        """Read from the unchanged environment, with numbered names. Needs MuJoCo."""
        return _spaces(self.stock_id, self.arguments, self.horizon)

    def fixed_tasks(self, split: str) -> tuple[Perturbations, ...]:
        """None: tasks are drawn."""
        check_split(split)
        return ()

    def sample_task(self, rng: np.random.Generator, split: str) -> Perturbations:
        """Draws from the distribution."""
        check_split(split)
        task = self.distribution(rng, split)
        if not isinstance(task, tuple) or not all(
            isinstance(item, AbstractPerturbation) for item in task
        ):
            raise ConfigurationError(
                f"The distribution of {self.name} must return a tuple of perturbations; it "
                f"returned {task!r}."
            )
        return task

    def task_parameters(self, task: Perturbations) -> dict[str, Any]:
        """`{"perturbations": [{"kind": ..., ...}, ...]}`."""
        return {"perturbations": [perturbation_parameters(item) for item in task]}

    def task_from_parameters(self, parameters: dict[str, Any]) -> Perturbations:
        """The inverse of `task_parameters`.

        Raises:
            ConfigurationError: a perturbation is unknown or not well formed.
        """
        items = parameters.get("perturbations")
        if set(parameters) != {"perturbations"} or not isinstance(items, list | tuple):
            raise ConfigurationError(
                f"A {self.name} task is {{'perturbations': [...]}}; given: {parameters!r}."
            )
        return tuple(perturbation_from_parameters(item) for item in items)

    @property
    def stock_arguments(self) -> dict[str, Any]:
        """The user's."""
        return dict(self.arguments)

    def perturbations(self, task: PyTree) -> Perturbations:
        """The task itself."""
        return task

    def rule(self, task: PyTree, model: Model, data: Data) -> Rule:
        """The environment's reward and termination, the user's cost."""
        from safemesa.domains.simulation import refreshed

        del task
        refresh = refreshed(model, data)
        where = f"the cost rule {getattr(self.cost, '__name__', self.cost)!r} of {self.name}"

        def judge(step: StockStep) -> Verdict:
            return Verdict(
                reward=step.reward,
                cost=binary_cost(self.cost(model, refresh(), step.obs), where) == 1.0,
                terminated=bool(step.terminated),
            )

        return judge


def _check_arguments(arguments: Any) -> None:
    """Raises a ConfigurationError unless they are pairs that can be compared: domains are keys."""
    if not isinstance(arguments, tuple) or not all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in arguments
    ):
        raise ConfigurationError(
            f"arguments is {arguments!r}; expected pairs of name and value, such as "
            "(('frame_skip', 2),)."
        )
    try:
        hash(arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"arguments is {arguments!r}; expected values that do not change, such as tuples in "
            f"place of lists ({error})."
        ) from error


@functools.cache
def _spaces(stock_id: str, arguments: tuple[tuple[str, Any], ...], horizon: int) -> Spaces:
    from safemesa.domains.simulation import build_stock

    env = build_stock(stock_id, (), dict(arguments))
    box, observed = env.action_space, env.observation_space
    assert isinstance(box, gymnasium.spaces.Box)
    assert observed.shape is not None
    spaces = Spaces(
        obs_names=tuple(f"obs_{index}" for index in range(math.prod(observed.shape))),
        action_names=tuple(f"action_{index}" for index in range(math.prod(box.shape))),
        action_low=tuple(box.low.tolist()),
        action_high=tuple(box.high.tolist()),
        horizon=horizon,
        dt=float(env.dt),
    )
    env.close()
    return spaces
