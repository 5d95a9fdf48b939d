"""Grids beyond one machine: job scripts, submitit, and a SLURM of one node."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import GRID_FLAGS, tiny_config

from safemesa.cli.arguments import parse_with_preset
from safemesa.cli.main import main
from safemesa.cli.run_arm import RunFlags
from safemesa.core.errors import ConfigurationError
from safemesa.core.files import read_json, write_json
from safemesa.experiments.arms import configure
from safemesa.experiments.grid.executors.executor import GridError, make_task
from safemesa.experiments.grid.executors.job_scripts import collect_command, write_scripts
from safemesa.experiments.grid.executors.slurm import SlurmExecutor, TaskJob
from safemesa.experiments.grid.executors.slurm_config import SlurmConfig
from safemesa.experiments.grid.executors.slurm_queue import JobQueue
from safemesa.experiments.grid.grid_folder import Grid, GridFolder, GridRun, paired_runs
from safemesa.experiments.grid.run_command import run_command
from safemesa.phases.config import RunConfig, config_to_json

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config("mesa_as_printed", "navigation1", seed=3),
        configure("rrl", "halfcheetah", "cpu"),
        replace(configure("maml+none", "maze", "paper"), data_seed=4),
        replace(
            configure("mesa", "halfcheetah", "cpu"),
            deploy=replace(
                configure("mesa", "halfcheetah", "cpu").deploy, steps=None, keep_test_log=False
            ),
        ),
    ],
    ids=lambda config: f"{config.arm}-{config.domain}",
)
def test_a_command_gives_the_configuration_it_was_made_from(config: RunConfig) -> None:
    command = shlex.split(run_command(config, Path("out dir/x"), Path("data")))
    assert command[:2] == ["safemesa", "run"]
    flags, parsed = parse_with_preset(RunFlags, "run", command[2:])
    assert parsed == config
    assert flags.out == Path("out dir/x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": 0}, "--slurm.time is 0"),
        ({"collect_cpus": 0}, "--slurm.collect-cpus is 0"),
        ({"gpus": -2}, "--slurm.gpus is -2"),
        ({"options": ("--account",)}, "expected name=value"),
    ],
)
def test_impossible_jobs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SlurmConfig(**change)


def test_the_collection_has_the_grids_flags_without_those_of_jobs() -> None:
    words = ["--arms", "mesa", "--emit", "sbatch", "--slurm.options", "a=b", "c=d", "--risk.hidden"]
    words += ["8", "8", "--jobs=3", "--slurm.time=9", "--seeds", "0"]
    assert collect_command("grid", words, SlurmConfig(collect_cpus=5)) == (
        "safemesa grid --arms mesa --risk.hidden 8 8 --seeds 0 --collect-only --jobs 5"
    )


@pytest.fixture(scope="module")
def scripts(workplace: Path) -> Path:
    """Job scripts, made from the command line, of a grid of three runs; one is finished."""
    before = os.getcwd()
    os.chdir(workplace)
    write_json(Path("emitted/navigation2/rrl-1/summary.json"), {})
    config = {"config": config_to_json(tiny_config("rrl", seed=1))}
    write_json(Path("emitted/navigation2/rrl-1/config.json"), config)
    try:
        flags = ["--arms", "rrl", "--domains", "navigation2", "--seeds", "0-2", "--out", "emitted"]
        slurm = ["--slurm.partition", "short", "--slurm.options", "account=lab"]
        assert main(["grid", *GRID_FLAGS, *flags, "--emit", "sbatch", *slurm]) == 0
    finally:
        os.chdir(before)
    return workplace / "emitted" / "slurm"


def test_job_scripts_are_sound(scripts: Path) -> None:
    for name in ("runs.sbatch", "collect.sbatch", "submit.sh"):
        subprocess.run(["bash", "-n", scripts / name], check=True)
    runs = (scripts / "runs.sbatch").read_text()
    lines = [line for line in runs.splitlines() if "safemesa run " in line]
    outs = [Path(line.partition(" --out ")[2].split()[0]).name for line in lines]
    assert outs == ["rrl-0", "rrl-2"]
    for option in ("array=0-1%256", "requeue", "partition=short", "account=lab", "time=240"):
        assert f"#SBATCH --{option}\n" in runs
    assert "--collect-only" in (scripts / "collect.sbatch").read_text()
    assert read_json(scripts.parent / "grid.json")["seeds_per_process"] == 1


@pytest.mark.timeout(900)
def test_one_index_of_the_array_is_one_run(scripts: Path) -> None:
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "1"}
    subprocess.run(["bash", scripts / "runs.sbatch"], check=True, env=environment)
    run = scripts.parent / "navigation2" / "rrl-2"
    assert read_json(run / "summary.json")["episodes"] == 6
    assert read_json(run / "config.json")["command"].startswith("safemesa run rrl navigation2")
    assert not (scripts.parent / "navigation2" / "rrl-0").exists()


def test_scripts_are_refused_where_they_would_be_wrong(tmp_path: Path) -> None:
    grid = Grid(runs=paired_runs([tiny_config("rrl")], [0, 1]), seeds_per_process=2)
    arguments = (GridFolder(tmp_path), tmp_path / "data", SlurmConfig(), "grid", "collect")
    with pytest.raises(ConfigurationError, match="a command per run"):
        write_scripts(grid, *arguments)
    for run in grid.runs:
        GridFolder(tmp_path).run(run).open(run.config, "")
        write_json(tmp_path / run.name / "summary.json", {})
    with pytest.raises(ConfigurationError, match="nothing to do"):
        write_scripts(replace(grid, seeds_per_process=1), *arguments)


def test_without_submitit_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    executor = SlurmExecutor(data_dir=tmp_path / "data", command="grid")
    grid = Grid(runs=paired_runs([tiny_config("rrl")], [0]))
    with pytest.raises(ConfigurationError, match=r"safemesa\[slurm\].*--emit sbatch"):
        executor.carry_out(grid, GridFolder(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def submitted_here(workplace: Path) -> SlurmExecutor:
    """Jobs are processes of this machine."""
    pytest.importorskip("submitit")
    return SlurmExecutor(
        data_dir=workplace / "data",
        command="safemesa grid",
        slurm=SlurmConfig(collect_cpus=1),
        cluster="local",
        look_seconds=0.5,
    )


@pytest.mark.timeout(900)
def test_submitted_jobs_collect_run_and_fail_alone(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another process holds one run, so that its job fails; the other's run is finished."""
    grid = Grid(runs=paired_runs([tiny_config("multitask")], [0, 1]))
    folder = GridFolder(workplace / "submitted")
    with (
        folder.run(grid.runs[1]).lock(),
        pytest.raises(GridError, match=r"multitask-1: .*another process is working"),
    ):
        submitted_here(workplace).carry_out(grid, folder)
    assert read_json(folder.path / "navigation2/multitask-0/summary.json")["episodes"] == 6
    assert not folder.run(grid.runs[1]).finished
    said = capfd.readouterr().err
    assert "collects training logs" in said
    assert "navigation2/multitask-0: done" in said
    assert set(read_json(folder.path / "slurm" / "jobs.json")["jobs"]) == {
        "collect",
        "navigation2/multitask-0",
        "navigation2/multitask-1",
    }


