"""Every kind of defect is injected, and must be named at its place; clean logs raise nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import logs
import numpy as np
import pytest

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.files import read_json, write_json
from safemesa.datasets.doctor.examine import Examination, examine
from safemesa.datasets.findings import DEFECTS, Finding
from safemesa.datasets.importers.import_map import map_from_record
from safemesa.datasets.importers.write import import_logs
from safemesa.datasets.offline_tasks import OfflineTasks

HEADER = 2
"""The line of a CSV file that holds the first row."""
ROBOTS = ("robot-0", "robot-1", "robot-2", "robot-3", "new")


@dataclass
class Case:
    """A clean fleet to spoil, and where the defect must be found."""

    folder: Path
    tables: dict[str, dict[str, np.ndarray]]
    map: dict = field(default_factory=dict)
    text: dict[str, Callable[[str], str]] = field(default_factory=dict)
    file: str | None = "robot-1"
    row: int | None = None
    """Index of the row in its table."""
    column: str = ""

    @property
    def one(self) -> dict[str, np.ndarray]:
        """The table that most defects go into."""
        return self.tables["robot-1"]

    def rows_of(self, episode: int) -> np.ndarray:
        """Rows of an episode of that table."""
        return np.flatnonzero(self.one["run"] == episode)

    def drop(self, index: np.ndarray | list[int]) -> None:
        """Loses rows."""
        for name in self.one:
            self.one[name] = np.delete(self.one[name], index)

    def long_episode(self, steps: int = 28) -> np.ndarray:
        """Rows of the first episode that is long enough, but not the first one."""
        lengths = np.bincount(self.one["run"])
        return self.rows_of(int(np.flatnonzero(lengths[1:] >= steps)[0]) + 1)

    def examine(self) -> Examination:
        """Writes everything and calls the doctor."""
        for name, columns in self.tables.items():
            path = logs.write_csv(self.folder / f"{name}.csv", columns)
            if name in self.text:
                path.write_text(self.text[name](path.read_text()))
        mapping = {**logs.MAP, "tasks": {"test": "new"}, **self.map}
        return examine([self.folder], map_from_record(mapping))


@pytest.fixture
def case(tmp_path) -> Case:
    tables = {
        name: {
            key: np.array(column)
            for key, column in logs.table(logs.cart_log(name, index, 30, 3.0 + index)).items()
        }
        for index, name in enumerate(ROBOTS)
    }
    return Case(folder=tmp_path / "logs", tables=tables)


def set_cell(case: Case, name: str, value: float, index: int = 41) -> None:
    case.one[name] = case.one[name].astype(np.float64)
    case.one[name][index] = value
    case.row, case.column = index, name


def replace_cell(case: Case, index: int, column: int, text: str) -> None:
    def change(content: str) -> str:
        lines = content.split("\n")
        cells = lines[index + 1].split(",")
        cells[column] = text
        lines[index + 1] = ",".join(cells)
        return "\n".join(lines)

    case.text["robot-1"], case.row = change, index


def unreadable_file(case: Case) -> None:
    case.text["robot-1"] = lambda content: "\0\0\0" + content[3:]


def missing_column(case: Case) -> None:
    del case.one["push"]


def empty_log(case: Case) -> None:
    case.tables["robot-1"] = {name: column[:0] for name, column in case.one.items()}


def ragged_row(case: Case) -> None:
    replace_cell(case, 17, 3, "1,2")


def not_a_number(case: Case) -> None:
    replace_cell(case, 17, 2, "off")
    case.column = "position"


def missing_value(case: Case) -> None:
    replace_cell(case, 17, 3, "")
    case.column = "velocity"


def infinite_value(case: Case) -> None:
    set_cell(case, "reward", np.inf)


def number_too_large(case: Case) -> None:
    set_cell(case, "velocity", 1e39)


def sentinel_value(case: Case) -> None:
    rows = [60, 61, 200, 333]
    for name in ("position",):
        case.one[name] = case.one[name].astype(np.float64)
        case.one[name][rows] = -999.0
    case.row, case.column = 60, "position"


def stuck_signal(case: Case) -> None:
    rows = case.long_episode()
    for name in ("position", "next_position"):
        case.one[name][rows[3:]] = case.one["position"][rows[3]]
    case.row, case.column = int(rows[3]), "position"


def repeated_row(case: Case) -> None:
    rows = case.long_episode()
    again = int(rows[4])
    for name, column in case.one.items():
        case.one[name] = np.insert(column, again, column[again])
    case.one["t"] = case.one["t"].astype(np.float64)
    after = slice(again + 1, int(rows[-1]) + 2)
    case.one["t"][after] += 0.05
    case.row = again + 1


def constant_signal(case: Case) -> None:
    case.one["velocity"][:] = case.one["next_velocity"][:] = 0.25
    case.column = "velocity"


def unused_signal(case: Case) -> None:
    for columns in case.tables.values():
        columns["velocity"][:] = columns["next_velocity"][:] = 0.25
    case.file, case.column = "new", "velocity"


def duplicate_signal(case: Case) -> None:
    for columns in case.tables.values():
        columns["velocity"] = columns["position"]
        columns["next_velocity"] = columns["next_position"]
    case.file, case.column = "new", "velocity"


def action_outside_bounds(case: Case) -> None:
    set_cell(case, "push", 2.5)


def constant_action(case: Case) -> None:
    case.one["push"][:] = 0.5
    case.column = "push"


def action_range_unused(case: Case) -> None:
    case.one["push"] = case.one["push"] * 0.001
    case.column = "push"


def cost_not_binary(case: Case) -> None:
    set_cell(case, "violation", 0.7)
    case.column = "cost"


def cost_negative(case: Case) -> None:
    set_cell(case, "violation", -1.0)
    case.column = "cost"


def flag_not_binary(case: Case) -> None:
    set_cell(case, "truncated", 2.0)


def continues_after_end(case: Case) -> None:
    rows = case.long_episode()
    case.one["terminated"][rows[5]] = 1
    case.row = int(rows[6])


def two_ends(case: Case) -> None:
    case.one["truncated"] = case.one["terminated"] | case.one["truncated"]
    case.row, case.column = int(np.argmax(case.one["terminated"])), "truncated"


def violation_ends_sometimes(case: Case) -> None:
    ends = np.flatnonzero(case.one["violation"] == 1)
    for end in ends[: len(ends) // 2]:
        case.one["violation"][end] = 0
        case.one["violation"][end - 1] = 1
    case.row, case.column = int(ends[0]) - 1, "terminated"


def after_violation(case: Case) -> None:
    stay_violated(case.one)
    case.map = {"after_violation": "cut"}
    case.row = int(np.flatnonzero(case.one["violation"] == 1)[0]) + 1


def stay_violated(columns: dict[str, np.ndarray], rows: int = 3) -> None:
    """The stop of every violation stays on for some rows more, as loggers write it."""
    ends = np.flatnonzero(columns["violation"] == 1)
    for name in columns:
        columns[name] = np.insert(
            columns[name], np.repeat(ends + 1, rows), np.repeat(columns[name][ends], rows)
        )
    step = np.concatenate([np.arange(n) for n in np.bincount(columns["run"])])
    columns["t"] = step * 0.05
    last = np.append(np.diff(columns["run"]) != 0, True)
    columns["terminated"] = np.where(last, columns["terminated"], 0)
    columns["truncated"] = np.where(last, columns["truncated"], 0)


def no_such_test(case: Case) -> None:
    case.map = {"tasks": {"test": "nwe"}}
    case.file = ""


def starts_in_violation(case: Case) -> None:
    moments(case)
    first = case.rows_of(3)[0]
    case.one["position"][first] = -1.5
    case.row, case.column = int(first), "cost"


def moments(case: Case) -> None:
    """Every row a moment: an episode's last row is the state that its last step reached."""
    for name, columns in case.tables.items():
        last = np.flatnonzero(np.append(np.diff(columns["run"]) != 0, True))
        for key in ("position", "velocity"):
            columns[key] = np.insert(columns[key], last + 1, columns[f"next_{key}"][last])
        for key in ("run", "push"):
            columns[key] = np.insert(columns[key], last + 1, columns[key][last])
        columns["t"] = np.insert(columns["t"], last + 1, columns["t"][last] + 0.05)
        kept = ("run", "t", "position", "velocity", "push")
        case.tables[name] = {key: columns[key] for key in kept}
    case.map = {
        "rows": "states",
        "obs": ["position", "velocity"],
        "columns": {"episode": "run", "time": "t"},
        "cost": {"limit": "abs(position) > 1.0"},
    }


