"""HalfCheetah-Disabled: a running robot with one joint without torque (MESA section 5.1).

The robot must run forward without its head touching the floor. Training tasks lack the torque of
joint 1, 2, 3 or 4; the test task lacks that of joint 5 (MESA section 5.1), or has less torque in
every joint (section 6.2). The robot, its start and its observation are those of Gymnasium's
HalfCheetah-v5, whose robot equals the published one field by field. An action lasts 5 steps of the
simulator, as in Gymnasium: a single one, which the published wrapper takes, yields no violation in
40 000 random steps, where the paper reports 2400.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from safemesa.core.errors import ConfigurationError
from safemesa.domains.base import Spaces
from safemesa.domains.host import check_split, finite_floats
from safemesa.domains.mujoco_domain import (
    AbstractMujocoDomain,
    Rule,
    StockStep,
    StockStepper,
    Verdict,
)
from safemesa.domains.perturbation_base import Data, Model
from safemesa.domains.perturbations import WeakenActuator

JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
"""In the order of the actions: hind leg, then front leg."""

TRAIN_JOINTS = (1, 2, 3, 4)
TEST_JOINT = 5

PARTIAL_GAINS = (0.69248867, 0.75095502, 0.54999795, 0.82621723, 0.9406307, 0.88019476)
"""The published draw of MESA section 6.2 from U(0.5, 0.95), which other draws do not replace:
under three of them a random policy violated 0, 43 and 80 times in 40 000 steps, too few to learn
from."""

CONTROL_COST = 0.05


class ActuatorGains(NamedTuple):
    """A task: the factor by which the torque of each joint is multiplied."""

    gains: tuple[float, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class HalfCheetah(AbstractMujocoDomain):
    """A planar robot with two legs that must not touch the floor with its head.

    Attributes:
        test_gains: The test task.
        train_joints: The joint that each training task lacks.
        frame_skip: Steps of the simulator, of 0.01 s each, that one action lasts.
    """

    has_success: bool = False
    stock_id: str = "HalfCheetah-v5"
    test_gains: tuple[float, ...]
    train_joints: tuple[int, ...] = TRAIN_JOINTS
    frame_skip: int = 5

    @property
    def spaces(self) -> Spaces:
        """Positions but the forward one, and all velocities; torques in [-1, 1] of the motors'."""
        places = ("z", "pitch", *JOINTS)
        speeds = ("velocity_x", *(f"velocity_{name}" for name in places))
        return Spaces(
            obs_names=(*places, *speeds),
            action_names=JOINTS,
            action_low=(-1.0,) * len(JOINTS),
            action_high=(1.0,) * len(JOINTS),
            horizon=self.horizon,
            dt=0.01 * self.frame_skip,
        )

    def fixed_tasks(self, split: str) -> tuple[ActuatorGains, ...]:
        """The training joints disabled, one each; one test task."""
        check_split(split)
        if split == "test":
            return (ActuatorGains(self.test_gains),)
        return tuple(disabled(joint) for joint in self.train_joints)

    def sample_task(self, rng: np.random.Generator, split: str) -> ActuatorGains:
        """One of the fixed tasks, all equally probable."""
        tasks = self.fixed_tasks(split)
        return tasks[rng.integers(len(tasks))]

    def task_parameters(self, task: ActuatorGains) -> dict[str, Any]:
        """`{"gains": [...]}` in the order of the actions."""
        return {"gains": list(task.gains)}

    def task_from_parameters(self, parameters: dict[str, Any]) -> ActuatorGains:
        """Reads `{"gains": six numbers of 0 or more}` or `{"joint": index or name}`.

        Raises:
            ConfigurationError: it is neither.
        """
        if set(parameters) == {"gains"}:
            gains = finite_floats(parameters["gains"], len(JOINTS))
            if gains is not None and (gains >= 0.0).all():
                return ActuatorGains(tuple(gains.tolist()))
        if set(parameters) == {"joint"}:
            joint = parameters["joint"]
            if joint in JOINTS or joint in range(len(JOINTS)):
                return disabled(JOINTS.index(joint) if isinstance(joint, str) else joint)
        raise ConfigurationError(
            f"A {self.name} task is {{'joint': 0 to 5}}, the joint without torque, one of "
            f"{', '.join(JOINTS)}, or {{'gains': six factors}}; given: {parameters!r}."
        )

    @property
    def stock_arguments(self) -> dict[str, Any]:
        """The rest is as in Gymnasium."""
        return {"frame_skip": self.frame_skip}

    def perturbations(self, task: ActuatorGains) -> tuple[WeakenActuator, ...]:
        """One for each joint that lacks torque."""
        return tuple(
            WeakenActuator(actuator=name, gain=gain)
            for name, gain in zip(JOINTS, task.gains, strict=True)
            if gain != 1.0
        )

    def stepper(self, stock: Any) -> StockStepper:
        """Gymnasium's step without its checks and copies, which cost a third of the simulation.

        Contact forces of bodies, which neither observation nor cost read, are not computed.
        """
        from safemesa.domains.simulation import mujoco

        model, data, dt = stock.model, stock.data, stock.dt
        position, velocity, control = data.qpos, data.qvel, data.ctrl
        frames, mj_step = self.frame_skip, mujoco.mj_step
        forward_weight, control_weight = stock._forward_reward_weight, stock._ctrl_cost_weight

        def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            before = position[0]
            control[:] = action
            mj_step(model, data, frames)
            after = position[0]
            x_velocity = (after - before) / dt
            forward = forward_weight * x_velocity
            cost = control_weight * np.add.reduce(np.square(action))
            info = {
                "x_position": after,
                "x_velocity": x_velocity,
                "reward_forward": forward,
                "reward_ctrl": -cost,
            }
            obs = np.concatenate((position[1:], velocity))
            return obs, forward - cost, False, False, info

        return step

    def rule(self, task: ActuatorGains, model: Model, data: Data) -> Rule:
        """Forward speed less 0.05 ||torque||^2; a contact of head and floor violates.

        The published reward takes the speed of the centre of mass at the end of the step, whose
        mean over an episode is the same. Gymnasium's own weighs torque by 0.1, also where a joint
        has none.
        """
        from safemesa.domains.simulation import contact_test

        touches = contact_test(model, data, floor="floor", geom="head")
        gains = np.asarray(task.gains)

        def judge(step: StockStep) -> Verdict:
            torque = gains * step.action
            reward = step.info["x_velocity"] - CONTROL_COST * torque.dot(torque)
            return Verdict(float(reward), touches())

        return judge


def disabled(joint: int) -> ActuatorGains:
    """The task in which one joint has no torque."""
    return ActuatorGains(tuple(float(index != joint) for index in range(len(JOINTS))))


DISABLED = HalfCheetah(
    name="halfcheetah",
    gym_id="safemesa/HalfCheetahDisabled-v0",
    test_gains=disabled(TEST_JOINT).gains,
)

PARTIAL = HalfCheetah(
    name="halfcheetah_partial",
    gym_id="safemesa/HalfCheetahPartial-v0",
    test_gains=PARTIAL_GAINS,
)

HELD_OUT = HalfCheetah(
    name="halfcheetah_held_out",
    gym_id=DISABLED.gym_id,
    test_gains=disabled(TRAIN_JOINTS[-1]).gains,
    train_joints=TRAIN_JOINTS[:-1],
)
"""For choosing settings: the new robot lacks a training joint, which no training log does, and the
test joint is left for what is reported. Named `safemesa.domains.half_cheetah:HELD_OUT`."""
