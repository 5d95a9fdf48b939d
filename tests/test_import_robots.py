"""Logs as robots write them, checked against an independent read; broken ones are refused."""

import json
import re
import shutil
import sqlite3
import struct
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import robot_logs as robots
from robot_logs import SECOND, START

from safemesa.core.errors import ConfigurationError, DatasetError, SafemesaError
from safemesa.datasets.doctor.examine import examine
from safemesa.datasets.findings import LogError
from safemesa.datasets.importers.describe import describe
from safemesa.datasets.importers.import_map import ImportMap, map_from_record
from safemesa.datasets.importers.write import import_logs
from safemesa.datasets.offline_tasks import OfflineTasks

NEEDED = ("rosbags", "mcap", "mcap_protobuf", "pyulog", "pyarrow")
for _module in NEEDED:
    pytest.importorskip(_module, reason="needs the extra `robots`")

MS = 1_000_000
SECONDS = 2.0
BAG_MAP = {
    "rows": "states",
    "dt": 0.05,
    "gaps": "split",
    "obs": [
        {"name": "x", "column": "/odom.pose.pose.position.x"},
        {"name": "speed", "column": "/odom.twist.twist.linear.x"},
    ],
    "action": [{"name": "go", "column": "/cmd.twist.linear.x", "low": -2.0, "high": 2.0}],
    "cost": {"limit": "x > 1e6"},
    "resample": {"time": "header", "max_age": 0.1, "restart": "split"},
}


def imported(path: Path, record: dict, out: Path) -> tuple[OfflineTasks, list]:
    result = import_logs([path], map_from_record(record), out)
    return OfflineTasks.load(out), list(result.findings)


def changed(record: dict, **resample) -> dict:
    return {**record, "resample": {**record["resample"], **resample}}


def faulty_drive() -> list:
    """Two rates; the command begins late, a second is lost, and the clock is restarted.

    Messages are logged 2 ms after they were measured; the recorder's own clock runs on.
    """
    types, messages = robots.store().types, []
    for run, length in ((0, 6.0), (1, 2.0)):
        for tick in range(int(length * 100)):
            measured = tick * 10 * MS
            logged = START + run * 6 * SECOND + measured + 2 * MS
            lost = run == 0 and 3 * SECOND <= measured < 4 * SECOND
            if lost:
                continue
            value = 100.0 * run + measured / SECOND
            messages.append(("/odom", logged, robots.odometry(types, measured, value, -value)))
            if tick % 4 == 1 and (run or measured >= 1.5 * SECOND):
                message = robots.stamped_velocity(types, measured, 1.0 + run / 2 + tick / 10_000)
                messages.append(("/cmd", logged + 1, message))
    return messages