def no_violations(case: Case) -> None:
    case.one["violation"][:] = 0
    case.column = "cost"


def only_violations(case: Case) -> None:
    case.one["violation"][:] = 1
    case.column = "cost"


def lost_endings(case: Case) -> None:
    case.map = {
        "obs": ["position", "velocity"],
        "cost": {"limit": "abs(position) > 1.0"},
        "columns": {"episode": "run"},
    }
    case.row = int(case.rows_of(0)[-1])


def alone(case: Case, position: float) -> None:
    """The state that the last step reached has an episode of its own."""
    moments(case)
    case.one["run"] = case.one["run"].copy()
    case.one["run"][-1] = 999
    case.one["position"] = case.one["position"].astype(np.float64)
    case.one["position"][-1] = position
    case.row = len(case.one["run"]) - 1


def lone_row(case: Case) -> None:
    alone(case, 0.0)


def lost_violation(case: Case) -> None:
    alone(case, 2.0)
    case.column = "cost"


def same_name(case: Case) -> None:
    case.tables["more/robot-1"] = case.tables.pop("robot-2")


def precision_lost(case: Case) -> None:
    for name in ("position", "next_position"):
        case.one[name] = case.one[name].astype(np.float64) + 5e6
    case.row, case.column = 0, "position"


def time_backwards(case: Case) -> None:
    rows = case.long_episode()
    case.one["t"][rows[7]] = -0.3
    case.row = int(rows[7])


