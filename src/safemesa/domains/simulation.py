"""MuJoCo behind the domains: building perturbed robots, and judging positions.

After MuJoCo has stepped, positions are new, but contacts and everything else derived from positions
belong to the state before the last substep. What judges a step therefore works on a second
`MjData`, so that the simulation of a nominal robot remains Gymnasium's, bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import DependencyNotInstalled

from safemesa.core.errors import ConfigurationError
from safemesa.domains.perturbation_base import (
    AbstractModelPerturbation,
    AbstractPerturbation,
    AbstractShapePerturbation,
    Data,
    Model,
)

try:
    import mujoco as untyped_mujoco
    from gymnasium.envs.mujoco import MujocoEnv
except (ImportError, DependencyNotInstalled) as error:
    raise ConfigurationError(
        f"this domain is simulated by MuJoCo, which cannot be imported: {error}\n"
        "If it is not installed: pip install 'safemesa[mujoco]'"
    ) from error

# What is compiled in MuJoCo has no types that pyright could read.
mujoco: Any = untyped_mujoco


def build_stock(
    stock_id: str, perturbations: Sequence[AbstractPerturbation], arguments: dict[str, Any]
) -> MujocoEnv:
    """The environment of a Gymnasium id, unwrapped, around a perturbed robot.

    Raises:
        ConfigurationError: the id is unknown, is no MuJoCo environment of Gymnasium's form, does
            not take an argument, or a perturbation does not fit its robot.
    """
    try:
        spec = gymnasium.spec(stock_id)
        entry = spec.entry_point
        creator = load_env_creator(entry) if isinstance(entry, str) else entry
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigurationError(f"Gymnasium cannot make {stock_id!r}: {error}") from error
    if not (isinstance(creator, type) and issubclass(creator, MujocoEnv)):
        raise ConfigurationError(
            f"{stock_id!r} cannot be perturbed: its class must derive from "
            "gymnasium.envs.mujoco.MujocoEnv, as that of 'Walker2d-v5' does. Its entry point is "
            f"{spec.entry_point!r}."
        )
    if spec.additional_wrappers:
        names = ", ".join(one.name for one in spec.additional_wrappers)
        raise ConfigurationError(
            f"{stock_id!r} is registered with wrappers ({names}), and only the bare robot can be "
            "perturbed: they would be left out. Register it without them, or wrap what "
            "`make_env` returns."
        )

    class PerturbedRobot(creator):
        """The stock environment with another model; nothing else differs."""

        def _initialize_simulation(self) -> tuple[Model, Data]:
            model = compile_perturbed(self.fullpath, perturbations)
            frame = model.vis.global_
            frame.offwidth = max(frame.offwidth, self.width)
            frame.offheight = max(frame.offheight, self.height)
            return model, mujoco.MjData(model)

    try:
        return PerturbedRobot(**{**spec.kwargs, **arguments})
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigurationError(
            f"{stock_id!r} does not take these arguments: {error}. Given: {', '.join(arguments)}."
        ) from error


def compile_perturbed(path: str, perturbations: Sequence[AbstractPerturbation]) -> Model:
    """Compiles the robot of a file after changing its shapes, then changes its parameters."""
    spec = mujoco.MjSpec.from_file(path)
    # MuJoCo 4 warns of this attribute at each compilation; what it says to do instead is the same.
    total_mass = spec.compiler.settotalmass
    spec.compiler.settotalmass = -1
    for perturbation in perturbations:
        if isinstance(perturbation, AbstractShapePerturbation):
            perturbation.reshape(spec)
    model = spec.compile()
    if total_mass > 0:
        mujoco.mj_setTotalmass(model, total_mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    of_model = [item for item in perturbations if isinstance(item, AbstractModelPerturbation)]
    for perturbation in of_model:
        perturbation.apply(model)
    if of_model:
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def become(model: Model, other: Model) -> None:
    """Gives a model, in place, all parameters of another one of the same robot.

    The simulation around it goes on from where it is.

    Raises:
        ConfigurationError: they differ in their parts.
    """
    for name in dir(model):
        value = getattr(model, name)
        if name.startswith("n") and isinstance(value, int) and value != getattr(other, name):
            raise ConfigurationError(
                f"the robot cannot change so in a run: {name} of its model is {value} and would "
                f"become {getattr(other, name)}. Change parameters, not which parts there are."
            )
    for name in dir(model):
        value = getattr(model, name)
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value[...] = getattr(other, name)
    for part in ("opt", "stat"):
        ours, others = getattr(model, part), getattr(other, part)
        for name in dir(ours):
            value = getattr(ours, name)
            if isinstance(value, np.ndarray):
                value[...] = getattr(others, name)
            elif isinstance(value, int | float) and not name.startswith("_"):
                setattr(ours, name, getattr(others, name))


class ModelValues:
    """The values of all parameters that perturbations change, to put back at each reset."""

    def __init__(self, model: Model) -> None:
        """Copies them from a model."""
        self._model = model
        self._arrays = [(array, array.copy()) for array in parameter_arrays(model)]

    def restore(self) -> None:
        """Makes the model bit-equal to what it was."""
        for array, value in self._arrays:
            array[...] = value


def parameter_arrays(model: Model) -> list[np.ndarray]:
    """Views of the floating-point parameters of bodies, joints, geoms, actuators, and gravity."""
    prefixes = ("body_", "jnt_", "dof_", "geom_", "actuator_", "pair_", "tendon_", "qpos0")
    arrays = [model.opt.gravity]
    for name in dir(model):
        if name.startswith(prefixes):
            value = getattr(model, name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
                arrays.append(value)
    return arrays


def contact_test(model: Model, data: Data, *, floor: str, geom: str) -> Callable[[], bool]:
    """A function that says whether a geom touches the floor at the present positions.

    It looks for the pair in the list of contacts, so contacts within the margin of the two geoms
    count, whatever their distance. Where the geom is too high for any, the list is not made.
    """
    judged = mujoco.MjData(model)
    mujoco.mj_kinematics(model, judged)
    below, above = int(model.geom(floor).id), int(model.geom(geom).id)
    is_level = judged.geom_xmat[below, 8] == 1.0 and model.geom_bodyid[below] == 0
    if model.geom_type[below] != mujoco.mjtGeom.mjGEOM_PLANE or not is_level:
        raise ConfigurationError(f"geom {floor!r} is not a level plane fixed in the world.")
    margin = model.geom_margin[below] + model.geom_margin[above]
    reach = judged.geom_xpos[below, 2] + model.geom_rbound[above] + margin + 1e-6
    centre = judged.geom_xpos[above]
    positions, copied = data.qpos, judged.qpos

    def touches() -> bool:
        copied[:] = positions
        mujoco.mj_kinematics(model, judged)
        if centre[2] > reach:
            return False
        mujoco.mj_collision(model, judged)
        pairs = judged.contact.geom.tolist()
        return [below, above] in pairs or [above, below] in pairs

    return touches


def refreshed(model: Model, data: Data) -> Callable[[], Data]:
    """A function that gives a copy of `data` in which everything belongs to the present state.

    It is the same copy at each call.
    """
    judged = mujoco.MjData(model)
    everything = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    state = np.empty(mujoco.mj_stateSize(model, everything))

    def refresh() -> Data:
        mujoco.mj_getState(model, data, state, everything)
        mujoco.mj_setState(model, judged, state, everything)
        mujoco.mj_forward(model, judged)
        # Contact forces of bodies (cfrc_ext), as Gymnasium computes them after each step.
        mujoco.mj_rnePostConstraint(model, judged)
        return judged

    return refresh
