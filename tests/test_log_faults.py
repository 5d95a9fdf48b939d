"""Faults that people met with their logs, a test for each kind; tests/README.md maps them."""

import json
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from safemesa.core.errors import ConfigurationError, DatasetError, SafemesaError
from safemesa.datasets.doctor.examine import examine
from safemesa.datasets.importers.import_map import map_from_record, read_map
from safemesa.datasets.importers.write import ImportResult, import_logs
from safemesa.datasets.offline_tasks import OfflineTasks

RECORD = {
    "rows": "states",
    "dt": 0.1,
    "horizon": 50,
    "obs": ["x", "v"],
    "action": [{"column": "u", "low": -2.0, "high": 2.0}],
    "columns": {"time": "t", "episode": "ep"},
    "cost": {"limit": "abs(x) > 1.0"},
}
EPISODES, ROWS = 3, 8


def table(seed: int = 0, episodes: int = EPISODES) -> dict[str, np.ndarray]:
    """Moments of a cart that stays within the limit."""
    rng = np.random.default_rng(seed)
    count = episodes * ROWS
    return {
        "t": np.tile(np.arange(ROWS) * 0.1, episodes).round(3),
        "ep": np.repeat(np.arange(episodes), ROWS),
        "x": rng.uniform(-0.9, 0.9, count).round(4),
        "v": rng.uniform(-1, 1, count).round(4),
        "u": rng.uniform(-2, 2, count).round(4),
    }


def csv_text(columns: dict, mark: str = ",") -> str:
    lists = [list(values) for values in columns.values()]
    rows = [mark.join(map(str, row)) for row in zip(*lists, strict=True)]
    return "\n".join([mark.join(columns), *rows]) + "\n"


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_parquet(path: Path, columns: dict) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)
    return path


def write_npz(path: Path, columns: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **columns)
    return path


def run(source: Path | list[Path], out: Path, **changes) -> tuple[ImportResult, OfflineTasks]:
    """Imports with the map, some of its keys replaced; None removes one."""
    record = {key: one for key, one in {**RECORD, **changes}.items() if one is not None}
    sources = source if isinstance(source, list) else [source]
    result = import_logs(sources, map_from_record(record), out)
    return result, OfflineTasks.load(out)


def found(result: ImportResult) -> dict[str, int]:
    """How often each kind of finding occurs."""
    counts: dict[str, int] = {}
    for one in result.findings:
        counts[one.code] = counts.get(one.code, 0) + one.count
    return counts


def episodes(data: OfflineTasks) -> dict[str, int]:
    """Episodes of each robot."""
    return {log.name: log.episodes for log in data.logs}


# Identity of robots and episodes.


@pytest.mark.parametrize(
    "words", [("", "NaN"), ("None", "null"), ("<NA>", "-nan(ind)"), ("#N/A", "NaT"), (" ", "n/a")]
)
def test_a_label_that_is_missing_in_any_spelling_is_an_error(tmp_path, words):
    for index, word in enumerate(words):
        columns = {**table(), "robot": np.asarray(["a", "b", word] * ROWS, object)}
        path = write(tmp_path / f"{index}.csv", csv_text(columns))
        with pytest.raises(DatasetError, match=r"missing-value: .*'robot'"):
            run(path, tmp_path / "out", columns={"task": "robot", "episode": "ep"})


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_of_a_table_of_types_is_one_too(tmp_path, missing):
    columns: dict = table()
    columns["ep"] = [missing if one == 1 else float(one) for one in columns["ep"]]
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(DatasetError, match="missing-value"):
        run(path, tmp_path / "out")
    columns["ep"] = np.asarray([np.nan if one is missing else one for one in columns["ep"]], float)
    with pytest.raises(DatasetError, match="missing-value"):
        run(write_npz(tmp_path / "a.npz", columns), tmp_path / "out")