def time_repeated(case: Case) -> None:
    rows = case.long_episode()
    case.one["t"][rows[7]] = case.one["t"][rows[6]]
    case.row = int(rows[7])


def time_gap(case: Case) -> None:
    rows = case.long_episode()
    case.drop(rows[7:10])
    case.row, case.column = int(rows[7]), "time"


def uneven_time(case: Case) -> None:
    rows = case.long_episode()
    case.one["t"][rows[7] :][: len(rows) - 7] -= 0.04
    case.row, case.column = int(rows[7]), "time"


def wrong_dt(case: Case) -> None:
    for columns in case.tables.values():
        columns["t"] = columns["t"] * 2.0
    case.row, case.column = 1, "time"


def step_jump(case: Case) -> None:
    rows = case.long_episode()
    case.one["k"] = np.arange(len(case.one["run"]))
    for name, columns in case.tables.items():
        columns["k"] = np.round(columns["t"] / 0.05).astype(int)
        if name == "robot-1":
            columns["k"][rows[7:]] += 2
    case.map = {"columns": {**logs.MAP["columns"], "step": "k"}}
    case.row = int(rows[7])


def episode_in_pieces(case: Case) -> None:
    case.one["run"][case.rows_of(5)] = 2
    case.row = int(np.flatnonzero(case.one["run"] == 2)[-1])
    rows = np.flatnonzero(case.one["run"] == 2)
    case.row = int(rows[np.flatnonzero(np.diff(rows) > 1)[0] + 1])


def episode_too_long(case: Case) -> None:
    case.map = {"horizon": 29}
    case.row = int(np.flatnonzero(np.round(case.one["t"] / 0.05) == 29)[0])


def state_jump(case: Case) -> None:
    rows = case.long_episode()
    for name in ("position", "velocity"):
        case.one[name][rows[8:]] += 5.0
        case.one[f"next_{name}"][rows[7:]] += 5.0
    case.row = int(rows[7])


def next_obs_mismatch(case: Case) -> None:
    rows = case.long_episode()
    case.one["next_position"][rows[7]] += 0.01
    case.row, case.column = int(rows[8]), "next_obs"


def duplicate_episode(case: Case) -> None:
    rows = case.long_episode()
    start = len(case.one["run"])
    for name, column in case.one.items():
        case.one[name] = np.concatenate([column, column[rows]])
    case.one["run"][start:] = 77
    case.row = start


def leaked_episode(case: Case) -> None:
    rows, new = case.long_episode(), case.tables["new"]
    case.file, case.row = "new", len(new["run"])
    for name, column in new.items():
        new[name] = np.concatenate([column, case.one[name][rows]])
    new["run"][case.row :] = 77


def too_few_episodes(case: Case) -> None:
    for name, column in case.one.items():
        case.one[name] = column[case.rows_of(0)]


def other_unit(case: Case) -> None:
    for name in ("velocity", "next_velocity"):
        case.one[name] = case.one[name] * 57.29578
    case.column = "velocity"


def lopsided(case: Case) -> None:
    """Positions around 10, speeds around 0: then signals can be told apart."""
    for columns in case.tables.values():
        for name in ("position", "next_position"):
            columns[name] = columns[name] + 10.0


