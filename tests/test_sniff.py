"""A proposed map parses, is refused for its questions alone, and imports once they are answered."""

import csv
import io
import json
import re
import tomllib
from pathlib import Path

import hypothesis
import logs
import numpy as np
import pytest
from hypothesis import strategies as st

from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.datasets.importers.find import find_sources, open_source
from safemesa.datasets.importers.import_map import map_from_record, read_map
from safemesa.datasets.importers.plan import make_plan
from safemesa.datasets.importers.questions import OpenQuestionError
from safemesa.datasets.importers.write import import_logs
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.sniff import describe_files
from safemesa.datasets.sniff.clock import bound, rounded
from safemesa.datasets.sniff.csv_sample import describe_csv
from safemesa.datasets.sniff.facts import facts_of, gather, split_unit, unit_of
from safemesa.datasets.sniff.map_text import toml
from safemesa.datasets.sniff.propose import Proposal, propose
from safemesa.datasets.sniff.robots import read_places
from safemesa.datasets.sniff.rules import judge

EPISODES, ROWS = 6, 12


def states(seed: int = 0, names: str = "t,ep,x,v,u") -> str:
    """Moments of a cart, as CSV."""
    rng = np.random.default_rng(seed)
    lines = [names]
    for episode in range(EPISODES):
        x, v = rng.uniform(-0.8, 0.8), 0.0
        for step in range(ROWS):
            u = rng.uniform(-2, 2)
            lines.append(f"{step * 0.1:.1f},{episode},{x:.5f},{v:.5f},{u:.5f}")
            v += 0.1 * u
            x += 0.3 * v
    return "\n".join(lines) + "\n"


def each_line(change) -> str:
    """The table with every row below the header changed."""
    header, *rows = states().splitlines()
    return "\n".join([header, *map(change, rows)]) + "\n"


def seconds(line: str, text: str) -> str:
    """A row whose time is written in another way."""
    time, _, rest = line.partition(",")
    return f"{text.format(float(time))},{rest}"


def headed(header: str, text: str) -> str:
    return f"{header}\n{text.partition(chr(10))[2]}"


PLAIN = states()
DIALECTS: dict[str, tuple[str | bytes, list[str]]] = {
    "plain": (PLAIN, []),
    "decimal comma": (
        PLAIN.replace(",", ";").replace(".", ","),
        ['delimiter = ";"', 'decimal = ","'],
    ),
    "units row": (headed("t,ep,x,v,u\ns,-,m,m/s,N", PLAIN), ["units_row = true"]),
    "comment above": ("# robot 7, fw 1.2\n" + PLAIN, ['comment = "#"']),
    "commented header": (headed("# t,ep,x,v,u", PLAIN), []),
    "sep line": ("sep=;\n" + PLAIN.replace(",", ";"), []),
    "trailing commas": (PLAIN.replace("\n", ",,\n"), []),
    "column twice": (headed("t,ep,x,v,u,s,s", each_line(lambda row: f"{row},1,2")), []),
    "break in quotes": (
        headed("t,ep,x,v,u,note", each_line(lambda row: f'{row},"stop,\nwait"')),
        [],
    ),
    "dashes": (PLAIN.replace("\n0.0,", "\n--.--,"), ['missing_values = ["--.--"]']),
    "nan(ind)": (PLAIN.replace("\n0.0,", "\n-nan(ind),"), []),
    "clock": (each_line(lambda row: seconds(row, "12:00:{:06.3f}")), []),
    "date": (each_line(lambda row: seconds(row, "2024-05-01T12:00:{:06.3f}")), []),
    "nul tail": (PLAIN + "\0" * 99, []),
    "title": ("Robot 7\nfirmware 1.2\n\n" + PLAIN, ["skip_rows = 3"]),
    "latin": (PLAIN.replace("v,u", "höhe,u").encode("latin-1"), ['encoding = "cp1252"']),
    "utf-16": (PLAIN.encode("utf-16"), ['encoding = "utf-16"']),
    "tabs": (PLAIN.replace(",", "\t"), ['delimiter = "\\t"']),
    "crlf": (PLAIN.replace("\n", "\r\n"), []),
    "mark of order": (b"\xef\xbb\xbf" + PLAIN.encode(), []),
}
SETTINGS = (
    "delimiter", "decimal", "comment", "skip_rows", "units_row", "missing_values", "encoding",
)  # fmt: skip


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def answered(proposal: Proposal, answers: dict[str, str] | None = None) -> str:
    """Each open line is replaced by one: by the answer for its key, else by its first candidate."""
    lines = proposal.text.split("\n")
    for number, question in proposal.questions:
        (key, *_) = re.findall(r"(\w+) = \"\?\"", lines[number - 1])
        first = question.candidates[0].line if question.candidates else None
        line = (answers or {}).get(key, first)
        assert line is not None, f"no answer for {lines[number - 1]!r}"
        lines[number - 1] = line
    return "\n".join(lines)


