"""Seeds and arms side by side for an accelerator, here on the processor at tiny sizes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import episodes_of, tiny_config

from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError, OutputFolderError
from safemesa.experiments.grid.executors.executor import make_task
from safemesa.experiments.grid.executors.progress_board import Row
from safemesa.experiments.grid.grid_folder import Grid, GridFolder, paired_runs
from safemesa.experiments.paper.plans import PLANS, Condition, FigurePlan
from safemesa.phases.config import RunConfig
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import load_risk_model
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.replay_file import read_replay

ROWS = Path("replay", "rows.f32")

# Their logs are too short for ten violations.
pytestmark = pytest.mark.filterwarnings(
    "ignore::safemesa.phases.collection.logs.FewViolationsWarning"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


class InterruptError(Exception):
    """Stands for a process that dies."""


def test_arms_side_by_side_do_what_single_runs_do_and_resume_exactly(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [tiny_config(arm) for arm in ("multitask", "rrl")]
    options = RunOptions(data_dir=data_dir)

    def folders(kind: str) -> list[Path]:
        return [tmp_path / kind / f"{one.arm}-{one.seed}" for one in configs]

    summaries = run(configs, folders("straight"), options)
    assert [one["arm"] for one in summaries] == ["multitask", "rrl"]
    run([configs[1]], [tmp_path / "single"], options)
    one, other = (
        load_risk_model(folder / "artefacts" / "risk_model")[0]
        for folder in (tmp_path / "single", folders("straight")[1])
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    # Rounding grows with the episodes, so that the first is compared.
    first = episodes_of(tmp_path / "single")[0]["length"]
    pair = (
        read_replay(folder / "replay") for folder in (tmp_path / "single", folders("straight")[1])
    )
    alone, together = pair
    for name in ("obs", "action", "next_obs", "reward", "cost"):
        np.testing.assert_allclose(
            alone[name][:first], together[name][:first], rtol=1e-3, atol=1e-4
        )

    save, count = Checkpointer.save, [0]

    def dying(self, step, state, notes):
        save(self, step, state, notes)
        count[0] += self.phase == "deploy"
        if count[0] == 5:  # only one of the two has saved this step
            raise InterruptError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", dying)
        with pytest.raises(InterruptError):
            run(configs, folders("killed"), options)
    assert not (folders("killed")[0] / "summary.json").exists()
    run(configs, folders("killed"), options)
    for straight, killed in zip(folders("straight"), folders("killed"), strict=True):
        assert episodes_of(straight) == episodes_of(killed)
        assert (straight / ROWS).read_bytes() == (killed / ROWS).read_bytes()


def test_arms_with_another_phase_3_are_refused(tmp_path: Path, data_dir: Path) -> None:
    configs = [tiny_config("rrl"), tiny_config("unconstrained")]
    with pytest.raises(ConfigurationError, match="rrl, unconstrained do not share Phase 3"):
        run(configs, [tmp_path / "a", tmp_path / "b"], RunOptions(data_dir=data_dir))
    assert not list(tmp_path.iterdir())


def test_a_process_has_the_arms_that_share_phase_3(tmp_path: Path) -> None:
    arms = ("mesa", "unconstrained", "rrl")
    runs = paired_runs([tiny_config(arm) for arm in arms], [0, 1, 2])
    grid = Grid(runs=runs, seeds_per_process=2, arms_together=True)
    folder = GridFolder(tmp_path)
    names = [make_task(group, folder, 1).name for group in grid.groups()]
    assert names == [
        "navigation2/mesa+rrl-0..1",
        "navigation2/unconstrained-0..1",
        "navigation2/mesa+rrl-2",
        "navigation2/unconstrained-2",
    ]
    first = [(one.config.arm, one.config.seed) for one in grid.groups()[0]]
    assert first == [("mesa", 0), ("mesa", 1), ("rrl", 0), ("rrl", 1)]
    folder.open(grid, "paper gpu")
    folder.check(grid)
    with pytest.raises(OutputFolderError, match="a grid of another kind"):
        folder.check(replace(grid, arms_together=False))


def test_the_paper_arms_share_phase_3() -> None:
    """All of one shape: three arms and five seeds are one program of fifteen."""
    for name, figure in (("navigation1", "figure4"), ("halfcheetah", "figure5")):
        runs = [one for one in PLANS[figure].runs("paper", range(5)) if one.config.domain == name]
        grid = Grid(runs=tuple(runs), seeds_per_process=5, arms_together=True)
        assert [len(group) for group in grid.groups()] == [15, 5, 5, 5]


def test_lines_of_progress_say_rate_and_time_left() -> None:
    row = Row(name="ant/mesa-0..4", arm="mesa", domain="ant", seeds="0,1,2,3,4")
    row.phase, row.total, row.done = "deploy", 1_000, 100
    row.phase_began = time.monotonic() - 10.0
    assert row.line == "ant/mesa-0..4 deploy 100/1000, 10/s, 1 min 30 s left"


def tiny_plan(*conditions: tuple[str, str]) -> FigurePlan:
    def change(config: RunConfig) -> RunConfig:
        config = tiny_config(config.arm, config.domain)
        if config.domain != "cartpole":
            return config
        data = replace(config.data, train_tasks=2, train_transitions=450, test_transitions=90)
        return replace(config, data=data, deploy=replace(config.deploy, chunk_steps=25))

    return FigurePlan(
        title="Tiny",
        conditions=tuple(Condition(arm=a, domain=d, change=change) for a, d in conditions),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--simulators", "0"], "--simulators is 0"),
        (["--probe-seconds", "0", "--estimate"], "above 0 with --estimate"),
        (["--figures", "figure7"], "unknown figure 'figure7'"),
    ],
)
def test_wrong_flags_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "gpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_make_gives_its_arguments_on() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "paper-gpu", "ARGS=--estimate --seeds 0"],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.endswith("/safemesa paper gpu --estimate --seeds 0\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_command_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Estimates, is killed, goes on, and leaves what an undisturbed one leaves."""
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    plan = tiny_plan(("mesa", "cartpole"), ("rrl", "cartpole"), ("unconstrained", "navigation2"))
    monkeypatch.setitem(PLANS, "figure6b", plan)
    words = ["paper", "gpu", "--figures", "figure6b", "--preset", "quick", "--seeds", "0-1"]
    assert main([*words, "--estimate", "--probe-seconds", "2"]) == 0
    said = capfd.readouterr().err
    assert "2 groups of runs are unfinished" in said
    for phase in ("collect", "meta_train", "adapt", "deploy"):
        assert f"{phase} " in said
    assert " on cpu, beside compilation." in said
    assert not list(tmp_path.iterdir())
    assert main([*words, "--probe-seconds", "0", "--out", "straight"]) == 0
    assert Path("straight/figures/figure6b.png").is_file()
    # As the command is for a user: a process that is killed with all that it has started.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_paper_gpu import PLANS, main, tiny_plan\n"
        f"PLANS['figure6b'] = tiny_plan(*{[(c.arm, c.domain) for c in plan.conditions]})\n"
        "sys.exit(main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    command += [*words, "--probe-seconds", "0", "--out", "killed"]
    process = subprocess.Popen(command, start_new_session=True)
    saved = Path("killed/cartpole/mesa-0/checkpoints")
    while not list(saved.glob("*deploy*")) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert main([*words, "--probe-seconds", "0", "--out", "killed"]) == 0
    rows = sorted(path.relative_to("straight") for path in Path("straight").glob(f"*/*/{ROWS}"))
    assert len(rows) == 6
    for path in rows:
        assert (Path("straight") / path).read_bytes() == (Path("killed") / path).read_bytes()
