"""The examples are what the docs show, and their maps fit the files that they are for."""

from pathlib import Path

import numpy as np
import pytest

from safemesa.datasets.importers.import_map import read_map
from safemesa.datasets.importers.write import import_logs
from safemesa.datasets.offline_tasks import OfflineTasks

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("page", "example"),
    [
        ("import_csv.md", "write_fleet_csv.py"),
        ("pendulum.md", "pendulum.py"),
        ("stable_baselines3.md", "sac_pendulum.py"),
        ("public_data.md", "maps/dsrl.toml"),
        ("public_data.md", "maps/voraus_ad.toml"),
    ],
)
def test_the_docs_show_the_example_itself(page, example):
    shown = (ROOT / "docs" / page).read_text()
    assert f"\n{(ROOT / 'examples' / example).read_text()}```\n" in shown


def test_the_map_of_voraus_ad_fits_its_columns(tmp_path):
    """Random numbers under the names that the data set's own loader lists."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    rng, rows = np.random.default_rng(0), 600
    columns: dict[str, np.ndarray] = {
        "time": np.tile(np.arange(100) * 0.01, 6),
        "sample": np.repeat(np.arange(6), 100),
        "category": np.repeat(np.array([12, 0, 5], np.int8), 200),
        "anomaly": np.repeat([False, True, True], 200),
        "setting": np.zeros(rows, np.int16),
        "action": np.zeros(rows, np.int8),
    }
    for joint in range(1, 7):
        for name in ("joint_position", "joint_velocity", "torque_sensor_a", "target_torque"):
            columns[f"{name}_{joint}"] = rng.normal(size=rows)
        columns[f"target_velocity_{joint}"] = rng.uniform(-1, 1, rows)
    columns["torque_sensor_a_3"][[150, 350]] = 40.0
    path = tmp_path / "voraus.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    mapping = read_map(ROOT / "examples" / "maps" / "voraus_ad.toml")
    import_logs([path], mapping, tmp_path / "out")
    data = OfflineTasks.load(tmp_path / "out")
    assert [log.name for log in data.train] == ["12", "0", "5"]
    assert [(log.transitions, log.violations) for log in data.train] == [
        (198, 1),
        (198, 1),
        (198, 0),
    ]
    assert data.spaces.obs_size == 18


def test_the_map_of_dsrl_fits_its_layout(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "task.hdf5", "w") as file:
        for name, width in (("observations", 5), ("next_observations", 5), ("actions", 2)):
            file[name] = np.zeros((60, width), np.float32)
        for name in ("rewards", "costs", "terminals"):
            file[name] = np.zeros(60, np.float32)
        file["timeouts"] = np.arange(60) % 20 == 19
    mapping = read_map(ROOT / "examples" / "maps" / "dsrl.toml")
    import_logs([tmp_path / "task.hdf5"], mapping, tmp_path / "out")
    data = OfflineTasks.load(tmp_path / "out")
    assert (data.train[0].transitions, data.train[0].episodes) == (60, 3)
    assert data.spaces.dt == 0.02