def imported(paths: list[Path], text: str, out: Path) -> OfflineTasks:
    import_logs(paths, map_from_record(tomllib.loads(text)), out)
    return OfflineTasks.load(out)


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_are_recognised(name: str, tmp_path: Path) -> None:
    text, expected = DIALECTS[name]
    folder = write(tmp_path / "logs" / "a.csv", text).parent
    proposal = propose([folder])
    lines = [re.sub(r" +#.*", "", line) for line in proposal.text.split("\n")]
    assert [line for line in lines if line.startswith(SETTINGS)] == expected
    # What the sample of numbers has is what the import takes.
    answers = {"limit": 'limit = "abs(x) > 1.0"', "dt": "dt = 0.1"}
    data = imported([folder], answered(proposal, answers), tmp_path / "out")
    assert data.train[0].transitions >= EPISODES * (ROWS - 2)
    assert (data.spaces.dt, data.spaces.action_low) == (0.1, (-2.0,))


def cart_fleet(folder: Path) -> Path:
    """Carts as a warehouse logs them: a file a day, dates, lost rows and cells, a latched stop."""
    names = (
        "timestamp,run_id,operator,firmware,battery_pct,lidar_front_mm,speed_mps,heading_deg,"
        "cmd_drive_pct,cmd_steer_deg,bumper,estop,comment"
    )
    for number, robot in enumerate(("agv_01", "agv_02", "agv_new")):
        rng = np.random.default_rng(number)
        for day in (2, 3):
            lines = [names]
            for run in range(6):
                front, heading, hit, stopped = 3000.0, 0.0, False, 0
                battery = int(rng.integers(40, 100))
                for step in range(40):
                    drive = 0.0 if hit else float(np.clip(rng.normal(40, 60), -100, 100))
                    steer = 0.0 if hit else float(np.clip(rng.normal(0, 20), -30, 30))
                    second = run * 60 + step * 0.1 + rng.uniform(0, 0.01)
                    stamp = f"2026-03-0{day}T08:{int(second) // 60:02d}:{second % 60:06.3f}Z"
                    speed = "" if rng.random() < 0.01 else f"{drive / 100:.3f}"
                    fields = [
                        stamp, run, "chloé", "v2.3.1", battery, f"{front:.0f}", speed,
                        f"{heading:.2f}", f"{drive:.1f}", f"{steer:.1f}", int(hit and not stopped),
                        int(hit), "hit, wall" if hit and not stopped else "",
                    ]  # fmt: skip
                    if rng.random() > 0.01:
                        row = io.StringIO()
                        csv.writer(row).writerow(fields)
                        lines.append(row.getvalue().strip())
                    stopped += hit
                    if stopped > 5:
                        break
                    front -= drive * 3
                    heading += steer / 10
                    hit = front < 300
            write(folder / robot / f"2026-03-0{day}.csv", "\n".join(lines) + "\n")
    return folder