def test_one_label_is_one_robot_in_all_formats(tmp_path):
    """7, 7.0, "7" and 7.000e+00 are the robot 7; 07 and 1.10 are other names."""
    spelled = {
        "a.csv": "7", "b.csv": "7.0", "c.csv": "7.000000000000000000e+00", "d.csv": "07",
        "e.csv": "1.10",
    }  # fmt: skip
    for index, (name, word) in enumerate(spelled.items()):
        columns = {**table(index), "robot": [word] * EPISODES * ROWS}
        write(tmp_path / "in" / name, csv_text(columns))
    count = EPISODES * ROWS
    write_npz(tmp_path / "in" / "f.npz", {**table(5), "robot": np.full(count, 7.0)})
    write_npz(tmp_path / "in" / "g.npz", {**table(6), "robot": np.full(count, 7)})
    write_parquet(tmp_path / "in" / "h.parquet", {**table(7), "robot": ["7"] * count})
    _, data = run(tmp_path / "in", tmp_path / "out", columns={**RECORD["columns"], "task": "robot"})
    assert episodes(data) == {"7": 6 * EPISODES, "07": EPISODES, "1.10": EPISODES}


@pytest.mark.parametrize(
    ("layout", "rule", "robots"),
    [
        (("arm/data/chunk-000/f.csv", "arm/data/chunk-001/f.csv"), "folder", ["arm"]),
        (("a/data/chunk-000/f.csv", "b/data/chunk-000/f.csv"), "folder", ["a", "b"]),
        (("a/mon/run.csv", "a/tue/run.csv", "b/mon/run.csv"), "folder:2", ["a", "b"]),
        (("a_run1.csv", "a_run2.csv", "b_run1.csv"), "{task}_run*.csv", ["a", "b"]),
        (("a/x/1.csv", "a/y/z/2.csv", "b/x/1.csv"), "in/{task}/**/*.csv", ["a", "b"]),
        (("a/1.csv", "b/1.csv"), "file", None),
        (("a/1.csv", "b/1.csv"), None, None),
        (("a/logs/1.csv", "b/logs/1.csv"), "folder", None),
        (("a/1.csv",), "{task}_*.csv", None),
        (("a/1.csv",), "folder:40", None),
    ],
)
def test_folders_name_robots_by_level_or_pattern(tmp_path, layout, rule, robots):
    """What would make one robot of two is refused, and the way out is named."""
    for index, name in enumerate(layout):
        write(tmp_path / "in" / name, csv_text(table(index)))
    if robots is None:
        with pytest.raises(DatasetError, match="task_from"):
            run(tmp_path / "in", tmp_path / "out", task_from=rule)
        return
    lines: list[str] = []
    record = map_from_record({**RECORD, "task_from": rule})
    import_logs([tmp_path / "in"], record, tmp_path / "out", on_robots=lines.append)
    data = OfflineTasks.load(tmp_path / "out")
    assert [log.name for log in data.train] == robots
    assert sum(log.episodes for log in data.train) == EPISODES * len(layout)
    expected = f"{len(robots)} robot{'s' * (len(robots) > 1)} from {len(layout)} files: "
    assert lines[0].startswith(expected)


@pytest.mark.parametrize(
    "rule", ["files", "folder:0", "folder:-1", "{task}{task}", "", "a\\{task}"]
)
def test_what_is_no_rule_for_robots_is_refused(rule):
    with pytest.raises(ConfigurationError, match="task_from"):
        map_from_record({**RECORD, "task_from": rule})


@pytest.mark.parametrize("label", ["ep", None])
def test_a_log_in_chunks_is_the_whole_log(tmp_path, monkeypatch, label):
    """Recorders cut by size, amid an episode; part 10 comes after part 2."""
    columns = table(episodes=12)
    if label is None:
        columns["t"] = (np.arange(len(columns["t"])) * 0.1).round(3)
    named = {"time": "t", "episode": "ep"} if label else {"time": "t"}
    whole = write(tmp_path / "whole" / "log.csv", csv_text(columns))
    _, expected = run(whole, tmp_path / "one", columns=named)
    for part in range(12):
        rows = slice(part * 8 + 3 if part else 0, part * 8 + 11)
        piece = {name: values[rows] for name, values in columns.items()}
        write(tmp_path / "log" / f"log_{part}.csv", csv_text(piece))
    _, data = run(tmp_path / "log", tmp_path / "parts", task_from="folder", columns=named)
    for name, values in expected.train[0].columns.items():
        np.testing.assert_array_equal(data.train[0].columns[name], values, err_msg=name)