def independent_read(bag: Path) -> dict[str, list[tuple[int, float]]]:
    """Header times and values, by the library's own high-level reader."""
    from rosbags.highlevel import AnyReader

    found: dict[str, list] = {"x": [], "speed": [], "go": []}
    with AnyReader([bag]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            time = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
            if connection.topic == "/odom":
                found["x"].append((time, message.pose.pose.position.x))
                found["speed"].append((time, message.twist.twist.linear.x))
            else:
                found["go"].append((time, message.twist.linear.x))
    return found


def last_value(samples: list[tuple[int, float]], at: float) -> float:
    return [value for time, value in samples if time <= at][-1]


@pytest.mark.parametrize(
    ("storage", "compression"), [("sqlite3", ""), ("sqlite3", "MESSAGE"), ("mcap", "STORAGE")]
)
def test_a_bag_of_faults_is_its_independent_read(tmp_path, storage, compression):
    bag = robots.write_bag(tmp_path / "robot_1", faulty_drive(), storage, compression)
    data, findings = imported(bag, BAG_MAP, tmp_path / "out")
    (log,) = data.train
    assert log.name == "robot_1"
    read = independent_read(bag)
    runs = [
        {key: [one for one in samples if (key == "go" and one[1] >= 1.5) == bool(run)]
         if key == "go" else [one for one in samples if (abs(one[1]) >= 100) == bool(run)]
         for key, samples in read.items()}
        for run in (0, 1)
    ]  # fmt: skip
    expected = []
    # The command is first known at 1.53 s; rows stop with the last message, and begin anew.
    for run, start, stop in ((0, 1.53, 2.99), (0, 4.01, 5.99), (1, 0.01, 1.99)):
        times = start * SECOND + np.arange(int((stop - start) / 0.05 + 1e-6) + 1) * 50 * MS
        rows = [[last_value(runs[run][key], at) for key in ("x", "speed", "go")] for at in times]
        expected.append(np.asarray(rows))
    columns = log.columns
    assert log.transitions == sum(len(one) - 1 for one in expected)
    for number, rows in enumerate(expected):
        here = columns["episode"] == number
        np.testing.assert_array_equal(columns["obs"][here], np.float32(rows[:-1, :2]))
        np.testing.assert_array_equal(columns["next_obs"][here], np.float32(rows[1:, :2]))
        np.testing.assert_array_equal(columns["action"][here][:, 0], np.float32(rows[:-1, 2]))
    (late,) = [one for one in findings if one.code == "late-start"]
    assert (late.column, late.detail) == ("/cmd.twist.linear.x", "1.53 s")


def test_a_restarted_clock_and_a_lost_second_are_errors_unless_declared(tmp_path):
    bag = robots.write_bag(tmp_path / "robot", faulty_drive())
    with pytest.raises(LogError, match=r"'/odom': the time of a message \(header\) is 0 s") as told:
        imported(bag, changed(BAG_MAP, restart="error"), tmp_path / "out")
    assert told.value.code == "clock-restarted"
    assert str(bag) in str(told.value)
    with pytest.raises(DatasetError, match="time-gap"):
        imported(bag, {**BAG_MAP, "gaps": "refuse"}, tmp_path / "out")
    # The recorder's clock ran on, and knows of no restart.
    record = changed(BAG_MAP, restart="error", time="log")
    data, _ = imported(bag, record, tmp_path / "out")
    assert np.unique(data.train[0].columns["episode"]).tolist() == [0, 1]


def test_the_doctor_reads_bags_too(tmp_path):
    robots.write_bag(tmp_path / "logs" / "robot", faulty_drive(), "mcap")
    result = examine([tmp_path / "logs"], map_from_record(BAG_MAP))
    assert result.robots.startswith("1 robot from 1 file: robot.")
    assert [one.code for one in result.findings.errors()] == []
    assert result.transitions > 60


def test_what_is_too_old_is_missing_by_the_rules_of_the_map(tmp_path):
    types, messages = robots.store().types, []
    for tick in range(200):
        at = START + tick * 10 * MS
        messages.append(("/odom", at, robots.odometry(types, at, float(tick), 0.0)))
        if not 100 <= tick < 150:
            messages.append(("/cmd", at, robots.stamped_velocity(types, at, 1.0)))
    bag = robots.write_bag(tmp_path / "robot", messages)
    with pytest.raises(DatasetError, match=r"missing-value: .*column 'go'"):
        imported(bag, BAG_MAP, tmp_path / "out")
    for rule, count in (("hold", 39), ("split", 22 - 1 + 10 - 1)):
        data, _ = imported(bag, {**BAG_MAP, "missing": rule}, tmp_path / rule)
        assert data.train[0].transitions == count
    data, _ = imported(bag, changed(BAG_MAP, topics={"/cmd": {"max_age": 1.0}}), tmp_path / "older")
    assert data.train[0].transitions == 39


def test_named_joints_are_found_in_any_order(tmp_path):
    types, messages = robots.store().types, []
    orders = (["elbow", "wrist"], ["wrist", "elbow"], ["gripper"])
    value = {"elbow": 1.0, "wrist": 2.0, "gripper": 3.0}
    for tick in range(300):
        at, names = START + tick * 10 * MS, orders[tick % 3]
        positions = [value[name] + tick for name in names]
        messages.append(("/joint_states", at, robots.joints(types, at, names, positions)))
    bag = robots.write_bag(tmp_path / "robot", messages, "mcap")
    record = {
        **BAG_MAP,
        "dt": 0.03,
        "obs": [
            {"name": name, "column": f"/joint_states.position[{name}]"}
            for name in ("wrist", "gripper")
        ],
        "action": [
            {"name": "go", "column": "/joint_states.position[elbow]", "low": 0, "high": 1e3}
        ],
        "cost": {"limit": "wrist < 0"},
    }
    data, _ = imported(bag, record, tmp_path / "out")
    columns = data.train[0].columns
    tick = 2 + 3 * np.arange(len(columns["obs"]))
    np.testing.assert_array_equal(columns["obs"][:, 0], 2.0 + tick - 1)
    np.testing.assert_array_equal(columns["obs"][:, 1], 3.0 + tick)
    np.testing.assert_array_equal(columns["action"][:, 0], 1.0 + tick - 1)
    (topic,) = describe(bag).topics
    (position,) = [one for one in topic.columns if one.name == "/joint_states.position"]
    assert (position.names, position.fixed) == (("elbow", "wrist"), False)


def test_episodes_begin_and_end_as_a_topic_says(tmp_path):
    types, messages = robots.store().types, []
    boolean, empty = types["std_msgs/msg/Bool"], types["std_msgs/msg/Empty"]
    for tick in range(400):
        at = START + tick * 10 * MS
        messages.append(("/odom", at, robots.odometry(types, at, float(tick), 0.0)))
        messages.append(("/cmd", at, robots.stamped_velocity(types, at, 1.0)))
        if tick % 200 in (20, 120):
            messages.append(("/recording", at, boolean(tick % 200 == 20)))
            messages.append((f"/{'start' if tick % 200 == 20 else 'stop'}", at, empty()))
    bag = robots.write_bag(tmp_path / "robot", messages)
    base = changed(BAG_MAP, time="log", restart="error")
    for name, ways in (
        ("field", {"running": "/recording.data"}),
        ("topics", {"start": "/start", "stop": "/stop"}),
        ("paths", {"start": "/recording.data", "stop": "/stop"}),
    ):
        data, _ = imported(bag, changed(base, **ways), tmp_path / name)
        columns = data.train[0].columns
        assert np.unique(columns["episode"], return_counts=True)[1].tolist() == [19] * 2, name
        assert columns["obs"][columns["step"] == 0][:, 0].tolist() == [20.0, 220.0]
    with pytest.raises(LogError, match="expected a topic, or the path of a number"):
        imported(bag, changed(base, start="/nothing"), tmp_path / "none")
    silent = changed(base, start="/odom.twist.twist.linear.x")
    with pytest.raises(LogError, match="no episode was started"):
        imported(bag, silent, tmp_path / "none")


def test_episodes_and_robots_may_be_fields_of_messages(tmp_path):
    """A name that goes on over a restarted clock is two episodes all the same."""
    bag = robots.write_bag(tmp_path / "bag", faulty_drive())
    fields = {"episode": "/odom.child_frame_id", "task": "/odom.header.frame_id"}
    data, _ = imported(bag, {**BAG_MAP, "columns": fields}, tmp_path / "out")
    (log,) = data.train
    assert log.name == "map"
    assert np.unique(log.columns["episode"]).tolist() == [0, 1, 2]


def test_short_contacts_between_rows_are_kept_by_max(tmp_path):
    types, messages = robots.store().types, []
    for tick in range(200):
        at = START + tick * 10 * MS
        messages.append(("/odom", at, robots.odometry(types, at, float(tick == 52), 0.0)))
        messages.append(("/cmd", at, robots.stamped_velocity(types, at, 1.0)))
    bag = robots.write_bag(tmp_path / "robot", messages)
    record = {**BAG_MAP, "cost": {"limit": "x > 0.5"}}
    data, _ = imported(bag, record, tmp_path / "last")
    assert not data.train[0].columns["cost"].any()
    rule = {"/odom.pose.pose.position.x": {"method": "max"}}
    data, _ = imported(bag, changed(record, topics=rule), tmp_path / "max")
    assert np.flatnonzero(data.train[0].columns["cost"]).tolist() == [10]


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_contact_after_the_last_row_is_kept_by_max(tmp_path, goes_on):
    """A crash ends a log, or a pause follows it, before the next row is due."""
    types, messages = robots.store().types, []
    for tick in [*range(104), *range(300, 404 if goes_on else 300)]:
        at = START + tick * 10 * MS
        messages.append(("/odom", at, robots.odometry(types, at, float(tick % 300 == 103), 0.0)))
        messages.append(("/cmd", at, robots.stamped_velocity(types, at, 1.0)))
    bag = robots.write_bag(tmp_path / "robot", messages)
    rule = {"/odom.pose.pose.position.x": {"method": "max"}}
    record = changed({**BAG_MAP, "cost": {"limit": "x > 0.5"}}, topics=rule)
    data, _ = imported(bag, record, tmp_path / "out")
    expected = [20, 41] if goes_on else [20]
    assert np.flatnonzero(data.train[0].columns["cost"]).tolist() == expected


def lagging_drive(lag: int, every: int) -> list:
    """Odometry is measured `lag` before it is logged, in one message of `every`."""
    types, messages = robots.store().types, []
    for tick in range(250):
        at = START + tick * 10 * MS
        measured = at - (0 if tick % every else lag)
        messages.append(("/odom", at, robots.odometry(types, measured, float(tick), 0.0)))
        messages.append(("/cmd", at, robots.stamped_velocity(types, at, 1.0)))
    return messages


def test_messages_out_of_order_are_put_in_order(tmp_path, monkeypatch):
    """With small chunks, so that rows are made long before the end."""
    monkeypatch.setattr("safemesa.datasets.importers.topics.CHUNK_MESSAGES", 20)
    bag = robots.write_bag(tmp_path / "robot", lagging_drive(300 * MS, 10), "mcap")
    record = {**BAG_MAP, "dt": 0.01, "missing": "drop"}
    data, findings = imported(bag, changed(record, late=0.5), tmp_path / "out")
    assert [one.code for one in findings] == ["late-start"]
    x = data.train[0].columns["obs"][:, 0]
    # Tick 100 was measured with tick 70, whose own message came later than it counts.
    assert x[:40].tolist() != sorted(x[:40].tolist())
    with pytest.raises(LogError, match="more seconds of `late`"):
        imported(bag, changed(record, late=0.1, restart="error"), tmp_path / "again")


def test_a_topic_that_lags_behind_the_others_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("safemesa.datasets.importers.topics.CHUNK_MESSAGES", 20)
    bag = robots.write_bag(tmp_path / "robot", lagging_drive(700 * MS, 1), "mcap")
    record = {**BAG_MAP, "missing": "hold"}
    _, findings = imported(bag, changed(record, late=1.0), tmp_path / "in_time")
    assert "late-message" not in {one.code for one in findings}
    result = examine([bag], map_from_record(changed(record, late=0.2)))
    assert "late-message" in {one.code for one in result.findings}


# MCAP with other channels than ROS's.

MCAP_MAP = {
    "rows": "states",
    "dt": 0.1,
    "obs": [{"name": "x", "column": "/state.pose.x"}],
    "action": [{"name": "u", "column": "/command.u[1]", "low": -9, "high": 999}],
    "cost": {"column": "/state.hit"},
    "resample": {"time": "log", "max_age": 0.25},
}


def json_drive(runs: int = 1) -> list:
    messages = []
    for run in range(runs):
        for tick in range(100):
            at = START + tick * 50 * MS - run * 60 * SECOND
            state = {"pose": {"x": float(tick)}, "hit": tick == 98, "name": "a"}
            if tick == 40:
                state["pose"]["x"] = None
            messages.append(("/state", at, state))
            if tick % 2 == 0:
                messages.append(("/command", at, {"u": [0.5, float(tick)], "n": run}))
    return messages


def test_json_channels_are_read_by_path(tmp_path):
    path = robots.write_json_mcap(tmp_path / "robot.mcap", json_drive())
    with pytest.raises(DatasetError, match=r"missing-value: .*column 'x'"):
        imported(path, MCAP_MAP, tmp_path / "out")
    data, _ = imported(path, {**MCAP_MAP, "missing": "hold"}, tmp_path / "out")
    columns = data.train[0].columns
    x = np.arange(0.0, 98, 2)
    x[20] = 38.0
    np.testing.assert_array_equal(columns["obs"][:, 0], x)
    np.testing.assert_array_equal(columns["action"][:, 0], np.arange(0.0, 98, 2))
    assert np.flatnonzero(columns["cost"]).tolist() == [48]
    found = {topic.name: topic for topic in describe(path).topics}
    assert (found["/state"].count, found["/command"].count) == (100, 50)
    assert found["/state"].rate == pytest.approx(20.0)
    assert [(one.name, one.kind) for one in found["/state"].columns] == [
        ("/state.pose.x", "number"), ("/state.hit", "boolean"), ("/state.name", "text")
    ]  # fmt: skip


def test_a_null_in_a_list_is_a_missing_value_as_in_a_field(tmp_path):
    """Not one of which nothing is said, so that the value before it would stand."""
    messages = json_drive()
    for topic, _, message in messages:
        if topic == "/command" and message["u"][1] == 40.0:
            message["u"][1] = None
    path = robots.write_json_mcap(tmp_path / "robot.mcap", messages)
    record = {**MCAP_MAP, "obs": [{"name": "n", "column": "/command.n"}], "cost": {"limit": "n>9"}}
    with pytest.raises(DatasetError, match=r"missing-value: .*row 20, column 'u'"):
        imported(path, record, tmp_path / "out")


def test_an_mcap_file_without_statistics_is_counted(tmp_path):
    from mcap.writer import Writer

    with open(tmp_path / "a.mcap", "wb") as file:
        writer = Writer(file, use_statistics=False)
        writer.start()
        channel = writer.register_channel("/state", "json", 0)
        for tick in range(11):
            writer.add_message(channel, START + tick * 100 * MS, b'{"x": 1}', 0)
        writer.finish()
    found = describe(tmp_path / "a.mcap")
    assert (found.start, found.stop) == (START / SECOND, START / SECOND + 1)
    ((count, rate),) = [(topic.count, topic.rate) for topic in found.topics]
    assert (count, rate) == (11, pytest.approx(10.0))


def test_a_topic_in_two_encodings_is_not_read_in_part(tmp_path):
    from mcap.writer import Writer

    with open(tmp_path / "a.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        for encoding in ("json", "protobuf"):
            channel = writer.register_channel("/state", encoding, 0)
            for tick in range(11):
                writer.add_message(channel, START + tick * 100 * MS, b'{"x": 1}', 0)
        writer.finish()
    found = describe(tmp_path / "a.mcap")
    assert (found.topics, found.unread) == ((), ("/state",))


def test_the_time_of_a_row_may_name_its_episode(tmp_path):
    path = robots.write_json_mcap(tmp_path / "robot.mcap", json_drive())
    record = {**MCAP_MAP, "missing": "hold", "columns": {"episode": "time"}}
    with pytest.raises(DatasetError, match=r"lost-violation: .*episode 1700000004.9, row 49"):
        imported(path, record, tmp_path / "out")


def test_the_clock_of_the_recorder_is_seen_to_restart(tmp_path):
    path = robots.write_json_mcap(tmp_path / "robot.mcap", json_drive(runs=2))
    record = {**MCAP_MAP, "missing": "hold"}
    with pytest.raises(LogError, match="restart"):
        imported(path, record, tmp_path / "out")
    data, _ = imported(path, changed(record, restart="split"), tmp_path / "out")
    assert np.unique(data.train[0].columns["episode"], return_counts=True)[1].tolist() == [49, 49]


def test_protobuf_channels_are_read_by_path(tmp_path):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from mcap_protobuf.writer import Writer

    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    number = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
    pose = file.message_type.add(name="Pose")
    pose.field.add(name="x", number=1, type=number, label=1)
    state = file.message_type.add(name="State")
    state.field.add(name="pose", number=1, type=11, type_name=".a.Pose", label=1)
    state.field.add(name="joints", number=2, type=number, label=3)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kinds = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"a.{name}"))
        for name in ("Pose", "State")
    }
    with open(tmp_path / "robot.mcap", "wb") as opened:
        writer = Writer(opened)
        for tick in range(50):
            message = kinds["State"](joints=[0.5, tick / 2])
            if tick != 30:
                message.pose.x = tick
            writer.write_message("/state", message, START + tick * 100 * MS)
        writer.finish()
    record = {
        **MCAP_MAP,
        "action": [{"name": "u", "column": "/state.joints[1]", "low": 0, "high": 99}],
        "cost": {"limit": "x > 48.5"},
        "resample": {"time": "log", "max_age": 0.05},
    }
    # A record that was not set says nothing, where its numbers would read 0.
    with pytest.raises(DatasetError, match=r"missing-value: .*row 30, column 'x'"):
        imported(tmp_path / "robot.mcap", record, tmp_path / "out")
    data, _ = imported(tmp_path / "robot.mcap", {**record, "missing": "hold"}, tmp_path / "out")
    x = np.arange(49.0)
    x[30] = 29
    np.testing.assert_array_equal(data.train[0].columns["obs"][:, 0], x)
    np.testing.assert_array_equal(data.train[0].columns["action"][:, 0], np.arange(49) / 2)


