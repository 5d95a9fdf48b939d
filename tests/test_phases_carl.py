"""CARL's arms as whole runs: pretraining, Phase 3, resuming, what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import episodes_of, tiny_config

from safemesa.core.errors import ConfigurationError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.experiments.arms import configure, find_arm
from safemesa.phases.carl.fit import Rows, batch_rows, bootstrap_rows, fresh_model
from safemesa.phases.config import RunConfig
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import load_world_model
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.run_folder import METRIC_FIELDS

ARMS = ("carl", "carl_offline", "carl_offline_dtest")


def tiny_carl(arm: str, domain: str = "navigation2", seed: int = 7) -> RunConfig:
    config = tiny_config(arm, domain, seed)
    return replace(
        config,
        deploy=replace(config.deploy, episodes=3, chunk_steps=40),
        carl=replace(
            config.carl,
            horizon=3,
            hidden=(8,),
            weight_decay=(1e-4, 1e-4),
            batch=16,
            log_updates=40,
            source_episodes=6,
            source_epochs=1.0,
            test_log_updates=20,
        ),
    )


class InterruptError(Exception):
    """Stands for a process that dies."""


def die_and_go_on(
    config: RunConfig,
    folder: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    dies: Callable[[str, int], bool],
) -> None:
    """Runs, dies after the first checkpoint (phase, number) that `dies` names, and runs again."""
    save, count = Checkpointer.save, [0]

    def dying(self, step, state, notes):
        save(self, step, state, notes)
        count[0] += 1
        if dies(self.phase, count[0]):
            raise InterruptError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", dying)
        with pytest.raises(InterruptError):
            run([config], [folder], RunOptions(data_dir=data_dir))
    run([config], [folder], RunOptions(data_dir=data_dir))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "carl"
    run([tiny_carl("carl_offline_dtest")], [folder], RunOptions(data_dir=data_dir))
    return folder


def test_a_run_leaves_the_common_folder(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert all(tuple(line) == METRIC_FIELDS for line in lines)
    assert summary["episodes"] == len(lines) == 3
    assert summary["interventions"] == summary["violations_under_recovery"] == 0
    assert summary["violations"] == sum(line["violation"] for line in lines)
    assert summary["env_steps"] == sum(line["length"] for line in lines)
    assert all(summary["wall_s"][phase] > 0.0 for phase in ("meta_train", "adapt", "deploy"))


def test_each_phase_goes_on_from_the_one_before(finished: Path) -> None:
    """Every artefact is another model; Adam counts all updates of its life."""
    config = tiny_carl("carl_offline_dtest")
    template = fresh_model(config, OfflineTasks.load(finished / "artefacts" / "test_log").spaces)
    lengths = [line["length"] for line in episodes_of(finished)]
    online = sum(min(max(length, 50), 500) for length in lengths)
    updates = {"pretrained_world_model": 40, "world_model": 60, "deployed_world_model": 60 + online}
    for name, expected in updates.items():
        model = load_world_model(finished / "artefacts" / name, template)
        (adam, *_) = model.optimiser
        assert int(adam.count) == expected
        assert bool((model.scaling.inputs.std != 1.0).all())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_dies_resumes_exactly(
    at: int,
    finished: Path,
    tmp_path: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies after the first checkpoint of Phase 1, of Phase 2, and of Phase 3."""
    folder, config = tmp_path / "run", tiny_carl("carl_offline_dtest")
    die_and_go_on(config, folder, data_dir, monkeypatch, lambda _, number: number == at)
    assert episodes_of(folder) == episodes_of(finished)
    one, two = folder / "replay" / "rows.f32", finished / "replay" / "rows.f32"
    assert one.read_bytes() == two.read_bytes()


