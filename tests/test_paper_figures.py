"""The paper's figures: which runs they need, and that they are drawn from what is there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_paper_claims import write_run

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.experiments.grid.grid_folder import Grid
from safemesa.experiments.paper.paper_figures import curves_figure, maps_figure, sizes_figure
from safemesa.experiments.paper.plans import PAPER_ARMS, PLANS, find_plan
from safemesa.experiments.paper.produce import Production
from safemesa.experiments.runs.packed_runs import EPISODES_FILE, RUNS_FILE
from safemesa.experiments.runs.run_records import find_runs

RESULTS = Path(__file__).resolve().parents[1] / "results"


@pytest.mark.parametrize("name", PLANS)
def test_runs_of_a_figure_have_folders_of_their_own(name: str) -> None:
    plan = find_plan(name)
    if plan.conditions:
        grid = Grid(runs=plan.runs("quick", (0, 1)))
        assert len(grid.runs) == 2 * len(plan.conditions)
        assert [run.config.seed for run in grid.runs[: len(plan.conditions)]] == [0] * len(
            plan.conditions
        )


def test_figures_share_the_runs_that_they_have_in_common() -> None:
    """The whole test log of Figure 6a is Figure 5's run."""
    five = {run.name: run.config for run in PLANS["figure5"].runs("cpu", (0,))}
    six = {run.name: run.config for run in PLANS["figure6a"].runs("cpu", (0,))}
    assert set(five) & set(six) == {"halfcheetah/mesa-0"}
    assert five["halfcheetah/mesa-0"] == six["halfcheetah/mesa-0"]
    sizes = [config.data.test_transitions for config in six.values()]
    assert sizes == [2_500, 1_250, 625, 312, 156]


def test_figure_4_compares_the_arms_of_the_paper() -> None:
    arms = {run.config.arm for run in PLANS["figure4"].runs("paper", (0,))}
    assert arms == set(PAPER_ARMS)


def test_unknown_figures_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="figure7"):
        find_plan("figure7")