# PX4 ULog.

ULOG_FORMATS = {
    "point": "float x;float y;",
    "attitude": "uint64_t timestamp;float[2] q;point rate;bool landed;uint8_t[3] _padding0;",
    "motors": "uint64_t timestamp;double[2] output;",
}
ULOG_MAP = {
    "rows": "states",
    "dt": 0.02,
    "gaps": "split",
    "missing": "split",
    "obs": [
        {"name": "roll", "column": "attitude.q[1]"},
        {"name": "rate", "column": "attitude.rate.y"},
    ],
    "action": [{"name": "motor", "column": "motors:1.output[0]", "low": 0, "high": 1e6}],
    "cost": {"column": "attitude.landed"},
    "resample": {"max_age": 0.03, "method": "last"},
}


def attitude(stamp: int, value: float, landed: bool = False) -> bytes:
    # The padding at the end is not logged.
    return struct.pack("<Qffff?", stamp, 0.25, value, 0.0, -value, landed)


def ulog_flight(path: Path, dropout: bool = True, first: int = 10_000_000) -> Path:
    """Attitude at 200 Hz and two instances of motors at 50 Hz; half a second was lost."""
    messages: list = []
    for tick in range(400):
        stamp = first + tick * 5_000
        if dropout and 200 <= tick < 300:
            if tick == 200:
                messages += [300, 200]
            continue
        messages.append(("attitude", attitude(stamp, float(tick), tick == 399)))
        if tick % 4 == 0:
            for topic, value in (("motors", -1.0), ("motors:1", 1000.0 + tick)):
                messages.append((topic, struct.pack("<Qdd", stamp, value, 0.0)))
    return robots.write_ulog(path, ULOG_FORMATS, messages, {"motors:1": 1})