# Missing cells, actions beyond bounds, precision.


def with_gap_in(columns: dict, name: str, rows: list[int]) -> dict:
    values = columns[name].astype(object)
    values[rows] = ""
    return {**columns, name: values}


@pytest.mark.parametrize("block", [3, 10_000])
def test_missing_cells_are_held_within_their_episode(tmp_path, monkeypatch, block):
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    columns = table()
    path = write(tmp_path / "a.csv", csv_text(with_gap_in(columns, "v", [2, 3, 4, 11])))
    with pytest.raises(DatasetError, match=r"missing-value.*'v'"):
        run(path, tmp_path / "out")
    result, data = run(path, tmp_path / "held", missing="hold")
    held = columns["v"].copy()
    held[[2, 3, 4]], held[11] = held[1], held[10]
    last = np.arange(len(held)) % ROWS == ROWS - 1
    np.testing.assert_array_equal(data.train[0].columns["obs"][:, 1], held[~last].astype("f4"))
    assert found(result) == {"held-value": 4}
    # An episode that begins without one has nothing to hold.
    path = write(tmp_path / "b.csv", csv_text(with_gap_in(columns, "v", [ROWS])))
    with pytest.raises(DatasetError, match="missing-value"):
        run(path, tmp_path / "never", missing="hold")


def test_what_a_limit_reads_is_held_with_a_word(tmp_path):
    path = write(tmp_path / "a.csv", csv_text(with_gap_in(table(), "x", [2])))
    signal = [{"name": "x", "missing": "hold"}, "v"]
    for number, changes in enumerate(({"missing": "hold"}, {"obs": signal})):
        result, _ = run(path, tmp_path / f"out{number}", **changes)
        (finding,) = result.findings
        assert finding.column == "x"
        assert "the limit reads it" in finding.detail


@pytest.mark.parametrize("block", [3, 10_000])
@pytest.mark.parametrize("rule", ["drop", "split"])
def test_rows_with_missing_cells_are_dropped_or_split_there(tmp_path, monkeypatch, block, rule):
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    path = write(tmp_path / "a.csv", csv_text(with_gap_in(table(), "v", [3, 4])))
    if rule == "drop":
        # Time shows that rows are missing now.
        with pytest.raises(DatasetError, match="time-gap"):
            run(path, tmp_path / "out", missing=rule)
    result, data = run(path, tmp_path / "out", missing=rule, gaps="split")
    assert data.train[0].episodes == EPISODES + 1
    assert data.train[0].transitions == EPISODES * (ROWS - 1) - 3
    assert found(result) == {"dropped-row": 2}


def test_rows_of_another_topic_are_dropped(tmp_path):
    """Merged topics: every other row has no state. What stays follows each other."""
    columns = table()
    merged = {name: np.repeat(values, 2).astype(object) for name, values in columns.items()}
    for name in ("x", "v"):
        merged[name][1::2] = ""
    path = write(tmp_path / "a.csv", csv_text(merged))
    result, data = run(path, tmp_path / "out", missing="drop")
    plain, expected = run(write(tmp_path / "b.csv", csv_text(columns)), tmp_path / "plain")
    assert plain.transitions == result.transitions
    for name, values in expected.train[0].columns.items():
        np.testing.assert_array_equal(data.train[0].columns[name], values, err_msg=name)


def test_a_violation_in_a_dropped_row_is_not_lost_in_silence(tmp_path):
    columns = {**with_gap_in(table(), "v", [3]), "hit": (np.arange(24) == 3).astype(int)}
    path = write(tmp_path / "a.csv", csv_text(columns))
    result, _ = run(path, tmp_path / "out", missing="split", cost={"column": "hit"})
    assert found(result)["dropped-violation"] == 1


def test_a_missing_cost_is_never_held(tmp_path):
    columns = {**table(), "hit": np.zeros(24, object)}
    columns["hit"][5] = "nan"
    path = write(tmp_path / "a.csv", csv_text(columns))
    for rule in ("hold", "drop", "split"):
        with pytest.raises(DatasetError, match=r"missing-value.*'cost'"):
            run(path, tmp_path / "out", missing=rule, cost={"column": "hit"})