def swapped_columns(case: Case) -> None:
    lopsided(case)
    for prefix in ("", "next_"):
        one, other = f"{prefix}position", f"{prefix}velocity"
        case.one[one], case.one[other] = case.one[other], case.one[one]
    case.column = "position"


def mirrored_signal(case: Case) -> None:
    lopsided(case)
    for name in ("position", "next_position"):
        case.one[name] = -case.one[name]
    case.column = "position"


IN_LOGS = {
    function.__name__.replace("_", "-"): function
    for function in (
        unreadable_file, missing_column, empty_log, ragged_row, not_a_number, missing_value,
        infinite_value, number_too_large, sentinel_value, stuck_signal, repeated_row,
        constant_signal, unused_signal, duplicate_signal, action_outside_bounds, constant_action,
        action_range_unused, cost_not_binary, cost_negative, flag_not_binary, continues_after_end,
        two_ends, violation_ends_sometimes, starts_in_violation, no_violations, only_violations,
        lost_endings, time_backwards, time_repeated, time_gap, uneven_time, wrong_dt, step_jump,
        episode_in_pieces, episode_too_long, state_jump, next_obs_mismatch, duplicate_episode,
        leaked_episode, too_few_episodes, other_unit, swapped_columns, mirrored_signal,
        lone_row, lost_violation, same_name, precision_lost, after_violation, no_such_test,
    )
}  # fmt: skip
ELSEWHERE = {
    "wrong-width", "lengths-differ", "changed-file", "no-end",
    # In test_log_faults.py.
    "no-task", "label-too-long", "unused-ends", "unread-file", "nul-tail", "unused-columns",
    "fine-steps", "held-value", "dropped-row", "dropped-violation", "clipped-action",
    "violation-after-gap",
    # In test_import_robots.py.
    "clock-restarted", "late-start", "late-message", "lost-messages", "cut-off",
}  # fmt: skip


def test_every_kind_of_defect_has_its_injection():
    assert set(IN_LOGS) | ELSEWHERE == set(DEFECTS)
    assert len(DEFECTS) >= 30


@pytest.mark.parametrize("code", IN_LOGS)
def test_a_defect_is_named_at_its_place(case, code):
    IN_LOGS[code](case)
    found = [one for one in case.examine().findings if one.code == code]
    assert found, f"{code} was not found"
    assert matches(found, case), [one.sentence() for one in found]


def matches(found: list[Finding], case: Case) -> bool:
    row = None if case.row is None else case.row + HEADER
    return any(
        Path(one.file).stem == case.file and one.row == row and one.column == case.column
        for one in found
    )


@pytest.mark.parametrize("block", [50, 32_768])
def test_clean_logs_have_no_findings(case, monkeypatch, block):
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    result = case.examine()
    assert [one.sentence() for one in result.findings] == []
    assert result.transitions == sum(len(one["run"]) for one in case.tables.values())


def test_clean_moments_have_no_findings(case):
    moments(case)
    assert {one.code for one in case.examine().findings} <= set()


@pytest.mark.parametrize("code", ["stuck-signal", "next-obs-mismatch", "repeated-row"])
@pytest.mark.parametrize("block", [37])
def test_defects_across_blocks_are_found_too(case, monkeypatch, code, block):
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    IN_LOGS[code](case)
    found = [one for one in case.examine().findings if one.code == code]
    assert [Path(one.file).stem for one in found] == ["robot-1"]


@pytest.mark.parametrize("factor", [0.68, 0.9, 1.48])
def test_a_dt_that_is_nearly_right_is_wrong(case, factor):
    for columns in case.tables.values():
        columns["t"] = columns["t"] * factor
    (first, *_) = [one for one in case.examine().findings if one.code == "wrong-dt"]
    assert f"typically {0.05 * factor:.6g} s apart" in first.detail


def test_a_signal_that_rests_but_for_its_last_digits_loses_nothing(case):
    for columns in case.tables.values():
        noise = np.random.default_rng(0).normal(0.0, 1e-9, len(columns["run"]))
        for name in ("velocity", "next_velocity"):
            columns[name] = 5.0 + noise
    assert "precision-lost" not in {one.code for one in case.examine().findings}


def test_a_row_without_a_name_is_no_robots(case):
    for name, columns in case.tables.items():
        columns["robot"] = np.full(len(columns["run"]), name)
    case.one["robot"][41] = ""
    case.map = {"columns": {**logs.MAP["columns"], "task": "robot"}}
    found = [one for one in case.examine().findings.errors() if one.column == "robot"]
    assert [(one.code, one.row) for one in found] == [("missing-value", 41 + HEADER)]


