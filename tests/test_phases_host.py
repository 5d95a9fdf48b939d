"""Phase 3 and collection around Gymnasium environments, on Cartpole-Length."""

import json
import multiprocessing
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from tiny import episodes_of, tiny_config

from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, simulator_seed
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.registry import domain as find_domain
from safemesa.phases.build import task_learner_key
from safemesa.phases.collection import sac as collect_sac
from safemesa.phases.collection.logs import collect_test_log, collect_train_logs
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.deploy_state import deploy_roots, initial_state
from safemesa.phases.deployment.guarded_sac import build_agent
from safemesa.phases.deployment.host import (
    HostEnvironment,
    LocalSimulators,
    deploy_host,
    pending_act,
)
from safemesa.phases.deployment.simulator_processes import SimulatorProcesses
from safemesa.phases.run import RunOptions, run
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.storage.artefacts import load_risk_model
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.replay_file import read_replay
from safemesa.phases.storage.run_folder import METRIC_FIELDS
from safemesa.phases.workers import WorkerError

# Their logs are too short for ten violations.
pytestmark = pytest.mark.filterwarnings(
    "ignore::safemesa.phases.collection.logs.FewViolationsWarning"
)

pytest.importorskip("mujoco")


def host_config(arm: str = "mesa", seed: int = 7) -> RunConfig:
    """All phases on Cartpole with small networks."""
    config = tiny_config(arm, "cartpole", seed)
    return replace(
        config,
        data=replace(config.data, train_tasks=2, train_transitions=450, test_transitions=90),
        deploy=replace(config.deploy, episodes=8, chunk_steps=25),
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mesa"
    run([host_config()], [folder], RunOptions(data_dir=data_dir))
    return folder


def test_a_run_leaves_what_compiled_domains_leave(finished: Path, data_dir: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((finished / "summary.json").read_text())
    assert all(tuple(line) == METRIC_FIELDS for line in lines)
    assert summary["episodes"] == len(lines) == 8
    assert summary["env_steps"] == lines[-1]["env_steps"] == sum(line["length"] for line in lines)
    assert summary["violations"] == sum(line["violation"] for line in lines)
    load_risk_model(finished / "artefacts" / "deployed_risk_model")
    assert not list(data_dir.glob(".*"))  # nothing of the collection is left


def test_no_transition_crosses_a_reset(finished: Path) -> None:
    rows, lines = read_replay(finished / "replay"), episodes_of(finished)
    ends = np.cumsum([line["length"] for line in lines])
    inside = np.ones(len(rows["obs"]), bool)
    inside[ends - 1] = False
    follows = np.all(rows["next_obs"][:-1] == rows["obs"][1:], axis=1)
    np.testing.assert_array_equal(follows, inside[:-1])
    violated = np.array([line["violation"] for line in lines], bool)
    np.testing.assert_array_equal(rows["cost"][ends - 1] > 0, violated)
    np.testing.assert_array_equal(rows["terminated"][ends - 1] > 0, violated)
    assert not rows["terminated"][inside].any()


def test_episodes_start_where_their_seed_says(finished: Path) -> None:
    env = gymnasium.make("safemesa/CartpoleLength-v0")
    rows, lines = read_replay(finished / "replay"), episodes_of(finished)
    starts = np.cumsum([0, *(line["length"] for line in lines)])[:-1]
    for episode, start in enumerate(starts):
        obs, _ = env.reset(seed=simulator_seed(7, Stream.SIMULATOR, episode))
        np.testing.assert_allclose(rows["obs"][start], obs, rtol=1e-6)
    env.close()


class InterruptError(Exception):
    """Stands for a process that dies."""


def dying_save(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Makes the process die after its `at`-th checkpoint of Phase 3."""
    save, count = Checkpointer.save, [0]

    def dying(self, step, state, notes):
        save(self, step, state, notes)
        if self.phase == "deploy":
            count[0] += 1
            if count[0] == at:
                raise InterruptError

    monkeypatch.setattr(Checkpointer, "save", dying)
    return count


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_dies_resumes_exactly(
    at: int, finished: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        dying_save(patch, at)
        with pytest.raises(InterruptError):
            run([host_config()], [tmp_path / "run"], RunOptions(data_dir=data_dir))
    assert not (tmp_path / "run" / "summary.json").exists()
    run([host_config()], [tmp_path / "run"], RunOptions(data_dir=data_dir))
    assert episodes_of(tmp_path / "run") == episodes_of(finished)
    one, two = (folder / "replay" / "rows.f32" for folder in (finished, tmp_path / "run"))
    assert one.read_bytes() == two.read_bytes()


def test_seeds_side_by_side_resume_exactly(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [host_config(seed=7), host_config(seed=8)]
    straight, broken = ([tmp_path / f"{kind}{seed}" for seed in (7, 8)] for kind in "ab")
    run(configs, straight, RunOptions(data_dir=data_dir))
    with monkeypatch.context() as patch:
        dying_save(patch, 3)
        with pytest.raises(InterruptError):
            run(configs, broken, RunOptions(data_dir=data_dir))
    run(configs, broken, RunOptions(data_dir=data_dir))
    for one, two in zip(straight, broken, strict=True):
        assert episodes_of(one) == episodes_of(two)
    assert episodes_of(straight[0]) != episodes_of(straight[1])


def test_processes_that_step_simulators_change_nothing(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, also where the run dies in between."""
    configs = [host_config("rrl", seed) for seed in (7, 8)]
    here, there = ([tmp_path / f"{kind}{seed}" for seed in (7, 8)] for kind in "ab")
    run(configs, here, RunOptions(data_dir=data_dir))
    with monkeypatch.context() as patch:
        dying_save(patch, 3)
        with pytest.raises(InterruptError):
            run(configs, there, RunOptions(data_dir=data_dir, simulators=2))
    assert multiprocessing.active_children() == []
    run(configs, there, RunOptions(data_dir=data_dir, simulators=2))
    for one, two in zip(here, there, strict=True):
        assert episodes_of(one) == episodes_of(two)
        rows = Path("replay", "rows.f32")
        assert (one / rows).read_bytes() == (two / rows).read_bytes()


def test_a_simulator_process_that_ends_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    simulators = SimulatorProcesses([host_config("rrl")], 1)
    try:
        assert simulators.reset(0, 0, 0).shape == (4,)
        with pytest.raises(ConfigurationError, match="action must be"):
            simulators.step({0: (np.full(1, np.nan, np.float32), 0)})
        with pytest.raises(WorkerError, match="ended with exit code 0"):
            simulators.reset(0, 0, 0)
    finally:
        simulators.close()


class Recorded(gymnasium.Env):
    """Returns what a compiled run met, whatever is done; keeps what was done."""

    def __init__(self, rows: dict[str, np.ndarray], ends: np.ndarray) -> None:
        self.rows, self.ends, self.at, self.actions = rows, set(ends.tolist()), 0, []

    def reset(self, *, seed=None, options=None):
        return self.rows["obs"][min(self.at, len(self.rows["obs"]) - 1)], {}

    def step(self, action):
        row, self.at = self.at, self.at + 1
        self.actions.append(action)
        terminated = bool(self.rows["terminated"][row])
        truncated = self.at in self.ends and not terminated
        info = {"cost": float(self.rows["cost"][row])}
        reward = float(self.rows["reward"][row])
        return self.rows["next_obs"][row], reward, terminated, truncated, info


def test_the_host_loop_acts_and_learns_as_compiled_chunks_do(tmp_path: Path) -> None:
    """Fed with what a compiled run met, it chooses that run's actions, learning on the way."""
    config = tiny_config()
    run([config], [tmp_path / "run"], RunOptions(data_dir=tmp_path / "data"))
    rows, lines = read_replay(tmp_path / "run" / "replay"), episodes_of(tmp_path / "run")
    ends = np.cumsum([line["length"] for line in lines])
    domain = find_domain(config.domain)
    agent = build_agent(config, domain.spaces)
    model, _, _ = load_risk_model(tmp_path / "run" / "artefacts" / "risk_model")
    log = OfflineTasks.load(tmp_path / "run" / "artefacts" / "test_log")
    roots = deploy_roots(config.seed)
    env = Recorded(rows, ends)
    host = HostEnvironment(env, config.seed, domain.spaces)
    start = initial_state(
        agent, model, log, (), jax.numpy.asarray(host.reset(0)), task_learner_key(config)
    )
    start = pending_act(agent, roots, start)
    simulators = LocalSimulators([host])
    (final,) = deploy_host(
        SeedAxis(1), agent, simulators, [roots], [start], lambda seed, chunk: None
    )
    assert ends[-1] > agent.learning_starts + 50  # most of the run is learned from
    assert int(final.episode) == config.deploy.episodes
    np.testing.assert_allclose(np.array(env.actions), rows["action"], atol=2e-3)


def test_a_missing_cost_is_an_error() -> None:
    class Careless(Recorded):
        def step(self, action):
            return (*super().step(action)[:4], {})

    rows = {name: np.zeros((3, 4), np.float32) for name in ("obs", "next_obs")}
    rows |= {name: np.zeros(3) for name in ("reward", "terminated", "cost")}
    environment = HostEnvironment(Careless(rows, np.array([3])), 0, find_domain("cartpole").spaces)
    environment.reset(0)
    with pytest.raises(ConfigurationError, match=r"info\['cost'\]"):
        environment.step(np.zeros(1, np.float32), 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cost", 0.3, r"info\['cost'\] of .* at a step of episode 0 is 0\.3, expected 0 or 1"),
        ("cost", np.nan, r"info\['cost'\] of .* is 'nan' .*never taken for safe"),
        ("reward", np.nan, "the reward of .* at a step of episode 0 is 'nan'"),
        ("next_obs", np.inf, "the observation of .* expected finite numbers"),
    ],
)
def test_an_environment_that_reports_nonsense_is_refused(
    name: str, value: float, message: str
) -> None:
    rows = {key: np.zeros((3, 4), np.float32) for key in ("obs", "next_obs")}
    rows |= {key: np.zeros(3) for key in ("reward", "terminated", "cost")}
    rows[name] = np.full_like(rows[name], value)
    environment = HostEnvironment(Recorded(rows, np.array([3])), 0, find_domain("cartpole").spaces)
    environment.reset(0)
    with pytest.raises(ConfigurationError, match=message):
        environment.step(np.zeros(1, np.float32), 0)


def test_data_seeds_that_leave_sac_no_seeds_are_refused(tmp_path: Path) -> None:
    config = replace(host_config(), data_seed=20240101)
    with pytest.raises(
        ConfigurationError, match=r"data_seed is 20240101 .* for 0 to 42\d\d\d\d\d "
    ):
        collect_train_logs(find_domain("cartpole"), config, tmp_path)


def test_collected_logs_are_replays_of_sac(tmp_path: Path) -> None:
    config = host_config()
    domain = find_domain("cartpole")
    logs = collect_train_logs(domain, config, tmp_path / "working")
    logs.save(tmp_path / "data")  # validates columns, bounds, episodes
    assert [log.transitions for log in logs.train] == [450, 450]
    for log in logs.train:
        # Violations end no episode: each has the domain's 200 steps, the last is cut short.
        assert log.episodes == 3
        assert log.violations > 100
        np.testing.assert_array_equal(np.flatnonzero(log.columns["truncated"]), [199, 399, 449])
        assert not log.columns["terminated"].any()
        assert np.abs(log.columns["action"]).max() > 1.5  # physical, not scaled
    lengths = [log.parameters["length"] for log in logs.train]
    assert lengths[0] != lengths[1]
    assert not np.array_equal(logs.train[0].columns["action"], logs.train[1].columns["action"])


def test_an_interrupted_collection_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_sac, "CHUNK_STEPS", 150)
    config, domain = host_config(), find_domain("cartpole")
    straight = collect_train_logs(domain, config, tmp_path / "a")
    with monkeypatch.context() as patch:
        dying_save(patch, 4)
        with pytest.raises(InterruptError):
            collect_train_logs(domain, config, tmp_path / "b")
    resumed = collect_train_logs(domain, config, tmp_path / "b")
    for one, two in zip(straight.train, resumed.train, strict=True):
        for name, column in one.columns.items():
            np.testing.assert_array_equal(column, two.columns[name], err_msg=name)


@pytest.mark.slow
def test_logs_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    config, domain = host_config(), find_domain("cartpole")
    one = collect_train_logs(domain, config, tmp_path / "1", jobs=1)
    two = collect_train_logs(domain, config, tmp_path / "2", jobs=2)
    for first, second in zip(one.train, two.train, strict=True):
        for name, column in first.columns.items():
            np.testing.assert_array_equal(column, second.columns[name], err_msg=name)


def test_the_test_log_is_of_random_rollouts() -> None:
    log = collect_test_log(find_domain("cartpole"), host_config()).only_log()
    assert log.transitions == 90
    assert log.episodes == 3
    assert 20 < log.violations < 60
    assert log.parameters == {"length": 1.0}
    action = log.columns["action"]
    assert -3.0 <= action.min() < -2.0 < 2.0 < action.max() <= 3.0


def test_random_training_logs_on_request() -> None:
    config = host_config()
    config = replace(config, data=replace(config.data, train_policy="random"))
    logs = collect_train_logs(find_domain("cartpole"), config, Path("unused"))
    assert [log.transitions for log in logs.train] == [450, 450]
    assert logs.train[0].episodes == 15


def test_compiled_domains_have_no_sac_collection() -> None:
    config = tiny_config()
    config = replace(config, data=replace(config.data, train_policy="sac"))
    with pytest.raises(ConfigurationError, match="train-policy"):
        collect_train_logs(find_domain("navigation2"), config, Path("unused"))


def test_a_domain_of_the_users_own_runs_all_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_robots.py").write_text(
        "from safemesa.domains.perturb import DisableActuator, PerturbedTasks, ScaleMass\n"
        "def distribution(rng, split):\n"
        "    return (ScaleMass(factor=float(rng.uniform(0.5, 2.0))),)\n"
        "def cost(model, data, obs):\n"
        "    return abs(obs[1]) > 0.1\n"
        "PENDULUM = PerturbedTasks('InvertedPendulum-v5', distribution, cost=cost, horizon=40)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tiny_config(domain="my_robots:PENDULUM")
    config = replace(
        config,
        data=replace(config.data, train_tasks=2, train_transitions=120, test_transitions=60),
        deploy=replace(config.deploy, episodes=3),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few violations in so small a log
        (summary,) = run([config], [tmp_path / "run"], RunOptions(data_dir=tmp_path / "data"))
    assert summary["episodes"] == 3
    for name in ("nowhere:DOMAIN", "my_robots:NOTHING", "my_robots:cost"):
        with pytest.raises(ConfigurationError, match=name):
            find_domain(name)
