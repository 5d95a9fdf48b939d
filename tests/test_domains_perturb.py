"""Perturbations of any MuJoCo environment, against what they must do to its model."""

import dataclasses
import json
import math

import gymnasium
import jaxtyping
import numpy as np
import pytest

from safemesa.core.errors import ConfigurationError
from safemesa.domains.perturb import (
    PERTURBATIONS,
    ActionNoise,
    DisableActuator,
    ObservationNoise,
    PerturbedTasks,
    ScaleDamping,
    ScaleFriction,
    ScaleGravity,
    ScaleLength,
    ScaleMass,
    WeakenActuator,
    perturbation_from_parameters,
    perturbation_parameters,
)

mujoco = pytest.importorskip("mujoco", reason="needs safemesa[mujoco]")

EVERY_PERTURBATION = [
    WeakenActuator(actuator="leg_joint", gain=0.5),
    DisableActuator(actuator=2),
    ScaleMass(factor=1.5),
    ScaleMass(factor=0.5, bodies=("torso", "foot")),
    ScaleFriction(factor=0.3),
    ScaleFriction(factor=0.3, geoms=("foot_geom",)),
    ScaleDamping(factor=2.0),
    ScaleDamping(factor=2.0, joints=("leg_joint",)),
    ScaleGravity(factor=0.9),
    ScaleLength(body="leg", factor=0.8),
    ActionNoise(std=0.1),
    ObservationNoise(std=0.01),
]
ZOO = ["Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5"]
ZOO += ["InvertedDoublePendulum-v5", "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5"]
ZOO += ["Swimmer-v5", "Walker2d-v5"]


def never(model, data, obs) -> bool:
    return False


def low(model, data, obs) -> bool:
    return data.qpos[1] < 1.24


def nominal(rng, split):
    return ()


def heavy(rng, split):
    return (ScaleMass(factor=float(rng.uniform(1.0, 1.5 if split == "train" else 2.0))),)


def hopper(cost=never, **arguments) -> PerturbedTasks:
    return PerturbedTasks("Hopper-v5", heavy, cost=cost, **arguments)


def model_of(*perturbations, gym_id="Hopper-v5"):
    env = PerturbedTasks(gym_id, nominal, cost=never).make_env(perturbations)
    return env.unwrapped.stock.model