def test_actions_beyond_their_bounds(tmp_path):
    columns = table()
    columns["u"][[2, 9]] = 2.5, -3.0
    path = write(tmp_path / "a.csv", csv_text(columns))
    with pytest.raises(DatasetError, match='outside = "clip"'):
        run(path, tmp_path / "out")
    result, data = run(path, tmp_path / "out", outside="clip")
    assert found(result) == {"clipped-action": 2}
    assert data.train[0].columns["action"].max() == 2.0
    assert data.train[0].columns["action"].min() == -2.0
    columns["u"][4] = np.inf
    with pytest.raises(DatasetError, match="infinite-value"):
        run(write(tmp_path / "a.csv", csv_text(columns)), tmp_path / "never", outside="clip")


def test_the_published_map_takes_files_of_dsrl(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    obs, ends = rng.normal(size=(80, 2)).astype("f4"), np.arange(80) % 40 == 39
    with h5py.File(tmp_path / "OfflineCarCircle.hdf5", "w") as file:
        file["observations"], file["next_observations"] = obs, np.roll(obs, -1, 0)
        file["actions"] = rng.uniform(-1.3, 1.3, (80, 2)).astype("f4")
        file["rewards"], file["costs"] = np.zeros(80, "f4"), (obs[:, 0] > 1.5).astype("f4")
        file["terminals"], file["timeouts"] = np.zeros(80, bool), ends
    mapping = read_map(Path(__file__).parents[1] / "examples" / "maps" / "dsrl.toml")
    result = import_logs([tmp_path], mapping, tmp_path / "out")
    assert result.transitions == 80
    assert "clipped-action" in found(result)


def test_values_that_32_bits_merge_are_an_error_with_an_offset(tmp_path):
    """A northing in metres: the cart moves centimetres, a float32 knows half a metre."""
    columns = table(episodes=12)
    columns["x"] = 5_200_000 + np.cumsum(np.full(96, 0.01)).round(3)
    limit = {"limit": "v > 2"}
    path = write(tmp_path / "a.csv", csv_text(columns))
    with pytest.raises(DatasetError, match=r"precision-lost.*declare offset = -5\.2"):
        run(path, tmp_path / "out", cost=limit)
    record = map_from_record({**RECORD, "cost": limit})
    assert "precision-lost" in {one.code for one in examine([path], record).findings.errors()}
    shifted = [{"name": "x", "offset": -5_200_000.0}, "v"]
    _, data = run(path, tmp_path / "out", cost=limit, obs=shifted)
    assert len(np.unique(data.train[0].columns["obs"][:, 0])) == 84


def test_a_range_without_an_offset_is_only_warned_of(tmp_path):
    columns = table(episodes=12)
    columns["x"] = np.where(np.arange(96) < 48, -4e6, 4e6) + np.arange(96) * 0.01
    path = write(tmp_path / "a.csv", csv_text(columns))
    result, _ = run(path, tmp_path / "out", cost={"limit": "v > 2"})
    assert "fine-steps" in found(result)


# What follows a violation, and gaps.


def latched(lost: list[int], episode: int = 1) -> dict:
    """A stop that stays on from row 5 of one episode; some rows of it are lost."""
    columns = {**table(), "stop": np.zeros(24, int)}
    columns["stop"][episode * ROWS + 5 : (episode + 1) * ROWS] = 1
    rows = [episode * ROWS + one for one in lost]
    return {name: np.delete(values, rows) for name, values in columns.items()}


STOP = {"signal": ["stop"], "cost": {"limit": "stop > 0.5"}}


@pytest.mark.parametrize(
    ("block", "gaps", "lost"),
    [
        (10_000, "split", []), (10_000, "split", [6]), (2, "split", [6]), (3, "split", [6, 7]),
        (10_000, "refuse", [6]), (3, "refuse", [6]),
    ],
)  # fmt: skip
def test_a_gap_within_a_stop_invents_no_violation(tmp_path, monkeypatch, block, gaps, lost):
    """What follows a violation is cut before gaps split: the same dataset, whatever is lost."""
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    path = write(tmp_path / "a.csv", csv_text(latched(lost)))
    _, data = run(path, tmp_path / "out", gaps=gaps, after_violation="cut", **STOP)
    columns = data.train[0].columns
    assert (columns["cost"].sum(), data.train[0].episodes) == (1, EPISODES)
    assert len(columns["cost"]) == 2 * (ROWS - 1) + 5
    np.testing.assert_array_equal(columns["terminated"], columns["cost"] == 1)


@pytest.mark.parametrize("block", [3, 10_000])
@pytest.mark.parametrize("after", ["keep", "cut"])
@pytest.mark.parametrize("lost", [[4], [5, 6]])
def test_a_row_that_is_lost_before_a_crash_blocks_nothing(
    tmp_path, monkeypatch, block, after, lost
):
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    path = write(tmp_path / "a.csv", csv_text(latched(lost)))
    result, data = run(path, tmp_path / "out", gaps="split", after_violation=after, **STOP)
    told = found(result)
    if after == "cut":
        assert data.train[0].violations == 0
        assert told["violation-after-gap"] == 1
    else:
        assert told.get("violation-after-gap", 0) + told.get("starts-in-violation", 0) == 1


@pytest.mark.parametrize("block", [3, 10_000])
def test_steps_after_a_violation_are_cut_before_gaps_split_too(tmp_path, monkeypatch, block):
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    path = write(tmp_path / "a.csv", csv_text(latched([6])))
    changes = {"rows": "steps", "gaps": "split", "after_violation": "cut"}
    _, data = run(path, tmp_path / "out", **changes, cost={"column": "stop"})
    columns = data.train[0].columns
    assert (columns["cost"].sum(), data.train[0].episodes) == (1, EPISODES)


# What was found and not used.


def test_what_is_not_read_is_named(tmp_path):
    write(tmp_path / "in" / "a.csv", csv_text({**table(), "spare": np.zeros(24)}))
    for name in ("run.tlog", "run.bag", "old.bag", ".hidden"):
        write(tmp_path / "in" / name, b"x")
    result, _ = run(tmp_path / "in", tmp_path / "out")
    by_code = {one.code: one for one in result.findings}
    assert "2 ending in .bag" in by_code["unread-file"].detail
    assert by_code["unread-file"].count == 3
    assert by_code["unused-columns"].detail == "'spare'"
    result, _ = run(tmp_path / "in" / "a.csv", tmp_path / "again", ignore=["spare"])
    assert found(result) == {}
    with pytest.raises(DatasetError, match=r"no reader for \.bag.*ROS 2.*CSV or Parquet"):
        run(tmp_path / "in" / "run.bag", tmp_path / "never")
    with pytest.raises(DatasetError, match=r"no logs in .*1 ending in \.txt"):
        run(write(tmp_path / "other" / "a.txt", "x").parent, tmp_path / "never")


@pytest.mark.parametrize("name", ["done", "dones", "is_terminal", "Truncated"])
def test_a_done_that_would_have_ended_episodes_is_not_passed_over(tmp_path, name):
    columns = table()
    columns[name] = columns["t"] > 0.65
    arrays = {"obs": np.stack([columns["x"], columns["v"]], 1), "action": columns["u"][:, None]}
    arrays |= {"cost": np.zeros(24), name: columns[name]}
    path = write_npz(tmp_path / "a.npz", arrays)
    record = {"dt": 0.1, "action": [{"column": "action", "low": -2.0, "high": 2.0}]}
    with pytest.raises(DatasetError, match=f'truncated = "{name}".*ignore = \\["{name}"\\]'):
        import_logs([path], map_from_record(record), tmp_path / "out")
    mapped = map_from_record({**record, "columns": {"truncated": name}})
    import_logs([path], mapped, tmp_path / "out")
    assert OfflineTasks.load(tmp_path / "out").train[0].episodes == EPISODES
    import_logs([path], map_from_record({**record, "ignore": [name]}), tmp_path / "one")
    assert OfflineTasks.load(tmp_path / "one").train[0].episodes == 1


# CSV as robots and spreadsheets write it.

TEXT = csv_text(table())
LINES = TEXT.splitlines()


def joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


DIALECTS: dict[str, tuple[str | bytes, dict]] = {
    "decimal comma": (
        csv_text(table(), ";").replace(".", ","), {"delimiter": ";", "decimal": ","}
    ),
    "units": (joined([LINES[0], "s,-,m,m/s,N", *LINES[1:]]), {"units_row": True}),
    "comments": ("# robot 7\n" + TEXT + "# end\n", {"comment": "#"}),
    "title": ("Robot 7, day \"2\nfirmware 3\n" + TEXT, {"skip_rows": 2}),
    "latin": (TEXT.replace("ep", "épi").encode("latin-1"), {
        "encoding": "latin-1", "columns": {"time": "t", "episode": "épi"}
    }),
    "utf-16": (TEXT.encode("utf-16"), {"encoding": "utf-16"}),
    "byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), {}),
    "windows": (TEXT.replace("\n", "\r\n"), {}),
    "separator line": ("sep=;\n" + csv_text(table(), ";"), {}),
    "trailing commas": (joined([f"{line},," for line in LINES]), {}),
    "unused column twice": (joined([LINES[0] + ",s,s", *(f"{one},1,2" for one in LINES[1:])]), {}),
    "quoted": (joined([",".join(f'"{cell}"' for cell in one.split(",")) for one in LINES]), {}),
    "quoted after blanks": (
        joined([", ".join(f'"{cell}"' for cell in one.split(",")) for one in LINES]), {}
    ),
    "line breaks in quotes": (
        joined([LINES[0] + ",note", *(f'{one},"stop,\n""wait""\n"' for one in LINES[1:])]), {}
    ),
    "clock": (
        joined([LINES[0], *(f"23:59:0{one}" for one in LINES[1:])]), {}
    ),
    "empty lines": (joined([LINES[0], "", *LINES[1:]]) + "\n\n", {}),
    "power cut": (TEXT.encode() + b"0.8,2,0.1\0\0\0" + b"\0" * 5000, {}),
    "tabs": (TEXT.replace(",", "\t"), {"delimiter": "\t"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> OfflineTasks:
    """The dataset of plain CSV."""
    folder = tmp_path_factory.mktemp("plain")
    return run(write(folder / "a.csv", TEXT), folder / "out")[1]


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_of_csv_give_the_same_dataset(tmp_path, monkeypatch, expected, name):
    # Small blocks, so that cells, comments and NUL bytes lie across their borders.
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", 8)
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_SIGNS", 200)
    text, changes = DIALECTS[name]
    result, data = run(write(tmp_path / "a.csv", text), tmp_path / "out", **changes)
    for column, values in expected.train[0].columns.items():
        np.testing.assert_array_equal(data.train[0].columns[column], values, err_msg=column)
    assert ("nul-tail" in found(result)) == (name == "power cut")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (csv_text(table(), ";").replace(".", ","), "delimiter = ';'"),
        (csv_text(table(), ";").replace(",", "."), "delimiter = ';'"),
        ("# robot 7, fw 1.2\n" + TEXT, 'comment = "#"'),
        (joined([LINES[0], "s,-,m,m/s,N", *LINES[1:]]), "units_row = true"),
        (joined([LINES[0], *(one.rsplit(",", 1)[0] + ",--.--" for one in LINES[1:])]),
         r"missing_values = \['--.--'\]"),
        (joined([LINES[0], *(one.rsplit(",", 1)[0] + ",-nan(ind)" for one in LINES[1:])]),
         'declare what it means: missing = "hold", "drop" or "split"'),
        (joined([LINES[0], *(one + ",99,12.6" for one in LINES[1:])]), "ragged-row.*24 times"),
        (joined(LINES[1:]), "no header line"),
        (TEXT.replace("x", "é").encode("latin-1"), 'encoding = "latin-1"'),
        (TEXT.encode("utf-16"), 'encoding = "utf-16"'),
        (TEXT.encode() + b"\0\0" + TEXT.encode(), "line 26: NUL bytes"),
        (joined([LINES[0] + ",x", *(f"{one},1" for one in LINES[1:])]), r"names \['x'\] twice"),
        (joined([LINES[0], '0.0,0,"0.1,0,0', *LINES[1:]]), "ragged-row"),
    ],
)  # fmt: skip
def test_a_dialect_that_is_not_declared_is_named(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(SafemesaError, match=message):
        run(path, tmp_path / "out")


def test_a_decimal_comma_is_named_where_the_delimiter_is_right(tmp_path):
    path = write(tmp_path / "a.csv", csv_text(table(), ";").replace(".", ","))
    with pytest.raises(DatasetError, match='declare decimal = ","'):
        run(path, tmp_path / "out", delimiter=";")
    thousands = csv_text(table(), ";").replace(".", ",").replace("0,1;", "1.000,1;")
    with pytest.raises(DatasetError, match="not-a-number"):
        run(write(path, thousands), tmp_path / "out", delimiter=";", decimal=",")


def test_values_that_stand_for_nothing_are_missing(tmp_path):
    columns = table()
    columns["v"] = columns["v"].astype(object)
    columns["v"][[2, 3, 5]] = ["--.--", "-999", "-999.0"]
    path = write(tmp_path / "a.csv", csv_text(columns))
    absent = ["--.--", "-999"]
    with pytest.raises(DatasetError, match=r"missing-value.*\[3 times\]"):
        run(path, tmp_path / "out", missing_values=absent)
    result, _ = run(path, tmp_path / "out", missing_values=absent, missing="hold")
    assert found(result) == {"held-value": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"delimiter": '"'}, {"delimiter": "."}, {"delimiter": "1"}, {"delimiter": "ab"},
        {"delimiter": "\n"}, {"delimiter": "\0"}, {"decimal": ";"},
        {"decimal": ",", "delimiter": ","},
        {"comment": ""}, {"comment": " "}, {"skip_rows": -1}, {"skip_rows": 10**9},
        {"encoding": "klingon"}, {"encoding": "base64"}, {"encoding": "\0"}, {"units_row": "yes"},
        {"missing_values": "--"}, {"missing_values": [1]}, {"missing": "guess"},
        {"outside": "wrap"},
        {"obs": [{"name": "x", "scale": 0}]}, {"obs": [{"name": "x", "missing": "zero"}]},
        {"obs": [{"name": "x", "scale": 1e300}]}, {"obs": [{"name": "x\n"}]},
        {"obs": [{"name": "x" * 200}]}, {"obs": [f"x{index}" for index in range(10_001)]},
        {"horizon": 2**70}, {"horizon": 0}, {"domain": "a\0b"}, {"domain": "a" * 200},
        {"tasks": {"parameters": {"a": {"mass": float("nan")}}}},
        {"tasks": {"parameters": {"a": {"mass": 10**400}}}},
        {"tasks": {"parameters": {"a": {"made": date(2020, 1, 1)}}}},
        {"tasks": {"parameters": {"a": {"deep": json.loads("[" * 60 + "]" * 60)}}}},
    ],
)  # fmt: skip
def test_what_a_map_cannot_mean_is_refused(change):
    with pytest.raises(ConfigurationError):
        map_from_record({**RECORD, **change})


# Files that libraries raise nearly anything over.


def test_a_column_twice_matters_only_if_it_is_used(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = table()
    for name in ("x", "spare"):
        names = [*columns, "spare", name]
        arrays = [
            pyarrow.array(values) for values in (*columns.values(), columns["x"], columns["x"])
        ]
        parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names), tmp_path / "a.parquet")
        if name == "x":
            with pytest.raises(DatasetError, match="twice"):
                run(tmp_path / "a.parquet", tmp_path / "out")
    run(tmp_path / "a.parquet", tmp_path / "out")


