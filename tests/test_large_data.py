"""Logs that stay in their files: the same prior, in less memory than the logs take."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config

from safemesa.core.errors import DatasetError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.registry import domain as find_domain
from safemesa.networks.normaliser import fit_normaliser
from safemesa.phases import meta_train as phase_1
from safemesa.phases.collection.logs import collect_train_logs
from safemesa.phases.log_tables import LogFiles, build_log_table
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.meta_train import meta_train


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> OfflineTasks:
    """Four small logs, memory-mapped."""
    config = tiny_config("mesa")
    folder = tmp_path_factory.mktemp("data")
    made = collect_train_logs(find_domain(config.domain), config, folder / "working")
    made.save(folder / "logs")
    return OfflineTasks.load(folder / "logs")


def test_any_rows_in_any_order_are_those_of_the_table(logs: OfflineTasks) -> None:
    normaliser = fit_normaliser([np.asarray(log.columns["obs"]) for log in logs.train])
    for policy in ("logged", "uniform"):
        table = build_log_table(logs.train, logs.spaces, normaliser, policy)
        files = LogFiles(
            logs=logs.train, spaces=logs.spaces, normaliser=normaliser, next_action=policy
        )
        index = np.random.default_rng(0).integers(0, len(table.rows), (3, 5, 40))
        np.testing.assert_array_equal(files.rows(index), np.asarray(table.rows)[index])
        assert files.nbytes == table.rows.nbytes
        assert files.rows(np.zeros((2, 0), int)).shape == (2, 0, table.layout.width)


@pytest.mark.parametrize("arm", ["mesa", "mesa_metasgd", "multitask", "mesa_as_printed"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_prior_is_that_of_logs_in_memory(
    arm: str, seeds: int, logs: OfflineTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where neither the steps of a chunk nor all steps are a multiple of a block."""
    monkeypatch.setattr(phase_1, "STREAMED", 7)
    monkeypatch.setattr(phase_1, "CHUNK", 24)
    configs = [tiny_config(arm, seed=seed) for seed in range(seeds)]
    losses: list[list[dict[str, float]]] = [[], []]
    robot = replace(logs, test=replace(logs.train[0], name="robot", role="test"))

    def train(place: int, **limit: float) -> list:
        loop = ChunkLoop("meta_train")
        loop.on_metrics = lambda seed, step, metrics: losses[place].append(metrics)
        return meta_train(configs, logs, [robot] * seeds, loop, **limit)

    jax.tree.map(np.testing.assert_array_equal, train(0), train(1, resident_gib=0.0))
    assert len(losses[0]) == len(losses[1]) == 2 * seeds
    for one, two in zip(*losses, strict=True):
        assert one == pytest.approx(two, rel=1e-5)


def test_what_cannot_be_read_ends_phase_1(
    logs: OfflineTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> np.ndarray:
        raise DatasetError("the disk is gone")

    monkeypatch.setattr(LogFiles, "rows", broken)
    with pytest.raises(DatasetError, match="the disk is gone"):
        meta_train([tiny_config("mesa")], logs, resident_gib=0.0)


BIG = """
import resource, sys
import numpy as np
from safemesa.core.spaces import Spaces
from safemesa.datasets.format import make_provenance
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.core.files import write_json

folder, rows, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names = tuple(f"signal_{i}" for i in range(20))
spaces = Spaces(obs_names=names, action_names=("a", "b"), action_low=(-1.0, -1.0),
                action_high=(1.0, 1.0), horizon=1000, dt=0.05)
def column(path, shape, dtype, fill):
    # A file, so that making the data takes no memory either.
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    for start in range(0, shape[0], 50_000):
        array[start:start + 50_000] = fill(start, min(50_000, shape[0] - start))
    return array
rng = np.random.default_rng(0)
logs = []
for task in range(tasks):
    n = rows // tasks
    def make(name, shape, dtype, fill):
        return column(f"{folder}.{task}.{name}.npy", shape, dtype, fill)
    step = lambda start, count: np.arange(start, start + count) % 1000
    columns = {
        "obs": make("obs", (n, 20), "f4", lambda s, c: rng.normal(size=(c, 20))),
        "action": make("action", (n, 2), "f4", lambda s, c: rng.uniform(-1, 1, (c, 2))),
        "reward": make("reward", (n,), "f4", lambda s, c: np.zeros(c)),
        "cost": make("cost", (n,), "f4", lambda s, c: rng.random(c) < 0.02),
        "next_obs": make("next", (n, 20), "f4", lambda s, c: rng.normal(size=(c, 20))),
        "terminated": make("term", (n,), "?", lambda s, c: np.zeros(c, bool)),
        "truncated": make("trunc", (n,), "?", lambda s, c: step(s, c) == 999),
        "episode": make("ep", (n,), "i4", lambda s, c: np.arange(s, s + c) // 1000),
        "step": make("step", (n,), "i4", step),
    }
    logs.append(TaskLog(name=f"robot-{task}", role="train", columns=columns))
OfflineTasks(domain="big", spaces=spaces, train=tuple(logs),
             provenance=make_provenance(command="test", seed=0, policy="noise")).save(folder)
"""

LIMITED = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from safemesa.cli.main import main
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_ten_million_transitions_train_in_less_memory_than_they_take(tmp_path: Path) -> None:
    """1.9 GB of rows with 1.2 GB of memory that is no file; all at once they do not fit."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TQDM_DISABLE": "1"}
    small = ["--meta.iterations", "60", "--meta.tasks", "4", "--risk.hidden", "16"]

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=tmp_path
        )

    made = run(BIG, "logs", "10000000", "10")
    assert made.returncode == 0, made.stderr
    limit = str(int(1.2 * 2**30))
    trained = run(LIMITED, limit, "meta-train", "logs", "--out", "prior", "--memory", "0.5", *small)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "prior" / "manifest.json").is_file()
    whole = run(LIMITED, limit, "meta-train", "logs", "--out", "other", "--memory", "64", *small)
    assert whole.returncode != 0
    assert "allocate" in whole.stderr, whole.stderr
