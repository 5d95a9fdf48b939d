"""The native dataset folder: round trip, and a typed error for everything that can be wrong."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from safemesa.core.errors import DatasetError, OutputFolderError
from safemesa.core.tensors import load_tensors, save_tensors
from safemesa.datasets import validation
from safemesa.datasets.format import COLUMNS, make_provenance
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.domains.base import Spaces

SPACES = Spaces(
    obs_names=("x", "y"),
    action_names=("force",),
    action_low=(-2.0,),
    action_high=(3.0,),
    horizon=10,
    dt=0.05,
)


def make_columns(lengths: tuple[int, ...] = (3, 1, 4), seed: int = 0) -> dict[str, np.ndarray]:
    """A log of episodes of those lengths; every second episode ends with a violation."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    cost = np.zeros(rows, np.float32)
    cost[ends[::2]] = 1
    truncated = np.zeros(rows, np.bool_)
    truncated[ends[1::2]] = True
    return {
        "obs": rng.normal(size=(rows, 2)).astype(np.float32),
        "action": rng.uniform(-2, 3, (rows, 1)).astype(np.float32),
        "reward": rng.normal(size=rows).astype(np.float32),
        "cost": cost,
        "next_obs": rng.normal(size=(rows, 2)).astype(np.float32),
        "terminated": cost > 0,
        "truncated": truncated,
        "episode": np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        "step": np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
    }


def make_log(
    name: str,
    role: str = "train",
    seed: int = 0,
    columns: Mapping[str, np.ndarray] | None = None,
) -> TaskLog:
    """A sound log, except for the given columns."""
    return TaskLog(
        name=name,
        role=role,
        parameters={"drag": [0.1, seed], "wall": None},
        columns={**make_columns(seed=seed), **(columns or {})},
    )


