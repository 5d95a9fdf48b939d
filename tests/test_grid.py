"""Grids: which runs there are, what is refused, and that they come out the same in any way."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import GRID_FLAGS, lines_without_wall, tiny_config

from safemesa.cli.arguments import SECTIONS, parse_before_presets
from safemesa.cli.grid import GridFlags, make_grid, parse_seeds
from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError, OutputFolderError
from safemesa.core.files import read_json
from safemesa.experiments.grid.executors import local
from safemesa.experiments.grid.executors.local import LocalExecutor
from safemesa.experiments.grid.executors.progress_board import Board
from safemesa.experiments.grid.grid_folder import Grid, GridFolder, GridRun, paired_runs
from safemesa.phases.config import RunConfig


def grid_of(arms: list[str], seeds: list[int], change: Any = lambda config: config) -> Grid:
    return Grid(runs=paired_runs([change(tiny_config(arm)) for arm in arms], seeds))


def hashes(folder: Path) -> dict[str, str]:
    """By run: everything but the time it took."""
    found = {}
    for file in sorted(folder.glob("*/*/metrics.jsonl")):
        digest = hashlib.sha256((file.parent / "replay" / "rows.f32").read_bytes())
        for line in lines_without_wall(file):
            digest.update(json.dumps(line).encode())
        found[file.parent.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-4", [0, 1, 2, 3, 4]), ("0,7", [0, 7]), ("3", [3]), ("0-1, 5", [0, 1, 5])],
)
def test_seeds_are_read(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "0..4", "4-1", "5-3,0", "1,,2"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--seeds is"):
        parse_seeds(text)


def test_seeds_go_first_so_that_a_stopped_grid_has_whole_pairs() -> None:
    grid = grid_of(["mesa", "multitask"], [0, 1])
    names = [run.name for run in grid.runs]
    assert names == [
        f"navigation2/{arm}-{seed}" for seed in (0, 1) for arm in ("mesa", "multitask")
    ]


def test_flags_change_every_preset_and_only_what_they_name() -> None:
    arguments = ["--arms", "mesa,mesa_as_printed", "--domains", "navigation1,maze", "--seeds", "3"]
    arguments += ["--preset", "quick", "--deploy.episodes", "5", "--data-seed", "2"]
    grid = make_grid(
        parse_before_presets(GridFlags, "grid", arguments, SECTIONS), "grid", arguments
    )
    by_name = {run.name: run.config for run in grid.runs}
    assert {config.deploy.episodes for config in by_name.values()} == {5}
    assert {(config.seed, config.data_seed) for config in by_name.values()} == {(3, 2)}
    printed = by_name["navigation1/mesa_as_printed-3"]
    assert printed.meta.inner_rate == 1e-3 != by_name["navigation1/mesa-3"].meta.inner_rate
    limits = {name: by_name[f"{name}/mesa-3"].risk_limit for name in ("maze", "navigation1")}
    assert limits == {"maze": 0.15, "navigation1": 0.3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "mesaa"], "Did you mean 'mesa'"),
        (["--arms", "maml+foo", "--dry-run"], "unknown guard 'foo'"),
        (["--arms", "mamll+csc", "--dry-run"], "unknown meta-learner 'mamll'. Did you mean 'maml'"),
        (["--arms", "mesa,,rrl"], "--arms is 'mesa,,rrl'"),
        (["--domains", "navigation3"], "Did you mean 'navigation2'"),
        (["--seeds", "few"], "--seeds is 'few'"),
        (["--seeds", "0,4294967296"], "--seeds is '0,4294967296'; expected numbers from 0 to"),
        (["--data-seed", "-1"], "data_seed is -1"),
        (["--arms", "mesa,mesa"], "twice"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--seeds-per-process", "0"], "--seeds-per-process is 0"),
        (["--slurm.time", "0", "--emit", "sbatch"], "time"),
    ],
)
def test_wrong_grids_are_explained_and_leave_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["grid", "--preset", "quick", *arguments])
    except SystemExit as stop:  # tyro's way
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_writes_nothing_and_imports_no_jax(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom safemesa.cli.main import main\n"
        "arms = ['--arms', 'mesa,multitask,unconstrained,maml+csc']\n"
        "main(['grid', '--preset', 'quick', *arms, '--seeds', '0', '--dry-run'])\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "8 runs: 8 missing." in done.stdout
    assert "runs/grid-quick/navigation1/mesa-0" in done.stdout
    assert not list(tmp_path.iterdir())


def test_another_grids_settings_are_refused(tmp_path: Path) -> None:
    grid, folder = grid_of(["mesa", "rrl"], [0, 1]), GridFolder(tmp_path / "grid")
    folder.check(grid)
    folder.open(grid, "first")
    # More seeds and arms join.
    wider = grid_of(["mesa", "multitask"], [1, 2])
    folder.check(wider)
    folder.open(wider, "second")
    record = read_json(folder.file)
    assert list(record["conditions"]) == [
        f"navigation2/{arm}" for arm in ("mesa", "rrl", "multitask")
    ]
    before = folder.file.read_text()
    other = grid_of(
        ["rrl"],
        [5],
        lambda config: replace(
            config, guard_settings=replace(config.guard_settings, risk_limit=0.5)
        ),
    )
    with pytest.raises(OutputFolderError, match=r"rrl .*risk_limit is 0\.1 there and 0\.5 here"):
        folder.check(other)
    with pytest.raises(OutputFolderError, match="1 seeds per process; this one has 2"):
        folder.check(replace(grid, seeds_per_process=2))
    assert folder.file.read_text() == before
    folder.file.write_text("{}")
    with pytest.raises(OutputFolderError, match="no grid of this version"):
        folder.check(grid)


def test_a_run_of_other_settings_is_refused_before_anything_begins(tmp_path: Path) -> None:
    grid, folder = grid_of(["rrl"], [0, 1]), GridFolder(tmp_path)
    run = grid.runs[1]
    stranger = replace(run.config, deploy=replace(run.config.deploy, episodes=99))
    folder.run(run).open(stranger, "by hand")
    with pytest.raises(OutputFolderError, match="episodes is 99 there"):
        folder.check(grid)


def test_seeds_of_one_condition_must_agree() -> None:
    one, two = tiny_config("rrl", seed=0), tiny_config("rrl", seed=1)
    two = replace(two, adapt=replace(two.adapt, steps=9))
    with pytest.raises(ConfigurationError, match=r"adapt\.steps"):
        Grid(runs=(GridRun(config=one), GridRun(config=two))).settings()
    variants = Grid(runs=(GridRun(config=one), GridRun(config=two, variant="long")))
    assert list(variants.settings()) == ["navigation2/rrl", "navigation2/rrl-long"]


def test_blocks_of_seeds_do_not_depend_on_other_seeds() -> None:
    def seeds(grid: Grid) -> list[tuple[int, ...]]:
        return [tuple(run.config.seed for run in group) for group in grid.groups()]

    few = replace(grid_of(["rrl"], [0, 1, 2]), seeds_per_process=2)
    more = replace(grid_of(["rrl"], [0, 3, 2, 1, 4]), seeds_per_process=2)
    assert seeds(few) == [(0, 1), (2,)]
    assert seeds(more) == [(0, 1), (2, 3), (4,)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grids")


def executor(workplace: Path, jobs: int = 1) -> LocalExecutor:
    return LocalExecutor(data_dir=workplace / "data", command="safemesa grid", jobs=jobs)


@pytest.mark.timeout(900)
def test_a_grid_from_the_command_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One run fails because another process holds it; the other is finished; then both are."""
    monkeypatch.chdir(workplace)
    arguments = ["grid", *GRID_FLAGS, "--arms", "rrl", "--domains", "navigation2"]
    arguments += ["--seeds", "0,1", "--jobs", "2", "--out", "small"]
    folder = GridFolder(Path("small"))
    busy = folder.run(GridRun(config=tiny_config("rrl", seed=1)))
    with busy.lock():
        assert main(arguments) == 2
    said = capfd.readouterr().err
    assert "1 of 2 processes failed" in said
    assert "navigation2/rrl-1: another process is working on" in said
    assert "navigation2/rrl-0: done" in said
    assert read_json(Path("small/navigation2/rrl-0/summary.json"))["episodes"] == 6
    assert not busy.finished
    assert main([*arguments, "--dry-run"]) == 0
    assert "1 finished, 1 missing" in capfd.readouterr().out
    assert main(arguments) == 0
    assert "2 of 2 runs are finished" in capfd.readouterr().out
    command = read_json(Path("small/navigation2/rrl-1/config.json"))["command"]
    assert command.startswith("safemesa grid --preset quick")
    # Finished: nothing is started, nothing is touched.
    monkeypatch.setattr(local, "supervise", lambda *_: pytest.fail("a process was started"))
    before = {path: path.stat().st_mtime_ns for path in Path("small").rglob("*.json*")}
    assert main(arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in Path("small").rglob("*.json*")}


