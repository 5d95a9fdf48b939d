"""Logs as robots write them, by the libraries' own writers; ULog has none: by its format."""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
"""Nanoseconds since 1970 at which the logs begin."""

Messages = Sequence[tuple[str, int, Any]]
"""Topic, time of the log in nanoseconds, message; in the order of the file."""


def store():
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def stamp(types, time: int):
    return types["builtin_interfaces/msg/Time"](int(time // SECOND), int(time % SECOND))


def header(types, time: int):
    return types["std_msgs/msg/Header"](stamp(types, time), "map")


def odometry(types, time: int, x: float, speed: float):
    """A message of `nav_msgs/msg/Odometry` measured at `time`."""
    vector, zeros = types["geometry_msgs/msg/Vector3"], np.zeros(36)
    pose = types["geometry_msgs/msg/Pose"](
        types["geometry_msgs/msg/Point"](x, 0.0, 0.0),
        types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
    )
    twist = types["geometry_msgs/msg/Twist"](vector(speed, 0.0, 0.0), vector(0.0, 0.0, 0.0))
    return types["nav_msgs/msg/Odometry"](
        header(types, time),
        "base",
        types["geometry_msgs/msg/PoseWithCovariance"](pose, zeros),
        types["geometry_msgs/msg/TwistWithCovariance"](twist, zeros),
    )


def velocity(types, linear: float):
    """A message of `geometry_msgs/msg/Twist`."""
    vector = types["geometry_msgs/msg/Vector3"]
    return types["geometry_msgs/msg/Twist"](vector(linear, 0.0, 0.0), vector(0.0, 0.0, 0.0))


def stamped_velocity(types, time: int, linear: float):
    """A message of `geometry_msgs/msg/TwistStamped` measured at `time`."""
    return types["geometry_msgs/msg/TwistStamped"](header(types, time), velocity(types, linear))


def joints(types, time: int, names: Iterable[str], positions: Iterable[float]):
    """A message of `sensor_msgs/msg/JointState`."""
    empty = np.zeros(0)
    values = np.asarray(list(positions), np.float64)
    return types["sensor_msgs/msg/JointState"](
        header(types, time), list(names), values, empty, empty
    )


def write_bag(
    path: Path, messages: Messages, storage: str = "sqlite3", compression: str = ""
) -> Path:
    """A bag of messages of the classes above, by rosbags' writer."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    types = store()
    plugin = StoragePlugin.SQLITE3 if storage == "sqlite3" else StoragePlugin.MCAP
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression:
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, time, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types)
            writer.write(connections[topic], time, types.serialize_cdr(message, kind))
    return path


def write_json_mcap(path: Path, messages: Messages) -> Path:
    """An MCAP file with JSON channels, by mcap's writer."""
    from mcap.writer import Writer

    with open(path, "wb") as file:
        writer = Writer(file, chunk_size=20_000)
        writer.start()
        schema = writer.register_schema("any", "jsonschema", b'{"type": "object"}')
        channels: dict[str, int] = {}
        for topic, time, message in messages:
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, "json", schema)
            data = json.dumps(message).encode()
            writer.add_message(channels[topic], time, data, time)
        writer.finish()
    return path


def ulog_message(kind: str, data: bytes) -> bytes:
    return struct.pack("<HB", len(data), ord(kind)) + data


def write_ulog(
    path: Path,
    formats: Mapping[str, str],
    messages: Iterable[tuple[str, bytes] | int],
    instances: Mapping[str, int] | None = None,
) -> Path:
    """A ULog file: `formats` as `{topic: "uint64_t timestamp;float x;"}`.

    Messages are (topic, packed fields) in their order; a number is a dropout of so many
    milliseconds. `instances` names the instance of topics that are called `topic:instance`.
    """
    stamped = [name for name, text in formats.items() if "timestamp" in text]
    topics = list(dict.fromkeys([*(stamped or formats), *(instances or {})]))
    parts = [b"ULog\x01\x12\x35\x01" + struct.pack("<Q", 0)]
    parts.append(ulog_message("B", bytes(16) + struct.pack("<QQQ", 0, 0, 0)))
    parts += [ulog_message("F", f"{name}:{text}".encode()) for name, text in formats.items()]
    for number, topic in enumerate(topics):
        instance = (instances or {}).get(topic, 0)
        name = topic.partition(":")[0].encode()
        parts.append(ulog_message("A", struct.pack("<BH", instance, number) + name))
    for one in messages:
        if isinstance(one, int):
            parts.append(ulog_message("O", struct.pack("<H", one)))
        else:
            number = topics.index(one[0])
            parts.append(ulog_message("D", struct.pack("<H", number) + one[1]))
    path.write_bytes(b"".join(parts))
    return path


LEROBOT_NAMES = ["shoulder", "elbow", "gripper"]


def lerobot_columns(episodes: int, frames: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of one robot: three joints, and where they are sent."""
    rng = np.random.default_rng(seed)
    count = episodes * frames
    state = rng.normal(size=(count, 3)).astype(np.float32)
    return {
        "observation.state": state,
        "action": np.tanh(state + 0.1).astype(np.float32),
        "next.reward": rng.normal(size=count).astype(np.float32),
        "timestamp": np.tile(np.arange(frames) / 10, episodes).astype(np.float32),
        "frame_index": np.tile(np.arange(frames), episodes),
        "episode_index": np.repeat(np.arange(episodes), frames),
        "index": np.arange(count),
        "task_index": np.zeros(count, np.int64),
    }


def write_lerobot(
    path: Path,
    version: str = "v3.0",
    episodes: int = 4,
    frames: int = 20,
    seed: int = 0,
    fixed: bool = True,
) -> dict[str, np.ndarray]:
    """A LeRobot dataset by its published layout, and its columns; the video is a name only."""
    import pyarrow
    from pyarrow import parquet

    columns = lerobot_columns(episodes, frames, seed)
    vector = pyarrow.list_(pyarrow.float32(), 3) if fixed else pyarrow.list_(pyarrow.float32())

    def table(chosen: np.ndarray):
        arrays = {
            name: pyarrow.array(values[chosen].tolist(), vector)
            if values.ndim == 2
            else pyarrow.array(values[chosen])
            for name, values in columns.items()
        }
        return pyarrow.table(arrays)

    (path / "meta").mkdir(parents=True)
    (path / "data" / "chunk-000").mkdir(parents=True)
    episode = columns["episode_index"]
    if version == "v3.0":
        data_path = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        half = episodes // 2
        for number, chosen in enumerate((episode < half, episode >= half)):
            parquet.write_table(
                table(chosen), path / "data" / "chunk-000" / f"file-{number:03d}.parquet"
            )
        listing = path / "meta" / "episodes" / "chunk-000"
        listing.mkdir(parents=True)
        rows = pyarrow.table({"episode_index": np.arange(episodes), "length": [frames] * episodes})
        parquet.write_table(rows, listing / "file-000.parquet")
    else:
        data_path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        for number in range(episodes):
            parquet.write_table(
                table(episode == number),
                path / "data" / "chunk-000" / f"episode_{number:06d}.parquet",
            )
        lines = [
            json.dumps({"episode_index": one, "tasks": ["lift"], "length": frames})
            for one in range(episodes)
        ]
        (path / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
        (path / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "lift"}\n')
    vectors = {"dtype": "float32", "shape": [3], "names": LEROBOT_NAMES}
    features = {
        "observation.state": vectors,
        "action": {**vectors, "names": {"motors": LEROBOT_NAMES}},
        "observation.images.front": {"dtype": "video", "shape": [48, 64, 3], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{
            name: {"dtype": "int64", "shape": [1], "names": None}
            for name in ("frame_index", "episode_index", "index", "task_index")
        },
    }
    info = {
        "codebase_version": version,
        "robot_type": "arm",
        "fps": 10,
        "total_episodes": episodes,
        "total_frames": episodes * frames,
        "data_path": data_path,
        "features": features,
    }
    (path / "meta" / "info.json").write_text(json.dumps(info))
    return columns
