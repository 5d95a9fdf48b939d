"""Ant-Disabled: a walking robot with one leg without torque (MESA section 5.1).

The robot must walk along x without its torso touching the floor. Training tasks lack the torque of
both joints of leg 0, 1 or 2; the test task that of leg 3. The robot, its start and its observation
are those of Gymnasium's Ant-v5. The published robot differs in the softness of its contacts and has
a shorter leg as well; neither changes how often a random policy violates.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float

from safemesa.core.errors import ConfigurationError
from safemesa.domains.base import Spaces
from safemesa.domains.host import check_split, finite_floats
from safemesa.domains.mujoco_domain import (
    AbstractMujocoDomain,
    Rule,
    StockStep,
    Verdict,
)
from safemesa.domains.perturbation_base import Data, Model
from safemesa.domains.perturbations import WeakenActuator

ACTUATORS = (
    "hip_4",
    "ankle_4",
    "hip_1",
    "ankle_1",
    "hip_2",
    "ankle_2",
    "hip_3",
    "ankle_3",
)
"""The joints in the order of the actions. Legs 0 to 3 are joints 1 to 4: front left, front right,
back left and back right."""

LEG_ACTUATORS = ((2, 3), (4, 5), (6, 7), (0, 1))
TRAIN_LEGS = (0, 1, 2)
TEST_LEG = 3

ALIVE_REWARD, CONTROL_COST = 0.05, 0.005

HEALTHY_HEIGHT = (0.2, 1.0)
"""Heights of the torso at which Gymnasium calls the robot healthy, in metres."""


class LegGains(NamedTuple):
    """A task: the factor by which the torques of both joints of each leg are multiplied."""

    gains: tuple[float, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Ant(AbstractMujocoDomain):
    """A robot with four legs that must not touch the floor with its torso.

    Where violations do not end an episode, as in the data collection, one is truncated where the
    torso leaves `HEALTHY_HEIGHT`: a robot on its back would violate in every step that is left,
    and a random policy twice as often as in the paper.

    Attributes:
        frame_skip: Steps of the simulator, of 0.01 s each, that one action lasts.
        train_legs: The legs of which one is disabled in each training task.
        test_leg: The leg that is disabled in the test task.
    """

    has_success: bool = False
    stock_id: str = "Ant-v5"
    frame_skip: int = 5
    train_legs: tuple[int, ...] = TRAIN_LEGS
    test_leg: int = TEST_LEG

    @property
    def spaces(self) -> Spaces:
        """Positions but x and y, and all velocities; torques in [-1, 1] of the motors'.

        Contact forces are not observed: they would tell of a violation.
        """
        legs = tuple(f"{joint}_{leg}" for leg in (1, 2, 3, 4) for joint in ("hip", "ankle"))
        turns = tuple(f"quaternion_{axis}" for axis in "wxyz")
        moves = tuple(f"{kind}_{axis}" for kind in ("velocity", "turning") for axis in "xyz")
        return Spaces(
            obs_names=("z", *turns, *legs, *moves, *(f"velocity_{name}" for name in legs)),
            action_names=ACTUATORS,
            action_low=(-1.0,) * len(ACTUATORS),
            action_high=(1.0,) * len(ACTUATORS),
            horizon=self.horizon,
            dt=0.01 * self.frame_skip,
        )

    def fixed_tasks(self, split: str) -> tuple[LegGains, ...]:
        """One disabled leg each: those of training, or that of the test."""
        check_split(split)
        legs = self.train_legs if split == "train" else (self.test_leg,)
        return tuple(disabled(leg) for leg in legs)

    def sample_task(self, rng: np.random.Generator, split: str) -> LegGains:
        """One of the fixed tasks, all equally probable."""
        tasks = self.fixed_tasks(split)
        return tasks[rng.integers(len(tasks))]

    def task_parameters(self, task: LegGains) -> dict[str, Any]:
        """`{"gains": [leg 0, leg 1, leg 2, leg 3]}`."""
        return {"gains": list(task.gains)}

    def task_from_parameters(self, parameters: dict[str, Any]) -> LegGains:
        """Reads `{"gains": four numbers of 0 or more}` or `{"leg": index}`.

        Raises:
            ConfigurationError: it is neither.
        """
        if set(parameters) == {"gains"}:
            gains = finite_floats(parameters["gains"], len(LEG_ACTUATORS))
            if gains is not None and (gains >= 0.0).all():
                return LegGains(tuple(gains.tolist()))
        if set(parameters) == {"leg"} and parameters["leg"] in range(len(LEG_ACTUATORS)):
            return disabled(parameters["leg"])
        raise ConfigurationError(
            f"A {self.name} task is {{'leg': 0 to 3}}, the leg without torque, or "
            f"{{'gains': four factors}}; given: {parameters!r}."
        )

    @property
    def stock_arguments(self) -> dict[str, Any]:
        """No contact forces in the observation, and no end where the robot is unhealthy."""
        return {
            "frame_skip": self.frame_skip,
            "include_cfrc_ext_in_observation": False,
            "terminate_when_unhealthy": False,
        }

    def perturbations(self, task: LegGains) -> tuple[WeakenActuator, ...]:
        """Two for each leg that lacks torque."""
        return tuple(
            WeakenActuator(actuator=ACTUATORS[index], gain=gain)
            for actuators, gain in zip(LEG_ACTUATORS, task.gains, strict=True)
            for index in actuators
            if gain != 1.0
        )

    def rule(self, task: LegGains, model: Model, data: Data) -> Rule:
        """Speed along x plus 0.05 less 0.005 ||torque||^2; a contact of torso and floor violates.

        Contacts count within the margin of the geoms: a torso at rest hardly presses on the floor.
        """
        from safemesa.domains.simulation import contact_test

        touches = contact_test(model, data, floor="floor", geom="torso_geom")
        gains = actuator_gains(task)
        low, high = HEALTHY_HEIGHT

        def judge(step: StockStep) -> Verdict:
            torque = gains * step.action
            effort = CONTROL_COST * torque.dot(torque)
            return Verdict(
                reward=float(step.info["x_velocity"] + ALIVE_REWARD - effort),
                cost=touches(),
                out_of_range=not low <= step.obs[0] <= high,
            )

        return judge


def actuator_gains(task: LegGains) -> Float[np.ndarray, " 8"]:
    """The factor of each actuator, in the order of the actions."""
    gains = np.ones(len(ACTUATORS))
    for actuators, gain in zip(LEG_ACTUATORS, task.gains, strict=True):
        gains[list(actuators)] = gain
    return gains


def disabled(leg: int) -> LegGains:
    """The task in which one leg has no torque."""
    return LegGains(tuple(float(index != leg) for index in range(len(LEG_ACTUATORS))))


ANT = Ant(name="ant", gym_id="safemesa/AntDisabled-v0")

HELD_OUT = Ant(
    name="ant_held_out",
    gym_id=ANT.gym_id,
    train_legs=TRAIN_LEGS[:-1],
    test_leg=TRAIN_LEGS[-1],
)
"""For choosing settings: the new robot lacks a training leg, which no training log does, and the
test leg is left for what is reported. Named `safemesa.domains.ant:HELD_OUT`."""