def make_tasks(test: bool = True) -> OfflineTasks:
    return OfflineTasks(
        domain="cart",
        spaces=SPACES,
        train=(make_log("a", seed=1), make_log("b", seed=2)),
        test=make_log("new", "test", seed=3) if test else None,
        provenance=make_provenance(command="safemesa collect", seed=7, policy="uniform"),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tasks().save(tmp_path / "data")
    return tmp_path / "data"


def test_round_trip(folder: Path) -> None:
    tasks, loaded = make_tasks(), OfflineTasks.load(folder)
    assert (loaded.domain, loaded.spaces) == (tasks.domain, tasks.spaces)
    assert loaded.provenance == tasks.provenance
    assert [(log.name, log.role) for log in loaded.logs] == [
        ("a", "train"),
        ("b", "train"),
        ("new", "test"),
    ]
    for log, expected in zip(loaded.logs, tasks.logs, strict=True):
        assert log.parameters == expected.parameters
        assert (log.transitions, log.violations, log.episodes) == (8, 2, 3)
        for name in COLUMNS:
            assert isinstance(log.columns[name], np.memmap)
            np.testing.assert_array_equal(log.columns[name], expected.columns[name])
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_saving_twice_gives_the_same_bytes_and_never_overwrites(folder: Path) -> None:
    OfflineTasks.load(folder).save(folder.with_name("copy"))
    for path in folder.iterdir():
        assert path.read_bytes() == (folder.with_name("copy") / path.name).read_bytes()
    with pytest.raises(OutputFolderError, match="exists already"):
        make_tasks().save(folder)


def test_invalid_values_are_never_written(tmp_path: Path) -> None:
    bad = make_log("a", columns={"reward": np.full(8, np.nan, np.float32)})
    tasks = OfflineTasks(domain="cart", spaces=SPACES, train=(bad,))
    with pytest.raises(DatasetError, match="task 'a': row 0 of column 'reward' is nan"):
        tasks.save(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_next_action() -> None:
    log = make_log("a")
    following, valid = log.next_action(np.arange(log.transitions))
    action = log.columns["action"]
    assert valid.tolist() == [True, True, False, False, True, True, True, False]
    for row in range(log.transitions):
        np.testing.assert_array_equal(following[row], action[row + 1 if valid[row] else row])
    some = np.array([6, 0, 6])
    np.testing.assert_array_equal(log.next_action(some)[0], following[some])
    np.testing.assert_array_equal(log.next_action(some)[1], valid[some])


def test_only_log() -> None:
    tasks = make_tasks()
    assert tasks.only_log() is tasks.test
    alone = OfflineTasks(domain="cart", spaces=SPACES, train=tasks.train[:1])
    assert alone.only_log() is tasks.train[0]
    with pytest.raises(DatasetError, match=r'2 training logs and no test log.*role "test"'):
        make_tasks(test=False).only_log()


def test_summary_rows(folder: Path) -> None:
    row = OfflineTasks.load(folder).summary_rows()[0]
    reward = make_columns(seed=1)["reward"]
    assert row["mean_return"] == pytest.approx(float(reward.sum()) / 3, rel=1e-6)
    assert {name: row[name] for name in row if name not in ("mean_return", "parameters")} == {
        "task": "a",
        "role": "train",
        "transitions": 8,
        "violations": 2,
        "violation_rate": 0.25,
        "episodes": 3,
        "mean_length": pytest.approx(8 / 3),
    }
    json.dumps(row)


def test_counts_and_checks_agree_for_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (1, 2, 3, 7, 8, 100):
        monkeypatch.setattr(validation, "CHUNK_ROWS", rows)
        tasks = make_tasks()
        tasks.validate()
        assert [log.episodes for log in tasks.logs] == [3, 3, 3]
        wrong = make_log("a", columns={"step": np.array([0, 1, 2, 0, 0, 1, 1, 2], np.int32)})
        with pytest.raises(DatasetError, match="row 6 breaks the order"):
            OfflineTasks(domain="cart", spaces=SPACES, train=(wrong,)).validate()


def with_cell(name: str, index: Any, value: Any) -> dict[str, np.ndarray]:
    array = make_columns()[name].copy()
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (with_cell("obs", (5, 1), np.nan), "row 5 of column 'obs', signal 'y' is nan"),
        (with_cell("next_obs", (0, 0), np.inf), "row 0 of column 'next_obs', signal 'x' is inf"),
        (with_cell("reward", 7, -np.inf), "row 7 of column 'reward' is -inf"),
        (with_cell("cost", 1, 0.5), "row 1 of column 'cost' is 0.5, expected 0 or 1"),
        (with_cell("cost", 1, np.nan), "row 1 of column 'cost' is nan"),
        (with_cell("cost", 1, -1), "row 1 of column 'cost' is -1"),
        (with_cell("action", (2, 0), 3.001), r"row 2 .*signal 'force' is 3\.00.*\[-2\.0, 3\.0\]"),
        (with_cell("action", (2, 0), -2.001), "row 2 of column 'action'"),
        (with_cell("step", 1, 2), "row 1 breaks the order; its step"),
        (with_cell("step", slice(0, 3), np.arange(-1, 2)), "row 0 has a negative"),
        (with_cell("episode", 7, 0), "row 7 breaks the order; its episode is smaller"),
        (with_cell("episode", slice(None), -5), "row 0 has a negative"),
        (with_cell("terminated", 1, True), "row 2 breaks the order; it continues an episode"),
        (with_cell("truncated", 5, True), "row 6 breaks the order; it continues an episode"),
    ],
)
def test_wrong_values_name_column_signal_and_row(
    columns: dict[str, np.ndarray], message: str
) -> None:
    tasks = OfflineTasks(domain="cart", spaces=SPACES, train=(make_log("a", columns=columns),))
    with pytest.raises(DatasetError, match=f"task 'a': {message}"):
        tasks.validate()