def test_gaps_can_be_split(case):
    time_gap(case)
    case.map = {"gaps": "split"}
    assert "time-gap" not in {one.code for one in case.examine().findings}


def test_a_stop_that_stays_on_is_one_violation(case):
    counted = {one["task"]: one for one in case.examine().sufficiency.tasks}["robot-1"]
    stay_violated(case.one)
    latched = {one["task"]: one for one in case.examine().sufficiency.tasks}["robot-1"]
    assert latched["violation_events"] == counted["violation_events"] == counted["violations"]
    assert latched["violations"] == 4 * counted["violations"]


@pytest.mark.parametrize("block", [50, 32_768])
def test_what_follows_a_violation_can_be_cut(case, monkeypatch, tmp_path, block):
    """The cut logs are those without the rows, bit for bit."""
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    case.examine()
    clean = import_logs([case.folder], logs.cart_map(), tmp_path / "clean")
    for columns in case.tables.values():
        stay_violated(columns)
    case.map = {"after_violation": "cut"}
    assert {one.code for one in case.examine().findings} == {"after-violation"}
    cut = import_logs([case.folder], logs.cart_map(after_violation="cut"), tmp_path / "cut")
    first, second = (OfflineTasks.load(one.folder) for one in (clean, cut))
    for given, expected in zip(second.logs, first.logs, strict=True):
        logs.assert_equal_logs(given, expected)


def test_words_and_dates_are_numbers(case):
    """As loggers of robots write a stop and the time."""
    clean = case.examine().to_json()["tasks"]
    start = datetime(2026, 3, 28, 23, 59, tzinfo=UTC)
    for columns in case.tables.values():
        columns["violation"] = np.where(columns["violation"] == 1, "True", "false")
        columns["t"] = np.asarray(
            [(start + timedelta(seconds=float(t))).isoformat() for t in columns["t"]]
        )
    result = case.examine()
    assert [one.sentence() for one in result.findings] == []
    assert result.to_json()["tasks"] == clean


def test_a_dataset_has_named_its_new_robot(tmp_path):
    logs.cart_fleet(tasks=2).save(tmp_path / "fleet")
    with pytest.raises(ConfigurationError, match="leave --test out"):
        examine([tmp_path / "fleet"], logs.cart_map(tasks={"test": "new"}))


def test_without_logs_it_says_what_logs_are():
    with pytest.raises(DatasetError, match="no logs were given; expected files ending in"):
        examine([])


def test_arrays_of_other_widths_and_lengths(tmp_path):
    tables = {"obs": np.zeros((9, 2)), "action": np.zeros((9, 1)), "cost": np.zeros(9)}
    tables["terminated"] = np.arange(9) % 3 == 2
    np.savez(tmp_path / "a.npz", **tables)
    np.savez(tmp_path / "b.npz", **{**tables, "obs": np.zeros((9, 3))})
    np.savez(tmp_path / "c.npz", **{**tables, "action": np.zeros((8, 1))})
    mapping = map_from_record({"action": [{"column": "action", "low": -1, "high": 1}]})
    found = {
        Path(one.file).stem: one.code for one in examine([tmp_path], mapping).findings.errors()
    }
    assert found == {"b": "wrong-width", "c": "lengths-differ"}


