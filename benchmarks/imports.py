"""Imports beside what reading takes at least: readers that only read."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from safemesa.datasets.importers.import_map import map_from_record
from safemesa.datasets.importers.write import import_logs

EPISODE = 200
RECORD = {
    "rows": "states",
    "dt": 0.05,
    "obs": ["x", "y", "speed", "yaw"],
    "action": [
        {"column": "steer", "low": -1.0, "high": 1.0},
        {"column": "gas", "low": 0, "high": 1},
    ],
    "columns": {"time": "t", "episode": "run"},
    "signal": ["bumper"],
    "cost": {"limit": "bumper > 0.5"},
}


def write_robot(path: Path, rows: int) -> None:
    """A log of nine columns, as a robot's logger writes it."""
    rng = np.random.default_rng(0)
    run, step = np.divmod(np.arange(rows), EPISODE)
    values = np.column_stack(
        [step * 0.05, run, *rng.normal(size=(4, rows)), *rng.uniform(size=(2, rows)), step == 199]
    )
    kinds = ["%.2f", "%d", *["%.6f"] * 6, "%d"]
    header = "t,run,x,y,speed,yaw,steer,gas,bumper"
    np.savetxt(path, values, kinds, ",", header=header, comments="")


def csv_import(rows: int) -> dict[str, Callable[[], None]]:
    """Reads one file of `rows` rows: our whole import, and pyarrow's plain read if it is there."""
    folder = Path(tempfile.mkdtemp(prefix="safemesa-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_robot(folder / "robot.csv", rows)
    mapping, out = map_from_record(RECORD), folder / "out"

    def ours() -> None:
        shutil.rmtree(out, ignore_errors=True)
        import_logs([folder / "robot.csv"], mapping, out)

    candidates: dict[str, Callable[[], None]] = {"import": ours}
    try:
        from pyarrow import csv
    except ImportError:
        return candidates

    def plain() -> None:
        # One core, as ours.
        csv.read_csv(folder / "robot.csv", read_options=csv.ReadOptions(use_threads=False))

    return {**candidates, "pyarrow": plain}


BAG_RECORD = {
    "rows": "states",
    "dt": 0.01,
    "obs": [
        {"name": "x", "column": "/odom.pose.pose.position.x"},
        {"name": "y", "column": "/odom.pose.pose.position.y"},
        {"name": "speed", "column": "/odom.twist.twist.linear.x"},
    ],
    "action": [{"name": "go", "column": "/cmd.linear.x", "low": -1.0, "high": 1.0}],
    "cost": {"limit": "x > 0.95"},
    "resample": {"time": "log", "max_age": 0.2},
}


def write_bag(path: Path, rows: int) -> None:
    """Odometry at 100 Hz and commands at 20 Hz, as `rosbag2` stores them."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    kinds = {name.rpartition("/")[2]: kind for name, kind in store.types.items()}
    still, zeros = kinds["Vector3"](0.0, 0.0, 0.0), np.zeros(36)
    upright = kinds["Quaternion"](0.0, 0.0, 0.0, 1.0)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = [
            writer.add_connection(topic, kind, typestore=store)
            for topic, kind in (
                ("/odom", "nav_msgs/msg/Odometry"),
                ("/cmd", "geometry_msgs/msg/Twist"),
            )
        ]
        for row in range(rows):
            time = 1_700_000_000 * 10**9 + row * 10_000_000
            header = kinds["Header"](kinds["Time"](time // 10**9, time % 10**9), "map")
            pose = kinds["Pose"](kinds["Point"](row % 100 / 100, 0.0, 0.0), upright)
            odometry = kinds["Odometry"](
                header,
                "base",
                kinds["PoseWithCovariance"](pose, zeros),
                kinds["TwistWithCovariance"](kinds["Twist"](still, still), zeros),
            )
            writer.write(topics[0], time, store.serialize_cdr(odometry, odometry.__msgtype__))
            if row % 5 == 0:
                command = kinds["Twist"](kinds["Vector3"](row % 7 / 7, 0.0, 0.0), still)
                data = store.serialize_cdr(command, command.__msgtype__)
                writer.write(topics[1], time + 1, data)


def bag_import(rows: int) -> dict[str, Callable[[], None]]:
    """Reads one bag of `rows` rows: our whole import, and rosbags, which only decodes messages.

    Empty without the extra `robots`.
    """
    try:
        from rosbags.highlevel import AnyReader
    except ImportError:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="safemesa-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_bag(folder / "robot", rows)
    mapping, out = map_from_record(BAG_RECORD), folder / "out"

    def ours() -> None:
        shutil.rmtree(out, ignore_errors=True)
        import_logs([folder / "robot"], mapping, out)

    def plain() -> None:
        with AnyReader([folder / "robot"]) as reader:
            for connection, _, raw in reader.messages():
                reader.deserialize(raw, connection.msgtype)

    return {"import": ours, "rosbags": plain}