def test_a_fleet_of_carts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused with the questions, and imported once each has an answer of one line."""
    fleet = cart_fleet(tmp_path / "carts")
    path = tmp_path / "carts.toml"
    assert main(["data", "sniff", str(fleet), "--out", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "dropped-row" in shown  # the doctor's table
    text = path.read_text()
    for line in (
        'domain = "carts"', "dt = 0.1 ", 'gaps = "split"', 'after_violation = "cut"',
        'task_from = "folder"', '  "operator",', '  "firmware",', '  "battery_pct",',
        '  "comment",',
        '  {name = "lidar_front_mm", unit = "mm"},', '  {name = "speed_mps", unit = "m/s"},',
        '  {name = "bumper"},', 'time = "timestamp"', 'episode = "run_id"',
    ):  # fmt: skip
        assert f"\n{line}" in text, line
    assert "cmd_drive_pct" not in text.partition("obs = [")[2].partition("]")[0]
    assert main(["data", "import", str(fleet), "--map", str(path), "--out", str(path)]) == 2
    refusal = capsys.readouterr().err
    proposal = propose([fleet])
    assert proposal.text == text
    assert len(proposal.questions) == 6
    for number, question in proposal.questions:
        assert f"carts.toml, line {number}: " in refusal
        assert question.text in refusal
    assert "low and high" in refusal

    path.write_text(answered(proposal))
    data = imported([fleet], path.read_text(), tmp_path / "data")
    assert data.test is not None
    assert [log.name for log in data.train] == ["agv_01", "agv_02"]
    assert data.test.name == "agv_new"
    assert data.spaces.action_low == (-100.0, -30.0)
    assert data.provenance["cost"] == "bumper > 0.5 or estop > 0.5"
    assert data.train[0].violations > 0


def test_a_map_that_exists_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.csv", PLAIN)
    out = write(tmp_path / "map.toml", "my answers")
    command = ["data", "sniff", str(tmp_path / "a.csv"), "--out", str(out)]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "my answers"
    assert main([*command, "--overwrite"]) == 0
    assert tomllib.loads(out.read_text())["rows"] == "?"
    assert main(["data", "sniff", str(tmp_path / "a.csv"), "--out", str(tmp_path / "m.json")]) == 2


@pytest.mark.parametrize("form", ["parquet", "npz", "hdf5"])
def test_other_formats(form: str, tmp_path: Path) -> None:
    """Next observations, ends, and the cost by its name; the import is that of a written map."""
    columns = logs.table(logs.cart_log("a", 0))
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)
    elif form == "npz":
        np.savez(path, **columns)
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, values in columns.items():
                file[name] = values
    proposal = propose([path])
    keys = [re.findall(r"(\w+) = \"\?\"", proposal.text.split("\n")[line - 1])
            for line, _ in proposal.questions]  # fmt: skip
    assert keys == [["low", "high"], ["limit"]]
    data = imported([path], answered(proposal), tmp_path / "out")
    logs.assert_equal_logs(data.train[0], logs.cart_log("a", 0))


def test_names_that_a_format_fixes(tmp_path: Path) -> None:
    """OmniSafe's arrays: only what they leave open is asked."""
    columns = logs.cart_log("a", 0).columns
    arrays = {"obs": "obs", "action": "action", "reward": "reward", "cost": "cost"}
    done = columns["terminated"] | columns["truncated"]
    np.savez(tmp_path / "a.npz", **{to: columns[of] for to, of in arrays.items()},
             next_obs=columns["next_obs"], done=done)  # fmt: skip
    proposal = propose([tmp_path / "a.npz"])
    asked = " ".join(question.text for _, question in proposal.questions)
    assert [word in asked for word in ("seconds", "actuator", "'done'")] == [True] * 3
    assert len(proposal.questions) == 3
    text = answered(proposal, {"dt": "dt = 0.05"})
    data = imported([tmp_path / "a.npz"], text, tmp_path / "out")
    assert (data.train[0].violations, data.train[0].transitions) == (
        logs.cart_log("a", 0).violations,
        len(done),
    )


