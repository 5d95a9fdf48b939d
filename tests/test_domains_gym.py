"""Pure-JAX domains behind the interface of Gymnasium."""

import copy
import subprocess
import sys
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env

from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, root_key
from safemesa.domains.gym import JaxDomainEnv
from safemesa.domains.navigation import NAVIGATION1, NAVIGATION2
from safemesa.domains.raster import BLUE, GREEN, RED
from safemesa.domains.registration import ENTRIES, register_environments
from safemesa.domains.registry import domain
from safemesa.phases.collection.tasks import sample_test_task, sample_train_tasks

register_environments()
JAX_NAMES = [name for name in ENTRIES if ENTRIES[name].entry_point.endswith(":JaxDomainEnv")]
RIGHT = np.array([1.0, 0.0], np.float32)


@pytest.mark.parametrize("name", JAX_NAMES)
def test_gymnasium_finds_nothing_to_complain_about(name):
    gym_id = ENTRIES[name].gym_id
    assert domain(name).gym_id == gym_id
    assert domain(name).name == name
    with warnings.catch_warnings():
        # Positions are unbounded, as are the observations of Gymnasium's own robots.
        warnings.filterwarnings("ignore", message=".*A Box observation space m.*infinity")
        check_env(gymnasium.make(gym_id, render_mode="rgb_array").unwrapped)
        check_env(gymnasium.make(gym_id, terminate_on_violation=False).unwrapped)


def test_registering_twice_changes_nothing_and_needs_no_jax():
    before = dict(gymnasium.registry)
    register_environments()
    assert dict(gymnasium.registry) == before
    assert gymnasium.spec("safemesa/Navigation1-v0").max_episode_steps is None
    code = (
        "import sys; from safemesa.domains.registration import register_environments;"
        "register_environments(); sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_episode_equals_the_compiled_scan():
    env = gymnasium.make("safemesa/Navigation2-v0", terminate_on_violation=False)
    obs, _ = env.reset(seed=5)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (100, 2)).astype(np.float32)
    rows = [env.step(action) for action in actions]

    episode_seed = seeding.np_random(5)[0].integers(2**32, dtype=np.uint32)
    key_reset, key_steps = jax.random.split(root_key(int(episode_seed), Stream.GYM_EPISODE))
    task = sample_test_task(NAVIGATION2, 0)
    state, first = NAVIGATION2.reset(task, key=key_reset)
    np.testing.assert_array_equal(obs, first)

    def body(state, action):
        key = jax.random.fold_in(key_steps, state.steps)
        return NAVIGATION2.step(task, state, action, key=key)

    _, steps = jax.lax.scan(body, state, jnp.asarray(actions))
    np.testing.assert_allclose([row[0] for row in rows], steps.obs, rtol=1e-6)
    np.testing.assert_allclose([row[1] for row in rows], steps.reward, rtol=1e-6)
    np.testing.assert_array_equal([row[3] for row in rows], steps.truncated)
    np.testing.assert_array_equal([row[4]["cost"] for row in rows], steps.cost)
    assert [row[3] for row in rows] == [False] * 99 + [True]


def test_a_violation_is_reported_and_ends_the_episode_if_asked():
    for terminate in (True, False):
        env = gymnasium.make("safemesa/Navigation2-v0", terminate_on_violation=terminate)
        env.reset(seed=0)
        for _ in range(60):
            obs, reward, terminated, truncated, info = env.step(RIGHT)
            assert set(info) == {"cost", "success"}
            assert type(info["cost"]) is float
            assert type(info["success"]) is bool
            assert type(reward) is float
            assert type(terminated) is bool
            assert type(truncated) is bool
            assert obs.dtype == np.float32
            if info["cost"]:
                break
        assert info["cost"] == 1.0
        assert terminated is terminate
        assert NAVIGATION2.violates(obs)


def test_a_success_is_reported():
    env = gymnasium.make("safemesa/Navigation1-v0", task={"a": np.eye(2), "b": np.eye(2)})
    obs, _ = env.reset(seed=0)
    terminated = False
    while not terminated:
        obs, reward, terminated, truncated, info = env.step(-obs)
        assert not truncated
    assert info == {"cost": 0.0, "success": True}
    assert reward > -1.0


def test_seeds_reproduce_an_episode():
    def episode(env, seed):
        env.action_space.seed(0)
        observations = [env.reset(seed=seed)[0]]
        for _ in range(20):
            observations.append(env.step(np.array([-0.2, 0.1]))[0])
        return np.stack(observations)

    one, other = (gymnasium.make("safemesa/Navigation1-v0") for _ in range(2))
    np.testing.assert_array_equal(episode(one, 3), episode(other, 3))
    assert not np.array_equal(episode(one, 3), episode(other, 4))
    # Without a seed the generator goes on, so that episodes differ.
    assert not np.array_equal(one.reset()[0], one.reset()[0])


