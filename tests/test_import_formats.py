"""Every format gives the same dataset, and ours go round without a changed bit."""

from pathlib import Path

import gymnasium
import logs
import numpy as np
import pytest

from safemesa.core.errors import ConfigurationError, DatasetError, OutputFolderError
from safemesa.datasets.exporters import exporters
from safemesa.datasets.importers.import_map import ImportMap, map_from_record, read_map
from safemesa.datasets.importers.parquet_file import arrow_numbers
from safemesa.datasets.importers.write import import_logs
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.recorder import RecordLog

try:
    import h5py
except ImportError:
    h5py = None
NEEDS_HDF5 = pytest.mark.skipif(h5py is None, reason="needs the extra `data`")


def imported(paths, mapping: ImportMap, out: Path) -> OfflineTasks:
    import_logs([paths] if isinstance(paths, Path) else paths, mapping, out)
    return OfflineTasks.load(out)


def test_csv_is_the_log_bit_for_bit(tmp_path):
    log = logs.cart_log("a", 0)
    logs.write_csv(tmp_path / "in" / "a.csv", logs.table(log))
    data = imported(tmp_path / "in", logs.cart_map(), tmp_path / "out")
    logs.assert_equal_logs(data.train[0], log)
    assert (data.domain, data.spaces) == ("cart", logs.SPACES)
    assert data.provenance["cost"] == "column violation"


@pytest.mark.parametrize("form", ["parquet", "npz", "hdf5"])
def test_the_other_tables_too(tmp_path, form):
    log = logs.cart_log("a", 0)
    path, columns = tmp_path / f"a.{form}", logs.table(log)
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table(columns), path)
    elif form == "npz":
        np.savez(path, **columns)
    else:
        if h5py is None:
            pytest.skip("needs the extra `data`")
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[name] = values
    data = imported(path, logs.cart_map(), tmp_path / "out")
    logs.assert_equal_logs(data.train[0], log)


def test_a_file_that_spans_blocks_is_the_same(tmp_path, monkeypatch):
    log = logs.cart_log("a", 0)
    path = logs.write_csv(tmp_path / "a.csv", logs.table(log))
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", 7)
    data = imported(path, logs.cart_map(), tmp_path / "out")
    logs.assert_equal_logs(data.train[0], log)


@pytest.mark.parametrize("block", [1, 2, 3, 10_000])
def test_rows_that_are_moments(tmp_path, monkeypatch, block):
    """The cost of a step is the state that the next row shows; the last row is no step."""
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    columns = {
        "run": np.array(["a", "a", "a", "b", "b"]),
        "x": np.array([0.0, 0.5, 2.0, -3.0, 0.25]),
        "u": np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
    }
    path = logs.write_csv(tmp_path / "robot.csv", columns)
    mapping = map_from_record(
        {
            "rows": "states",
            "obs": ["x"],
            "action": [{"column": "u", "low": -1, "high": 1}],
            "columns": {"episode": "run"},
            "cost": {"limit": "abs(x) > 1"},
        }
    )
    result = import_logs([path], mapping, tmp_path / "out")
    columns = OfflineTasks.load(tmp_path / "out").train[0].columns
    np.testing.assert_array_equal(columns["obs"][:, 0], np.float32([0.0, 0.5, -3.0]))
    np.testing.assert_array_equal(columns["next_obs"][:, 0], np.float32([0.5, 2.0, 0.25]))
    np.testing.assert_array_equal(columns["action"][:, 0], np.float32([0.1, 0.2, 0.4]))
    np.testing.assert_array_equal(columns["cost"], [0, 1, 0])
    np.testing.assert_array_equal(columns["terminated"], [False, True, False])
    np.testing.assert_array_equal(columns["truncated"], [False, False, True])
    np.testing.assert_array_equal(columns["episode"], [0, 0, 1])
    np.testing.assert_array_equal(columns["step"], [0, 1, 0])
    (finding,) = result.findings
    assert (finding.code, finding.episode, finding.row) == ("starts-in-violation", "b", 5)


