"""Recordings: what could be lost at the end is refused at the start, and nothing is replaced."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from safemesa.core.costs import binary_cost, known_cost
from safemesa.core.errors import ConfigurationError, DatasetError, OutputFolderError
from safemesa.core.wrapped import require_physical_observations
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.write import import_logs
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.recorder import RecordLog


class Cart(gymnasium.Env):
    """Eight steps per episode; `change` spoils what a step returns."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, change=lambda *values: values) -> None:
        self.change = change

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.uniform(-0.8, 0.8, 2).astype(np.float32), 0
        return self.state.copy(), {}

    def step(self, action):
        self.state = self.state + np.float32(0.1) * float(action[0])
        self.steps += 1
        cost = float(abs(self.state[0]) > 1)
        values = (self.state.copy(), 0.0, False, self.steps >= 8, {"cost": cost})
        return self.change(*values)


def drive(env: gymnasium.Env, episodes: int = 2) -> None:
    for episode in range(episodes):
        env.reset(seed=episode)
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(np.full(1, 0.5, np.float32))
            ended = terminated or truncated


def imported(paths: list, out) -> OfflineTasks:
    import_logs(paths, ImportMap(), out)
    return OfflineTasks.load(out)


@pytest.mark.parametrize(
    "value",
    [
        None, float("nan"), float("inf"), np.float32("nan"), np.ma.masked, "0", "", b"1", [],
        [0, 1],
        np.zeros(2), np.ma.masked_array([0.0], [True]), object(), {"cost": 1}, np.datetime64("now"),
        1 + 0j, [[1], [2, 3]],
    ],
)  # fmt: skip
def test_an_unknown_cost_is_neither_safe_nor_a_violation(value):
    with pytest.raises(ConfigurationError, match=r"the rule is .*never taken for safe"):
        known_cost(value, "the rule")


@pytest.mark.parametrize("value", [0, 1, False, True, 1.0, np.float32(0), np.ones(1), np.bool_(1)])
def test_a_known_cost_is_its_number(value):
    assert binary_cost(value, "the rule") == float(np.asarray(value).reshape(()))


def test_costs_between_and_beyond_are_no_verdict():
    for value in (0.5, -1, 2, np.int64(7)):
        assert known_cost(value, "the rule") == float(value)
        with pytest.raises(ConfigurationError, match="expected 0 or 1"):
            binary_cost(value, "the rule")


@pytest.mark.parametrize(
    "rule", [lambda m, d, o: None, lambda m, d, o: np.nan, lambda m, d, o: "no"]
)
def test_a_cost_rule_that_says_nothing_is_named(rule):
    pytest.importorskip("mujoco")
    from safemesa.domains.perturb import PerturbedTasks

    env = PerturbedTasks("InvertedPendulum-v5", lambda rng, split: (), cost=rule).make_env(())
    env.reset(seed=0)
    with pytest.raises(ConfigurationError, match="cost rule '<lambda>' of perturbed_Inverted"):
        env.step(np.zeros(1, np.float32))
    env.close()


def test_wrappers_and_classes_of_an_id_are_not_dropped():
    pytest.importorskip("mujoco")
    from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
    from gymnasium.envs.registration import WrapperSpec

    from safemesa.domains.perturb import PerturbedTasks

    class OwnHopper(HopperEnv):
        pass

    scaled = WrapperSpec("TransformReward", "gymnasium.wrappers:TransformReward", {"func": abs})
    try:
        gymnasium.register("OwnHopper-v0", OwnHopper, max_episode_steps=9)
        gymnasium.register(
            "ScaledHopper-v0", OwnHopper, max_episode_steps=9, additional_wrappers=(scaled,)
        )
        gymnasium.register("CallHopper-v0", lambda **_: OwnHopper(), max_episode_steps=9)
        made = {
            name: PerturbedTasks(name, lambda rng, split: (), cost=lambda m, d, o: False)
            for name in ("OwnHopper-v0", "ScaledHopper-v0", "CallHopper-v0")
        }
        made["OwnHopper-v0"].make_env(()).close()
        with pytest.raises(ConfigurationError, match="TransformReward"):
            made["ScaledHopper-v0"].make_env(())
        with pytest.raises(ConfigurationError, match="Its entry point is <function"):
            made["CallHopper-v0"].make_env(())
    finally:
        for name in ("OwnHopper-v0", "ScaledHopper-v0", "CallHopper-v0"):
            gymnasium.registry.pop(name, None)


@pytest.mark.parametrize(
    "parameters", [{"mass": np.float32(1.5)}, {"count": np.int64(3)}, {"sizes": np.ones(2)}]
)
def test_parameters_of_numpy_are_kept(tmp_path, parameters):
    env = RecordLog(Cart(), tmp_path / "a.npz", parameters=parameters)
    drive(env)
    env.close()
    (log,) = imported([tmp_path / "a.npz"], tmp_path / "out").train
    assert log.parameters == {key: value.tolist() for key, value in parameters.items()}


@pytest.mark.parametrize(
    "arguments",
    [
        {"parameters": {"mass": float("nan")}}, {"parameters": {"mass": np.inf}},
        {"parameters": {"what": object()}}, {"parameters": {"when": np.datetime64("now")}},
        {"role": "tset"}, {"task": ""}, {"task": "nan"}, {"task": "x" * 200},
        {"dt": 0.0}, {"dt": float("nan")},
    ],
)  # fmt: skip
def test_what_could_not_be_saved_is_refused_when_the_recorder_is_made(tmp_path, arguments):
    with pytest.raises((ConfigurationError, DatasetError)):
        RecordLog(Cart(), tmp_path / "a.npz", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_place_where_nothing_can_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match="cannot write"):
        RecordLog(Cart(), tmp_path / "file" / "a.npz")


