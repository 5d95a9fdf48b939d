"""What the MuJoCo domains share: a robot of Gymnasium, tasks that perturb it, a rule that judges.

How that becomes an environment is in `mujoco_env.py`; no MuJoCo is imported here.
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from jaxtyping import Float

from safemesa.core.types import PyTree
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.perturbation_base import AbstractPerturbation, Data, Model


class StockStep(NamedTuple):
    """What the unchanged Gymnasium environment says of a step; `action` is within its bounds."""

    obs: Float[np.ndarray, " obs"]
    action: Float[np.ndarray, " act"]
    reward: float
    terminated: bool
    info: dict[str, Any]


class Verdict(NamedTuple):
    """What a domain makes of a step.

    Attributes:
        reward: The domain's reward.
        cost: Whether the new state violates.
        terminated: Whether the episode ends for another reason than a violation.
        out_of_range: Whether a rollout of the data collection is cut short here (truncated).
    """

    reward: float
    cost: bool
    terminated: bool = False
    out_of_range: bool = False


class AlteredTask(NamedTuple):
    """A task of a domain, and what is different about its robot beside that."""

    task: PyTree
    extra: tuple[AbstractPerturbation, ...]


def altered(task: PyTree) -> AlteredTask:
    """A task as an altered one, where nothing else differs if it was not."""
    return task if isinstance(task, AlteredTask) else AlteredTask(task, ())


Rule = Callable[[StockStep], Verdict]

StockStepper = Callable[[np.ndarray], tuple[np.ndarray, Any, bool, bool, dict[str, Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractMujocoRobot(AbstractHostDomain):
    """A robot of Gymnasium whose tasks are perturbations of it.

    Attributes:
        stock_id: The Gymnasium id of the unchanged robot.
        horizon: Steps after which an episode is truncated.
        success_return: Return above which an episode counts as a success.
    """

    stock_id: str
    horizon: int = 1000
    success_return: float = math.inf

    @property
    @abc.abstractmethod
    def stock_arguments(self) -> dict[str, Any]:
        """Keywords of the unchanged environment."""

    @abc.abstractmethod
    def perturbations(self, task: PyTree) -> tuple[AbstractPerturbation, ...]:
        """How the robot of a task differs from the unchanged one."""

    @abc.abstractmethod
    def rule(self, task: PyTree, model: Model, data: Data) -> Rule:
        """Makes the function that judges each step of one environment.

        Positions are read from `data` after a step; contacts in it are those of the last substep
        before, so a rule finds them anew (`simulation.contact_test`, `simulation.refreshed`).
        """

    def stepper(self, stock: Any) -> StockStepper:
        """How the unchanged environment is stepped: by its `step`, or by a faster equal of it.

        Like `step` that returns observation, reward, terminated, truncated and info.
        """
        return stock.step


def registered_horizon(stock_id: str) -> int:
    """The time limit that Gymnasium registers for an id; 1000 where there is none."""
    return gymnasium.spec(stock_id).max_episode_steps or 1000