def test_a_ulog_with_dropouts_is_what_was_written(tmp_path):
    path = ulog_flight(tmp_path / "flight.ulg")
    data, findings = imported(path, ULOG_MAP, tmp_path / "out")
    columns = data.train[0].columns
    expected = [np.arange(0, 200, 4), np.arange(300, 400, 4)]
    ticks = np.concatenate([one[:-1] for one in expected])
    np.testing.assert_array_equal(columns["obs"], np.stack([ticks, -ticks], axis=1))
    np.testing.assert_array_equal(columns["action"][:, 0], 1000.0 + ticks)
    np.testing.assert_array_equal(columns["episode"], [0] * 49 + [1] * 24)
    (lost,) = [one for one in findings if one.code == "lost-messages"]
    assert (lost.count, lost.detail) == (2, "500 ms in all, the longest 300 ms")


def test_a_ulog_is_described_by_its_own_counts(tmp_path):
    found = describe(ulog_flight(tmp_path / "flight.ulg"))
    assert (found.format, found.start, found.stop) == ("ulog", 10.0, 11.995)
    assert [(one.name, one.count) for one in found.topics] == [
        ("attitude", 300), ("motors", 75), ("motors:1", 75)
    ]  # fmt: skip
    widths = {one.name: one.width for one in found.topics[0].columns}
    assert widths == {
        "attitude.timestamp": None, "attitude.q": 2, "attitude.rate.x": None,
        "attitude.rate.y": None, "attitude.landed": None,
    }  # fmt: skip