def test_a_recording_is_not_replaced(tmp_path):
    env = RecordLog(Cart(), tmp_path / "a.npz", task="arm 7")
    drive(env)
    with pytest.raises(OutputFolderError, match=r"'new'.*a recorder of 'arm 7' .* not closed"):
        RecordLog(Cart(), tmp_path / "a.npz", task="new")
    env.save()
    drive(env)
    env.close()
    with pytest.raises(OutputFolderError, match=r"'new'.*'arm 7', 32 steps.*a-2\.npz"):
        RecordLog(Cart(), tmp_path / "a.npz", task="new")
    # A second file of the same robot continues it; episodes are numbered on.
    more = RecordLog(Cart(), tmp_path / "a-2.npz", task="arm 7")
    drive(more, episodes=3)
    more.close()
    lines: list[str] = []
    import_logs([tmp_path], ImportMap(), tmp_path / "out", on_robots=lines.append)
    (log,) = OfflineTasks.load(tmp_path / "out").train
    assert (log.name, log.episodes, log.transitions) == ("arm 7", 7, 56)
    assert lines == ["1 robot from 2 files: arm 7 (2 files)."]


def test_two_recordings_of_one_file_name_are_two_robots(tmp_path):
    for day in ("a", "b"):
        env = RecordLog(Cart(), tmp_path / day / "robot.npz")
        drive(env)
        env.close()
    with pytest.raises(DatasetError, match="would both be the task 'robot'"):
        imported([tmp_path], tmp_path / "out")


def test_a_file_that_appears_meanwhile_is_not_replaced_either(tmp_path):
    env = RecordLog(Cart(), tmp_path / "a.npz")
    drive(env)
    (tmp_path / "a.npz").write_text("yours")
    with pytest.warns(UserWarning, match="a-2.npz"):
        env.close()
    assert (tmp_path / "a.npz").read_text() == "yours"
    assert len(np.load(tmp_path / "a-2.npz")["costs"]) == 16


def test_steps_outside_of_an_episode_are_refused(tmp_path):
    env = RecordLog(Cart(), tmp_path / "a.npz")
    with pytest.raises(DatasetError, match="before reset"):
        env.step(np.zeros(1, np.float32))
    drive(env, episodes=1)
    with pytest.raises(DatasetError, match="after the end of episode 0"):
        env.step(np.zeros(1, np.float32))
    env.close()


def test_an_episode_that_is_left_is_cut_off(tmp_path):
    env = RecordLog(Cart(), tmp_path / "a.npz")
    for episode in range(2):
        env.reset(seed=episode)
        for _ in range(3):
            env.step(np.zeros(1, np.float32))
    env.close()
    truncated = np.load(tmp_path / "a.npz")["truncations"]
    np.testing.assert_array_equal(truncated, [False, False, True] * 2)


def six(obs, reward, terminated, truncated, info) -> tuple:
    return obs, reward, info["cost"], terminated, truncated, {}


def test_six_values_are_taken(tmp_path):
    env = RecordLog(Cart(six), tmp_path / "a.npz")
    drive(env)
    env.reset(seed=0)
    assert "cost" in env.step(np.zeros(1, np.float32))[4]
    env.close()
    assert len(np.load(tmp_path / "a.npz")["costs"]) == 17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o, r, t, u, i: (o, r, t or u, i), "returned 4 values"),
        (lambda o, r, t, u, i: (o, r, t, u, i, 1, 2), "returned 7 values"),
        (lambda o, r, t, u, i: (o, r, t, u, None), "returned 5 values"),
        (lambda o, r, t, u, i: None, "returned 1 values"),
        (lambda o, r, t, u, i: (o, r, t, u, {}), "info has no 'cost'"),
        (lambda o, r, t, u, i: (o, r, t, u, {"cost": None}), "never taken for safe"),
        (lambda o, r, t, u, i: (o, r, t, u, {"cost": np.nan}), "never taken for safe"),
        (lambda o, r, t, u, i: (o[:1], r, t, u, i), "shape"),
        (lambda o, r, t, u, i: ("lost", r, t, u, i), "expected numbers"),
        (lambda o, r, t, u, i: (o, None, t, u, i), "the reward is"),
    ],
)
def test_what_a_step_must_return_is_said(tmp_path, change, message):
    env = RecordLog(Cart(change), tmp_path / "a.npz")
    env.reset(seed=0)
    with pytest.raises(ConfigurationError, match=message):
        env.step(np.zeros(1, np.float32))
    env.close()
    assert not list(tmp_path.iterdir())


class OwnNormaliser(gymnasium.ObservationWrapper):
    """A moving scale under another name."""

    obs_rms: Any = None

    def observation(self, observation):
        return observation


@pytest.mark.filterwarnings("ignore")
def test_normalised_observations_are_refused(tmp_path):
    for wrapped in (
        gymnasium.wrappers.NormalizeObservation(Cart()),
        gymnasium.wrappers.TimeLimit(gymnasium.wrappers.NormalizeObservation(Cart()), 5),
        OwnNormaliser(Cart()),
    ):
        with pytest.raises(ConfigurationError, match="moving average"):
            RecordLog(wrapped, tmp_path / "a.npz")
    vector = gymnasium.vector.SyncVectorEnv([Cart])
    with pytest.raises(ConfigurationError, match="moving average"):
        require_physical_observations(
            gymnasium.wrappers.vector.NormalizeObservation(vector), "the shield"
        )
    above = gymnasium.wrappers.NormalizeObservation(RecordLog(Cart(), tmp_path / "a.npz"))
    drive(above)
    above.close()
    assert len(np.load(tmp_path / "a.npz")["costs"]) == 16