def rollout(env, steps: int, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    rows = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        rows.append(env.step(rng.uniform(env.action_space.low, env.action_space.high)))
    return rows


@pytest.mark.parametrize("gym_id", ZOO)
def test_an_empty_task_is_the_stock_environment_step_for_step(gym_id, tmp_path, monkeypatch):
    # Gymnasium's HalfCheetah makes MuJoCo write a log where it is.
    monkeypatch.chdir(tmp_path)
    domain = PerturbedTasks(gym_id, nominal, cost=never)
    ours = domain.make_env(())
    theirs = gymnasium.make(gym_id, disable_env_checker=True)
    assert domain.horizon == theirs.spec.max_episode_steps
    spaces = domain.spaces
    assert (spaces.obs_size,) == theirs.observation_space.shape
    assert spaces.dt == pytest.approx(theirs.unwrapped.dt)
    np.testing.assert_array_equal(spaces.action_low, theirs.action_space.low)
    (mine, *my_steps), (reference, *steps) = rollout(ours, 15), rollout(theirs, 15)
    np.testing.assert_array_equal(mine, reference)
    for my_step, step in zip(my_steps, steps, strict=True):
        np.testing.assert_array_equal(my_step[0], step[0])
        assert my_step[1:4] == tuple(step[1:4])
        assert my_step[4]["cost"] == 0.0


@pytest.mark.parametrize("perturbation", EVERY_PERTURBATION, ids=repr)
def test_every_perturbation_is_written_read_and_felt(perturbation):
    parameters = json.loads(json.dumps(perturbation_parameters(perturbation)))
    assert parameters["kind"] in PERTURBATIONS
    assert perturbation_from_parameters(parameters) == perturbation
    assert hash(perturbation) == hash(perturbation_from_parameters(parameters))
    domain = hopper()
    first, second = domain.make_env((perturbation,)), domain.make_env((perturbation,))
    once, again, stock = (rollout(env, 20) for env in (first, second, domain.make_env(())))
    np.testing.assert_array_equal(once[-1][0], again[-1][0])
    assert not np.array_equal(once[-1][0], stock[-1][0])
    assert np.isfinite(once[-1][0]).all()
    before = domain.task_parameters((perturbation,))
    assert first.reset(seed=0)[1]["task"] == before


def test_models_change_where_they_should_and_nowhere_else():
    stock = model_of()
    weak = model_of(WeakenActuator(actuator=1, gain=0.25))
    np.testing.assert_allclose(weak.actuator_gainprm[:, 0], [1.0, 0.25, 1.0])
    off = model_of(DisableActuator(actuator=0))
    np.testing.assert_allclose(off.actuator_gainprm[:, 0], [0.0, 1.0, 1.0])
    assert off.nu == 3
    heavy = model_of(ScaleMass(factor=2.0, bodies=("torso",)))
    np.testing.assert_allclose(heavy.body_mass / stock.body_mass.clip(1e-9), [0, 2, 1, 1, 1])
    np.testing.assert_allclose(heavy.body_inertia[1], 2.0 * stock.body_inertia[1])
    # Constants that follow from masses are computed anew.
    assert heavy.body_subtreemass[0] == pytest.approx(heavy.body_mass.sum())
    assert heavy.body_invweight0[1, 0] < stock.body_invweight0[1, 0]
    ice = model_of(ScaleFriction(factor=0.1))
    np.testing.assert_allclose(ice.geom_friction, 0.1 * stock.geom_friction)
    stiff = model_of(ScaleDamping(factor=3.0, joints=("leg_joint",)))
    np.testing.assert_allclose(stiff.dof_damping, [0, 0, 0, 1, 3, 1])
    np.testing.assert_allclose(model_of(ScaleGravity(factor=0.5)).opt.gravity, [0, 0, -4.905])
    both = model_of(ScaleMass(factor=2.0), ScaleMass(factor=2.0))
    np.testing.assert_allclose(both.body_mass, 4.0 * stock.body_mass)


@pytest.mark.parametrize(("gym_id", "body", "child"), [
    ("Hopper-v5", "thigh", "leg"),
    ("Hopper-v5", "leg", "foot"),
    ("Walker2d-v5", "torso", "thigh_left"),
    ("HalfCheetah-v5", "bthigh", "bshin"),
    ("Ant-v5", "aux_1", None),
])  # fmt: skip
def test_a_longer_link_moves_the_next_joint_away_from_its_own(gym_id, body, child):
    stock = model_of(gym_id=gym_id)
    longer = model_of(ScaleLength(body=body, factor=1.25), gym_id=gym_id)
    anchors = []
    for model in (stock, longer):
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        joint = model.body(body).jntadr[0]
        own = data.xanchor[joint] if body != "torso" else data.xpos[model.body(body).id]
        next_body = model.body(child).id if child else model.body(body).id + 1
        anchors.append((own.copy(), data.xanchor[model.body_jntadr[next_body]].copy()))
    (own, after), (own_longer, after_longer) = anchors
    np.testing.assert_allclose(own_longer, own, atol=1e-9)
    np.testing.assert_allclose(after_longer - own_longer, 1.25 * (after - own), atol=1e-9)
    index = stock.body(body).geomadr[0]
    assert longer.geom_size[index, 1] == pytest.approx(1.25 * stock.geom_size[index, 1])
    assert longer.geom_size[index, 0] == stock.geom_size[index, 0]
    if gym_id == "HalfCheetah-v5":
        assert longer.body_mass.sum() == pytest.approx(14.0)
    else:
        assert longer.body_mass[stock.body(body).id] > stock.body_mass[stock.body(body).id]


def test_the_cost_rule_sees_the_present_state():
    seen = []

    def cost(model, data, obs):
        fresh = mujoco.MjData(model)
        fresh.qpos[:], fresh.qvel[:], fresh.ctrl[:] = data.qpos, data.qvel, data.ctrl
        mujoco.mj_forward(model, fresh)
        np.testing.assert_array_equal(fresh.xpos, data.xpos)
        np.testing.assert_array_equal(fresh.contact.geom, data.contact.geom)
        np.testing.assert_array_equal(obs[:5], data.qpos[1:])
        seen.append(data.time)
        return data.qpos[1] < 1.24

    env = hopper(cost).make_env((), terminate_on_violation=False)
    rows = rollout(env, 25)[1:]
    np.testing.assert_allclose(seen, 0.008 * np.arange(1, 26))
    costs = [row[4]["cost"] for row in rows]
    assert costs == [float(row[0][0] < 1.24) for row in rows]
    assert 0.0 < np.mean(costs) < 1.0


def test_a_violation_ends_an_episode_and_so_does_the_environment_itself():
    by_violation = rollout_until_end(hopper(low).make_env(()))
    assert by_violation[2]
    assert by_violation[4]["cost"] == 1.0
    unhealthy = rollout_until_end(hopper(never).make_env(()))
    assert unhealthy[2]
    assert unhealthy[4]["cost"] == 0.0
    arguments = (("terminate_when_unhealthy", False),)
    endless = hopper(low, arguments=arguments, horizon=70)
    last = rollout_until_end(endless.make_env((), terminate_on_violation=False))
    assert not last[2]
    assert last[3]
    assert endless.spaces.horizon == 70


def rollout_until_end(env):
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(200):
        row = env.step(rng.uniform(env.action_space.low, env.action_space.high))
        if row[2] or row[3]:
            return row
    raise AssertionError("the episode did not end")


def test_noise_has_its_spread_and_the_robot_moves_on_without_it():
    domain = hopper()
    clean = domain.make_env(())
    noisy = domain.make_env((ObservationNoise(std=0.5),))
    pairs = [(clean.reset(seed=seed)[0], noisy.reset(seed=seed)[0]) for seed in range(100)]
    errors = np.array([mine - theirs for theirs, mine in pairs])
    assert errors.std() == pytest.approx(0.5, rel=0.1)
    assert abs(errors.mean()) < 0.05
    clean.reset(seed=0)
    noisy.reset(seed=0)
    for _ in range(5):
        clean.step(np.zeros(3))
        noisy.step(np.zeros(3))
    np.testing.assert_array_equal(clean.stock.data.qpos, noisy.stock.data.qpos)
    shaky = domain.make_env((ActionNoise(std=0.2),))
    applied = []
    for seed in range(100):
        shaky.reset(seed=seed)
        shaky.step(np.array([0.0, 0.5, 1.0]))
        applied.append(shaky.stock.data.ctrl.copy())
    spread = np.std(applied, axis=0)
    np.testing.assert_allclose(spread[:2], 0.2, rtol=0.2)
    assert np.max(applied) == 1.0


def test_tasks_are_drawn_written_and_read():
    domain = hopper(low)
    rng = np.random.default_rng(0)
    task = domain.sample_task(rng, "train")
    assert len(domain.train_tasks(3, rng)) == 3
    assert domain.fixed_tasks("train") == ()
    parameters = json.loads(json.dumps(domain.task_parameters(task)))
    assert domain.task_from_parameters(parameters) == task
    assert domain.name == "perturbed_Hopper-v5"
    assert domain.gym_id == "Hopper-v5"
    assert hash(domain) == hash(hopper(low))
    assert dataclasses.replace(domain, horizon=5).horizon == 5
    slower = hopper(low, arguments=(("frame_skip", 2),))
    assert slower.spaces.dt == pytest.approx(domain.spaces.dt / 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerturbedTasks("Hoper-v5", nominal, cost=never), "Hoper"),
        (lambda: PerturbedTasks("CartPole-v1", nominal, cost=never).make_env(()), "MujocoEnv"),
        (lambda: model_of(DisableActuator(actuator=7)), "no actuator 7.*3 in all"),
        (lambda: model_of(DisableActuator(actuator="knee")), "no actuator 'knee'.*thigh_joint"),
        (lambda: model_of(ScaleMass(factor=2.0, bodies=("head",))), "torso, thigh"),
        (lambda: model_of(ScaleLength(body="head", factor=2.0)), "torso, thigh"),
        (lambda: WeakenActuator(actuator=0, gain=-1.0), "0 or more"),
        (lambda: ScaleMass(factor=0.0), "above 0"),
        (lambda: ScaleLength(body="leg", factor=math.inf), "finite"),
        (lambda: ActionNoise(std=math.nan), "finite"),
        (lambda: perturbation_from_parameters({"kind": "scale_mas"}), "scale_mass"),
        (lambda: perturbation_from_parameters({"factor": 2.0}), "unknown perturbation"),
        (
            lambda: perturbation_from_parameters({"kind": "scale_mass", "weight": 2.0}),
            r"\['factor', 'bodies'\]",
        ),
        (lambda: hopper().task_from_parameters({"mass": 2.0}), "'perturbations'"),
        (lambda: hopper().task_from_parameters({"perturbations": None}), "given: .*None"),
        (lambda: hopper().task_from_parameters({"perturbations": [3]}), "'kind'.*given: 3"),
        (
            lambda: perturbation_from_parameters(
                {"kind": "weaken_actuator", "actuator": 0, "gain": "x"}
            ),
            "gain is 'x'; it must be a number",
        ),
        (lambda: ScaleMass(factor=True), "factor is True; it must be a number"),
        (lambda: WeakenActuator(actuator=0.7, gain=0.5), "actuator is 0.7"),
        (lambda: DisableActuator(actuator=True), "actuator is True"),
        (lambda: ScaleMass(factor=2.0, bodies="torso"), r"bodies is 'torso'; .*\('torso',\)"),
        (lambda: ScaleFriction(factor=2.0, geoms="foot"), "geoms is 'foot'"),
        (lambda: ScaleDamping(factor=2.0, joints="knee"), "joints is 'knee'"),
        (lambda: ScaleLength(body=2, factor=2.0), "body is 2"),
        (lambda: hopper(horizon=-5), "horizon is -5"),
        (lambda: hopper(arguments={"frame_skip": 2}), r"expected pairs .*\(\('frame_skip', 2\),\)"),
        (lambda: hopper(arguments=(("healthy_z_range", [0, 1]),)), "tuples in place of lists"),
        (lambda: hopper(arguments=(("frames", 2),)).spaces, "does not take .*'frames'"),
        (
            lambda: PerturbedTasks("Hopper-v5", lambda *_: ("heavy",), cost=never).sample_task(
                np.random.default_rng(0), "train"
            ),
            "a tuple of perturbations",
        ),
    ],
)
def test_mistakes_are_explained(make, message, monkeypatch):
    # Users have no type checks, which refuse some of these before we do.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_muscles_are_refused():
    spec = mujoco.MjSpec.from_string(
        """<mujoco><worldbody><body><joint name="j"/><geom size="1"/></body></worldbody>
        <actuator><muscle name="m" joint="j" lengthrange="0 1"/></actuator></mujoco>"""
    )
    with pytest.raises(ConfigurationError, match="muscle"):
        WeakenActuator(actuator="m", gain=0.5).apply(spec.compile())