def test_rounding_beyond_the_bounds_passes() -> None:
    log = make_log("a", columns=with_cell("action", (2, 0), 3.00005))
    OfflineTasks(domain="cart", spaces=SPACES, train=(log,)).validate()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("obs", np.zeros((8, 3), np.float32), r"float32\[8, 3\].*float32\[8, 2\].*for x, y"),
        ("obs", np.zeros((8, 2)), r"'obs' is float64\[8, 2\], expected float32"),
        ("obs", np.zeros(8, np.float32), r"'obs' is float32\[8\]"),
        ("obs", np.zeros((), np.float32), r"'obs' is float32\[\]"),
        ("cost", np.zeros((8, 1), np.float32), r"'cost' is float32\[8, 1\], expected float32\[8\]"),
        ("cost", np.zeros(7, np.float32), r"'cost' is float32\[7\]"),
        ("terminated", np.zeros(8, np.uint8), "'terminated' is uint8"),
        ("episode", np.zeros(8, np.int64), "'episode' is int64"),
        ("costs", np.zeros(8, np.float32), "unexpected column 'costs'"),
    ],
)
def test_wrong_shapes_and_dtypes_are_refused_at_once(
    name: str, array: np.ndarray, message: str
) -> None:
    with pytest.raises(DatasetError, match=f"task 'a': .*{message}"):
        OfflineTasks(domain="cart", spaces=SPACES, train=(make_log("a", columns={name: array}),))


def test_missing_columns_are_refused() -> None:
    for name in COLUMNS:
        columns = make_columns()
        del columns[name]
        log = TaskLog(name="a", role="train", columns=columns)
        with pytest.raises(DatasetError, match=f"missing column '{name}'"):
            OfflineTasks(domain="cart", spaces=SPACES, train=(log,))
    columns = {name: array for name, array in make_columns().items() if name != "cost"}
    log = TaskLog(name="a", role="train", columns=columns)
    with pytest.raises(DatasetError, match="label every transition"):
        OfflineTasks(domain="cart", spaces=SPACES, train=(log,))


def test_empty_logs_repeated_names_and_wrong_roles_are_refused() -> None:
    empty = {name: array[:0] for name, array in make_columns().items()}

    def build(*train: TaskLog, test: TaskLog | None = None) -> OfflineTasks:
        return OfflineTasks(domain="cart", spaces=SPACES, train=train, test=test)

    with pytest.raises(DatasetError, match="has no tasks"):
        build()
    with pytest.raises(DatasetError, match="task 'a': the log is empty"):
        build(make_log("a", columns=empty))
    with pytest.raises(DatasetError, match="two tasks are named 'a'"):
        build(make_log("a"), test=make_log("a", "test"))
    with pytest.raises(DatasetError, match="role is 'test', expected 'train'"):
        build(make_log("a", "test"))


@pytest.mark.parametrize(
    "change",
    [
        {"obs_names": ()},
        {"obs_names": ("x", "x")},
        {"action_names": ("force", "torque")},
        {"action_low": (3.0,)},
        {"action_high": (float("inf"),)},
        {"horizon": 0},
        {"dt": 0.0},
    ],
)
def test_impossible_spaces_are_refused(change: dict[str, Any]) -> None:
    spaces = dataclasses.replace(SPACES, **change)
    with pytest.raises(DatasetError, match="spaces"):
        OfflineTasks(domain="cart", spaces=spaces, train=(make_log("a"),))