def test_driving_in_the_training_tasks(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was driven is a log like others; dying in the midst of it changes nothing."""
    config, straight, broken = tiny_carl("carl"), tmp_path / "straight", tmp_path / "broken"
    (summary,) = run([config], [straight], RunOptions(data_dir=data_dir))
    assert summary["episodes"] == 3
    driven = OfflineTasks.load(straight / "artefacts" / "source_log")
    episodes = np.concatenate([np.unique(log.columns["episode"]) for log in driven.train])
    assert sorted(episodes.tolist()) == list(range(6))
    assert all(float(np.abs(log.columns["action"]).max()) <= 1.0 for log in driven.train)
    assert {log.name for log in driven.train} <= {f"train-{task:03d}" for task in range(4)}

    die_and_go_on(config, broken, data_dir, monkeypatch, lambda _, number: number == 1)
    assert episodes_of(broken) == episodes_of(straight)


@pytest.mark.slow
def test_several_seeds_in_one_process(finished: Path, tmp_path: Path, data_dir: Path) -> None:
    """Also where their pretraining drove different numbers of steps."""
    for arm in ("carl", "carl_offline_dtest"):
        configs = [tiny_carl(arm, seed=seed) for seed in (7, 8)]
        folders = [tmp_path / arm / str(seed) for seed in (7, 8)]
        summaries = run(configs, folders, RunOptions(data_dir=data_dir))
        assert [one["seed"] for one in summaries] == [7, 8]
        assert episodes_of(folders[0]) != episodes_of(folders[1])
    alone = episodes_of(finished)[0]
    together = episodes_of(tmp_path / "carl_offline_dtest" / "7")[0]
    assert together["return"] == pytest.approx(alone["return"], rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::safemesa.phases.collection.logs.FewViolationsWarning")
@pytest.mark.parametrize("arm", ["carl", "carl_offline_dtest"])
def test_simulated_robots(
    arm: str, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same arms around a simulator, also when they die within Phase 3."""
    pytest.importorskip("mujoco")
    config = tiny_carl(arm, "cartpole")
    config = replace(
        config,
        data=replace(config.data, train_tasks=2, train_transitions=450, test_transitions=90),
        deploy=replace(config.deploy, chunk_steps=10),
        carl=replace(config.carl, source_episodes=2),
    )
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    (summary,) = run([config], [straight], RunOptions(data_dir=data_dir))
    assert summary["episodes"] == 3
    if arm == "carl":
        driven = OfflineTasks.load(straight / "artefacts" / "source_log")
        # No violation ends an episode there.
        assert sum(log.transitions for log in driven.train) == 2 * driven.spaces.horizon
    die_and_go_on(config, broken, data_dir, monkeypatch, lambda phase, _: phase == "deploy")
    assert episodes_of(broken) == episodes_of(straight)


# What is refused.


@pytest.mark.parametrize("name", ["carl+sqrl", "carl_offline+none", "maml+carl"])
def test_carl_takes_no_guard_and_no_meta_learner(name: str) -> None:
    with pytest.raises(ConfigurationError, match="neither a meta-learner nor a guard"):
        find_arm(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guard": "recovery_rl", "guard_settings": None}, "neither a meta-learner nor a guard"),
        ({"meta_learner": "maml", "meta": None}, "neither a meta-learner nor a guard"),
        ({"agent": "karl"}, "Known: sac, carl"),
    ],
)
def test_configurations_that_do_not_fit_leave_no_folder(
    change: dict, message: str, tmp_path: Path, data_dir: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(
            [replace(tiny_carl("carl"), **change)],
            [tmp_path / "run"],
            RunOptions(data_dir=data_dir),
        )
    assert not (tmp_path / "run").exists()


def test_the_arms_differ_in_what_they_see() -> None:
    seen = {
        arm: (configure(arm, "navigation1", "paper").carl.source, find_arm(arm).agent)
        for arm in ARMS
    }
    assert seen == {
        "carl": ("tasks", "carl"),
        "carl_offline": ("logs", "carl"),
        "carl_offline_dtest": ("logs", "carl"),
    }
    assert [configure(arm, "navigation1", "paper").carl.use_test_log for arm in ARMS] == [
        False,
        False,
        True,
    ]


# Which rows a network sees.


def test_every_network_has_its_own_resample() -> None:
    """Of 50 rows a resample of 50 holds about 63 %, always the same, another for each network."""
    draws = [
        bootstrap_rows(
            (3, 400),
            jnp.int32(10),
            jnp.int32(50),
            resample=jax.random.key(0),
            key=jax.random.key(n),
        )
        for n in (1, 2)
    ]
    seen = [[set(np.asarray(row).tolist()) for row in one] for one in draws]
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[0][1] != seen[0][2]
    assert all(25 <= len(one) <= 38 for one in seen[0])
    assert min(map(min, seen[0])) >= 10
    assert max(map(max, seen[0])) < 60


@pytest.mark.parametrize(
    ("source", "targets", "expected"), [(100, 0, 0), (100, 128, 16), (100, 900, 32), (0, 5, 64)]
)
def test_batches_are_half_of_the_new_robot_once_it_has_rows(
    source: int, targets: int, expected: int
) -> None:
    """Its share grows with its rows; the gap between both kinds is never drawn."""
    rows = Rows(*map(jnp.int32, (source, 200, 200 + targets)))
    drawn = np.asarray(batch_rows((2, 64), rows, resample=jax.random.key(0), key=jax.random.key(1)))
    assert ((drawn >= 200).sum(axis=1) == expected).all()
    assert ((drawn < source) | ((drawn >= 200) & (drawn < 200 + targets))).all()
