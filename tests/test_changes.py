"""Robots that change in a run: dynamics are a function of configuration, seed and step."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_phases_host import InterruptError, dying_save
from tiny import episodes_of, tiny_config

from safemesa.core.errors import ConfigurationError
from safemesa.domains.base import AbstractJaxDomain, sample_test_task
from safemesa.domains.changes import changed_parameters, changed_task, task_between
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.perturb import PerturbedTasks
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.report.video import write_video
from safemesa.phases.change_text import planned_changes
from safemesa.phases.config import DeployConfig, RunConfig, config_from_json, config_to_json
from safemesa.phases.deployment.abstract_agent import AbstractAgent, Act
from safemesa.phases.deployment.deploy_state import Chunk, DeployState, deploy_roots
from safemesa.phases.deployment.deployment import CompiledDeployment, HostDeployment
from safemesa.phases.deployment.host import HostEnvironment
from safemesa.phases.deployment.run_recorder import summarise
from safemesa.phases.deployment.timeline import (
    STAGES,
    check_changes,
    recorded_changes,
    timeline,
)
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings(
    "ignore::safemesa.phases.collection.logs.FewViolationsWarning"
)

HALF = '{"times": {"b": 0.5}}'


def config_of(domain: str, *changes: str, seed: int = 7, **deploy: Any) -> RunConfig:
    config = tiny_config("unconstrained", domain, seed)
    return replace(config, deploy=replace(config.deploy, change=changes, **deploy))


@dataclass(frozen=True, kw_only=True)
class Dice(AbstractAgent):
    """Acts at random and learns nothing."""

    gamma_risk: float = 0.9  # pyright: ignore[reportIncompatibleMethodOverride]
    warmup_steps: int = 0  # pyright: ignore[reportIncompatibleMethodOverride]
    learning_starts: int = 10**6  # pyright: ignore[reportIncompatibleMethodOverride]

    def first_rows(self, model: Any, test_log: Any) -> Any:
        return np.zeros((0, self.layout.width), np.float32)

    def initial(self, model: Any, *, key: Any) -> Any:
        return ()

    def act(self, state: Any, obs: Any, warmup: Any, *, key: Any) -> Act:
        action = jax.random.uniform(key, (self.spaces.action_size,), minval=-1.0)
        return Act(action, action, jnp.zeros(()), jnp.zeros(()), jnp.zeros((), bool))

    def after(self, state: Any, act: Act, length: Any, done: Any) -> Any:
        return state

    def learn(self, state: Any, replay: Any, violations: Any, *, key: Any) -> Any:
        raise NotImplementedError

    def chunk_metrics(self, state: Any, replay: Any, violations: Any, *, key: Any) -> Any:
        return {}

    def deployed(self, state: Any) -> None:
        return None


def driven(
    config: RunConfig, start: DeployState | None = None
) -> tuple[dict[str, np.ndarray], list[DeployState]]:
    """The rows of a run of `Dice`, by column, and its state at the end of each chunk."""
    domain = find_domain(config.domain)
    agent = Dice(config=config.deploy, spaces=domain.spaces)
    kind: Any = CompiledDeployment if isinstance(domain, AbstractJaxDomain) else HostDeployment
    deployment = kind(
        agent=agent, configs=[config], timelines=[timeline(domain, config)], domain=domain
    )
    states: list[DeployState] = []

    def keep(seed: int, chunk: Chunk) -> None:
        states.append(jax.tree.map(lambda leaf: jnp.array(leaf), chunk.state))

    first = deployment.start(0, None, None) if start is None else start
    (final,) = deployment.advance([first], keep)
    deployment.close()
    rows = np.asarray(final.replay.rows)[: int(final.step)]
    return {k: np.asarray(v) for k, v in agent.layout.unpack(jnp.asarray(rows)).items()}, states


# How changes are written


def test_changes_are_read_as_written() -> None:
    sudden, drawn, sag = planned_changes(
        ['100:{"length": 0.5}', "200..300:drawn", '301+50:{"times": {"length": 2}}']
    )
    assert (sudden.first, sudden.last, sudden.duration, sudden.end) == (100, 100, 0, 100)
    assert sudden.parameters == {"length": 0.5}
    assert (drawn.first, drawn.last, drawn.parameters) == (200, 300, None)
    assert (sag.duration, sag.end) == (50, 351)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["soon:drawn"], "expected STEP:PARAMETERS"),
        (["100"], "expected STEP:PARAMETERS"),
        (["-5:drawn"], "expected STEP:PARAMETERS"),
        (["1e3:drawn"], "expected STEP:PARAMETERS"),
        (["0:drawn"], "1 or later"),
        (["30..20:drawn"], "a range that rises"),
        (["30+1:drawn"], "2 or more"),
        (["30:{length: 1}"], "no JSON"),
        (['30:{"length": NaN}'], "no JSON: NaN"),
        (['30:{"length": 1, "length": 2}'], "a key is there twice"),
        (["30:[1]"], "a JSON object"),
        (["30:{}"], "at least one key"),
        (["30:drawn", "30:drawn"], "after the one before"),
        (["30+20:drawn", "49:drawn"], "complete at step 50"),
        (["30..60:drawn", "50:drawn"], "complete at step 60"),
    ],
)
def test_nonsense_is_refused_with_what_was_expected(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        DeployConfig(change=tuple(texts))


def test_a_configuration_keeps_its_changes_and_older_ones_have_none() -> None:
    config = config_of("navigation2", f"20:{HALF}")
    values = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(RunConfig, values) == config
    del values["deploy"]["change"]
    assert config_from_json(RunConfig, values).deploy.change == ()


# Which task a step has


def test_a_timeline_has_the_tasks_that_were_asked_for() -> None:
    domain = find_domain("cartpole")
    config = config_of("cartpole", '50:{"length": 0.5}', '60+10:{"times": {"length": 2.0}}')
    tasks = timeline(domain, config)
    assert [tasks.task(step).length for step in (0, 49, 50, 60)] == [1.0, 1.0, 0.5, 0.5]
    sagging = [tasks.task(60 + k).length for k in range(11)]
    np.testing.assert_allclose(sagging, np.linspace(0.5, 1.0, 11), rtol=1e-12)
    assert tasks.task(10**6).length == sagging[-1] == 1.0
    assert [(one.step, one.complete) for one in tasks.changes] == [(50, 50), (60, 70)]


def test_long_gradual_changes_go_in_a_hundred_equal_stages() -> None:
    config = config_of("cartpole", '50+1000:{"length": 2.0}', episodes=50)
    tasks = timeline(find_domain("cartpole"), config)
    assert len(tasks.tasks) == STAGES + 1
    assert set(np.diff(tasks.starts[1:])) == {10}
    assert tasks.starts[-1] == 1050
    assert [tasks.task(step).length for step in (59, 60, 1049, 1050)] == [1.0, 1.01, 1.99, 2.0]


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    domain = find_domain("cartpole")
    change = "50..200:drawn"
    drawn = [timeline(domain, config_of("cartpole", change, seed=seed)) for seed in range(30)]
    again = timeline(domain, replace(config_of("cartpole", change, seed=3), arm="mesa"))
    assert again.starts == drawn[3].starts
    assert again.tasks == drawn[3].tasks
    steps = {one.changes[0].step for one in drawn}
    lengths = {one.changes[0].task.length for one in drawn}
    assert len(steps) > 15
    assert min(steps) >= 50
    assert max(steps) <= 200
    assert len(lengths) == 30
    assert all(0.4 <= length <= 0.8 for length in lengths)


def test_a_change_may_add_perturbations_and_they_stay() -> None:
    domain = find_domain("cartpole")
    stiff = changed_task(
        domain,
        sample_test_task(domain, 0),
        {"also": [{"kind": "scale_damping", "factor": 3.0}], "times": {"length": 0.5}},
    )
    longer = changed_task(domain, stiff, {"length": 2.0})
    also = [{"kind": "scale_damping", "factor": 3.0, "joints": []}]
    assert changed_parameters(domain, stiff) == {"length": 0.5, "also": also}
    assert changed_parameters(domain, longer) == {"length": 2.0, "also": also}
    half = task_between(domain, sample_test_task(domain, 0), longer, 0.5)
    assert changed_parameters(domain, half)["also"][0]["factor"] == 2.0  # from 1, which is none


# Compiled domains


@pytest.fixture(scope="module")
def unchanged() -> dict[str, np.ndarray]:
    return driven(config_of("navigation2", chunk_steps=20))[0]


def test_compiled_dynamics_are_those_of_the_other_task_from_the_step_on(
    unchanged: dict[str, np.ndarray],
) -> None:
    at = 37
    config = config_of("navigation2", f"{at}:{HALF}", chunk_steps=20)
    changed, _ = driven(config)
    for name in unchanged:
        np.testing.assert_array_equal(changed[name][:at], unchanged[name][:at])
    assert (changed["next_obs"][at] != unchanged["next_obs"][at]).any()
    domain = cast(Any, find_domain("navigation2"))
    before = sample_test_task(domain, config.seed)
    after = changed_task(domain, before, json.loads(HALF))
    np.testing.assert_array_equal(after.b, before.b * 0.5)
    roots = deploy_roots(config.seed)
    take = jax.jit(domain.step)
    for step in range(at - 5, len(changed["obs"])):
        state = domain.state_at(jnp.asarray(changed["obs"][step]))
        action = domain.spaces.from_unit(jnp.asarray(changed["action"][step]))
        task = before if step < at else after
        _, result = take(task, state, action, key=jax.random.fold_in(roots.env, step))
        np.testing.assert_allclose(changed["next_obs"][step], result.obs, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        f"33+19:{HALF}",
        pytest.param(f"37:{HALF}", marks=pytest.mark.slow),
        pytest.param(f"20..60:{HALF}", marks=pytest.mark.slow),
    ],
)
def test_a_compiled_run_resumes_through_a_change(change: str) -> None:
    config = config_of("navigation2", change, chunk_steps=20)
    whole, states = driven(config)
    for state in states[:-1]:  # before, within and after the change
        resumed, _ = driven(config, state)
        for name in whole:
            np.testing.assert_array_equal(resumed[name], whole[name])


def test_gradual_control_loss_is_linear_in_the_step() -> None:
    tasks = timeline(find_domain("navigation2"), config_of("navigation2", f"30+10:{HALF}")).arrays
    gains = np.asarray(tasks.tasks.b[:, 0, 0])
    np.testing.assert_array_equal(tasks.starts, [0, *range(31, 41)])
    np.testing.assert_allclose(gains / gains[0], np.linspace(1.0, 0.5, 11), rtol=1e-6)


@pytest.mark.slow
def test_seeds_side_by_side_change_at_steps_of_their_own() -> None:
    domain = cast(AbstractJaxDomain, find_domain("navigation2"))
    configs = [config_of("navigation2", f"20..90:{HALF}", seed=seed) for seed in (1, 2)]
    agent = Dice(config=configs[0].deploy, spaces=domain.spaces)
    both = CompiledDeployment(
        agent=agent,
        configs=configs,
        timelines=[timeline(domain, one) for one in configs],
        domain=domain,
    )
    starts = [both.start(index, None, None) for index in range(2)]
    assert both.timelines[0].starts != both.timelines[1].starts
    for config, final in zip(configs, both.advance(starts, lambda *_: None), strict=True):
        alone, _ = driven(config)
        rows = agent.layout.unpack(final.replay.rows[: int(final.step)])
        np.testing.assert_allclose(rows["next_obs"], alone["next_obs"], rtol=1e-5, atol=1e-5)


# Simulators

WORN = {
    "cartpole": {"length": 0.5},
    "halfcheetah": {"times": {"gains": [1, 0.2, 1, 1, 1, 1]}},
    "ant": {"gains": [1, 0, 1, 0]},
}


def rollout(env: Any, seed: int, steps: int, change: Any = None, at: int = 10) -> np.ndarray:
    """Observations and rewards of random actions; before step `at` the robot changes."""
    rng, seen = np.random.default_rng(0), [np.append(env.reset(seed=seed)[0], 0.0)]
    for step in range(steps):
        if step == at and change is not None:
            env.change_task(change)
        obs, reward, *_ = env.step(rng.uniform(env.action_space.low, env.action_space.high))
        seen.append(np.append(obs, reward))
    return np.array(seen)


@pytest.mark.parametrize("name", WORN)
def test_a_simulated_robot_changes_between_two_steps(name: str) -> None:
    pytest.importorskip("mujoco")
    domain = cast(AbstractHostDomain, find_domain(name))
    before = sample_test_task(domain, 0)
    after = changed_task(domain, before, WORN[name])
    changing, constant, fresh, idle = (
        domain.make_env(task, terminate_on_violation=False)
        for task in (before, before, after, before)
    )
    unchanged, changed = rollout(constant, 3, 30), rollout(changing, 3, 30, after)
    # A change to what it is already disturbs nothing: the state is kept to the last bit.
    np.testing.assert_array_equal(rollout(idle, 3, 30, before), unchanged)
    np.testing.assert_array_equal(changed[:11], unchanged[:11])
    assert (changed[11] != unchanged[11]).any()
    # What comes later is a robot of the other task, reward and all.
    np.testing.assert_array_equal(rollout(changing, 4, 20), rollout(fresh, 4, 20))


def test_a_changed_step_is_one_of_the_other_robot_in_the_same_state() -> None:
    pytest.importorskip("mujoco")
    domain = cast(AbstractHostDomain, find_domain("cartpole"))
    before = sample_test_task(domain, 0)
    after = changed_task(domain, before, {"length": 0.5})
    changing, other = (cast(Any, domain.make_env(task)) for task in (before, after))
    rollout(changing, 3, 4)
    changing.change_task(after)
    assert other.observe_again(np.concatenate([changing.stock.data.qpos, changing.stock.data.qvel]))
    other.stock.data.qacc_warmstart[:] = changing.stock.data.qacc_warmstart
    push = np.array([1.0])
    np.testing.assert_array_equal(changing.step(push)[0], other.step(push)[0])


def test_a_battery_that_sags_weakens_the_motor_by_stages() -> None:
    pytest.importorskip("mujoco")
    sag = '20+10:{"also": [{"kind": "weaken_actuator", "actuator": "slide", "gain": 0.5}]}'
    config = config_of("cartpole", sag)
    domain = cast(AbstractHostDomain, find_domain("cartpole"))
    tasks = timeline(domain, config)
    env: Any = domain.make_env(tasks.tasks[0], terminate_on_violation=False)
    whole = float(env.stock.model.actuator_gainprm[0, 0])
    place = HostEnvironment(env, 7, domain.spaces, timeline=tasks)
    place.reset(0)
    gains = []
    for _ in range(40):
        place.step(np.zeros(1, np.float32), 0)
        gains.append(float(env.stock.model.actuator_gainprm[0, 0]) / whole)
    expected = np.interp(np.arange(40), [20, 30], [1.0, 0.5])
    np.testing.assert_allclose(gains, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        '33+19:{"times": {"length": 0.5}}',
        pytest.param('37:{"length": 0.5}', marks=pytest.mark.slow),
    ],
)
def test_a_simulated_run_resumes_through_a_change(change: str) -> None:
    pytest.importorskip("mujoco")
    config = config_of("cartpole", change, episodes=8, chunk_steps=10)
    whole, states = driven(config)
    without, _ = driven(config_of("cartpole", episodes=8, chunk_steps=10))
    assert len(states) > 3
    for name in whole:
        np.testing.assert_array_equal(whole[name][:33], without[name][:33])
    assert len(whole["obs"]) != len(without["obs"]) or (whole["obs"] != without["obs"]).any()
    for state in states[:-1]:
        resumed, _ = driven(config, state)
        for name in whole:
            np.testing.assert_array_equal(resumed[name], whole[name])


def test_any_domain_of_perturbations_can_change() -> None:
    pytest.importorskip("mujoco")
    domain = PerturbedTasks("Hopper-v5", lambda rng, split: (), cost=lambda *_: False)
    heavy = {"perturbations": [{"kind": "scale_mass", "factor": 2.0}]}
    task = changed_task(domain, (), heavy)
    env: Any = domain.make_env(())
    masses = env.stock.model.body_mass.copy()
    rollout(env, 0, 3)
    env.change_task(task)
    np.testing.assert_allclose(env.stock.model.body_mass, 2.0 * masses)
    env.reset(seed=1)  # which puts the values of the present task back, not those of the first
    np.testing.assert_allclose(env.stock.model.body_mass, 2.0 * masses)


def test_gymnasium_environments_change_too() -> None:
    env: Any = gymnasium.make("safemesa/Navigation2-v0").unwrapped
    domain = find_domain("navigation2")
    obs, _ = env.reset(seed=0)
    env.change_task(changed_task(domain, env.task, {"times": {"b": 0.0}}))
    after = env.step(np.ones(2))[0]
    assert np.abs(after - obs).max() < 0.3  # nothing but noise is left
    with pytest.raises(ConfigurationError, match="needs exactly"):
        env.change_task({"b": 1})


# What is refused before anything is computed


@pytest.mark.parametrize(
    ("domain", "change", "words"),
    [
        ("navigation2", '30:{"b": 0.5}', "needs exactly the parameters"),
        ("navigation2", '30:{"also": [{"kind": "scale_mass", "factor": 2}]}', "not simulated"),
        ("navigation2", '30:{"times": {"gain": 0.5}}', "expected factors of some of"),
        ("navigation2", '30:{"times": {"b": [0.5]}}', "of the same shape"),
        ("navigation2", '30:{"times": {"b": true}}', "of the same shape"),
        ("navigation2", '30:{"times": {"b": 0.5}, "a": 1}', "Write two changes"),
        ("navigation2", "100000:drawn", "at most 600 steps"),
        ("cartpole", '30:{"length": -1}', "above 0"),
        ("cartpole", '30:{"also": [{"kind": "disable_actuator", "actuator": "leg"}]}', "leg"),
        ("cartpole", '30+9:{"also": [{"kind": "disable_actuator", "actuator": 0}]}', "gradually"),
        ("cartpole", '30:{"also": [{"kind": "rust", "factor": 2}]}', "rust"),
        ("cartpole", '30:{"also": []}', "expected a list of perturbations"),
        ("halfcheetah", '30:{"joint": 7}', "the joint without torque"),
        ("ant", '30:{"leg": 4}', "the leg without torque"),
    ],
)
def test_changes_that_the_robot_cannot_have_are_refused(
    domain: str, change: str, words: str, tmp_path: Path
) -> None:
    pytest.importorskip("mujoco")
    config = config_of(domain, change)
    with pytest.raises(ConfigurationError, match=words):
        run([config], [tmp_path / "run"], RunOptions(data_dir=tmp_path / "data"))
    assert not list(tmp_path.iterdir())


def test_environments_that_cannot_change_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    domain = cast(Any, find_domain("cartpole"))

    class Rigid(gymnasium.Env):
        pass

    monkeypatch.setattr(type(domain), "make_env", lambda *_, **__: Rigid())
    with pytest.raises(ConfigurationError, match="change_task"):
        check_changes(domain, config_of("cartpole", "30:drawn"))


# What is left of it


def test_the_summary_says_where_and_what(tmp_path: Path) -> None:
    config = config_of("cartpole", '30:{"length": 0.5}', "200..300:drawn", '900:{"length": 3}')
    domain = find_domain("cartpole")
    first, second, third = recorded_changes(domain, config, 400, [10, 30, 250, 400])
    assert first == {"step": 30, "complete": 30, "episode": 2, "task": {"length": 0.5}}
    assert second["episode"] == (2 if second["step"] < 250 else 3)
    assert third["episode"] is None  # the run ended before
    folder = RunFolder(tmp_path)
    folder.metrics.append([])
    assert "changes" not in summarise(config_of("cartpole"), folder, domain, 0, {})
    assert len(summarise(config, folder, domain, 0, {})["changes"]) == 3


def test_curves_have_a_line_where_the_robot_changes() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from safemesa.experiments.report.result_figures import change_marks, draw_changes

    sudden = {"step": 30, "complete": 30, "episode": 4}
    gradual = {"step": 50, "complete": 80, "episode": 6}
    missed = {"step": 90, "complete": 90, "episode": None}
    summaries = [{"changes": [sudden, missed]}, {"changes": [sudden, gradual]}, {}]
    marks = change_marks(summaries, over_steps=True)
    assert marks == [(30.0, 30.0), (50.0, 80.0)]
    assert change_marks(summaries, over_steps=False) == [(5.0, 5.0), (7.0, 7.0)]
    axes = Figure().subplots()
    draw_changes(axes, marks)
    drawn = [tuple(np.asarray(line.get_xdata(), float)) for line in axes.lines]
    assert drawn == [(30.0, 30.0), (50.0, 50.0)]
    assert len(axes.patches) == 1


@pytest.mark.slow
def test_a_video_shows_when_the_robot_has_changed(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    free = config_of("navigation2", episodes=2)
    options = RunOptions(data_dir=tmp_path / "data")
    run([free], [tmp_path / "free"], options)
    first, last = (line["length"] for line in episodes_of(tmp_path / "free"))
    at = first + last // 2
    run([config_of("navigation2", f"{at}:{HALF}", episodes=2)], [tmp_path / "run"], options)
    marked: dict[str, list[bool]] = {}
    lasting: dict[str, list[float]] = {}
    for name in ("free", "run"):
        with image.open(write_video(tmp_path / name)) as video:
            marked[name], lasting[name] = [], []
            for frame in range(video.n_frames):
                video.seek(frame)
                red, green, _ = np.asarray(video.convert("RGB"))[2, 5]
                lasting[name].append(video.info["duration"])
                marked[name].append(bool(red > 150 and green < 80))
    assert not any(marked["free"])
    begins = marked["run"].index(True)
    assert all(marked["run"][begins:])
    # Equal pictures are stored as one that lasts longer.
    assert sum(lasting["run"][:begins]) == 100 * (at - first)


@pytest.mark.slow
def test_a_whole_run_that_dies_around_a_change_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco")
    config = tiny_config("mesa", "cartpole")
    config = replace(
        config,
        data=replace(config.data, train_tasks=2, train_transitions=450, test_transitions=90),
        deploy=replace(
            config.deploy, episodes=8, chunk_steps=25, change=('40:{"times": {"length": 0.5}}',)
        ),
    )
    options = RunOptions(data_dir=tmp_path / "data")
    (summary,) = run([config], [tmp_path / "whole"], options)
    assert summary["changes"][0]["episode"] is not None
    for at in (1, 2, 3):
        folder = tmp_path / f"died-{at}"
        with monkeypatch.context() as patch:
            dying_save(patch, at)
            with pytest.raises(InterruptError):
                run([config], [folder], options)
        run([config], [folder], options)
        assert episodes_of(folder) == episodes_of(tmp_path / "whole")
        one, two = (place / "replay" / "rows.f32" for place in (tmp_path / "whole", folder))
        assert one.read_bytes() == two.read_bytes()