def spoil(folder: Path, name: str, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Changes a task's columns behind the manifest's back."""
    from safemesa.core.tensors import load_tensors, save_tensors

    manifest = read_json(folder / "manifest.json")
    (entry,) = (one for one in manifest["tasks"] if one["name"] == name)
    columns = load_tensors(folder / entry["file"])
    change(columns)
    save_tensors(folder / entry["file"], columns)


@pytest.mark.parametrize(
    ("code", "row", "column", "change"),
    [
        ("changed-file", None, "", lambda c: c["reward"].__setitem__(3, 9.0)),
        ("missing-value", 7, "velocity", lambda c: c["obs"].__setitem__((7, 1), np.nan)),
        ("action-outside-bounds", 7, "push", lambda c: c["action"].__setitem__(7, 3.0)),
        ("cost-not-binary", 7, "cost", lambda c: c["cost"].__setitem__(7, 0.5)),
        ("flag-not-binary", 7, "truncated", lambda c: c["truncated"].view("u1").__setitem__(7, 9)),
        ("continues-after-end", 0, "terminated", lambda c: c["terminated"].__setitem__(0, True)),
        ("episode-in-pieces", 60, "", lambda c: c["episode"].__setitem__(slice(60, None), 0)),
        ("step-jump", 1, "step", lambda c: c["step"].__setitem__(1, 5)),
        ("no-end", -1, "truncated", lambda c: (c["truncated"].__setitem__(-1, False),
                                               c["terminated"].__setitem__(-1, False))),
        ("next-obs-mismatch", 1, "next_obs", lambda c: c["next_obs"].__setitem__((0, 0), 9.0)),
    ],
)  # fmt: skip
def test_a_dataset_folder_is_examined_too(tmp_path, code, row, column, change):
    data = logs.cart_fleet(tasks=3, episodes=12)
    data.save(tmp_path / "data")
    spoil(tmp_path / "data", "robot-1", change)
    found = [one for one in examine([tmp_path / "data"]).findings if one.code == code]
    rows = data.train[1].transitions
    assert [one.task for one in found] == ["robot-1"]
    assert found[0].row == (None if row is None else row % rows)
    assert found[0].column == column


def test_a_damaged_task_does_not_hide_the_others(tmp_path):
    logs.cart_fleet(tasks=3, episodes=12).save(tmp_path / "data")
    (tmp_path / "data" / "train-0001.safetensors").write_bytes(b"no tensors")
    result = examine([tmp_path / "data"])
    assert [one.code for one in result.findings.errors()] == ["unreadable-file"]
    assert len(result.sufficiency.tasks) == 3


def test_clean_datasets_have_no_findings(tmp_path):
    logs.cart_fleet(tasks=5, episodes=30).save(tmp_path / "data")
    assert [one.sentence() for one in examine([tmp_path / "data"]).findings] == []


CONSTANT = {"unused-signal"}
OWN_DOMAINS = {
    "navigation2": set(),
    "probe_delayed": set(),
    "probe_walk": set(),
    # These three never leave the position 1, and the last one is made never to violate.
    "probe_certain": CONSTANT,
    "probe_action": CONSTANT,
    "probe_task": CONSTANT,
    "probe_never": CONSTANT | {"no-violations"},
}


@pytest.mark.parametrize("name", OWN_DOMAINS)
def test_own_domains_raise_no_false_alarm(tmp_path, name):
    """Only what is true of a probe by its construction is said of it."""
    from dataclasses import replace

    from safemesa.domains.registry import domain
    from safemesa.phases.collection.compiled import collect_test, collect_train
    from safemesa.phases.config import DataConfig

    sizes = DataConfig(train_tasks=5, train_transitions=2_000, test_transitions=200)
    train = collect_train(domain(name), sizes, 0)
    replace(train, test=collect_test(domain(name), sizes, 0).test).save(tmp_path / "data")
    assert {one.code for one in examine([tmp_path / "data"]).findings} == OWN_DOMAINS[name]


def test_what_is_missing_is_said(tmp_path):
    data = logs.cart_fleet(tasks=2, episodes=4)
    data.save(tmp_path / "small")
    advice = " ".join(examine([tmp_path / "small"]).sufficiency.advice)
    for part in ("3 more robots", "more violations of the new robot 'new'", "'robot-0'"):
        assert part in advice
    logs.cart_fleet(tasks=5, episodes=60).save(tmp_path / "large")
    assert examine([tmp_path / "large"]).sufficiency.advice == ()


def test_the_doctor_prints_a_table_by_kind(case, capsys):
    """A count and three examples of each kind; every place with --details."""
    from safemesa.cli.data import print_findings

    for columns in case.tables.values():
        columns["push"] = columns["push"] * 1.0
        columns["push"][7] = 2.5
    findings = case.examine().findings
    print_findings(findings)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("ERROR   action-outside-bounds: 5 x: ")
    assert sum("'push'" in line for line in shown) == 3
    assert any("and in 2 more places" in line for line in shown)
    print_findings(findings, details=True)
    assert (
        sum("action-outside-bounds" in line for line in capsys.readouterr().out.splitlines()) == 5
    )


@pytest.mark.bench
def test_a_hundred_thousand_transitions_per_second(tmp_path):
    log = logs.cart_log("a", 0, 4_000)
    OfflineTasks(domain="cart", spaces=logs.SPACES, train=(log,)).save(tmp_path / "data")
    began = time.perf_counter()
    result = examine([tmp_path / "data"])
    assert result.transitions / (time.perf_counter() - began) > 100_000
    write_json(tmp_path / "report.json", result.to_json())