@pytest.mark.timeout(900)
def test_unknown_guards_are_refused_by_the_first_process(workplace: Path) -> None:
    def misspelt(config: RunConfig) -> RunConfig:
        return replace(config, arm="maml+sqrll", guard="sqrll")

    out = workplace / "misspelt"
    with pytest.raises(ConfigurationError, match="unknown guard 'sqrll'"):
        executor(workplace).carry_out(grid_of(["mesa"], [0], misspelt), GridFolder(out))
    assert not out.exists()


def six() -> Grid:
    return grid_of(["mesa", "multitask", "rrl"], [0, 1])


@pytest.fixture(scope="module")
def sequential(workplace: Path) -> Path:
    out = workplace / "sequential"
    executor(workplace, jobs=1).carry_out(six(), GridFolder(out))
    return out


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_number_of_jobs_changes_nothing(sequential: Path, workplace: Path) -> None:
    executor(workplace, jobs=2).carry_out(six(), GridFolder(workplace / "parallel"))
    assert len(hashes(sequential)) == 6
    assert hashes(workplace / "parallel") == hashes(sequential)


class KillingBoard(Board):
    """Kills one of the runs' processes, a while after so many messages of theirs."""

    after = 0
    delay = 0.0
    at = float("inf")
    deaths = 0
    results: tuple[str, ...] = ()

    def told(self, name: str, message: Any) -> None:
        super().told(name, message)
        if name != local.PREPARATION:
            KillingBoard.after -= 1
            if KillingBoard.after == 0:
                KillingBoard.at = time.monotonic() + self.delay

    def tick(self) -> None:
        super().tick()
        workers = [one.pid for one in multiprocessing.active_children() if one.pid is not None]
        if time.monotonic() > KillingBoard.at and workers:
            KillingBoard.at = float("inf")
            os.kill(random.choice(workers), signal.SIGKILL)

    def died(self, name: str, exitcode: int) -> None:
        super().died(name, exitcode)
        assert exitcode == -signal.SIGKILL
        KillingBoard.deaths += 1

    def ended(self, name: str, error: Any) -> None:
        super().ended(name, error)
        assert error is None
        KillingBoard.results += (name,)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(int(os.environ.get("SAFEMESA_KILLED_GRIDS", "20"))))