def test_the_task_is_chosen_by_seed_by_parameters_or_by_value():
    default = gymnasium.make("safemesa/Navigation1-v0").reset(seed=0)[1]["task"]
    assert default == gymnasium.make("safemesa/Navigation1-v0", task_seed=0).reset()[1]["task"]
    other = gymnasium.make("safemesa/Navigation1-v0", task_seed=1).reset()[1]["task"]
    assert default != other
    assert other["b"][0][0] >= 0.55
    by_parameters = gymnasium.make("safemesa/Navigation1-v0", task=other)
    assert by_parameters.reset()[1]["task"] == other
    task = NAVIGATION1.task_from_parameters(other)
    by_value = gymnasium.make("safemesa/Navigation1-v0", task=task)
    assert by_value.reset()[1]["task"] == other


def test_the_drawn_task_is_the_robot_of_a_runs_seed_and_no_training_robot():
    for seed in range(3):
        drawn = JaxDomainEnv("maze", task_seed=seed).task
        robot = sample_test_task(domain("maze"), seed)
        assert all(np.array_equal(*pair) for pair in zip(drawn, robot, strict=True))
        (train,) = sample_train_tasks(domain("maze"), 1, seed)
        assert not all(np.array_equal(*pair) for pair in zip(drawn, train, strict=True))


def test_environments_of_a_domain_share_one_compilation(compile_counter):
    first = JaxDomainEnv(NAVIGATION2)
    first.reset(seed=0)
    first.step(RIGHT)
    with compile_counter() as counts:
        for task_seed in range(3):
            env = JaxDomainEnv("navigation2", task_seed=task_seed)
            env.reset(seed=task_seed)
            env.step(-RIGHT)
    assert counts["step"] == 0
    assert counts["reset"] == 0


def test_actions_are_clipped_and_nonsense_is_refused():
    env = JaxDomainEnv("navigation1")
    with pytest.raises(ResetNeeded):
        env.step(RIGHT)
    env.reset(seed=0)
    inside = copy.deepcopy(env).step(np.array([1.0, -1.0]))
    outside = copy.deepcopy(env).step(np.array([1e300, -np.inf]))
    np.testing.assert_array_equal(inside[0], outside[0])
    for wrong in ([np.nan, 0.0], [0.0], [[0.0, 0.0]], ["left", "up"], [None, 0.0]):
        with pytest.raises(ConfigurationError, match="must be 2 numbers"):
            env.step(np.asarray(wrong))
    np.testing.assert_array_equal(copy.deepcopy(env).step([1.0, -1.0])[0], inside[0])
    obs = env.step(RIGHT)[0]
    obs[:] = 0.0
    assert abs(env.step(RIGHT)[0][0]) > 10.0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"domain": "navigation3"}, "Did you mean 'navigation"),
        ({"domain": "navigation1", "render_mode": "human"}, "rgb_array"),
        ({"domain": "navigation1", "task_seed": -1}, "negative"),
        ({"domain": "navigation1", "task": {"b": 1}}, "exactly the parameters"),
        ({"domain": "navigation1", "task": 3}, "LinearDynamics"),
    ],
)
def test_wrong_arguments_are_explained(keywords, message):
    with pytest.raises(ConfigurationError, match=message):
        JaxDomainEnv(**keywords)


@pytest.mark.parametrize("name", JAX_NAMES)
def test_images_show_the_robot_and_the_obstacles(name):
    env = JaxDomainEnv(name, render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    image = env.render()
    assert image is not None
    assert image.shape == (400, 400, 3)
    assert image.dtype == np.uint8
    counts = {colour: int((image == colour).all(axis=-1).sum()) for colour in (RED, GREEN, BLUE)}
    assert counts[RED] > 100
    assert counts[BLUE] > 20
    if env.domain.has_success:
        assert counts[GREEN] > 20
    assert JaxDomainEnv(name).render() is None


def test_the_image_is_the_right_way_up():
    env = JaxDomainEnv("navigation1", render_mode="rgb_array")
    state, _ = NAVIGATION1.reset(env.task, key=jax.random.key(0))
    high = NAVIGATION1.render(env.task, state._replace(position=jnp.array([0.0, 15.0])), size=100)
    rows, columns = np.nonzero((high == BLUE).all(axis=-1))
    assert high.shape == (100, 100, 3)
    assert rows.mean() < 20
    assert 55 < columns.mean() < 75
    reds = (high == RED).all(axis=-1)
    assert reds[:, 50].any()
    assert not reds[50, 30:].any()
    assert reds[50, 5:12].any()


def test_vector_environments_carry_costs():
    envs = gymnasium.make_vec("safemesa/Navigation1-v0", num_envs=3, vectorization_mode="sync")
    envs.reset(seed=0)
    _, _, _, _, info = envs.step(envs.action_space.sample())
    assert info["cost"].shape == (3,)
    envs.close()