@pytest.mark.parametrize("left", [1, 2, 3, 4, 5, 20])
def test_a_ulog_that_ends_amid_a_message_is_read_up_to_it(tmp_path, left):
    path = ulog_flight(tmp_path / "flight.ulg")
    whole, _ = imported(path, ULOG_MAP, tmp_path / "whole")
    place = path.stat().st_size
    path.write_bytes(path.read_bytes() + robots.ulog_message("D", b"\0\0" + attitude(0, 9))[:left])
    data, findings = imported(path, ULOG_MAP, tmp_path / "out")
    for name, column in whole.train[0].columns.items():
        np.testing.assert_array_equal(data.train[0].columns[name], column)
    (found,) = [one for one in findings if one.code == "cut-off"]
    assert found.detail == f"at byte {place}, {left} bytes are left out"


def test_a_ulog_whose_clock_restarts(tmp_path):
    messages = [
        (topic, attitude(stamp, 1.0) if topic == "attitude" else struct.pack("<Qdd", stamp, 1, 1))
        for first in (50_000_000, 1_000_000)
        for stamp in range(first, first + 1_000_000, 20_000)
        for topic in ("attitude", "motors:1")
    ]
    path = robots.write_ulog(tmp_path / "a.ulg", ULOG_FORMATS, messages, {"motors:1": 1})
    with pytest.raises(LogError, match="its clock starts again"):
        imported(path, ULOG_MAP, tmp_path / "out")
    data, _ = imported(path, changed(ULOG_MAP, restart="split"), tmp_path / "out")
    assert np.unique(data.train[0].columns["episode"], return_counts=True)[1].tolist() == [49, 49]


def test_a_ulog_topic_that_was_subscribed_to_twice_is_not_read_in_part(tmp_path):
    rows = [("motors:1" if k % 4 else "motors:01", struct.pack("<Qdd", k, 0, 0)) for k in range(99)]
    instances = {"motors:1": 1, "motors:01": 1}
    path = robots.write_ulog(tmp_path / "a.ulg", ULOG_FORMATS, rows, instances)
    (found,) = [one.count for one in describe(path).topics if one.name == "motors:1"]
    assert found == 99
    record = {**ULOG_MAP, "obs": [{"name": "x", "column": "motors:1.output[1]"}]}
    record["cost"] = {"limit": "x > 9"}
    with pytest.raises(LogError, match=r"has 99 messages, of which \d+ can be read"):
        imported(path, record, tmp_path / "out")


# LeRobot.

LEROBOT_MAP = {
    "rows": "states",
    "action": [
        {"name": name, "column": f"action[{name}]", "low": -1, "high": 1}
        for name in robots.LEROBOT_NAMES
    ],
    "cost": {"limit": "grip > 9"},
    "signal": [{"name": "grip", "column": "observation.state[gripper]"}],
}


@pytest.mark.parametrize(
    ("version", "fixed"), [("v2.1", True), ("v2.1", False), ("v3.0", True), ("v3.0", False)]
)
def test_a_lerobot_folder_of_two_robots(tmp_path, version, fixed):
    written = {
        name: robots.write_lerobot(tmp_path / "fleet" / name, version, 4, 20, seed, fixed)
        for seed, name in enumerate(("arm_a", "arm_b"))
    }
    data, findings = imported(tmp_path / "fleet", LEROBOT_MAP, tmp_path / "out")
    assert [log.name for log in data.train] == ["arm_a", "arm_b"]
    assert data.spaces.dt == pytest.approx(0.1)
    for log in data.train:
        columns = written[log.name]
        kept = columns["frame_index"] < 19
        np.testing.assert_array_equal(log.columns["obs"], columns["observation.state"][kept])
        np.testing.assert_array_equal(log.columns["action"], columns["action"][kept])
        following = columns["next.reward"][np.flatnonzero(kept) + 1]
        np.testing.assert_array_equal(log.columns["reward"], following)
        np.testing.assert_array_equal(log.columns["episode"], columns["episode_index"][kept])
        assert log.parameters["robot_type"] == "arm"
    assert {one.code: one.detail for one in findings} == {
        "unused-columns": "'observation.images.front'"
    }