def test_bags(tmp_path: Path) -> None:
    """Topics of two rates: dt, age and clock are asked; stamps are no signals."""
    pytest.importorskip("rosbags")
    import robot_logs

    types = robot_logs.store().types
    for number, robot in enumerate(("robot_a", "robot_new")):
        rng = np.random.default_rng(number)
        messages, x, u = [], 0.0, 0.0
        for step in range(300):
            time = robot_logs.START + int(step * 0.02 * robot_logs.SECOND)
            if step % 5 == 0:
                u = float(np.clip(rng.normal(), -1, 1))
                messages.append(("/cmd_vel", time, robot_logs.velocity(types, u)))
                hit = types["std_msgs/msg/Bool"](abs(x) > 0.04)
                messages.append(("/bumper", time + 1000, hit))
            messages.append(("/odom", time + 2000, robot_logs.odometry(types, time, x, u / 5)))
            x += 0.02 * u / 5
        robot_logs.write_bag(tmp_path / "bags" / robot, messages)
    proposal = propose([tmp_path / "bags"])
    lines = [proposal.text.split("\n")[line - 1].strip() for line, _ in proposal.questions]
    assert [line.partition(" = ")[0] for line in lines] == [
        "dt", "{name", "max_age", "time", "limit", "test"
    ]  # fmt: skip
    assert '[resample.topics."/bumper.data"]\nmethod = "max"' in proposal.text
    observed = proposal.text.partition("obs = [")[2].partition("\n]")[0]
    assert re.findall(r'column = "(.+?)"', observed) == [
        "/odom.pose.pose.position.x", "/odom.twist.twist.linear.x"
    ]  # fmt: skip
    data = imported([tmp_path / "bags"], answered(proposal), tmp_path / "out")
    assert data.test is not None
    assert (data.spaces.dt, data.spaces.action_names) == (0.1, ("cmd_vel_linear_x",))
    # The bumper stays on, so that the episode is cut there.
    assert 2 < data.train[0].transitions < 58
    assert data.train[0].violations == 1


def test_lerobot_folders(tmp_path: Path) -> None:
    """Two robots; time, episodes and rate are the format's, so that four questions are left."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = 40
    numbers = {"timestamp": (np.arange(rows) % 10) / 10, "episode_index": np.arange(rows) // 10,
               "frame_index": np.arange(rows) % 10, "task_index": np.zeros(rows, int)}  # fmt: skip
    for robot in ("arm_a", "arm_b"):
        rng = np.random.default_rng(len(robot) + ord(robot[-1]))
        signals = {"observation.state": 2, "action": 1}
        arrays = {
            name: pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(rng.uniform(-1, 1, rows * width).astype(np.float32)), width
            )
            for name, width in signals.items()
        }
        features = {name: {"dtype": "float32", "shape": [width], "names": None}
                    for name, width in signals.items()}  # fmt: skip
        features |= {name: {"dtype": str(values.dtype), "shape": [1], "names": None}
                     for name, values in numbers.items()}  # fmt: skip
        features["observation.images.top"] = {"dtype": "video", "shape": [8, 8, 3], "names": None}
        info = {"codebase_version": "v3.0", "fps": 10, "total_frames": rows, "total_episodes": 4,
                "features": features}  # fmt: skip
        write(tmp_path / "arms" / robot / "meta" / "info.json", json.dumps(info))
        path = tmp_path / "arms" / robot / "data" / "chunk-000" / "file-000.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pyarrow.table({**arrays, **numbers}), path)
    proposal = propose([tmp_path / "arms"])
    assert len(proposal.questions) == 4
    assert "LeRobot folder" in proposal.summary
    limit = 'limit = "observation_state[0] > 0.9"'
    data = imported([tmp_path / "arms"], answered(proposal, {"limit": limit}), tmp_path / "out")
    assert data.test is not None
    assert [log.transitions for log in (*data.train, data.test)] == [36, 36]
    assert data.spaces.dt == 0.1


def test_many_commands_are_one_question(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {"time": np.arange(50) * 0.1, "x": rng.normal(size=50).round(4)}
    columns |= {f"cmd_{number}": rng.uniform(-1, 1, 50).round(4) for number in range(14)}
    logs.write_csv(tmp_path / "a.csv", columns)
    proposal = propose([tmp_path / "a.csv"])
    text = answered(proposal, {"limit": 'limit = "x > 1"'})
    data = imported([tmp_path / "a.csv"], text, tmp_path / "out")
    assert data.spaces.action_names == tuple(f"cmd_{number}" for number in range(14))
    assert (data.spaces.obs_names, len(proposal.questions)) == (("x",), 3)


def test_recordings_of_ours_need_no_answers(tmp_path: Path) -> None:
    from safemesa.datasets.exporters import exporters

    pytest.importorskip("h5py")
    folder = tmp_path / "dsrl"
    exporters["dsrl"](logs.cart_fleet(tasks=2, episodes=3, test=False), folder)
    proposal = propose([folder])
    assert proposal.questions == ()
    assert imported([folder], proposal.text, tmp_path / "out").spaces == logs.SPACES


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("time_ms", 1000, ["time_scale = 0.001", "dt = 0.1"]),
        ("stamp_ns", 1e9, ["time_scale = 1e-09", "dt = 0.1"]),
        ("t", 1000, ["time_scale = 0.001", 'dt = "?"']),
        ("t", 10, ['dt = "?"']),
        ("t [s]", 10, ["dt = 1.0"]),
        ("moment", 1, ['dt = "?"']),
    ],
)
def test_clocks(name: str, scale: float, expected: list[str], tmp_path: Path) -> None:
    """A unit is in the name, or is asked for; numbers with a fraction are taken for seconds."""
    text = each_line(lambda row: seconds(row, "{:.0f}" if scale > 1 else "{}"))
    rows = [line.split(",") for line in text.splitlines()[1:]]
    for number, row in enumerate(rows):
        row[0] = f"{(number % ROWS) * 0.1 * scale:.{0 if scale > 1 else 1}f}"
    lines = [f"{name},ep,x,v,u", *map(",".join, rows)]
    write(tmp_path / "a.csv", "\n".join(lines) + "\n")
    proposal = propose([tmp_path / "a.csv"])
    found = [re.sub(r" +#.*", "", line) for line in proposal.text.split("\n")]
    assert [line for line in found if line.startswith(("time_scale", "dt"))] == expected


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginning, middle and end, in whole lines, and no more than the budget."""
    lines = [f"{number * 0.1:.1f},{number // 100},{number % 7},{number}" for number in range(5000)]
    path = write(tmp_path / "a.csv", "t,ep,x,u\n" + "\n".join(lines) + "\n")
    description = describe_csv(path, 6000)
    assert not description.whole
    steps = description.columns[3].parts
    assert [int(part[0]) for part in steps[:1]] == [0]
    assert steps[2][-1] == 4999
    assert 2000 < steps[1].mean() < 3000
    assert all((np.diff(part) == 1).all() for part in steps)
    assert sum(map(len, steps)) < 6000 / 10
    assert "some rows" in propose([path], budget=6000).summary


