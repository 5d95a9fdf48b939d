"""MuJoCo domains: a robot with its tasks and rule, and the environments that are made of it."""

from dataclasses import dataclass

from safemesa.core.types import PyTree
from safemesa.domains.host import Environment
from safemesa.domains.mujoco_robot import (
    AbstractMujocoRobot,
    Rule as Rule,
    StockStep as StockStep,
    StockStepper as StockStepper,
    Verdict as Verdict,
    registered_horizon as registered_horizon,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractMujocoDomain(AbstractMujocoRobot):
    """A robot of Gymnasium whose tasks are perturbations of it."""

    def make_env(
        self,
        task: PyTree,
        *,
        render_mode: str | None = None,
        terminate_on_violation: bool | None = None,
    ) -> Environment:
        """The environment of one task."""
        # Here, so that tasks and spaces are known where MuJoCo is not installed.
        from safemesa.domains.mujoco_env import MujocoTaskEnv

        terminates = self.terminate_on_violation
        if terminate_on_violation is not None:
            terminates = terminate_on_violation
        return MujocoTaskEnv(self, task, render_mode=render_mode, terminate_on_violation=terminates)