def test_the_only_component_of_a_lerobot_column_can_be_named(tmp_path):
    columns = robots.write_lerobot(tmp_path / "arm")
    path = tmp_path / "arm" / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"]["next.reward"]["names"] = ["lift"]
    path.write_text(json.dumps(info))
    record = {**LEROBOT_MAP, "obs": [{"name": "lift", "column": "next.reward[lift]"}]}
    data, _ = imported(tmp_path / "arm", record, tmp_path / "out")
    kept = columns["frame_index"] < 19
    np.testing.assert_array_equal(
        data.train[0].columns["obs"][:, 0], np.float32(columns["next.reward"][kept])
    )


def test_folders_keep_chunked_robots_apart(tmp_path):
    """`task_from` was needed while each file counted as a robot; it still names the folder."""
    for name in ("arm_a", "arm_b"):
        robots.write_lerobot(tmp_path / name)
    for rule in ("folder", "file"):
        data, _ = imported(tmp_path, {**LEROBOT_MAP, "task_from": rule}, tmp_path / f"out_{rule}")
        assert [log.name for log in data.train] == ["arm_a", "arm_b"]
        shutil.rmtree(tmp_path / f"out_{rule}")


def test_a_lerobot_folder_is_described(tmp_path):
    robots.write_lerobot(tmp_path / "arm", episodes=4, frames=20)
    found = describe(tmp_path / "arm")
    assert (found.format, found.episodes, found.dt) == ("lerobot", 4, 0.1)
    (table,) = found.topics
    assert (table.name, table.count, table.rate) == ("", 80, 10.0)
    names = {one.name: one.names for one in table.columns}
    assert names["observation.state"] == names["action"] == tuple(robots.LEROBOT_NAMES)
    assert found.unread == ("observation.images.front",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda info: info.update(codebase_version="v9"), "codebase_version is 'v9'"),
        (lambda info: info.update(fps=0), "fps is 0"),
        (lambda info: info.update(features={}), "names no features"),
        (lambda info: info.update(total_frames=81), "total_frames is 81"),
        (lambda info: info.update(total_episodes=5), "total_episodes is 5"),
        (lambda info: info["features"]["action"].update(shape=[4]), "is no column|not 4 long|4"),
        (lambda info: info["features"]["action"].update(shape=["x"]), "has the shape"),
        (lambda info: info["features"].update(action=3), "is no table"),
    ],
)
def test_a_lerobot_folder_that_contradicts_itself_is_refused(tmp_path, change, words):
    robots.write_lerobot(tmp_path / "arm")
    path = tmp_path / "arm" / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=words):
        imported(tmp_path / "arm", LEROBOT_MAP, tmp_path / "out")


# What is hostile or broken.


def small_bag(path: Path, storage: str = "sqlite3") -> Path:
    return robots.write_bag(path / "bag", faulty_drive()[:400], storage)


def storage_file(bag: Path) -> Path:
    (file,) = [one for one in bag.iterdir() if one.suffix in (".db3", ".mcap")]
    return file


def cut(file: Path, share: float = 0.5) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def cut_bag(path: Path, storage: str, share: float = 0.5) -> Path:
    bag = small_bag(path, storage)
    cut(storage_file(bag), share)
    return bag


def journal(bag: Path) -> Path:
    (bag / f"{storage_file(bag).name}-wal").write_bytes(b"some messages")
    return bag


def database(path: Path, statement: str) -> Path:
    bag = small_bag(path)
    with sqlite3.connect(storage_file(bag)) as opened:
        opened.executescript(statement)
    opened.close()
    return bag


def metadata(path: Path, old: str, new: str) -> Path:
    bag = small_bag(path)
    text = (bag / "metadata.yaml").read_text()
    assert old in text
    (bag / "metadata.yaml").write_text(text.replace(old, new))
    return bag