def test_large_files_are_examined_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safemesa.datasets.sniff import check as checking

    monkeypatch.setattr(checking, "MOST_BYTES", 1000)
    monkeypatch.setattr(checking, "EXCERPT", 800)
    path = write(tmp_path / "a.csv", PLAIN.replace("\n0.5,0,", "\n0.1,0,"))
    checked = checking.check([path], propose([path]))
    assert "of the first" in checked.heading
    assert checked.findings is not None
    (place,) = [one for one in checked.findings if one.code == "time-backwards"]
    assert place.file == str(path)


@pytest.mark.parametrize(
    ("files", "rule", "certain", "robots"),
    [
        ("a/robot.csv b/robot.csv", "folder", True, ("a", "b")),
        ("d/red.csv d/blue.csv", "file", True, ("red", "blue")),
        ("d/2026-03-01.csv d/2026-03-02.csv", "file", False, ("2026-03-01", "2026-03-02")),
        ("a/1.csv a/2.csv b/1.csv b/2.csv", "folder", True, ("a", "b")),
        ("a/data/x.csv b/data/x.csv", "folder:2", True, ("a", "b")),
        ("a/1.csv a/2.csv b/3.csv b/4.csv", "folder", True, ("a", "b")),
        ("a/x.csv a/y.csv b/z.csv", "folder", False, ("a", "b")),
        ("a/x.csv", "file", True, ("x",)),
    ],
)
def test_robots_of_paths(files: str, rule: str, certain: bool, robots: tuple, tmp_path: Path):
    places = read_places([tmp_path / name for name in files.split()])
    assert (places.rules[0], places.certain, places.robots) == (rule, certain, robots)


