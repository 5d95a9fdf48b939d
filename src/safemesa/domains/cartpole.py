"""Cartpole-Length: balancing poles of unknown length (MESA section 5.1).

The cart must keep the pole's tip up. Training tasks have lengths from U(0.4, 0.8); the test task
has length 1, longer than all of them. The robot is Gymnasium's InvertedPendulum-v5 on a longer rail
and with a pole that can fall over; time steps, actuator and masses per length are unchanged.
"""

import math
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
    Verdict,
)
from safemesa.domains.perturbation_base import (
    AbstractShapePerturbation,
    Data,
    Model,
    Spec,
    check_number,
)
from safemesa.domains.raster import Interval

TRAIN_LENGTHS: Interval = (0.4, 0.8)
TEST_LENGTH = 1.0

MAX_ANGLE, MAX_POSITION = math.pi / 2, 2.4
RAIL = 2.5
"""How far the cart can go to either side, in metres."""


class PoleLength(NamedTuple):
    """A task: the length of the pole in metres."""

    length: float


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LongRail(AbstractShapePerturbation):
    """A pole of a given length that can fall over, on a cart with more room than Gymnasium's."""

    length: float

    def __post_init__(self) -> None:
        """Checks the length."""
        check_number("length", self.length, positive=True)

    def reshape(self, spec: Spec) -> None:
        """The tip leans by 1 mm as Gymnasium's does. Nothing collides."""
        spec.geom("cpole").fromto = [0.0, 0.0, 0.0, 0.001, 0.0, self.length]
        spec.joint("slider").range = [-RAIL, RAIL]
        never_limited = 0
        spec.joint("hinge").limited = never_limited
        spec.geom("rail").size[1] = RAIL + 0.5


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class CartpoleLength(AbstractMujocoDomain):
    """A cart that must not let its pole fall or leave the rail."""

    stock_id: str = "InvertedPendulum-v5"
    horizon: int = 200
    success_return: float = 160.0
    log_length: int = 30

    @property
    def spaces(self) -> Spaces:
        """Position, angle from the vertical, which is not wrapped, and their velocities."""
        return Spaces(
            obs_names=("x", "angle", "velocity_x", "velocity_angle"),
            action_names=("push",),
            action_low=(-3.0,),
            action_high=(3.0,),
            horizon=self.horizon,
            dt=0.04,
        )

    def fixed_tasks(self, split: str) -> tuple[PoleLength, ...]:
        """Only the test task is fixed."""
        check_split(split)
        return (PoleLength(TEST_LENGTH),) if split == "test" else ()

    def sample_task(self, rng: np.random.Generator, split: str) -> PoleLength:
        """A training length, or the test length."""
        check_split(split)
        return PoleLength(TEST_LENGTH if split == "test" else float(rng.uniform(*TRAIN_LENGTHS)))

    def task_parameters(self, task: PoleLength) -> dict[str, Any]:
        """`{"length": metres}`."""
        return {"length": task.length}

    def task_from_parameters(self, parameters: dict[str, Any]) -> PoleLength:
        """Reads a length above 0.

        Raises:
            ConfigurationError: it is missing, extra or no such number.
        """
        if set(parameters) == {"length"}:
            length = finite_floats([parameters["length"]], 1)
            if length is not None and length[0] > 0.0:
                return PoleLength(float(length[0]))
        raise ConfigurationError(
            f"A {self.name} task is {{'length': metres}}, above 0; given: {parameters!r}."
        )

    @property
    def stock_arguments(self) -> dict[str, Any]:
        """All as in Gymnasium, but for a camera that sees the whole rail."""
        return {"default_camera_config": {"distance": 6.0, "lookat": np.array([0.0, 0.0, 0.4])}}

    def perturbations(self, task: PoleLength) -> tuple[LongRail, ...]:
        """The pole of the task."""
        return (LongRail(length=task.length),)

    def rule(self, task: PoleLength, model: Model, data: Data) -> Rule:
        """How near the tip is to where it belongs; a fallen pole or the end of the rail violates.

        The reward is exp(-||tip - (0, L)||^2 / L^2), at most 1 a step.
        """
        del model, data
        length = task.length

        def judge(step: StockStep) -> Verdict:
            x, angle = step.obs[:2].tolist()
            across = x + length * math.sin(angle)
            down = length * math.cos(angle) - length
            return Verdict(
                reward=math.exp(-(across**2 + down**2) / length**2),
                cost=abs(angle) > MAX_ANGLE or abs(x) >= MAX_POSITION,
            )

        return judge


CARTPOLE = CartpoleLength(name="cartpole", gym_id="safemesa/CartpoleLength-v0")