def add_lines(folder: Path, steps: int = 100) -> None:
    """Ten episodes for the runs below."""
    for path in folder.glob("*/metrics.jsonl"):
        lines = [
            {
                "episode": number,
                "env_steps": steps * (number + 1),
                "return": float(number),
                "length": steps,
                "violation": number % 2,
                "success": 1 if "navigation" in path.parent.name else None,
                "interventions": 0,
                "violation_under_recovery": 0,
                "cumulative_violations": (number + 1) // 2,
                "risk_bias": 0.0,
                "wall_s": 0.0,
            }
            for number in range(10)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = path.with_name("summary.json")
        totals = {"episodes": 10, "violations": 5, "return_mean": 4.5, "return_last_100": 4.5}
        totals["successes"] = None if lines[0]["success"] is None else 10
        summary.write_text(json.dumps(json.loads(summary.read_text()) | totals))


def test_curves_have_a_column_per_domain_and_no_empty_row(tmp_path: Path) -> None:
    for seed in range(2):
        for arm in ("mesa", "multitask"):
            write_run(tmp_path / "a", arm, "navigation1", seed, successes=10)
            write_run(tmp_path / "a", arm, "navigation2", seed, successes=10)
            write_run(tmp_path / "b", arm, "halfcheetah", seed)
    add_lines(tmp_path / "a")
    add_lines(tmp_path / "b")
    navigation = curves_figure(find_runs([tmp_path / "a"]), ("navigation1", "navigation2"))
    assert len(navigation.axes) == 3 * 2
    robot = curves_figure(find_runs([tmp_path / "b"]), ("halfcheetah",))
    assert [axes.get_title() for axes in robot.axes] == [
        "halfcheetah: Return",
        "halfcheetah: Cumulative violations",
    ]
    assert {axes.get_xlabel() for axes in robot.axes} == {"Environment steps"}
    assert {axes.get_xlabel() for axes in navigation.axes} == {"Episode"}
    with pytest.raises(DatasetError, match="ant"):
        curves_figure(find_runs([tmp_path / "b"]), ("ant",))


def test_sizes_are_drawn_from_large_to_small(tmp_path: Path) -> None:
    for seed in range(3):
        for size, violations in ((625, 80 + seed), (10_000, 40 + seed)):
            write_run(
                tmp_path, "mesa", "halfcheetah", seed, violations=violations, test_transitions=size
            )
    figure = sizes_figure(find_runs([tmp_path]))
    violations = figure.axes[0]
    assert [label.get_text() for label in violations.get_xticklabels()] == ["10000", "625"]
    (line,) = [line for line in violations.lines if len(line.get_xdata()) == 2][:1]
    assert list(line.get_ydata()) == [41.0, 81.0]


def drawing_only(folder: Path, preset: str) -> Production:
    return Production(
        out=folder,
        preset=preset,
        seeds=(0,),
        data_dir=folder / "data",
        jobs=1,
        draw_only=True,
        command="test",
    )


def test_drawing_alone_runs_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    production = drawing_only(tmp_path, "cpu")
    with pytest.raises(DatasetError, match="navigation1"):
        production.figure("figure4")
    assert not list(tmp_path.iterdir())
    plan = replace(PLANS["figure4"], conditions=PLANS["figure4"].conditions[:1])
    (run,) = plan.runs("cpu", (0,))
    write_run(tmp_path, "mesa", "navigation1", 0, successes=3)
    folder = tmp_path / "navigation1-mesa-0-None"
    add_lines(tmp_path)
    folder.rename(tmp_path / "moved")
    (tmp_path / run.name).parent.mkdir()
    (tmp_path / "moved").rename(tmp_path / run.name)
    with pytest.raises(DatasetError, match="navigation2"):
        production.figure("figure4")
    assert not (tmp_path / "data").exists()


def test_packed_runs_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name in (RUNS_FILE, EPISODES_FILE):
        shutil.copy(RESULTS / "robots_cpu" / name, tmp_path)
    assert drawing_only(tmp_path, "cpu").figure("figure6b").is_file()
    with pytest.raises(DatasetError, match="runs of the preset cpu"):
        drawing_only(tmp_path, "paper").figure("figure6b")


def test_runs_of_another_preset_are_not_drawn(tmp_path: Path) -> None:
    """Their folders have the same names."""
    production = drawing_only(tmp_path, "paper")
    with pytest.raises(DatasetError, match="no run with a safety critic"):
        production.figure("figure2")
    run = PLANS["figure4"].runs("paper", (0,))[0]
    write_run(tmp_path / "made", "mesa", "navigation1", 0, successes=3)
    (tmp_path / run.name).parent.mkdir()
    (tmp_path / "made" / "navigation1-mesa-0-None").rename(tmp_path / run.name)
    with pytest.raises(DatasetError, match="runs of the preset cpu, and paper is asked for"):
        production.figure("figure4")


def test_figure_2_shows_a_seed_that_all_arms_have(tmp_path: Path) -> None:
    for arm, seed in (("mesa", 0), ("multitask", 1)):
        write_run(tmp_path, arm, "maze", seed)
    with pytest.raises(DatasetError, match="no seed in common"):
        maps_figure(find_runs([tmp_path]))


@pytest.mark.slow
def test_figure_2_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safemesa.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert (
        main(
            ["paper", "figure2", "--preset", "quick", "--seeds", "0", "--jobs", "2", "--out", "out"]
        )
        == 0
    )
    assert (tmp_path / "out" / "figures" / "figure2.png").stat().st_size > 10_000
    main(["paper", "claims", "--out", "out", "--preset", "quick"])
    found = json.loads((tmp_path / "out" / "claims.json").read_text())["findings"]
    (claim,) = [one for one in found if one["id"] == "maze_adapts_faster"]
    assert (claim["n"], set(claim["means"])) == (1, {"mesa", "multitask"})
