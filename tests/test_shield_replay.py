"""`safemesa shield replay`: an old log or a black box, decided again by the runtime itself."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from safemesa.cli.main import main
from safemesa.core.errors import DatasetError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.shield import runtime
from safemesa.shield.demo import SHIELD
from safemesa.shield.demo.cart import DT, NEW, SPACES, drive, log_of
from safemesa.shield.replay import (
    Replay,
    leads_of,
    load_ticks,
    monitoring,
    replay_ticks,
    unneeded,
)
from safemesa.shield.replay_page import write_replay
from safemesa.shield.runtime import BlackBox, Shield, read_black_box

EVIL = "<script>alert('x')</script>&\"|`$title"


def made_log(*episodes: np.ndarray, violations: tuple[int, ...] = (), name: str = "new") -> TaskLog:
    """Rows of front, speed and drive, one array `[n, 3]` per episode."""
    rows = np.concatenate(episodes).astype(np.float32)
    lengths = [len(episode) for episode in episodes]
    ends = np.cumsum(lengths) - 1
    cost = np.zeros(len(rows), np.float32)
    cost[list(violations)] = 1.0
    last = np.zeros(len(rows), np.bool_)
    last[ends] = True
    following = np.roll(rows[:, :2], -1, axis=0)
    following[ends] = rows[ends, :2]
    columns = {
        "obs": rows[:, :2],
        "next_obs": following,
        "action": rows[:, 2:],
        "reward": np.zeros(len(rows), np.float32),
        "cost": cost,
        "terminated": last & (cost > 0.5),
        "truncated": last & (cost < 0.5),
        "episode": np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        "step": np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
    }
    return TaskLog(name=name, role="test", columns=columns)


def rows_of(count: int, *, front: float, speed: float, push: float) -> np.ndarray:
    return np.tile([front, speed, push], (count, 1))


CALM = {"front": 5.0, "speed": 0.3, "push": 0.0}
DANGER = {"front": 0.6, "speed": 1.2, "push": 80.0}


def data_of(log: TaskLog, **more) -> OfflineTasks:
    return OfflineTasks(domain="cart", spaces=SPACES, train=(), test=log, **more)


def edited_shield(folder: Path, **settings) -> Path:
    """The ready shield with other settings of those that are made by hand."""
    folder.mkdir()
    for name in (runtime.WEIGHTS, runtime.MANIFEST):
        (folder / name).write_bytes((SHIELD / name).read_bytes())
    manifest = json.loads((folder / runtime.MANIFEST).read_text())
    for path, value in settings.items():
        section, _, field = path.partition("__")
        part = manifest["shield"][section]
        (part[0] if isinstance(part, list) else part)[field] = value
    (folder / runtime.MANIFEST).write_text(json.dumps(manifest))
    return folder


def replayed(log: TaskLog, folder: Path = SHIELD) -> Replay:
    from safemesa.shield.replay import ticks_of_log

    shield = monitoring(folder)
    return replay_ticks(shield, ticks_of_log(data_of(log), shield, None, "log"))


def page_of(log: TaskLog, folder: Path, shield: Path = SHIELD, **more) -> str:
    data_of(log).save(folder / "log")
    write_replay(folder / "log", shield, folder / "page.html", "the command", **more)
    return (folder / "page.html").read_text()


def driven(count: int = 4) -> TaskLog:
    return log_of("new", "test", [drive(NEW, (5, number)) for number in range(count)])


def test_a_calm_log_and_a_dangerous_one():
    calm = replayed(made_log(rows_of(20, **CALM)))
    assert not calm.overridden.any()
    assert calm.reasons() == {"ok": 20}
    assert len(calm.takeovers) == 0
    danger = replayed(made_log(rows_of(20, **DANGER)))
    assert danger.overridden.all()
    assert danger.takeovers.tolist() == [[0, 20]]
    assert (danger.action[:, 0] < 80.0).all()


def test_what_it_would_do_is_what_the_runtime_does():
    """Risk, reasons and overrides are those of shields that monitor and enforce the same rows."""
    log = driven()
    result = replayed(log)
    for mode in ("monitor", "enforce"):
        shield = Shield.load(SHIELD, mode=mode, force=True)
        decisions = []
        for row in range(log.transitions):
            if log.columns["step"][row] == 0:
                shield.reset()
            here = log.columns["obs"][row], log.columns["action"][row]
            decisions.append(shield.decide(*here))
        assert result.reasons() == shield.statistics()["reasons"]
        np.testing.assert_array_equal(
            result.risk, np.array([one.risk for one in decisions], np.float32)
        )
        if mode == "enforce":
            assert 0 < shield.overridden < log.transitions
            assert int(result.overridden.sum()) == shield.overridden
            np.testing.assert_array_equal(
                result.action, np.array([one.action for one in decisions], np.float32)
            )


def test_hysteresis_and_dwell_are_the_monitoring_shields(tmp_path):
    folder = edited_shield(tmp_path / "s", risk__minimum_dwell=1.0)
    log = made_log(np.concatenate([rows_of(1, **DANGER), rows_of(15, **CALM)]), rows_of(5, **CALM))
    result = replayed(log, folder)
    # Ten ticks of 0.1 s, whatever the risk; and the next episode has no past.
    assert result.takeovers.tolist() == [[0, 10]]
    assert result.reasons() == {"ok": 11, "risk": 1, "holding": 9}


def test_a_rate_counts_from_the_logged_action(tmp_path):
    folder = edited_shield(tmp_path / "s", actions__rate=50.0)
    log = made_log(np.concatenate([rows_of(3, **{**DANGER, "push": 0.0}), rows_of(3, **DANGER)]))
    result = replayed(log, folder)
    # From what was logged before, 5 % in a tick at most; the first has no action before it.
    logged = np.array([0.0, 0.0, 0.0, 5.0, 10.0])
    assert (np.abs(result.action[1:, 0] - logged) <= 5.001).all()


@pytest.mark.parametrize("row", [7, 19])
def test_a_violation_is_shown_where_it_is(tmp_path, row):
    quiet, end = rows_of(30, **CALM), rows_of(row + 1, **CALM)
    end[row - 4 :] = [DANGER["front"], DANGER["speed"], DANGER["push"]]
    log = made_log(quiet, end, violations=(30 + row,))
    text = page_of(log, tmp_path)
    assert f"Violation of row {30 + row}, episode 1" in text
    assert "would have taken over 0.5 s before it" in text
    assert "1 of 1" in text
    result = replayed(log)
    (lead,) = leads_of(result, 20, DT)
    assert lead.row == 30 + row
    assert lead.seconds == pytest.approx(0.5)
    assert len(unneeded(result, 20)) == 0


def test_a_window_ends_where_its_episode_begins():
    log = made_log(rows_of(10, **DANGER), rows_of(5, **CALM), violations=(14,))
    result = replayed(log)
    (lead,) = leads_of(result, 100, DT)
    assert np.isnan(lead.seconds)
    assert unneeded(result, 100).tolist() == [[0, 10]]
    late = made_log(np.concatenate([rows_of(5, **DANGER), rows_of(30, **CALM)]), violations=(34,))
    assert unneeded(replayed(late), 10).tolist() == [[0, 5]]
    assert len(unneeded(replayed(late), 31)) == 0


def test_without_violations_and_without_takeovers(tmp_path):
    text = page_of(made_log(rows_of(20, **CALM)), tmp_path)
    assert "No violation, and nothing that this shield would have overridden." in text
    assert "violations are in this log" in text
    assert ">0.0%<" in text


def test_a_single_row(tmp_path):
    text = page_of(made_log(rows_of(1, **DANGER), violations=(0,)), tmp_path)
    assert "Violation of row 0, episode 0" in text


def test_signals_are_found_by_name(tmp_path):
    log = driven(1)
    spaces = replace(SPACES, obs_names=("speed", "front"))
    columns = {**log.columns}
    for name in ("obs", "next_obs"):
        columns[name] = np.ascontiguousarray(log.columns[name][:, ::-1])
    data = OfflineTasks(domain="cart", spaces=spaces, train=(), test=replace(log, columns=columns))
    data.save(tmp_path / "log")
    shield = monitoring(SHIELD)
    result = replay_ticks(shield, load_ticks(tmp_path / "log", shield))
    np.testing.assert_array_equal(result.risk, replayed(log).risk)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"obs_names": ("front", "velocity")}, "expects front, speed"),
        ({"action_names": ("push",)}, "expects drive"),
        ({"dt": 0.05}, "a step of 0.05 s, and this shield one of 0.1 s"),
    ],
)
def test_logs_of_other_robots_are_refused(tmp_path, change, words):
    data = OfflineTasks(domain="cart", spaces=replace(SPACES, **change), train=(), test=driven(1))
    data.save(tmp_path / "log")
    with pytest.raises(DatasetError, match=words):
        load_ticks(tmp_path / "log", monitoring(SHIELD))


def test_logs_of_another_size_and_no_logs_are_refused(tmp_path):
    log = driven(1)
    wide = {**log.columns}
    for name in ("obs", "next_obs"):
        wide[name] = np.concatenate([wide[name], wide[name][:, :1]], axis=1)
    spaces = replace(SPACES, obs_names=("front", "speed", "more"))
    data = OfflineTasks(domain="c", spaces=spaces, train=(), test=replace(log, columns=wide))
    data.save(tmp_path / "wide")
    shield = monitoring(SHIELD)
    with pytest.raises(DatasetError, match="front, speed, more"):
        load_ticks(tmp_path / "wide", shield)
    for nothing in (tmp_path, tmp_path / "none"):
        with pytest.raises(DatasetError, match="neither a dataset folder nor a black box"):
            load_ticks(nothing, shield)


def test_the_robot_of_a_fleet_is_chosen_by_name(tmp_path):
    fleet = tuple(replace(driven(1), name=name, role="train") for name in ("a", "b"))
    OfflineTasks(domain="cart", spaces=SPACES, train=fleet).save(tmp_path / "log")
    shield = monitoring(SHIELD)
    with pytest.raises(DatasetError, match="name one with --task: a, b"):
        load_ticks(tmp_path / "log", shield)
    with pytest.raises(DatasetError, match="no robot 'c'"):
        load_ticks(tmp_path / "log", shield, "c")
    assert load_ticks(tmp_path / "log", shield, "b").name == "b"


def test_the_page_needs_nothing_but_itself_and_no_name_escapes(tmp_path):
    log = replace(driven(2), name=EVIL)
    text = page_of(log, tmp_path)
    tags: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            del attrs
            tags.add(tag)

    Reader().feed(text)
    assert not {"script", "link", "iframe", "object", "img"} & tags
    assert not re.search(r"https?:|url\(|@import", text)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "$title" in text


def test_the_same_log_gives_the_same_page(tmp_path):
    data_of(driven(2)).save(tmp_path / "log")
    for name in ("1.html", "2.html"):
        write_replay(tmp_path / "log", SHIELD, tmp_path / name, "c")
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_moments_are_bounded_and_counted(tmp_path):
    episode = np.concatenate([rows_of(3, **CALM), rows_of(2, **DANGER)])
    log = made_log(*[episode] * 20, violations=tuple(range(4, 100, 5)))
    text = page_of(log, tmp_path, moments=5)
    assert "Drawn are 5 of 20 violations and 0 of 0 other takeovers" in text
    assert text.count("<h3") == 5
    long = made_log(rows_of(1200, **CALM), violations=(1199,))
    long_text = page_of(long, tmp_path / "long", seconds=120.0)
    assert "Every 3-th tick is drawn." in long_text
    assert "Each point stands for 2 ticks." in long_text
    assert len(long_text) < 200_000


def test_a_shield_without_its_recovery_says_so(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    manifest = json.loads((SHIELD / runtime.MANIFEST).read_text())
    tensors = runtime.safetensors.numpy.load((SHIELD / runtime.WEIGHTS).read_bytes())
    kept = {name: one for name, one in tensors.items() if not name.startswith("recovery.")}
    (folder / runtime.WEIGHTS).write_bytes(runtime.safetensors.numpy.save(kept))
    manifest["shield"]["recovery"] = {"kind": "external", "name": "mine"}
    manifest["shield"]["networks"]["recovery"] = None
    manifest["known_answers"] = None
    manifest["files"][runtime.WEIGHTS] = runtime.hashlib.sha256(
        (folder / runtime.WEIGHTS).read_bytes()
    ).hexdigest()
    manifest["seal"] = runtime.seal_of(manifest)
    (folder / runtime.MANIFEST).write_text(json.dumps(manifest))
    log = made_log(rows_of(4, **DANGER), rows_of(4, **CALM))
    result = replayed(log, folder)
    assert result.overridden.tolist() == [True] * 4 + [False] * 4
    assert np.isnan(result.action[:4]).all()
    assert "Its recovery was not exported" in page_of(log, tmp_path, folder)


# -- black boxes ------------------------------------------------------------------------------


def recorded_box(path: Path, mode: str = "enforce", episodes: int = 3) -> Shield:
    box = BlackBox(path)
    shield = Shield.load(SHIELD, mode=mode, force=True, black_box=box)
    for number in range(episodes):
        drive(NEW, (5, number), shield=shield)
    box.close()
    return shield


@pytest.mark.parametrize("mode", ["monitor", "enforce"])
def test_a_black_box_of_this_very_model_is_decided_as_it_was(tmp_path, mode):
    path = tmp_path / "box.jsonl"
    recorded = recorded_box(path, mode)
    result = write_replay(path, SHIELD, tmp_path / "page.html", "c")
    records = read_black_box(path)
    assert len(result.ticks) == len(records) > 10
    kept = result.ticks.recorded
    assert kept is not None
    assert kept.same_model.all()
    assert kept.overridden == recorded.overridden
    np.testing.assert_array_equal(result.risk, kept.risk.astype(np.float32))
    assert kept.reasons == {
        name: count for name, count in recorded.statistics()["reasons"].items() if name != "ok"
    }
    if mode == "enforce":
        assert int(result.overridden.sum()) == recorded.overridden
        np.testing.assert_array_equal(result.action, kept.action.astype(np.float32))
    text = (tmp_path / "page.html").read_text()
    assert f"{len(records)} in {mode}" in text
    assert "the risk differs by 0 at most" in text


def test_records_are_drawn_where_their_ticks_are(tmp_path):
    path = tmp_path / "box.jsonl"
    shield = Shield.load(SHIELD, mode="enforce", force=True, black_box=path)
    for front in (0.6, 5.0, 5.0, 0.6, *[5.0] * 60, 0.6):
        shield.decide([front, 1.2 if front < 1.0 else 0.3], [80.0 if front < 1.0 else 0.0])
    result = write_replay(path, SHIELD, tmp_path / "page.html", "c")
    assert result.ticks.numbers.tolist() == [1, 4, 65]
    text = (tmp_path / "page.html").read_text()
    # The window has 49 ticks: the first two records share a picture, with a gap between them.
    assert "2 of 2 groups of records" in text
    assert "From tick 1, record 0" in text
    assert "From tick 65, record 2" in text
    assert "violations and" not in text


def test_records_without_an_observation_and_hostile_ones(tmp_path):
    path = tmp_path / "box.jsonl"
    shield = Shield.load(SHIELD, mode="enforce", force=True, black_box=path)
    shield.decide("nonsense", [0.0])
    shield.decide([0.6, 1.2], [80.0])
    shield.decide([float("nan"), 1.2], [80.0])
    lines = path.read_text().splitlines()
    evil = {**json.loads(lines[1]), "reason": EVIL, "mode": EVIL, "model": EVIL, "tick": "x"}
    evil |= {"risk": 10**400, "overridden": "yes"}
    path.write_text("\n".join([*lines, json.dumps(evil), ""]))
    result = write_replay(path, SHIELD, tmp_path / "page.html", "c")
    text = (tmp_path / "page.html").read_text()
    assert len(result.ticks) == 3
    assert "1 of the records have no observation" in text
    assert "<script" not in text
    assert "nan_observation" in text
    assert "1 in unknown" in text


def test_an_empty_black_box_and_one_of_another_robot(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert len(write_replay(empty, SHIELD, tmp_path / "page.html", "c").ticks) == 0
    assert "There are no ticks." in (tmp_path / "page.html").read_text()
    other = tmp_path / "other.jsonl"
    record = {"obs": [1.0], "proposed": [0.0], "action": [0.0], "tick": 1}
    other.write_text(json.dumps(record) + "\n")
    shield = monitoring(SHIELD)
    with pytest.raises(DatasetError, match="record 0: its observation or action has another size"):
        load_ticks(other, shield)
    with pytest.raises(DatasetError, match="names no robot"):
        load_ticks(empty, shield, "a")
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(DatasetError, match="line 1 is no record"):
        load_ticks(tmp_path / "text", shield)


def test_the_command_writes_the_page(tmp_path, capsys):
    data_of(driven(2)).save(tmp_path / "log")
    log, out = str(tmp_path / "log"), str(tmp_path / "page.html")
    arguments = ["shield", "replay", log, "--shield", str(SHIELD), "--out", out]
    assert main(arguments) == 0
    result = replayed(driven(2))
    said = capsys.readouterr().out
    assert f"{int(result.overridden.sum())} of {len(result.ticks)} ticks" in said
    assert "safemesa shield replay" in Path(out).read_text()
    assert main([*arguments, "--seconds", "-1"]) == 2
    assert main([*arguments, "--moments", "1000"]) == 2
    assert main(["shield", "replay", log, "--shield", str(tmp_path), "--out", out]) == 2


MILLION = """
import resource, sys
from pathlib import Path
from safemesa.shield.demo import SHIELD
from safemesa.shield.replay_page import write_replay

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = write_replay(Path(sys.argv[1]), SHIELD, Path(sys.argv[2]), "c")
usage = resource.getrusage(resource.RUSAGE_SELF)
print(int(result.overridden.sum()), (usage.ru_maxrss - before) / 1024, usage.ru_utime)
"""


@pytest.mark.slow
def test_a_million_rows_in_bounded_memory_and_time(tmp_path):
    """In a process of its own, whose shapes are not checked at every call."""
    rows = np.tile(np.concatenate([rows_of(90, **CALM), rows_of(10, **DANGER)]), (10_000, 1))
    log = made_log(*np.split(rows, 10_000), violations=tuple(range(99, 1_000_000, 100)))
    data_of(log).save(tmp_path / "log")
    command = [sys.executable, "-c", MILLION, tmp_path / "log", tmp_path / "page.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    overridden, megabytes, seconds = map(float, done.stdout.split())
    assert overridden == 100_000
    # The log has 44 MB, of which the pages that were read count too.
    assert megabytes < 250
    assert seconds < 300
    assert (tmp_path / "page.html").stat().st_size < 500_000
