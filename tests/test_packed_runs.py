"""Packed runs are read as run folders are, and nothing is lost."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies
from tiny import tiny_config

from safemesa.cli.main import main
from safemesa.core.errors import CheckpointError, ConfigurationError, DatasetError
from safemesa.experiments.headroom.measure_headroom import Workplace
from safemesa.experiments.paper.verdicts import findings
from safemesa.experiments.report.report_page import write_report
from safemesa.experiments.report.seed_power import power_rows
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.runs.pack_runs import pack_runs
from safemesa.experiments.runs.packed_runs import (
    EPISODES_FILE,
    RUNS_FILE,
    PackedRun,
    PackedRuns,
    write_packed_runs,
)
from safemesa.experiments.runs.run_records import RunRecord, find_runs, scan_runs
from safemesa.phases.config import config_to_json

pytest.importorskip("pyarrow")


def made_up(folder: Path, arm: str = "mesa", seed: int = 0, **changed: Any) -> Path:
    """A run folder of six episodes."""
    config: dict[str, Any] = {"arm": arm, "domain": "halfcheetah", "preset": "cpu", "seed": seed}
    config |= {"meta_learner": "maml", "guard": "recovery_rl", "risk": {"risk_limit": 0.3}}
    lines = [
        {
            "episode": number,
            "env_steps": 10 * (number + 1),
            "return": 0.1 * number - seed,
            "length": 10,
            "violation": int(number < 3 + seed),
            "success": None,
            "interventions": number,
            "violation_under_recovery": 0,
            "cumulative_violations": min(number + 1, 3 + seed),
            "risk_bias": 1 / 3,
            "wall_s": 0.07,
        }
        for number in range(6)
    ]
    summary = {
        "episodes": 6,
        "env_steps": 60,
        "violations": sum(line["violation"] for line in lines),
        "violations_under_recovery": 0,
        "successes": None,
        "return_mean": sum(line["return"] for line in lines) / 6,
        "return_last_100": sum(line["return"] for line in lines) / 6,
        "interventions": 15,
        "wall_s": {"collect": 0.5, "meta_train": 1.0, "adapt": 0.25, "deploy": 2.0},
    }
    folder.mkdir(parents=True)
    record = {"config": config | changed, "command": f"safemesa run {arm} --seed {seed}"}
    record |= {"versions": {"python": "3.11"}, "git_commit": "abc"}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for arm in ("mesa", "multitask", "rrl", "unconstrained"):
        for seed in range(3):
            made_up(tmp_path / "runs" / "halfcheetah" / f"{arm}-{seed}", arm, seed)
    return tmp_path / "runs"


def moved_away(runs: Path) -> Path:
    """Packs `runs` in place; returns the place that its folders are moved to."""
    away = runs.parent / "away" / runs.name
    pack_runs([runs], runs)
    away.parent.mkdir()
    shutil.copytree(runs / "halfcheetah", away / "halfcheetah")
    shutil.rmtree(runs / "halfcheetah")
    return away


def values(run: RunRecord) -> tuple[Any, ...]:
    lines = read_episode_lines(run.path)
    settings, summary, made = run.settings, run.summary, (run.command, run.versions)
    return run.name, settings, summary, made, run.git_commit, json.dumps(lines)


def test_packed_runs_are_read_as_the_folders_were(runs: Path) -> None:
    before = [values(run) for run in find_runs([runs])]
    assert len(before) == 12
    moved_away(runs)
    assert sorted(file.name for file in runs.iterdir()) == [EPISODES_FILE, RUNS_FILE]
    assert [values(run) for run in find_runs([runs])] == before


@pytest.mark.parametrize(
    ("place", "count"),
    [("halfcheetah", 12), ("halfcheetah/rrl-1", 1), ("", 12)],
)
def test_a_path_within_packed_runs_finds_those_below_it(runs: Path, place: str, count: int) -> None:
    folders = [values(run) for run in find_runs([runs / place])]
    moved_away(runs)
    assert [values(run) for run in find_runs([runs / place])] == folders
    assert len(folders) == count
    # From above both are found; they are the same runs, so one of each is set aside.
    assert len(scan_runs([runs.parent]).set_aside) == 12


def test_what_is_not_there_is_an_error(runs: Path) -> None:
    moved_away(runs)
    for absent in ("walker", "halfcheetah/rrl", "halfcheetah/rrl-12"):
        with pytest.raises(DatasetError, match="is no folder"):
            find_runs([runs / absent])
    with pytest.raises(CheckpointError, match="no run 'halfcheetah/rrl-12'"):
        read_episode_lines(runs / "halfcheetah" / "rrl-12")


def test_reports_power_and_claims_of_packed_runs_are_those_of_the_folders(runs: Path) -> None:
    away = moved_away(runs)
    texts = []
    for folder in (runs, away):
        write_report([folder], folder.parent / "report", "safemesa report runs")
        found = find_runs([folder])
        report = folder.parent / "report"
        texts.append(
            [
                *(file.read_bytes() for file in sorted(report.rglob("*.[phm]*"))),
                json.loads((report / "results.json").read_text()),
                repr(power_rows(found)),
                repr(findings(found, "cpu")),
            ]
        )
    assert texts[0] == texts[1]
    assert len(texts[0]) >= 6  # page, JSON, Markdown, curves, power, claims
    assert "late_return" in texts[0][-1]


def test_a_verb_packs_and_is_repeated_for_new_runs(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = runs.parent / "results"
    assert main(["pack", str(runs), "--out", str(out)]) == 0
    assert "12 runs, 12 of them new" in capsys.readouterr().out
    first = {name: (out / name).read_bytes() for name in (RUNS_FILE, EPISODES_FILE)}
    shutil.rmtree(runs)
    made_up(runs / "halfcheetah" / "mesa-3", seed=3)
    (made_up(runs / "halfcheetah" / "mesa-4", seed=4) / "summary.json").unlink()
    (made_up(runs / "halfcheetah" / "mesa-5", seed=5) / "metrics.jsonl").write_text("{\n")
    assert main(["pack", str(runs), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "13 runs, 1 of them new" in said
    assert "Left out: runs/halfcheetah/mesa-4: unfinished" in said
    assert "mesa-5" in said
    assert len(find_runs([out])) == 13
    # Without anything new the files do not change, byte for byte.
    shutil.rmtree(runs)
    made_up(runs / "halfcheetah" / "mesa-0")
    grown = {name: (out / name).read_bytes() for name in first}
    pack_runs([runs, out], out)
    assert {name: (out / name).read_bytes() for name in first} == grown != first


def test_new_run_folders_beside_packed_runs_are_added_under_their_path(runs: Path) -> None:
    moved_away(runs)
    made_up(runs / "ant" / "mesa-0", domain="ant")
    assert len(find_runs([runs])) == 13
    assert pack_runs([runs / "ant"], runs).new == 1
    shutil.rmtree(runs / "ant")
    assert [run.name for run in find_runs([runs / "ant"])] == ["ant/mesa-0"]
    assert len(find_runs([runs])) == 13


def test_a_run_folder_counts_in_place_of_what_was_packed_of_it(runs: Path) -> None:
    away = moved_away(runs)
    again = runs / "halfcheetah" / "mesa-0"
    shutil.copytree(away / "halfcheetah" / "mesa-0", again)
    lines = (again / "metrics.jsonl").read_text()
    (again / "metrics.jsonl").write_text(lines.replace("0.07", "0.08"))
    assert len(scan_runs([runs]).runs) == 12
    assert scan_runs([runs]).set_aside == ()
    assert read_episode_lines(again)[0]["wall_s"] == 0.08
    assert pack_runs([runs], runs).new == 0
    shutil.rmtree(again)
    assert read_episode_lines(again)[0]["wall_s"] == 0.08


def test_different_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    made_up(tmp_path / "a" / "mesa-0")
    made_up(tmp_path / "b" / "mesa-0", risk={"risk_limit": 0.5})
    with pytest.raises(ConfigurationError, match=r"called 'mesa-0'.*risk_limit is 0.3.*0.5"):
        pack_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert pack_runs([tmp_path], tmp_path / "out").runs == 2


def test_nothing_to_pack_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing is packed"):
        pack_runs([tmp_path], tmp_path / "out")
    (made_up(tmp_path / "mesa-0") / "summary.json").unlink()
    with pytest.raises(DatasetError, match="unfinished"):
        pack_runs([tmp_path], tmp_path / "out")
    assert main(["pack", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert main(["pack", "--out", str(tmp_path / "out")]) == 2


def test_files_that_do_not_belong_together_are_refused(runs: Path) -> None:
    moved_away(runs)
    file = runs / EPISODES_FILE
    whole = file.read_bytes()
    for damaged in (whole[:-20], whole[:100] + b"x" + whole[101:], b""):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="Restore both"):
            PackedRuns(runs).lines("halfcheetah/mesa-0")
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        PackedRuns(runs).lines("halfcheetah/mesa-0")


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "shared": {}, "runs": {"a": {}}}'],
)
def test_a_damaged_list_of_runs_is_refused(runs: Path, text: str) -> None:
    moved_away(runs)
    (runs / RUNS_FILE).write_text(text)
    with pytest.raises(DatasetError, match=RUNS_FILE):
        find_runs([runs])


def test_without_pyarrow_it_says_what_to_install(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved_away(runs)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    wanted = rf"{EPISODES_FILE}: .*pip install 'safemesa\[data\]'"
    # Settings and summaries need nothing.
    found = find_runs([runs])
    assert len(power_rows(found)) == 3
    with pytest.raises(ConfigurationError, match=wanted):
        read_episode_lines(found[0].path)
    with pytest.raises(ConfigurationError, match=wanted):
        findings(found, "cpu")
    with pytest.raises(ConfigurationError, match=wanted):
        pack_runs([runs], runs.parent / "out")
    assert main(["paper", "claims", "--out", str(runs), "--preset", "cpu"]) == 2
    assert "pip install 'safemesa[data]'" in capsys.readouterr().err


def test_headroom_makes_runs_whose_models_are_not_there(tmp_path: Path) -> None:
    """It asks models, which packed runs have not."""
    config, place = tiny_config("mesa"), tmp_path / "mesa-0"
    settings = config_to_json(config)
    made_up(place, settings.pop("arm"), settings.pop("seed"), **settings)
    (record,) = find_runs([tmp_path])
    assert Workplace(found=[record]).find(config) == place
    pack_runs([tmp_path], tmp_path)
    shutil.rmtree(place)
    (record,) = find_runs([tmp_path])
    assert Workplace(found=[record]).find(config) is None


NUMBERS = strategies.floats(allow_nan=False, allow_infinity=False)
COLUMNS = {
    "single": strategies.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": NUMBERS,
    "mixed": NUMBERS | strategies.none(),
    "count": strategies.integers(-(2**62), 2**62),
    "perhaps": strategies.integers(-3, 3) | strategies.none(),
    "truth": strategies.booleans(),
    "text": strategies.text(max_size=3) | strategies.none(),
    "nothing": strategies.none(),
}
OBJECTS = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-2, 2) | NUMBERS,
    lambda inner: (
        strategies.lists(inner, max_size=2)
        | strategies.dictionaries(strategies.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)
RECORDS = strategies.dictionaries(strategies.sampled_from("abcd"), OBJECTS)
LINES = strategies.sets(strategies.sampled_from(sorted(COLUMNS)), min_size=1).flatmap(
    lambda names: strategies.lists(
        strategies.fixed_dictionaries({name: COLUMNS[name] for name in sorted(names)}),
        min_size=1,
        max_size=3,
    )
)
RUNS = strategies.dictionaries(
    strategies.sampled_from(["a/x-0", "a/x-1", "b", "c"]),
    strategies.tuples(RECORDS, RECORDS, LINES),
    min_size=1,
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(runs=RUNS)
def test_whatever_is_packed_comes_back(
    runs: dict[str, tuple[Any, Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    write_packed_runs(
        folder,
        {
            name: PackedRun(config=config, summary=summary, lines=lines)
            for name, (config, summary, lines) in runs.items()
        },
    )
    pack = PackedRuns(folder)
    assert sorted(pack.configs) == sorted(runs)
    again = folder / "again"
    pack_again(folder, again)
    for name in (RUNS_FILE, EPISODES_FILE):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    for name, (config, summary, lines) in runs.items():
        # As text: 1, 1.0 and true are equal in Python.
        assert plain(pack.configs[name]) == plain(config)
        assert plain(pack.summaries[name]) == plain(summary)
        assert pack.lines(name) == lines


def pack_again(folder: Path, out: Path) -> None:
    pack = PackedRuns(folder)
    runs = {
        name: PackedRun(config=config, summary=pack.summaries[name], lines=pack.lines(name))
        for name, config in pack.configs.items()
    }
    write_packed_runs(out, runs)


def plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("value", [[1], {"a": 1}, "text"])
def test_what_is_no_number_in_a_column_of_numbers_is_refused(tmp_path: Path, value: Any) -> None:
    lines = [{"return": 1.0}, {"return": value}]
    with pytest.raises(DatasetError, match="'return'"):
        write_packed_runs(tmp_path, {"a": PackedRun(config={}, summary={}, lines=lines)})
    with pytest.raises(DatasetError, match="differ in their fields"):
        write_packed_runs(
            tmp_path, {"a": PackedRun(config={}, summary={}, lines=[{"x": 1}, {"y": 1}])}
        )