class FakeQueue(JobQueue):
    """Remembers what was submitted; all jobs are at work."""

    def __init__(self) -> None:
        self.jobs: dict[str, SimpleNamespace] = {}
        self.submitted: list[list[str]] = []

    def find(self, names: Iterable[str]) -> dict[str, SimpleNamespace]:
        return {name: self.jobs[name] for name in names if name in self.jobs}

    def submit(self, work: dict, cpus: int, runs: dict[str, list[str]]) -> dict:
        del cpus
        made = {}
        for name in work:
            made[name] = SimpleNamespace(job_id=str(len(self.submitted)))
            self.jobs |= dict.fromkeys(runs[name], made[name])
            self.submitted.append(runs[name])
        return made


def test_runs_that_a_job_holds_are_not_submitted_again(tmp_path: Path) -> None:
    """Seed 0 shares a process with seed 1, which joins when seed 0 is at work."""
    queue, folder = FakeQueue(), GridFolder(tmp_path)
    executor = SlurmExecutor(data_dir=tmp_path / "data", command="grid")
    for seeds in ([0], [0, 1], [0, 1, 2, 3]):
        grid = Grid(runs=paired_runs([tiny_config("rrl")], seeds), seeds_per_process=2)
        jobs, tasks = executor._submit(queue, grid, folder)
        assert set(jobs) == {task.name for task in tasks}
    names = [[name.rpartition("-")[2] for name in runs] for runs in queue.submitted]
    assert names == [["0"], ["1"], ["2", "3"]]
    for run in grid.runs:
        folder.run(run).open(run.config, "")
        write_json(tmp_path / run.name / "summary.json", {})
    assert executor._submit(queue, grid, folder) == ({}, [])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_preempted_job_is_queued_again_and_goes_on(workplace: Path) -> None:
    submitit = pytest.importorskip("submitit")
    folder = GridFolder(workplace / "preempted")
    config = tiny_config("rrl", seed=0)
    # Long enough to be at work when the signal comes.
    run = GridRun(config=replace(config, deploy=replace(config.deploy, episodes=400)))
    folder.open(Grid(runs=(run,)), "")
    task = make_task([run], folder)
    executor = submitit.AutoExecutor(folder=folder.path / "slurm" / "%j", cluster="local")
    executor.update_parameters(timeout_min=30)
    job = executor.submit(TaskJob(task, workplace / "data", "safemesa grid"))
    wait_for((folder.path / run.name / "config.json").is_file, 300.0)
    # To the job itself: submitit's local controller does not pass this signal on.
    controller = int(job.job_id)
    (child,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(child), signal.SIGUSR2)
    assert job.result() == task.name
    assert "Caught signal SIGUSR2" in job.stderr()
    assert folder.run(run).finished


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `sbatch` reaches a SLURM of one node."""
    folder = tmp_path_factory.mktemp("slurm")
    script = ROOT / "scripts" / "one_node_slurm.sh"
    started = subprocess.run(
        [script, "start", folder], capture_output=True, text=True, check=False, timeout=120
    )
    if started.returncode == 3:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    yield {**os.environ, "SLURM_CONF": started.stdout.strip()}
    subprocess.run([script, "stop", folder], check=True)


@pytest.mark.slurm
@pytest.mark.timeout(3600)
def test_a_grid_on_slurm(slurm: dict[str, str], workplace: Path) -> None:
    """A job is requeued while it works; the watching command is killed and given again."""
    pytest.importorskip("submitit")
    command = [sys.executable, "-m", "safemesa", "grid", *GRID_FLAGS]
    command += ["--arms", "rrl,multitask", "--domains", "navigation2", "--seeds", "0"]
    # Long enough to be at work when the second command comes.
    command += ["--deploy.episodes", "400"]
    command += ["--out", "real", "--data-dir", "real-data", "--executor", "slurm"]
    command += ["--slurm.time", "20", "--slurm.collect-cpus", "1"]
    watcher = subprocess.Popen(command, cwd=workplace, env=slurm)
    runs = workplace / "real" / "navigation2"
    try:
        wait_for(lambda: list(runs.glob("*/config.json")), 900.0)
    finally:
        watcher.send_signal(signal.SIGKILL)
        watcher.wait()
    (first, *_) = runs.glob("*/config.json")
    jobs = read_json(workplace / "real" / "slurm" / "jobs.json")["jobs"]
    job = jobs[f"navigation2/{first.parent.name}"]
    subprocess.run(["scontrol", "requeue", job], check=True, env=slurm)
    again = subprocess.run(
        command, cwd=workplace, env=slurm, check=True, capture_output=True, text=True
    )
    assert "jobs of an earlier command are still there" in again.stderr
    assert "2 of 2 runs are finished" in again.stdout
    assert read_json(workplace / "real" / "slurm" / "jobs.json")["jobs"] == jobs
    for name in ("rrl-0", "multitask-0"):
        assert read_json(runs / name / "summary.json")["episodes"] == 400


@pytest.mark.slurm
@pytest.mark.timeout(3600)
def test_emitted_scripts_on_slurm(slurm: dict[str, str], workplace: Path) -> None:
    command = [sys.executable, "-m", "safemesa", "grid", *GRID_FLAGS]
    command += ["--arms", "rrl,multitask", "--domains", "navigation2", "--seeds", "0"]
    command += ["--out", "scripts", "--data-dir", "scripts-data", "--emit", "sbatch"]
    command += ["--slurm.time", "20", "--slurm.collect-cpus", "1"]
    subprocess.run(command, cwd=workplace, env=slurm, check=True)
    subprocess.run(["bash", "scripts/slurm/submit.sh"], cwd=workplace, env=slurm, check=True)
    runs = workplace / "scripts" / "navigation2"
    summaries = [runs / name / "summary.json" for name in ("rrl-0", "multitask-0")]
    wait_for(lambda: all(one.is_file() for one in summaries), 1800.0)
    assert [read_json(one)["episodes"] for one in summaries] == [6, 6]