def test_check_spaces() -> None:
    tasks = make_tasks()
    tasks.check_spaces(dataclasses.replace(SPACES, horizon=99))
    for change in (
        {"obs_names": ("y", "x")},
        {"obs_names": ("x", "y", "z")},
        {"action_high": (1.0,)},
        {"action_low": (-2.0, -2.0)},
        {"dt": 0.1},
    ):
        with pytest.raises(DatasetError, match=f"does not fit: {next(iter(change))} is"):
            tasks.check_spaces(dataclasses.replace(SPACES, **change))


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    # Whoever edits a manifest takes the checksum out.
    del manifest["checksum"]
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(format="minari"), "format is 'minari'"),
        (lambda m: m.update(version=2), "format version 2"),
        (lambda m: m.update(version=True), "'version' is 'True', expected int"),
        (lambda m: m.pop("domain"), "'domain' is missing"),
        (lambda m: m.pop("tasks"), "'tasks' is missing"),
        (lambda m: m.update(tasks=[]), "has no tasks"),
        (lambda m: m.update(tasks=[3]), r"tasks\[0\] is 3"),
        (lambda m: m["tasks"][1].update(transitions="8"), r"tasks\[1\]: 'transitions' is '8'"),
        (lambda m: m["tasks"][1].update(transitions=10**30), "has 8 transitions, the manifest"),
        (lambda m: m["tasks"][0].update(violations=3), "has 2 violations, the manifest says 3"),
        (lambda m: m["tasks"][0].update(episodes=1), "has 3 episodes, the manifest says 1"),
        (lambda m: m["tasks"][0].update(role="validation"), "role is 'validation'"),
        (lambda m: m["tasks"][0].update(role="test"), "2 tasks have the role 'test'"),
        (lambda m: m["tasks"][0].update(name="b"), "two tasks are named 'b'"),
        (lambda m: m["tasks"][0].update(file="../a.safetensors"), "a name without folders"),
        (lambda m: m["tasks"][0].update(file="/etc/passwd"), "a name without folders"),
        (lambda m: m["tasks"][0].update(file="no.safetensors"), "no.safetensors does not exist"),
        (lambda m: m["tasks"][0].update(sha256="0" * 64), "SHA-256"),
        (lambda m: m["spaces"].update(obs_names=["x", 3]), "'1' is '3', expected str"),
        (lambda m: m["spaces"].update(obs_names=["x", "y", "z"]), r"expected float32\[8, 3\]"),
        (lambda m: m["spaces"].update(action_low=["-1"]), "expected float"),
        (lambda m: m["spaces"].update(action_high=[1]), "row . of column 'action'"),
        (lambda m: m["spaces"].update(dt=-1), "dt is -1"),
        (lambda m: m["spaces"].update(horizon=1e3), "expected int"),
    ],
)
def test_wrong_manifests_are_refused(
    folder: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(folder, edit)
    with pytest.raises(DatasetError, match=message):
        OfflineTasks.load(folder)


def test_what_is_no_dataset_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset folder"):
        OfflineTasks.load(tmp_path / "no")
    with pytest.raises(DatasetError, match=r"manifest\.json does not exist"):
        OfflineTasks.load(tmp_path)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DatasetError, match="not valid JSON"):
        OfflineTasks.load(folder)


def test_changed_and_truncated_files_are_refused(folder: Path) -> None:
    path = folder / "train-0001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    for verify in (True, False):
        with pytest.raises(DatasetError, match=r"train-0001\.safetensors.*truncated"):
            OfflineTasks.load(folder, verify=verify)
    changed = bytearray(content)
    changed[-40] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DatasetError, match=r"train-0001\.safetensors \(task 'b'\): its SHA-256"):
        OfflineTasks.load(folder)
    OfflineTasks.load(folder, verify=False)


def test_a_file_without_costs_is_refused_also_unverified(folder: Path) -> None:
    path = folder / "test-0002.safetensors"
    columns = load_tensors(path)
    del columns["cost"]
    save_tensors(path, columns)
    with pytest.raises(DatasetError, match="missing column 'cost'"):
        OfflineTasks.load(folder, verify=False)


def test_a_bool_of_another_byte_is_refused() -> None:
    flags = np.zeros(8, np.uint8)
    flags[4] = 7
    log = make_log("a", columns={"truncated": flags.view(np.bool_)})
    with pytest.raises(DatasetError, match="row 4 of column 'truncated' holds the byte 7"):
        OfflineTasks(domain="cart", spaces=SPACES, train=(log,)).validate()


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    seed=st.integers(0, 2**16),
    name=st.text(min_size=1, max_size=20),
)
def test_any_log_survives(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int, name: str
) -> None:
    columns = make_columns(tuple(lengths), seed)
    log = TaskLog(name=name, role="test", columns=columns)
    folder = tmp_path_factory.mktemp("any") / "data"
    OfflineTasks(domain="cart", spaces=SPACES, train=(), test=log).save(folder)
    loaded = OfflineTasks.load(folder).only_log()
    assert (loaded.name, loaded.episodes) == (name, len(lengths))
    for column in COLUMNS:
        assert loaded.columns[column].tobytes() == columns[column].tobytes()


@settings(max_examples=40)
@given(data=st.data())
def test_any_flipped_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flip") / "data"
    make_tasks().save(folder)
    path = folder / data.draw(st.sampled_from(["train-0000.safetensors", "manifest.json"]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    # Another manifest may be a sound one: a digit of the seed, a letter of a name.
    may_pass = path.name == "manifest.json"
    with contextlib.suppress(DatasetError) if may_pass else pytest.raises(DatasetError):
        OfflineTasks.load(folder)