def test_a_group_per_episode_is_read(tmp_path):
    """Robomimic's layout; texts and images in it are named as not used."""
    h5py = pytest.importorskip("h5py")
    columns = table(episodes=12)
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        for episode in range(12):
            rows = slice(episode * ROWS, (episode + 1) * ROWS)
            group = file.create_group(f"data/demo_{episode}")
            group["obs/state"] = np.stack([columns["x"][rows], columns["v"][rows]], 1)
            group["obs/camera"] = np.zeros((ROWS, 2, 2, 3), np.uint8)
            group["actions"] = columns["u"][rows, None]
            group["dones"] = np.arange(ROWS) == ROWS - 1
            group.attrs["num_samples"] = ROWS
        file["mask/train"] = np.asarray([b"demo_0"])
    _, expected = run(write(tmp_path / "demo.csv", csv_text(columns)), tmp_path / "plain")
    changes = {
        "obs": ["obs/state"],
        "action": [{"column": "actions", "low": -2.0, "high": 2.0}],
        "signal": [{"name": "x", "column": "obs/state[0]"}],
        "columns": None,
    }
    result, data = run(tmp_path / "demo.hdf5", tmp_path / "out", **changes)
    for name, values in expected.train[0].columns.items():
        np.testing.assert_array_equal(data.train[0].columns[name], values, err_msg=name)
    assert "'obs/camera'" in next(one.detail for one in result.findings)