ROLES = {
    "cmd_drive_pct": ("noise", "action"), "u": ("noise", "action"), "u1": ("noise", "action"),
    "actionTorque": ("noise", "action"), "throttle": ("noise", "maybe action"),
    "last_action": ("noise", "observation"), "speed": ("noise", "observation"),
    "bumper": ("rare", "alarm"), "EStop": ("rare", "alarm"), "e-stop": ("rare", "alarm"),
    "flag": ("rare", "rare"), "bumper_force": ("noise", "observation"), "done": ("rare", "done"),
    "is_success": ("rare", "ignore"), "violation": ("rare", "cost"),
    "episode_index": ("runs", "episode"), "robot": ("runs", "task"),
    "robot_mode": ("runs", "observation"), "run": ("noise", "observation"),
    "timestamp": ("rising", "time"), "time_to_wall": ("noise", "observation"),
    "frame_index": ("counting", "step"), "seq": ("counting", "ignore"),
    "constant": ("same", "ignore"), "nothing": ("empty", "ignore"),
    "next.reward": ("noise", "reward"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROLES)
def test_rules(name: str, tmp_path: Path) -> None:
    rng, count = np.random.default_rng(0), 200
    kinds = {
        "noise": rng.normal(size=count).round(4),
        "rare": (np.arange(count) % 20 == 7).astype(int),
        "runs": np.arange(count) // 20,
        "rising": np.cumsum(rng.uniform(0.09, 0.11, count)).round(4),
        "counting": np.arange(count),
        "same": np.full(count, 7),
        "empty": np.full(count, np.nan),
    }
    kind, role = ROLES[name]
    path = logs.write_csv(tmp_path / "a.csv", {"x": kinds["noise"], name: kinds[kind]})
    sample = gather([describe_csv(path, 10**6)])
    assert judge(facts_of(sample, name))[0] == role


def test_robots_of_long_numbers_keep_their_names(tmp_path: Path) -> None:
    rows = [f"{robot},{k / 10},{k % 7},{k % 3}" for robot in (1234567, 1234568) for k in range(50)]
    path = write(tmp_path / "a.csv", "\n".join(["robot_id,t,x,cmd", *rows, ""]))
    question = propose([path]).questions[-1][1]
    lines = [candidate.line for candidate in question.candidates]
    assert lines == ['test = "1234567"', 'test = "1234568"']


def test_copies_and_properties_are_left_out(tmp_path: Path) -> None:
    for number in range(2):
        rng = np.random.default_rng(number)
        x = rng.normal(size=90).round(4)
        columns = {"t": np.arange(90) * 0.5, "x": x, "x_again": x, "mass": np.full(90, 5 + number),
                   "goal": np.repeat(rng.normal(size=9).round(3), 10), "run": np.arange(90) // 10,
                   "cmd": rng.uniform(-1, 1, 90).round(4)}  # fmt: skip
        logs.write_csv(tmp_path / f"robot_{'ab'[number]}.csv", columns)
    text = propose([tmp_path]).text
    ignored = text.partition("ignore = [")[2].partition("\n]")[0]
    assert re.findall(r'"(\w+)",', ignored) == ["x_again", "mass", "goal"]
    assert "equals 'x'" in ignored
    assert "property of the robot" in ignored
    assert re.findall(r'name = "(\w+)"', text.partition("obs = [")[2])[:2] == ["x", "cmd"]


def test_units_of_names() -> None:
    assert unit_of(("lidar", "front", "mm")) == "mm"
    assert unit_of(("yaw", "rate", "deg", "s")) == "deg/s"
    assert unit_of(("speed", "m", "s")) == "m/s"
    assert unit_of(("speed",)) == unit_of(("m",)) == ""
    assert split_unit("Speed [m/s]") == ("Speed", "m/s")
    assert split_unit("q[0]") == ("q[0]", "")


def test_round_numbers() -> None:
    assert [rounded(value) for value in (0.0998, 0.0333, 0.05, 0.0049, 1.0, 19.98)] == [
        0.1, 1 / 30, 0.05, 0.0049, 1.0, 20.0]  # fmt: skip
    assert [bound(value) for value in (1.97, -27.0, 0.93, 5.0, 0.0)] == [2.0, -30.0, 1.0, 5.0, 0.0]


@pytest.mark.parametrize(
    "value", ['a"b', "tab\t\\", "\x7f", "höhe", "\U0001f916", 1e-9, 1e300, True, 3]
)
def test_values_as_toml(value: object) -> None:
    assert tomllib.loads(f"key = {toml(value)}")["key"] == value


def test_questions_of_any_map(tmp_path: Path) -> None:
    """What is a question, and what is a column or a sign of that name."""
    path = write(tmp_path / "m.toml", 'rows = "?"\n#? How\n#? long?\n  #    dt = 1\ndt = "?"\n')
    with pytest.raises(OpenQuestionError, match=r"m\.toml, line 5: dt is open\. How long\?"):
        read_map(path)
    record = {"rows": "states", "obs": ["?"], "missing_values": ["?"], "delimiter": "?"}
    assert map_from_record(record).obs[0].column == "?"
    write(tmp_path / "m.json", json.dumps({**record, "cost": {"limit": "?"}}))
    with pytest.raises(OpenQuestionError, match="limit is open"):
        read_map(tmp_path / "m.json")
    nested = {"action": [{"name": "u", "low": "?", "high": 1.0}]}
    with pytest.raises(OpenQuestionError, match="low"):
        map_from_record(nested)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n", "names of columns"),
        ("", "empty"),
        ("a,b\n", "no rows"),
        (",".join(f"c{number}" for number in range(3000)) + "\n", "3000 columns"),
    ],
)
def test_what_cannot_be_described(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", text)
    with pytest.raises(DatasetError, match=message):
        propose([tmp_path / "a.csv"])


def test_files_without_a_common_column(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x,y\n1,2\n")
    write(tmp_path / "b.csv", "z,w\n1,2\n")
    with pytest.raises(DatasetError, match="no column in common"):
        propose([tmp_path])


def test_every_format_has_a_describer(tmp_path: Path) -> None:
    write(tmp_path / "a.xlsx", "no log")
    with pytest.raises(DatasetError, match="Save the sheet as CSV"):
        describe_files.describe(tmp_path / "a.xlsx", 1000)


NAMES = st.one_of(
    st.sampled_from(["t", "time", "run", "robot", "x", "next_x", "cmd", "u", "bumper", "done",
                     "cost", "step", "reward", "terminated", "if", "", "mm", "a.b=c", "?"]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6),
)  # fmt: skip
CELLS = st.sampled_from([
    ["0.5", "1.25", "-3.0"], ["0", "1"], ["0", "0", "0", "0", "0", "0", "1"], ["7"], [""],
    ["a", "b"], ["1", "2", "3"], ["0.1", "", "nan"], ["2024-01-01T00:00:01", "2024-01-01T00:00:02"],
    ["1", "--"], ["True", "False"], ["1e300", "inf"], ["1,5", "2,5"], ['q"', "x\ny"],
])  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, str]:
    columns = draw(st.lists(st.tuples(NAMES, CELLS), min_size=1, max_size=6))
    rows = draw(st.integers(1, 12))
    mark = draw(st.sampled_from([",", ";", "\t"]))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark, lineterminator="\n")
    writer.writerow([name for name, _ in columns])
    rising = draw(st.booleans())
    for row in range(rows):
        cells = [cells[row % len(cells)] for _, cells in columns]
        writer.writerow([f"{row * 0.1:.1f}", *cells[1:]] if rising else cells)
    return draw(st.sampled_from(["", "# note\n", "title\n"])) + text.getvalue(), mark


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(table=tables())
def test_whatever_is_written_waits_for_answers_alone(table, tmp_path_factory) -> None:
    """It parses, is refused for its questions only, and fits the files once they are answered."""
    folder = tmp_path_factory.mktemp("sniff")
    path = write(folder / "log.csv", table[0])
    try:
        proposal = propose([path])
    except DatasetError:
        return
    target = write(folder / "map.toml", proposal.text)
    if proposal.questions:
        with pytest.raises(OpenQuestionError) as caught:
            read_map(target)
        for line, question in proposal.questions:
            assert f"line {line}: " in str(caught.value)
            assert question.text in str(caught.value)
    else:
        read_map(target)
    record = tomllib.loads(proposal.text)
    names = [signal["name"] for signal in record["obs"] if record["obs"] != "?"]
    columns = [signal.get("column", signal["name"]) for signal in record["obs"] if names]
    if not columns:
        return
    command = {"name": "u_", "column": columns[0], "low": -1.0, "high": 1.0}
    text = answered(proposal, {
        "dt": "dt = 1.0",
        "task_from": 'task_from = "file"',
        "limit": f'limit = "{names[0]} > 1"',
        "action": f"action = {toml([command])}",
    })  # fmt: skip
    mapping = map_from_record(tomllib.loads(text))
    for source in find_sources([path]):
        assert make_plan(mapping, open_source(source, mapping)).obs


def test_a_wrong_map_is_still_a_configuration_error() -> None:
    assert issubclass(OpenQuestionError, ConfigurationError)