def edited(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


def mcap_bytes(path: Path, old: bytes, new: bytes) -> Path:
    return edited(robots.write_json_mcap(path / "a.mcap", json_drive()), old, new)


def huge_chunk(path: Path) -> Path:
    """A chunk that says that it unpacks to more than any memory holds."""
    file = robots.write_json_mcap(path / "a.mcap", json_drive())
    data = bytearray(file.read_bytes())
    place = 8
    while data[place] != 6:
        place += 9 + struct.unpack("<Q", data[place + 1 : place + 9])[0]
    data[place + 9 + 16 : place + 9 + 24] = struct.pack("<Q", 2**60)
    file.write_bytes(data)
    return file


def zip_bomb(path: Path) -> Path:
    """A chunk of zeros that names a small size, in a frame that names none."""
    import zstandard

    file = robots.write_json_mcap(path / "a.mcap", json_drive())
    data = bytearray(file.read_bytes())
    place = 8
    while data[place] != 6:
        place += 9 + struct.unpack("<Q", data[place + 1 : place + 9])[0]
    length = struct.unpack("<Q", data[place + 1 : place + 9])[0]
    packer = zstandard.ZstdCompressor(write_content_size=False)
    bomb = packer.compress(bytes(2**28))
    body = data[place + 9 : place + 9 + 32] + b"zstd" + struct.pack("<Q", len(bomb)) + bomb
    head = b"\x06" + struct.pack("<Q", len(body))
    file.write_bytes(bytes(data[:place]) + head + bytes(body) + bytes(data[place + 9 + length :]))
    return file


def ulog(path: Path, formats: dict, messages: list | None = None) -> Path:
    return robots.write_ulog(path / "a.ulg", formats, messages or [])


def deep_json(path: Path) -> Path:
    from mcap.writer import Writer

    with open(path / "a.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/state", "json", 0)
        writer.add_message(channel, START, b'{"pose":' + b"[" * 100_000, START)
        writer.finish()
    return path / "a.mcap"


def lerobot(path: Path, change) -> Path:
    robots.write_lerobot(path / "arm")
    change(path / "arm")
    return path / "arm"


def ulog_end(path: Path, end: bytes) -> Path:
    file = ulog_flight(path / "a.ulg")
    file.write_bytes(file.read_bytes() + end)
    return file


STAMP = "uint64_t timestamp;"
BROKEN = {
    "half a database": lambda p: cut_bag(p, "sqlite3"),
    "most of a database": lambda p: cut_bag(p, "sqlite3", 0.95),
    "half an MCAP bag": lambda p: cut_bag(p, "mcap"),
    "an MCAP bag without its end": lambda p: cut_bag(p, "mcap", 0.999),
    "an empty database": lambda p: cut_bag(p, "sqlite3", 0),
    "a bag compressed as a whole": lambda p: robots.write_bag(
        p / "bag", faulty_drive()[:400], "sqlite3", "FILE"
    ),
    "a database that was not closed": lambda p: journal(small_bag(p)),
    "an empty MCAP bag": lambda p: cut_bag(p, "mcap", 0),
    "a view for a table": lambda p: database(
        p,
        "ALTER TABLE messages RENAME TO old; CREATE VIEW messages AS WITH RECURSIVE "
        "c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
        "SELECT x AS id, 1 AS topic_id, x AS timestamp, x'00' AS data FROM c;",
    ),
    "a trigger": lambda p: database(
        p, "CREATE TRIGGER t AFTER INSERT ON messages BEGIN SELECT 1; END;"
    ),
    "messages of other bytes": lambda p: database(p, "UPDATE messages SET data = x'0001000005';"),
    "a name that is code": lambda p: storage_file(database(
        p, "UPDATE topics SET type = 'a/msg/B:\n    import os\nclass C'")),
    "types that metadata do not know": lambda p: database(
        p, "UPDATE topics SET type = 'std_msgs/msg/Bool'"),
    "messages that are lost": lambda p: database(p, "DELETE FROM messages WHERE id % 7 = 0"),
    "a time beyond all clocks": lambda p: database(
        p, "UPDATE messages SET timestamp = 9223372036854775807 WHERE id = 50"
    ),
    "metadata of another kind": lambda p: metadata(p, "version: 9", "version: [9]"),
    "metadata that lead away": lambda p: metadata(p, ".db3", ".db3/../../etc/passwd"),
    "a storage that is not known": lambda p: metadata(p, "storage_identifier: sqlite3",
                                                      "storage_identifier: pickle"),
    "half an MCAP file": lambda p: (
        cut(robots.write_json_mcap(p / "a.mcap", json_drive())), p / "a.mcap")[1],
    "an MCAP file of one byte": lambda p: (
        cut(robots.write_json_mcap(p / "a.mcap", json_drive()), 1e-4), p / "a.mcap")[1],
    "a changed chunk": lambda p: mcap_bytes(p, b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfe"),
    "a huge chunk": huge_chunk,
    "a bomb": zip_bomb,
    "JSON that nests without end": deep_json,
    "a ULog that ends in a message of another size": lambda p: ulog_end(
        p, b"\xff\x00D\x00\x00"),
    "a ULog that ends in a dropout of another size": lambda p: ulog_end(p, b"\x02\x20O\x00"),
    "a ULog that ends in a message of no topic": lambda p: ulog_end(p, b"\x1f\x00D\x09\x00"),
    "a ULog that ends in a message of no kind": lambda p: ulog_end(p, b"\x1f\x00z"),
    "a ULog of a head": lambda p: (cut(ulog_flight(p / "a.ulg"), 0.001), p / "a.ulg")[1],
    "a ULog of formats alone": lambda p: (cut(ulog_flight(p / "a.ulg"), 0.01), p / "a.ulg")[1],
    "a ULog type of itself": lambda p: ulog(p, {"attitude": STAMP + "attitude a;"}),
    "a ULog type of an unknown one": lambda p: ulog(p, {"attitude": STAMP + "nothing a;"}),
    "a ULog type that is huge": lambda p: ulog(
        p, {"b": "double[99999] x;", "attitude": STAMP + "b[99999] q;"}),
    "a ULog field that is no field": lambda p: ulog(p, {"attitude": STAMP + "float[-1] q;"}),
    "a ULog without a timestamp": lambda p: ulog(p, {"attitude": "float[2] q;"}),
    "a ULog message that is too short": lambda p: ulog(
        p, {"attitude": STAMP + "float[2] q;"}, [("attitude", b"12345678")]),
    "a ULog of an unknown kind": lambda p: edited(
        ulog_flight(p / "a.ulg"), b"\x02\x00O", b"\x02\x00\x00"),
    "half a LeRobot file": lambda p: lerobot(
        p, lambda arm: cut(arm / "data" / "chunk-000" / "file-001.parquet")),
    "a LeRobot file that is lost": lambda p: lerobot(
        p, lambda arm: (arm / "data" / "chunk-000" / "file-001.parquet").unlink()),
    "a LeRobot folder without rows": lambda p: lerobot(
        p, lambda arm: shutil.rmtree(arm / "data" / "chunk-000")),
    "half an info.json": lambda p: lerobot(p, lambda arm: cut(arm / "meta" / "info.json")),
}  # fmt: skip
LOG_TIME = changed(BAG_MAP, time="log")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_and_hostile_logs_are_refused_at_once(name, tmp_path):
    path = BROKEN[name](tmp_path)
    record = {".mcap": MCAP_MAP, ".ulg": ULOG_MAP}.get(path.suffix, LOG_TIME)
    record = LEROBOT_MAP if path.name == "arm" else record
    began = time.process_time()
    with pytest.raises(SafemesaError) as told:
        imported(path, record, tmp_path / "out")
    assert time.process_time() - began < SECONDS
    assert str(tmp_path) in str(told.value)
    assert len(str(told.value)) < 2_000
    assert not (tmp_path / "out").exists()


def test_the_byte_is_named_where_a_file_is_cut(tmp_path):
    for name in ("a ULog of formats alone", "half an MCAP file"):
        with pytest.raises(DatasetError, match=r"cut off .*at byte \d{2,}"):
            describe(BROKEN[name](tmp_path))


# Maps that leave something open.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resample": None}, r"Declare \[resample\]"),
        ({"resample": {"max_age": 0.1}}, "which time counts"),
        ({"resample": {"time": "log"}}, "for how long a value"),
        ({"resample": {"time": "header", "max_age": 0.1, "gap": 0.01}}, "gap is 0.01 s"),
        ({"resample": {"time": "publish", "max_age": 0.1}}, "does not have"),
        ({"resample": {"time": "pose", "max_age": 0.1}}, "that holds a time"),
        ({"rows": "steps"}, 'rows = "states"'),
        ({"columns": {"time": "/odom.header.stamp.sec"}}, "has a time column"),
        ({"time_scale": 0.001}, "time_scale is 0.001"),
        ({"dt": None}, "Declare dt"),
        ({"obs": ["/odom.pose.pose.position"]}, "there is no column '/odom.pose.pose.position'"),
        ({"obs": [{"name": "x", "column": "/odom.child_frame_id"}]}, "holds texts"),
    ],
)
def test_what_a_map_leaves_open_is_asked(tmp_path, change, words):
    bag = small_bag(tmp_path)
    record = {key: value for key, value in {**BAG_MAP, **change}.items() if value is not None}
    with pytest.raises((ConfigurationError, DatasetError), match=words):
        imported(bag, record, tmp_path / "out")