def test_a_minari_folder_without_metadata_is_read(tmp_path):
    """As Minari wrote them before 0.5: what is known of the set is in attributes."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "set" / "data").mkdir(parents=True)
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "w") as file:
        file.attrs["dataset_id"], file.attrs["total_episodes"] = "fleet/a/drive-v0", 2
        file.attrs["action_space"] = '{"type": "Box", "low": [-1.0], "high": [1.0]}'
        for episode in range(2):
            group = file.create_group(f"episode_{episode}")
            group["observations"] = np.zeros((9, 2), np.float32)
            group["actions"], group["rewards"] = np.zeros((8, 1)), np.zeros(8)
            group["terminations"], group["truncations"] = np.zeros(8, bool), np.arange(8) == 7
            group["infos/cost"] = np.zeros(8)
    import_logs([tmp_path], map_from_record({"dt": 0.1}), tmp_path / "out")
    assert episodes(OfflineTasks.load(tmp_path / "out")) == {"fleet/a/drive-v0": 2}


def test_the_last_part_of_a_name_is_enough_in_a_map(tmp_path):
    """Maps that named a Minari set by its folder stay valid."""
    test_a_minari_folder_without_metadata_is_read(tmp_path)
    record = {"dt": 0.1, "tasks": {"test": "drive-v0", "parameters": {"drive-v0": {"mass": 2.0}}}}
    import_logs([tmp_path / "set"], map_from_record(record), tmp_path / "named")
    test = OfflineTasks.load(tmp_path / "named").test
    assert test is not None
    assert (test.name, test.parameters) == ("fleet/a/drive-v0", {"mass": 2.0})


def test_wide_files_take_time_in_proportion(tmp_path):
    """Every column a signal, and none compared with all others."""
    count = 1_500
    names = [f"beam{index}" for index in range(count)]
    rng = np.random.default_rng(0)
    columns = {**table(), **dict(zip(names, rng.uniform(0, 9, (count, 24)).round(2), strict=True))}
    path = write(tmp_path / "a.csv", csv_text(columns))
    mapping = map_from_record({**RECORD, "obs": ["x", *names]})
    began = time.process_time()
    import_logs([path], mapping, tmp_path / "out")
    examine([path], mapping)
    # Comparing a million pairs of columns took a minute.
    assert time.process_time() - began < 10.0


def test_a_long_tail_of_nul_bytes_is_passed_over_quickly(tmp_path):
    """A file that was given its size in advance; the tail takes no room on disk."""
    for name, after in (("a.csv", b""), ("b.csv", b"text")):
        path = write(tmp_path / name, TEXT)
        with open(path, "r+b") as file:
            file.truncate(2**28)
            file.seek(2**28)
            file.write(after)
        began = time.process_time()
        if after:
            with pytest.raises(DatasetError, match="NUL bytes, and text after them"):
                run(path, tmp_path / "never")
        else:
            assert found(run(path, tmp_path / "out")[0]) == {"nul-tail": 1}
        assert time.process_time() - began < 3.0


def test_a_hundred_thousand_columns_are_read_in_seconds(tmp_path):
    names = [f"beam{index}" for index in range(100_000)]
    body = joined([f"{line}," + "0.5," * 99_999 + "1" for line in LINES[1:]])
    path = write(tmp_path / "a.csv", ",".join([LINES[0], *names]) + "\n" + body)
    began = time.process_time()
    result, _ = run(path, tmp_path / "out")
    assert time.process_time() - began < 3.0
    assert found(result)["unused-columns"] == 100_000
    with pytest.raises(ConfigurationError, match="at most 10000"):
        run(path, tmp_path / "never", obs=["x", *names])