def test_a_killed_worker_changes_nothing(
    number: int, sequential: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random worker is killed (`kill -9`) at a random moment of the grid."""
    random.seed(number)
    for name, value in {
        # Six runs tell sixteen times at least: when their phases begin.
        "after": random.randint(1, 12),
        "delay": random.uniform(0.0, 1.0),
        "at": float("inf"),
        "deaths": 0,
        "results": (),
    }.items():
        monkeypatch.setattr(KillingBoard, name, value)
    monkeypatch.setattr(local, "Board", KillingBoard)
    out = workplace / f"killed-{number}"
    executor(workplace, jobs=2).carry_out(six(), GridFolder(out))
    assert KillingBoard.deaths == 1
    assert sorted(KillingBoard.results) == sorted(run.name for run in six().runs)
    assert hashes(out) == hashes(sequential)
    for file in out.glob("*/*/metrics.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["episode"] for line in lines] == list(range(6))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_seeds_side_by_side(workplace: Path) -> None:
    grid = replace(grid_of(["rrl"], [0, 1]), seeds_per_process=2)
    out = workplace / "together"
    executor(workplace).carry_out(grid, GridFolder(out))
    assert set(hashes(out)) == {"navigation2/rrl-0", "navigation2/rrl-1"}
    with pytest.raises(OutputFolderError, match="2 seeds per process"):
        executor(workplace).carry_out(replace(grid, seeds_per_process=1), GridFolder(out))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_simulators_logs_are_collected_in_several_processes(workplace: Path) -> None:
    pytest.importorskip("mujoco")
    config = tiny_config("multitask", "cartpole")
    config = replace(
        config,
        data=replace(config.data, train_tasks=2, train_transitions=450, test_transitions=90),
        deploy=replace(config.deploy, episodes=3, chunk_steps=25),
    )
    grid = Grid(runs=paired_runs([config], [0]))
    data = workplace / "data"
    executor(workplace, jobs=2).carry_out(grid, GridFolder(workplace / "cartpole"))
    assert (data / "cartpole-quick-0" / "manifest.json").is_file()
    assert not list(data.glob(".cartpole*"))
    assert set(hashes(workplace / "cartpole")) == {"cartpole/multitask-0"}
