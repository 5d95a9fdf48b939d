"""A small fleet of carts, as arrays and as files: what the tests of importing share."""

import json
from pathlib import Path

import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.importers.import_map import ImportMap, map_from_record
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog

SPACES = Spaces(
    obs_names=("position", "velocity"),
    action_names=("push",),
    action_low=(-2.0,),
    action_high=(2.0,),
    horizon=30,
    dt=0.05,
)

MAP = {
    "domain": "cart",
    "rows": "steps",
    "dt": 0.05,
    "horizon": 30,
    "obs": [
        {"name": "position", "next_column": "next_position"},
        {"name": "velocity", "next_column": "next_velocity"},
    ],
    "action": [{"name": "push", "low": -2.0, "high": 2.0}],
    "columns": {
        "episode": "run",
        "time": "t",
        "reward": "reward",
        "terminated": "terminated",
        "truncated": "truncated",
    },
    "cost": {"column": "violation"},
}

COLUMN_OF = {"episode": "run", "cost": "violation"}


def cart_log(name: str, seed: int, episodes: int = 20, gain: float = 4.0, role: str = "train"):
    """Random pushes; x must stay within 1. A violation ends the episode."""
    rng = np.random.default_rng(seed)
    rows: list[tuple] = []
    for episode in range(episodes):
        x, v = rng.uniform(-0.5, 0.5), rng.normal(0.0, 0.6)
        for step in range(30):
            push = rng.uniform(-2.0, 2.0)
            new_v = v + 0.05 * gain * push
            new_x = x + 0.05 * new_v
            cost = abs(new_x) > 1.0
            rows.append(((x, v), (push,), -abs(x), cost, (new_x, new_v), episode, step))
            x, v = new_x, new_v
            if cost:
                break
    names = ("obs", "action", "reward", "cost", "next_obs")
    columns = {
        key: np.asarray([row[index] for row in rows], np.float32) for index, key in enumerate(names)
    }
    columns["episode"] = np.asarray([row[5] for row in rows], np.int32)
    columns["step"] = np.asarray([row[6] for row in rows], np.int32)
    columns["terminated"] = columns["cost"] > 0.5
    last = np.append(np.diff(columns["episode"]) != 0, True)
    columns["truncated"] = last & ~columns["terminated"]
    return TaskLog(name=name, role=role, columns=columns, parameters={"gain": gain})


def cart_fleet(tasks: int = 4, episodes: int = 20, test: bool = True) -> OfflineTasks:
    """Robots of different gain, and a new one."""
    return OfflineTasks(
        domain="cart",
        spaces=SPACES,
        train=tuple(cart_log(f"robot-{i}", i, episodes, 3.0 + i) for i in range(tasks)),
        test=cart_log("new", 99, episodes, 8.0, "test") if test else None,
        provenance={"source": "tests/logs.py"},
    )


def cart_map(**changes) -> ImportMap:
    """The map of `write_csv`, with top-level keys replaced; None removes one."""
    record = {**MAP, **changes}
    return map_from_record({key: value for key, value in record.items() if value is not None})


def table(log: TaskLog) -> dict[str, np.ndarray]:
    """The columns of a log under the names of a user's table."""
    columns = log.columns
    return {
        "run": columns["episode"],
        "t": columns["step"] * 0.05,
        "position": columns["obs"][:, 0],
        "velocity": columns["obs"][:, 1],
        "push": columns["action"][:, 0],
        "reward": columns["reward"],
        "violation": columns["cost"],
        "next_position": columns["next_obs"][:, 0],
        "next_velocity": columns["next_obs"][:, 1],
        "terminated": columns["terminated"].astype(int),
        "truncated": columns["truncated"].astype(int),
    }


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """A CSV file; floats keep all their digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(columns)]
    lists = [values.tolist() for values in columns.values()]
    lines += [",".join(map(str, row)) for row in zip(*lists, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_map(path: Path, **changes) -> Path:
    """The map as a JSON file."""
    record = {key: value for key, value in {**MAP, **changes}.items() if value is not None}
    path.write_text(json.dumps(record))
    return path


def assert_equal_logs(given: TaskLog, expected: TaskLog) -> None:
    """Bit for bit, dtypes included."""
    assert (given.name, given.role) == (expected.name, expected.role)
    assert set(given.columns) == set(expected.columns)
    for name, column in expected.columns.items():
        assert given.columns[name].dtype == column.dtype, name
        assert np.asarray(given.columns[name]).tobytes() == np.asarray(column).tobytes(), name
