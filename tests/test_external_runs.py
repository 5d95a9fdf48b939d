"""Runs of other programs, from a CSV file, stand in reports beside ours."""

import json
import re
from pathlib import Path

import pytest
from test_packed_runs import made_up

from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.experiments.measures.calibrate_runs import runs_with_critics
from safemesa.experiments.report.result_files import group_runs, paired_rows, results_table
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.runs.pack_runs import pack_runs
from safemesa.experiments.runs.run_records import find_runs

HEADER = "arm,seed,episode,return,violation"


def episodes_file(folder: Path, *rows: str, header: str = HEADER, name: str = "others.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder / name


def runs_of(arm: str, seeds: int = 3, episodes: int = 6, tail: str = "") -> list[str]:
    """Seed s violates in its first s episodes; the returns of a run are 0, 1, 2, ..."""
    return [
        f"{arm},{seed},{episode},{episode},{int(episode < seed)}{tail}"
        for seed in range(seeds)
        for episode in range(episodes)
    ]


def test_they_are_paired_with_ours_by_seed(tmp_path: Path) -> None:
    for seed in range(3):
        made_up(tmp_path / "runs" / f"multitask-{seed}", "multitask", seed, deploy={"episodes": 6})
    file = episodes_file(tmp_path, *runs_of("ppo"))
    runs = find_runs([tmp_path / "runs", file])
    assert [(run.arm, run.seed) for run in runs] == [
        (arm, seed) for arm in ("multitask", "ppo") for seed in range(3)
    ]
    assert {(run.domain, run.preset) for run in runs} == {("halfcheetah", "cpu")}
    (pair,) = [row for row in paired_rows(runs) if row.metric == "violations"]
    # Ours violate 3 + seed times, capped by six episodes: 3, 4, 5; theirs 0, 1, 2.
    assert (pair.arm, pair.seeds, pair.difference.mean) == ("ppo", (0, 1, 2), -3.0)
    row = results_table(runs)[-1]
    violations, returns = row.metrics["violations"], row.metrics["return_mean"]
    assert violations is not None
    assert returns is not None
    assert (violations.mean, returns.mean, row.episodes) == (1.0, 2.5, 6)
    assert row.metrics["interventions"] is row.metrics["env_steps"] is None
    lines = read_episode_lines(runs[-1].path)
    assert [line["cumulative_violations"] for line in lines] == [1, 2, 2, 2, 2, 2]
    assert [line["return"] for line in lines] == [0, 1, 2, 3, 4, 5]


def test_runs_that_end_after_steps_are_compared_with_such(tmp_path: Path) -> None:
    made_up(tmp_path / "runs" / "multitask-0", "multitask", deploy={"steps": 70})
    header = f"{HEADER},length,steps,success"
    file = episodes_file(tmp_path, *runs_of("ppo", 1, tail=",10,70,1"), header=header)
    runs = find_runs([tmp_path / "runs", file])
    assert [run.length for run in runs] == ["70 steps"] * 2
    assert {row.arm for row in paired_rows(runs)} == {"ppo"}
    assert (runs[1].summary["env_steps"], runs[1].summary["successes"]) == (60, 6)
    # Counted in episodes it is another length, and nothing is compared.
    file = episodes_file(tmp_path, *runs_of("ppo", 1))
    assert paired_rows(find_runs([tmp_path / "runs", file])) == []


def test_a_report_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(tmp_path / "runs" / "multitask-0", "multitask", deploy={"episodes": 6})
    file = episodes_file(tmp_path, *runs_of("my ppo (v2)"))
    for paths, out in (([tmp_path / "runs", file], "both"), ([file], "alone")):
        texts = [*map(str, paths), "--out", str(tmp_path / out), "--no-calibration"]
        if out == "alone":
            texts += ["--baseline", "my ppo (v2)"]
        assert main(["report", *texts]) == 0
        page = (tmp_path / out / "report.html").read_text()
        assert "another program&#x27;s, from others.csv" in page
        assert "my ppo (v2)" in page
        assert "No curves" not in page
        results = json.loads((tmp_path / out / "results.json").read_text())
        assert results["rows"][-1]["metrics"]["violations"]["mean"] == 1.0
    assert "Wall times" not in page
    assert "By another program: `others.csv`" in (tmp_path / "alone" / "results.md").read_text()
    capsys.readouterr()
    assert main(["power", str(tmp_path / "runs"), str(file)]) == 0
    assert "my ppo (v2)" in capsys.readouterr().out


def test_a_place_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    made_up(tmp_path / "runs" / "a", "multitask", domain="ant")
    made_up(tmp_path / "runs" / "b", "multitask", domain="cartpole")
    made_up(tmp_path / "runs" / "c", "multitask", domain="cartpole", preset="paper")
    file = episodes_file(tmp_path, *runs_of("ppo"))
    with pytest.raises(DatasetError, match=r"ant \(cpu\), cartpole \(cpu\).*column domain"):
        find_runs([tmp_path / "runs", file])
    file = episodes_file(tmp_path, *runs_of("ppo", tail=",cartpole"), header=f"{HEADER},domain")
    with pytest.raises(DatasetError, match="column preset"):
        find_runs([tmp_path / "runs", file])
    file = episodes_file(tmp_path, *runs_of("ppo", tail=",ant"), header=f"{HEADER},domain")
    groups = {group.arm: group for group in group_runs(find_runs([tmp_path / "runs", file]))}
    assert (groups["ppo"].domain, groups["ppo"].preset) == ("ant", "cpu")
    # With nothing to compare with, the file's name is the place.
    (group,) = group_runs(find_runs([episodes_file(tmp_path, *runs_of("ppo"))]))
    assert (group.domain, group.preset) == ("others", "external")


def test_an_arm_has_one_program(tmp_path: Path) -> None:
    made_up(tmp_path / "runs" / "a", "homemade")
    file = episodes_file(tmp_path, *runs_of("homemade"))
    with pytest.raises(DatasetError, match=r"arm 'homemade', and so have run folders"):
        find_runs([tmp_path / "runs", file])
    other = episodes_file(tmp_path, *runs_of("homemade"), name="second.csv")
    with pytest.raises(DatasetError, match=r"second\.csv has an arm 'homemade'.*others\.csv"):
        find_runs([file, other])
    assert len(find_runs([file, file])) == 3
    for arm in ("mesa", "maml+none"):
        with pytest.raises(DatasetError, match=r"line 2 has .* as arm; expected a name that is no"):
            find_runs([episodes_file(tmp_path, *runs_of(arm))])


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("arm,seed,episode,return", [], "line 1 lacks violation"),
        (f"{HEADER},succes", [], r"line 1 names unknown columns: 'succes'"),
        (f"{HEADER},seed", [], "line 1 names seed twice"),
        (f"{HEADER},steps", [], "steps without length"),
        (HEADER, [], "no episodes"),
        (HEADER, ["ppo,0,0,1.5"], "line 2 has 4 cells"),
        (HEADER, ["ppo,0,0,nan,0"], "line 2 has 'nan' as return; expected a finite number"),
        (HEADER, ["ppo,0,0,,0"], "line 2 has '' as return"),
        (HEADER, ["ppo,0,0,1_0,0"], "line 2 has '1_0' as return"),
        (HEADER, ["ppo,0,0,1,2"], "line 2 has '2' as violation; expected 0 or 1"),
        (HEADER, ["ppo,0,0,1,"], "line 2 has '' as violation"),
        (HEADER, ["ppo,-1,0,1,0"], "line 2 has '-1' as seed"),
        (HEADER, ["ppo,1.5,0,1,0"], "line 2 has '1.5' as seed"),
        (HEADER, [",0,0,1,0"], "line 2 has '' as arm"),
        (HEADER, ["../x,0,0,1,0"], "line 2 has '../x' as arm"),
        (HEADER, ["ppo,0,3,1,0"], "line 2: seed 0 of 'ppo' begins with episode 3"),
        (HEADER, ["ppo,0,0,1,0", "ppo,0,0,1,0"], "line 3: .* has episode 0 where 1 is next"),
        (HEADER, ["ppo,0,0,1,0", "ppo,0,2,1,0"], "line 3: .* has episode 2 where 1 is next"),
        (HEADER, [*runs_of("ppo"), "ppo,0,6,1,0"], "7 episodes and seed 1 has 6"),
        (f"{HEADER},length,steps", ["ppo,0,0,1,0,9,8"], "have 9 steps by then.*after 8"),
        (
            f"{HEADER},length,steps",
            ["ppo,0,0,1,0,2,8", "ppo,0,1,1,0,2,9"],
            "line 3 has 9 as steps, and 8 before",
        ),
        (f"{HEADER},length", ["ppo,0,0,1,0,0"], "line 2 has '0' as length"),
        (HEADER, ['"ppo,0,0,1,0'], "cannot be read as CSV"),
        (HEADER, ["ppo,0,0,1,\udcff"], "cannot be read as CSV"),
    ],
)
def test_what_no_episode_can_be_is_refused(
    tmp_path: Path, header: str, rows: list[str], message: str
) -> None:
    file = tmp_path / "others.csv"
    file.write_bytes("\n".join([header, *rows]).encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=rf"{re.escape(str(file))}.*{message}"):
        find_runs([file])


def test_verbs_that_need_more_than_episodes_say_so(tmp_path: Path) -> None:
    file = episodes_file(tmp_path, *runs_of("ppo"))
    with pytest.raises(DatasetError, match="nothing to pack"):
        pack_runs([file], tmp_path / "packed")
    with pytest.raises(ConfigurationError, match="calibration needs a run with a safety critic"):
        runs_with_critics([file])
    with pytest.raises(DatasetError, match="no folder"):
        find_runs([tmp_path / "absent.csv"])