@pytest.mark.parametrize("block", [1, 2, 10_000])
def test_rows_that_are_steps_without_their_last_state(tmp_path, monkeypatch, block):
    """A last step is kept if it violated (nothing is bootstrapped there), else it is dropped."""
    monkeypatch.setattr("safemesa.datasets.importers.csv_file.BLOCK_LINES", block)
    columns = {
        "run": np.array([1, 1, 2, 2, 2]),
        "x": np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
        "u": np.zeros(5),
        "hit": np.array([0, 1, 0, 0, 0]),
    }
    path = logs.write_csv(tmp_path / "robot.csv", columns)
    mapping = map_from_record(
        {
            "rows": "steps",
            "obs": ["x"],
            "action": [{"column": "u", "low": -1, "high": 1}],
            "columns": {"episode": "run"},
            "cost": {"column": "hit"},
        }
    )
    columns = imported(path, mapping, tmp_path / "out").train[0].columns
    np.testing.assert_array_equal(columns["obs"][:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(columns["next_obs"][:, 0], [1, 1, 3, 4])
    np.testing.assert_array_equal(columns["cost"], [0, 1, 0, 0])
    np.testing.assert_array_equal(columns["terminated"], [False, True, False, False])
    np.testing.assert_array_equal(columns["truncated"], [False, False, False, True])


def test_robots_that_alternate_in_one_table(tmp_path):
    """Sorted by time, two robots interleave; each keeps its own episodes."""
    first, second = logs.cart_log("a", 0, 3), logs.cart_log("b", 1, 3)
    tables = [
        {"robot": np.full(one.transitions, one.name), **logs.table(one)} for one in (first, second)
    ]
    joined = {key: np.concatenate([one[key] for one in tables]) for key in tables[0]}
    position = np.concatenate([np.arange(first.transitions), np.arange(second.transitions)])
    order = np.argsort(position, kind="stable")
    path = logs.write_csv(tmp_path / "fleet.csv", {k: v[order] for k, v in joined.items()})
    mapping = logs.cart_map(
        columns={**logs.MAP["columns"], "task": "robot"},
        tasks={"test": "b", "parameters": {"a": {"mass": 2.0}}},
    )
    data = imported(path, mapping, tmp_path / "out")
    logs.assert_equal_logs(data.train[0], first)
    assert data.test is not None
    np.testing.assert_array_equal(data.test.columns["obs"], second.columns["obs"])
    assert data.train[0].parameters == {"mass": 2.0}


def test_units_delimiter_and_indexed_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x_mm;u;c\n1000;0,5;0\n".replace("0,5", "0.5") + "2000;0.5;1\n")
    mapping = map_from_record(
        {
            "rows": "steps",
            "delimiter": ";",
            "obs": [{"name": "x", "column": "x_mm", "scale": 0.001, "offset": 1, "unit": "m"}],
            "action": [{"column": "u", "low": -1, "high": 1}],
            "cost": {"column": "c"},
        }
    )
    data = imported(path, mapping, tmp_path / "out")
    np.testing.assert_array_equal(data.train[0].columns["obs"][:, 0], [2.0, 3.0])
    assert data.provenance["units"] == {"x": "m"}

    np.savez(tmp_path / "b.npz", o=np.arange(12.0).reshape(4, 3), u=np.zeros(4), c=np.zeros(4))
    mapping = map_from_record(
        {
            "rows": "steps",
            "obs": ["o[2]", "o[0]"],
            "action": [{"column": "u", "low": -1, "high": 1}],
            "cost": {"column": "c"},
        }
    )
    data = imported(tmp_path / "b.npz", mapping, tmp_path / "out2")
    np.testing.assert_array_equal(data.train[0].columns["obs"], [[2, 0], [5, 3], [8, 6]])


@NEEDS_HDF5
@pytest.mark.parametrize("form", list(exporters))
def test_exports_come_back_bit_for_bit(tmp_path, form):
    data = logs.cart_fleet(tasks=3, episodes=4)
    # Numbers that do not start at 0 survive too.
    odd = data.train[0].columns
    odd["episode"][:] = odd["episode"] * 3 + 5
    odd["step"][:] = odd["step"] + 2
    odd["obs"][0, 0] = -0.0
    paths = exporters[form](data, tmp_path / form)
    assert len(paths) == 4
    back = imported(tmp_path / form, ImportMap(), tmp_path / "back")
    assert (back.domain, back.spaces) == (data.domain, data.spaces)
    assert dict(back.provenance) == dict(data.provenance)
    for given, expected in zip(back.logs, data.logs, strict=True):
        logs.assert_equal_logs(given, expected)
        assert given.parameters == expected.parameters
    with pytest.raises(OutputFolderError):
        exporters[form](data, tmp_path / form)


@NEEDS_HDF5
def test_minari_refuses_what_it_cannot_hold(tmp_path):
    data = logs.cart_fleet(tasks=1, episodes=2)
    data.train[0].columns["next_obs"][3] += 1.0
    with pytest.raises(DatasetError, match="row 3"):
        exporters["minari"](data, tmp_path / "out")
    exporters["dsrl"](data, tmp_path / "dsrl")


@NEEDS_HDF5
@pytest.mark.filterwarnings("ignore")
def test_minari_itself_reads_our_export(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    data = logs.cart_fleet(tasks=1, episodes=3, test=False)
    (path,) = exporters["minari"](data, tmp_path / "root")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    dataset = minari.load_dataset(path.name)
    columns = data.train[0].columns
    assert dataset.total_steps == data.train[0].transitions
    first = dataset[0]
    rows = columns["episode"] == 0
    np.testing.assert_array_equal(first.observations[:-1], columns["obs"][rows])
    np.testing.assert_array_equal(first.actions, columns["action"][rows])
    np.testing.assert_array_equal(first.infos["cost"][1:], columns["cost"][rows])


@NEEDS_HDF5
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("storage", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("environment", [False, True])
def test_minari_writes_and_we_read(tmp_path, monkeypatch, storage, extra, environment):
    """Cost of length T and T + 1; with and without a specification of the environment."""
    minari = pytest.importorskip("minari")
    from minari.data_collector import EpisodeBuffer

    if storage != "hdf5" and not extra:
        pytest.skip("this storage pads every column to T + 1 rows")
    log = logs.cart_log("a", 0, 4)
    buffers = []
    for episode in range(4):
        rows = log.columns["episode"] == episode
        columns = {name: values[rows] for name, values in log.columns.items()}
        cost = np.concatenate([np.zeros(extra, np.float32), columns["cost"]])[:, None]
        buffers.append(
            EpisodeBuffer(
                id=episode,
                observations=np.concatenate([columns["obs"], columns["next_obs"][-1:]]),
                actions=columns["action"],
                rewards=columns["reward"].tolist(),
                terminations=columns["terminated"].tolist(),
                truncations=columns["truncated"].tolist(),
                infos={"cost": cost},
            )
        )
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    minari.create_dataset_from_buffers(
        "cart/a-v0",
        buffer=buffers,
        env=gymnasium.spec("Pendulum-v1") if environment else None,
        observation_space=gymnasium.spaces.Box(-9, 9, (2,), np.float32),
        action_space=gymnasium.spaces.Box(-2, 2, (1,), np.float32),
        data_format=storage,
    )
    data = imported(tmp_path / "root", ImportMap(), tmp_path / "out")
    assert data.domain == ("Pendulum-v1" if environment else "imported")
    assert data.spaces.action_high == (2.0,)
    assert data.spaces.horizon == (200 if environment else 30)
    (given,) = data.train
    for name in ("obs", "next_obs", "action", "reward", "cost", "episode", "step", "terminated"):
        np.testing.assert_array_equal(given.columns[name], log.columns[name], err_msg=name)


@NEEDS_HDF5
def test_dsrl_and_d4rl_layouts_without_our_marks(tmp_path):
    log = logs.cart_log("a", 0, 6)
    keys = {
        "observations": "obs",
        "actions": "action",
        "rewards": "reward",
        "terminals": "terminated",
        "timeouts": "truncated",
    }
    for name, more in (("dsrl", {"next_observations": "next_obs", "costs": "cost"}), ("d4rl", {})):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            for key, column in {**keys, **more}.items():
                file[key] = log.columns[column]
            file["metadata/algorithm"] = "random"
    bounds = {"action": [{"column": "actions", "low": -2, "high": 2}]}
    dsrl = imported(tmp_path / "dsrl.hdf5", map_from_record(bounds), tmp_path / "dsrl")
    for name in ("obs", "next_obs", "cost", "episode", "step", "terminated", "truncated"):
        np.testing.assert_array_equal(dsrl.train[0].columns[name], log.columns[name], name)
    # D4RL keeps neither costs nor next observations: the limit reads the state that is reached.
    limit = {**bounds, "cost": {"limit": "abs(observations[0]) > 0.6"}}
    d4rl = imported(tmp_path / "d4rl.hdf5", map_from_record(limit), tmp_path / "d4rl")
    columns, last = d4rl.train[0].columns, log.columns["terminated"] | log.columns["truncated"]
    np.testing.assert_array_equal(columns["obs"], log.columns["obs"][~last])
    np.testing.assert_array_equal(columns["next_obs"], log.columns["next_obs"][~last])
    expected = np.abs(log.columns["next_obs"][~last, 0]) > 0.6
    assert expected.any()
    np.testing.assert_array_equal(columns["cost"], expected)


def test_a_gymnasium_recording(tmp_path):
    import safemesa  # noqa: F401 - registers the environments

    env = RecordLog(gymnasium.make("safemesa/Navigation2-v0"), tmp_path / "robot.npz", dt=0.1)
    env.action_space.seed(0)
    seen = []
    for episode in range(3):
        obs, _ = env.reset(seed=episode)
        for _ in range(15):
            action = env.action_space.sample()
            following, reward, terminated, truncated, info = env.step(action)
            seen.append((obs, action, reward, info["cost"], following))
            obs = following
            if terminated or truncated:
                break
    env.close()
    data = imported(tmp_path / "robot.npz", ImportMap(), tmp_path / "out")
    assert data.domain == "safemesa/Navigation2-v0"
    assert data.spaces.dt == 0.1
    columns = data.train[0].columns
    assert len(columns["cost"]) == len(seen)
    for index, name in enumerate(("obs", "action", "reward", "cost", "next_obs")):
        expected = np.asarray([row[index] for row in seen], np.float32)
        np.testing.assert_array_equal(columns[name], expected, err_msg=name)
    assert columns["truncated"][-1] or columns["terminated"][-1]


def test_maps_in_toml_and_json_are_the_same(tmp_path):
    toml = """
    domain = "cart"
    rows = "states"
    dt = 0.05
    obs = ["x", {column = "v m/s", name = "v", unit = "m/s"}]
    [[action]]
    column = "u"
    low = -1
    high = 1
    [columns]
    episode = "run"
    [cost]
    limit = "x > 1"
    """
    (tmp_path / "map.toml").write_text(toml)
    mapping = read_map(tmp_path / "map.toml")
    assert [one.column for one in mapping.obs] == ["x", "v m/s"]
    assert mapping.action[0].low == -1.0
    logs.write_map(tmp_path / "map.json")
    assert read_map(tmp_path / "map.json").columns.episode == "run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obss": []}, "Did you mean 'obs'"),
        ({"rows": "moments"}, "rows is 'moments'"),
        ({"rows": None}, "what a row is"),
        ({"dt": 0}, "dt is 0"),
        ({"dt": "x"}, "dt is 'x'"),
        ({"cost": {}}, "missing cost"),
        ({"cost": {"column": "a", "limit": "x > 1"}}, "one of them"),
        ({"cost": {"limit": "push > 1"}}, "reads the action 'push'"),
        ({"cost": {"limit": "lost > 1"}}, "no signal"),
        ({"cost": {"column": "lost"}}, "no column 'lost'"),
        ({"obs": ["position", "position"]}, "repeats"),
        ({"obs": []}, "declares no obs"),
        ({"obs": [{"name": "position", "next_column": "next_position"}, "velocity"]}, "for all"),
        ({"action": ["push"]}, "no bounds"),
        ({"action": [{"name": "push", "low": 1.0}]}, "both low and high"),
        ({"rows": "states"}, "remove next_column"),
        ({"columns": {"episode": "lost"}}, "no column 'lost'"),
        ({"tasks": {"test": "lost"}}, "not among the tasks"),
        ({"tasks": {"parameters": {"lost": {}}}}, "parameters of"),
    ],
)
def test_a_wrong_map_is_refused_with_its_reason(tmp_path, change, message):
    path = logs.write_csv(tmp_path / "a.csv", logs.table(logs.cart_log("a", 0, 3)))
    with pytest.raises((ConfigurationError, DatasetError), match=message):
        import_logs([path], logs.cart_map(**change), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_without_the_libraries_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    for module in ("pyarrow", "pyarrow.parquet", "h5py"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    for name in ("a.parquet", "a.hdf5"):
        with pytest.raises(ConfigurationError, match=r"safemesa\[data\]"):
            import_logs([tmp_path / name], ImportMap(), tmp_path / "out")


def test_gaps_cannot_be_found_without_dt(tmp_path):
    path = logs.write_csv(tmp_path / "a.csv", logs.table(logs.cart_log("a", 0)))
    with pytest.raises(ConfigurationError, match="a time column but no dt"):
        import_logs([path], logs.cart_map(dt=None), tmp_path / "out")
    columns = {key: value for key, value in logs.MAP["columns"].items() if key != "time"}
    changes = {"dt": None, "columns": columns, "gaps": "split"}
    with pytest.raises(ConfigurationError, match='gaps = "split" but no dt'):
        import_logs([path], logs.cart_map(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_robots_of_one_name_are_refused(tmp_path):
    paths = [
        logs.write_csv(tmp_path / f"robot-{i}" / "run.csv", logs.table(logs.cart_log("a", i)))
        for i in range(2)
    ]
    with pytest.raises(DatasetError, match="would both be the task 'run'"):
        import_logs(paths, logs.cart_map(), tmp_path / "out")
    data = imported(paths, logs.cart_map(task_from="folder"), tmp_path / "out")
    assert [log.name for log in data.train] == ["robot-0", "robot-1"]


def test_a_file_that_is_given_by_two_paths_is_read_once(tmp_path, monkeypatch):
    path = logs.write_csv(tmp_path / "a.csv", logs.table(logs.cart_log("a", 0)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="given twice"):
        import_logs([path, Path("a.csv")], logs.cart_map(), tmp_path / "out")


def test_a_second_new_robot_is_no_training_robot(tmp_path):
    exported = [
        exporters["dsrl"](
            OfflineTasks(
                domain="cart",
                spaces=logs.SPACES,
                train=(),
                test=logs.cart_log(name, number, role="test"),
                provenance={"source": "tests"},
            ),
            tmp_path / name,
        )[0]
        for number, name in enumerate(("one", "two"))
    ]
    with pytest.raises(ConfigurationError, match="a dataset has one"):
        import_logs(exported, ImportMap(), tmp_path / "out")
    with pytest.raises(ConfigurationError, match=r"two: recorded as .* here one"):
        import_logs(exported, ImportMap(test="one"), tmp_path / "out")


@NEEDS_HDF5
def test_a_minari_folder_that_lost_an_episode_is_refused(tmp_path):
    (path,) = exporters["minari"](logs.cart_fleet(tasks=1, test=False), tmp_path / "root")
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1"]
    with pytest.raises(DatasetError, match="19 episodes, its metadata name 20"):
        import_logs([path], ImportMap(), tmp_path / "out")


def test_timestamps_of_nanoseconds_are_seconds():
    pyarrow = pytest.importorskip("pyarrow")
    ticks = 1_700_000_000_000_000_000 + np.arange(3) * 50_000_001
    column = pyarrow.array(ticks, pyarrow.timestamp("ns"))
    seconds = arrow_numbers(pyarrow, column, "t", Path("log.parquet"))
    np.testing.assert_allclose(np.diff(seconds), 0.050000001, atol=1e-6)