def test_a_topic_without_a_header_is_told_how_to_be_read(tmp_path):
    types = robots.store().types
    messages = [("/cmd", START + k * 10 * MS, robots.velocity(types, 1.0)) for k in range(50)]
    bag = robots.write_bag(tmp_path / "robot", messages)
    record = {
        **BAG_MAP,
        "obs": [{"name": "x", "column": "/cmd.linear.x"}],
        "action": [{"name": "u", "column": "/cmd.linear.x", "low": 0, "high": 2}],
    }
    with pytest.raises(ConfigurationError, match=r'resample.topics."/cmd"\] time = "log"'):
        imported(bag, record, tmp_path / "out")
    topics = {"/cmd": {"time": "log"}}
    data, _ = imported(bag, changed(record, topics=topics), tmp_path / "out")
    assert data.train[0].transitions == 9


def test_only_these_formats_describe_themselves(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(DatasetError, match="no log that describes itself"):
        describe(tmp_path / "a.csv")
    assert ImportMap().resample is None


# What docs/import_robots.md shows; its bags and their map are run by test_docs.py.

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "import_robots.md").read_text()
MAPS = dict(re.findall(r"^```toml\n# (\w+)\.toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def shown_flight(path: Path) -> Path:
    vector = "uint64_t timestamp;float[3] xyz;"
    formats = {
        "vehicle_angular_velocity": vector,
        "vehicle_torque_setpoint": vector,
        "vehicle_local_position": "uint64_t timestamp;float z;",
        "vehicle_land_detected": "uint64_t timestamp;bool ground_contact;",
    }
    messages = []
    for stamp in range(10**6, 5 * 10**6, 10_000):
        for name in ("vehicle_angular_velocity", "vehicle_torque_setpoint"):
            messages.append((name, struct.pack("<Qfff", stamp, 0.5, 0.0, 0.0)))
        messages.append(("vehicle_local_position", struct.pack("<Qf", stamp, -3.0)))
        if stamp % 10**6 == 0:
            messages.append(("vehicle_land_detected", struct.pack("<Q?", stamp, stamp > 3e6)))
    return robots.write_ulog(path / "a.ulg", formats, messages)


def shown_state(path: Path) -> Path:
    messages = []
    for tick in range(100):
        at = START + tick * 50 * MS
        state = {"pose": {"x": float(tick)}, "hit": tick == 98}
        messages += [("/state", at, state), ("/command", at, {"u": [0.0, 0.5]})]
    return robots.write_json_mcap(path / "a.mcap", messages)


def shown_arms(path: Path) -> Path:
    robots.write_lerobot(path / "arm")
    return path / "arm"


@pytest.mark.parametrize(
    ("name", "write", "first", "violations"),
    [
        ("flight", shown_flight, [0.5, 3.0], 50),
        ("state", shown_state, [0.0], 1),
        ("arms", shown_arms, None, 0),
    ],
)
def test_the_maps_of_the_page_import_their_logs(tmp_path, name, write, first, violations):
    assert set(MAPS) == {"bags", "flight", "state", "arms"}
    data, _ = imported(write(tmp_path), tomllib.loads(MAPS[name]), tmp_path / "out")
    columns = data.train[0].columns
    if first is not None:
        assert columns["obs"][0].tolist() == first
    assert columns["cost"].sum() == pytest.approx(violations, abs=1)


def test_every_library_of_the_extra_is_known_to_the_doctor(capsys):
    from safemesa.cli.doctor import _extras

    assert "robots yes" in _extras()
