"""Maze against MuJoCo, against geometry done by hand, and against the rates of its logs."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from safemesa.core.errors import ConfigurationError
from safemesa.domains.maze import (
    ARENA,
    GAIN,
    MAX_ACTION,
    MAZE,
    SCRIPTED,
    UNIFORM,
    WALL_HALF,
    WALL_X,
    WALL_Y,
    MazeState,
    WallShifts,
)
from safemesa.domains.navigation import NAVIGATION1
from safemesa.domains.raster import BLUE, GREEN, RED
from safemesa.domains.sweep import time_to_box, time_to_disc
from safemesa.phases.collection.compiled import collect_test, log_rollouts
from safemesa.phases.config import DataConfig

CENTRED = WallShifts(jnp.float32(0.0), jnp.float32(0.0))
REACH = ARENA - MAZE.radius

jit_step = jax.jit(type(MAZE).step, static_argnums=0)
jit_touches = jax.jit(type(MAZE).touches, static_argnums=0)


def at(x: float, y: float, steps: int = 0) -> MazeState:
    return MazeState(jnp.array([x, y], jnp.float32), jnp.bool_(False), jnp.int32(steps))


def go(state: MazeState, action, task=CENTRED, maze=MAZE):
    return jit_step(maze, task, state, jnp.asarray(action, jnp.float32), key=jax.random.key(0))


def mujoco_maze(task: WallShifts):
    """The published maze, built from nothing; without its floor, which changes no motion."""
    mujoco = pytest.importorskip("mujoco")
    spec = mujoco.MjSpec()
    kinds, world = mujoco.mjtGeom, spec.worldbody
    for normal in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)):
        border = world.add_geom(type=kinds.mjGEOM_PLANE, size=[0.5, 0.5, 0.1])
        border.pos = -ARENA * np.array(normal)
        border.alt.type = mujoco.mjtOrientation.mjORIENTATION_ZAXIS
        border.alt.zaxis = normal
    shifts = (task.left, task.left, task.right, task.right)
    for x, y, shift in zip(WALL_X, WALL_Y, shifts, strict=True):
        size = [*WALL_HALF, 0.02]
        world.add_geom(type=kinds.mjGEOM_BOX, size=size, pos=[x, y + float(shift), 0.02])
    robot = world.add_body(pos=[0, 0, 0.025])
    robot.add_geom(type=kinds.mjGEOM_CYLINDER, size=[MAZE.radius, 0.025, 0], density=1000)
    for name, axis in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        robot.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
        push = spec.add_actuator(name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name)
        push.gear[0] = 0.05
    model = spec.compile()
    # MuJoCo 3 and 4 take another type in the specification, but not here.
    model.dof_damping[:] = 0.01
    return model


def mujoco_move(model, data, position, action) -> tuple[np.ndarray, bool]:
    """One action of one second, at rest before it; whether the robot touched anything."""
    import mujoco

    mujoco.mj_resetData(model, data)
    data.qpos[:], data.ctrl[:] = position, action
    clearance = WALL_HALF[0] + MAZE.radius + MAX_ACTION * GAIN
    near_wall = min(abs(abs(position[0]) - 0.1), abs(abs(position[0]) - ARENA)) < clearance
    if not near_wall and abs(position[1]) < ARENA - clearance:
        mujoco.mj_step(model, data, nstep=500)
        return data.qpos.copy(), bool(data.ncon)
    for _ in range(500):
        mujoco.mj_step(model, data)
        if data.ncon:
            return data.qpos.copy(), True
    # The contacts of a step are those of the state before it.
    mujoco.mj_forward(model, data)
    return data.qpos.copy(), bool(data.ncon)


def parity(steps: int, tasks: int) -> int:
    """Compares random steps from random places; returns how many touched something."""
    mujoco = pytest.importorskip("mujoco")
    rng = np.random.default_rng(0)
    touched = 0
    for _ in range(tasks):
        task = MAZE.sample_task(rng, "train")
        model = mujoco_maze(task)
        data = mujoco.MjData(model)
        for _ in range(steps // tasks):
            position = rng.uniform(-REACH, REACH, 2).astype(np.float32)
            while jit_touches(MAZE, task, position):
                position = rng.uniform(-REACH, REACH, 2).astype(np.float32)
            action = rng.uniform(-MAX_ACTION, MAX_ACTION, 2).astype(np.float32)
            # Half of the steps are as long as can be, so that many touch something.
            action = rng.choice([action, np.sign(action) * np.float32(MAX_ACTION)])
            moved, contact = mujoco_move(model, data, position, action)
            _, step = go(at(*position), action, task)
            assert bool(step.cost) == contact, (task, position, action)
            # At a contact MuJoCo is up to one of its steps further.
            tolerance = 2e-4 if contact else 1e-6
            np.testing.assert_allclose(step.obs - position, moved - position, atol=tolerance)
            touched += contact
    return touched


def test_steps_equal_those_of_mujoco():
    assert parity(200, tasks=4) > 10


@pytest.mark.slow
def test_two_thousand_steps_equal_those_of_mujoco():
    assert parity(2000, tasks=20) > 100


def test_a_free_step_moves_by_the_gain_and_rewards_the_state_after_it():
    state, step = go(at(-0.2, 0.0), [0.05, -0.02])
    np.testing.assert_allclose(state.position, [-0.2 + 0.05 * GAIN, -0.02 * GAIN], rtol=1e-5)
    np.testing.assert_array_equal(step.obs, state.position)
    to_goal = np.array([0.25, 0.0]) - np.asarray(step.obs)
    np.testing.assert_allclose(step.reward, -np.linalg.norm(to_goal) / math.sqrt(2.0), rtol=1e-5)
    assert (step.cost, step.terminated, step.truncated, step.success) == (0, False, False, False)
    assert state.steps == 1
    _, clipped = go(at(-0.2, 0.0), [7.0, 0.0])
    np.testing.assert_allclose(clipped.obs, [-0.2 + MAX_ACTION * GAIN, 0.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("start", "action", "stop"),
    [
        # The left wall ends at y = -0.05 below and begins at y = 0.3 above: a face, ...
        ((-0.14, -0.2), (0.1, 0.0), (-0.13, -0.2)),
        ((-0.06, -0.2), (-0.1, 0.0), (-0.07, -0.2)),
        # ... its end seen from the gap, ...
        ((-0.1, -0.01), (0.0, -0.1), (-0.1, -0.025)),
        # ... and a corner, met where the distance to it is the radius.
        ((-0.12, -0.02), (0.0, -0.1), (-0.12, -0.05 + math.sqrt(0.025**2 - 0.015**2))),
        # The borders of the arena.
        ((0.27, -0.2), (0.1, 0.0), (0.275, -0.2)),
        ((0.0, 0.26), (0.1, 0.1), (0.015, 0.275)),
    ],
)
def test_a_move_ends_where_the_disc_first_touches(start, action, stop):
    state, step = go(at(*start), action)
    np.testing.assert_allclose(state.position, stop, atol=1e-6)
    assert step.cost == 1.0
    assert step.terminated
    assert not step.success


def test_passing_by_a_corner_touches_nothing():
    _, step = go(at(-0.131, -0.03), [0.0, -0.1])
    assert step.cost == 0.0
    _, step = go(at(-0.129, -0.03), [0.0, -0.1])
    assert step.cost == 1.0


def test_after_a_contact_the_robot_stays_where_it_is():
    maze = dataclasses.replace(MAZE, terminate_on_violation=False)
    state, step = go(at(-0.14, -0.2), [0.1, 0.0], maze=maze)
    assert step.cost == 1.0
    assert not step.terminated
    frozen, again = go(state, [-0.1, 0.1], maze=maze)
    np.testing.assert_array_equal(frozen.position, state.position)
    assert again.cost == 1.0
    inside = maze.state_at(jnp.array([0.1, -0.2], jnp.float32))
    frozen, again = go(inside, [0.1, 0.1], maze=maze)
    np.testing.assert_array_equal(frozen.position, inside.position)
    assert again.cost == 1.0


def test_the_goal_and_the_horizon_end_an_episode():
    _, near = go(at(0.2, 0.0), [0.0, 0.0])
    assert not near.success
    _, arrived = go(at(0.2, 0.0), [0.04, 0.0])
    assert arrived.success
    assert arrived.terminated
    assert -0.03 < arrived.reward < 0.0
    _, last = go(at(-0.2, 0.0, steps=99), [0.0, 0.0])
    assert last.truncated
    assert not last.terminated
    _, both = go(at(0.22, 0.0, steps=99), [0.0, 0.0])
    assert both.terminated
    assert not both.truncated


coordinate = st.floats(-0.25, 0.25, width=32)
push = st.floats(-0.25, 0.25, width=32)


@settings(max_examples=60)
@given(x=coordinate, y=coordinate, action=st.tuples(push, push))
def test_laws_of_a_step(x, y, action):
    before = at(x, y)
    state, step = go(before, action)
    assert np.isfinite(step.obs).all()
    # Nothing is inside a wall after a step but what was there before: to rounding, it touches.
    smaller = dataclasses.replace(MAZE, radius=MAZE.radius - 1e-5)
    if not jit_touches(MAZE, CENTRED, before.position):
        assert not jit_touches(smaller, CENTRED, state.position)
    assert np.abs(step.obs - before.position).max() <= MAX_ACTION * GAIN + 1e-6
    if jit_touches(MAZE, CENTRED, state.position) and step.cost == 0.0:
        larger = dataclasses.replace(MAZE, radius=MAZE.radius + 1e-5)
        assert jit_touches(larger, CENTRED, state.position)
    assert not (step.terminated and step.truncated)
    assert [leaf.dtype for leaf in step] == [jnp.float32] * 3 + [jnp.bool_] * 3


def test_sweeps_agree_with_many_small_steps():
    rng = np.random.default_rng(0)
    half, radius = jnp.array([0.3, 0.5]), 0.4
    starts = jnp.asarray(rng.uniform(-1.0, 1.0, (300, 2)), jnp.float32)
    to_box = jax.jit(jax.vmap(time_to_box, in_axes=(0, None, None)))
    to_disc = jax.jit(jax.vmap(time_to_disc, in_axes=(0, None, None)))
    times = jnp.linspace(0.0, 1.0, 2001)
    for move in rng.uniform(-1.0, 1.0, (4, 2)).astype(np.float32):
        path = np.asarray(starts)[:, None, :] + np.asarray(times)[:, None] * move
        for inside, exact in (
            ((np.abs(path) <= np.asarray(half)).all(axis=-1), to_box(starts, move, half)),
            (np.sum(path**2, axis=-1) <= radius**2, to_disc(starts, move, radius)),
        ):
            outside_first = ~inside[:, 0]
            first = np.where(inside.any(axis=1), np.asarray(times)[inside.argmax(axis=1)], np.inf)
            expected = np.where(np.asarray(exact) > 1.0, np.inf, np.asarray(exact))
            hits = np.isfinite(first) & outside_first
            np.testing.assert_allclose(first[hits], expected[hits], atol=1e-3)
            # Small steps may miss a graze; they find nothing where there is none.
            assert (np.isfinite(first) & outside_first <= np.isfinite(expected)).all()


def test_starts_are_free_in_every_task():
    rng = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), 500)
    state, obs = jax.jit(jax.vmap(lambda key: MAZE.reset(CENTRED, key=key)))(keys)
    np.testing.assert_array_equal(obs, state.position)
    for _ in range(10):
        assert not jit_touches(MAZE, MAZE.sample_task(rng, "test"), obs).any()
    for axis, (low, high) in enumerate((MAZE.start_x, MAZE.start_y)):
        assert low <= obs[:, axis].min() < obs[:, axis].max() <= high


def test_the_data_collection_violates_as_often_as_the_published_one():
    rng = np.random.default_rng(0)
    rates = {UNIFORM: [], SCRIPTED: []}
    for index in range(8):
        task = MAZE.sample_task(rng, "train")
        block, running = log_rollouts(MAZE, task, jax.random.key(index))
        real, cost = np.asarray(running), np.asarray(block["cost"])
        # Scripted rollouts are those whose first action is the same whenever it is drawn.
        waypoints = np.array([(-0.15, -0.125), (0.15, 0.125), (0.25, 0.0)])
        start = np.asarray(block["obs"])[:, 0]
        goal = waypoints[(start[:, 0] > -0.151).astype(int) + (start[:, 0] > 0.149)]
        script = np.clip(1.05 * (goal - start), -MAX_ACTION, MAX_ACTION)
        scripted = np.isclose(np.asarray(block["action"])[:, 0], script, atol=1e-6).all(axis=1)
        assert 0.35 < scripted.mean() < 0.65
        assert real[~scripted].sum() > 0.9 * (~scripted).sum() * MAZE.log_length
        for mode, chosen in ((UNIFORM, ~scripted), (SCRIPTED, scripted)):
            rates[mode].append(cost[chosen][real[chosen]].mean())
    assert min(rates[UNIFORM]) > 0.10
    assert max(rates[UNIFORM]) < 0.35
    assert 0.15 < np.mean(rates[UNIFORM]) < 0.25
    assert 0.10 < np.mean(rates[SCRIPTED]) < 0.40


def test_rollouts_go_on_after_a_violation_and_end_at_the_goal():
    block, running = log_rollouts(MAZE, CENTRED, jax.random.key(0))
    real, cost = np.asarray(running), np.asarray(block["cost"]) == 1.0
    after = real[:, 1:] & cost[:, :-1]
    assert after.sum() > 100
    assert (cost[:, 1:] | ~after).all()
    np.testing.assert_array_equal(
        np.asarray(block["obs"])[:, 1:][after], np.asarray(block["next_obs"])[:, 1:][after]
    )
    ended = real & np.asarray(block["terminated"])
    assert ended.any()
    assert (np.asarray(block["reward"])[ended] > -MAZE.goal_radius).all()


@pytest.mark.parametrize(
    ("found", "words"),
    [(MAZE, "maze, not ended by violations"), (NAVIGATION1, "navigation1, ended by violations")],
)
def test_logs_say_whether_violations_ended_their_rollouts(found, words):
    data = DataConfig(train_tasks=1, train_transitions=1, test_transitions=1)
    assert words in collect_test(found, data, 0).provenance["policy"]


def test_tasks_are_plain_and_invertible():
    rng = np.random.default_rng(0)
    drawn = np.array([MAZE.sample_task(rng, "train") for _ in range(300)])
    assert -0.1 <= drawn.min() < -0.097
    assert 0.097 < drawn.max() <= 0.1
    task = MAZE.sample_task(rng, "test")
    parameters = MAZE.task_parameters(task)
    assert isinstance(parameters["left"], float)
    assert MAZE.task_from_parameters(parameters) == task
    with pytest.raises(ConfigurationError, match="'train' or 'test'"):
        MAZE.sample_task(rng, "validation")
    for wrong in ({}, {"left": 0.1}, {"left": 0.1, "right": math.nan}, {"left": "a", "right": 0}):
        with pytest.raises(ConfigurationError, match="maze task"):
            MAZE.task_from_parameters(wrong)


def test_the_image_shows_the_walls_where_they_are():
    task = WallShifts(jnp.float32(0.1), jnp.float32(-0.1))
    image = MAZE.render(task, at(-0.2, 0.1), size=310)
    # Two millimetres a pixel: x = -0.1 is column 105.
    column = (image[:, 105] == RED).all(axis=-1)
    gap = np.nonzero(~column)[0]
    np.testing.assert_allclose(0.31 - (gap.max() + 1) / 500, 0.05, atol=0.004)
    rows, columns = np.nonzero((image == BLUE).all(axis=-1))
    np.testing.assert_allclose(
        [columns.mean() / 500 - 0.31, 0.31 - rows.mean() / 500], [-0.2, 0.1], atol=0.004
    )
    assert (image == GREEN).all(axis=-1).sum() > 200
