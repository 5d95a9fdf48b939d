"""`safemesa data report`: the page of a dataset."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from logs import SPACES, cart_fleet, cart_log

from safemesa.cli.main import main
from safemesa.core.errors import DatasetError
from safemesa.datasets.moments import evenly, moment_before, violation_rows
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.report.data_page import MOST_ROBOTS, write_data_report
from safemesa.datasets.report.robots import outside_others, view_robots
from safemesa.datasets.task_log import TaskLog

EVIL = "<script>alert('x')</script>&\"|`$title"


def quiet_log(name: str = "quiet", role: str = "train", rows: int = 40) -> TaskLog:
    """Two episodes without a violation; the position is the number of the row."""
    obs = np.stack([np.arange(rows), np.zeros(rows)], axis=1).astype(np.float32)
    step = np.tile(np.arange(rows // 2), 2).astype(np.int32)
    columns = {
        "obs": obs,
        "next_obs": obs + np.float32([1, 0]),
        "action": np.linspace(-2, 2, rows, dtype=np.float32)[:, None],
        "reward": np.zeros(rows, np.float32),
        "cost": np.zeros(rows, np.float32),
        "terminated": np.zeros(rows, np.bool_),
        "truncated": step == rows // 2 - 1,
        "episode": np.repeat([0, 1], rows // 2).astype(np.int32),
        "step": step,
    }
    return TaskLog(name=name, role=role, columns=columns)


def with_cost(log: TaskLog, *rows: int) -> TaskLog:
    cost = np.zeros(log.transitions, np.float32)
    cost[list(rows)] = 1.0
    return replace(log, columns={**log.columns, "cost": cost})


def report(data: OfflineTasks, folder: Path, **more) -> str:
    data.save(folder / "data")
    path = write_data_report(folder / "data", folder / "page.html", "the command", **more)
    return path.read_text()


def tags_of(text: str) -> set[str]:
    found: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            del attrs
            found.add(tag)

    Reader().feed(text)
    return found


def test_violations_are_counted_where_they_begin():
    log = with_cost(quiet_log(), 3, 4, 5, 18, 19, 20, 21)
    # Row 20 begins another episode.
    assert violation_rows(log).tolist() == [3, 18, 20]
    assert len(violation_rows(quiet_log())) == 0


def test_many_rows_are_thinned_evenly():
    assert evenly(range(3), 5) == [0, 1, 2]
    assert evenly(range(101), 5) == [0, 25, 50, 75, 100]


def test_a_moment_ends_in_the_state_that_violates_and_stays_in_its_episode():
    moment = moment_before(with_cost(quiet_log(), 23), 23, 30, 2, 0.5)
    # The episode begins at row 20: four rows lead to the violation, and two follow it.
    assert moment.obs[:, 0].tolist() == [20, 21, 22, 23, 24, 25, 26]
    assert moment.seconds.tolist() == [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0]
    assert np.isnan(moment.action[-1, 0])
    assert np.isfinite(moment.action[:-1]).all()
    at_the_end = moment_before(with_cost(quiet_log(), 39), 39, 2, 5, 0.5)
    assert at_the_end.obs[:, 0].tolist() == [38, 39, 40]


def test_a_robot_outside_the_range_of_all_others_is_found():
    quiet = quiet_log("odd", rows=400)
    far = replace(quiet, columns={**quiet.columns, "obs": quiet.columns["obs"] + 1000})
    data = OfflineTasks(domain="cart", spaces=SPACES, train=(*cart_fleet(3).train, far))
    views = view_robots(data, before=5, after=1, most_moments=3)
    outside = outside_others(views)
    assert outside[3, 0] == 1.0
    assert outside[:3, 0].max() < 0.02


def test_the_page_says_who_violated_where(tmp_path):
    log = with_cost(quiet_log("new", "test"), 13)
    text = report(replace(cart_fleet(3), test=log), tmp_path)
    assert "1 of 1 violations of new" in text
    assert "row 13 (episode 0)" in text
    total = sum(int(log.columns["cost"].sum()) for log in cart_fleet(3).train) + 1
    assert f"4 robots, {sum(one.transitions for one in cart_fleet(3).train) + 40} steps" in text
    assert f"{total} violations." in text
    assert "violation-ends-sometimes" not in text
    assert "Collect next:" in text  # the doctor's advice
    assert "the command" in text


def test_the_page_needs_nothing_but_itself_and_no_name_escapes(tmp_path):
    spaces = replace(SPACES, obs_names=(EVIL, "HALF"))
    data = replace(cart_fleet(3), domain=EVIL, spaces=spaces, train=(cart_log(EVIL, 1),))
    data.save(tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.json"
    # Half a character, which JSON can hold and no file.
    record = json.loads(manifest.read_text())
    del record["checksum"]
    manifest.write_text(json.dumps(record).replace("HALF", "\\ud800"))
    text = write_data_report(tmp_path / "data", tmp_path / "page.html", "c").read_text()
    assert not {"script", "link", "iframe", "object", "img"} & tags_of(text)
    assert not re.search(r"https?:|url\(|@import", text)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "$title" in text


def test_the_same_data_give_the_same_page(tmp_path):
    cart_fleet(2).save(tmp_path / "data")
    pages = [
        write_data_report(tmp_path / "data", tmp_path / f"{i}.html", "c").read_bytes()
        for i in range(2)
    ]
    assert pages[0] == pages[1]


def test_without_violations_and_with_one_robot(tmp_path):
    data = OfflineTasks(domain="cart", spaces=SPACES, train=(quiet_log(),))
    text = report(data, tmp_path)
    assert "There is no violation" in text
    assert "No violation." in text
    assert "no-violations" in text
    assert "has no others to compare it with" in text


def test_what_is_left_out_is_said(tmp_path):
    fleet = OfflineTasks(
        domain="cart",
        spaces=SPACES,
        train=tuple(cart_log(f"robot-{i}", i, episodes=2) for i in range(MOST_ROBOTS + 6)),
    )
    text = report(fleet, tmp_path)
    assert f"{MOST_ROBOTS} of {MOST_ROBOTS + 6} robots" in text
    assert "Signals before its violations" in text
    assert len(text) < 2_000_000


def test_a_damaged_file_is_a_finding_and_nothing_is_an_error(tmp_path):
    data = cart_fleet(2)
    data.save(tmp_path / "data")
    path = next((tmp_path / "data").glob("train-*"))
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    text = write_data_report(tmp_path / "data", tmp_path / "page.html", "c").read_text()
    assert "changed-file" in text
    assert "errors must be mended" in text
    with pytest.raises(DatasetError, match="no dataset folder"):
        write_data_report(tmp_path / "nothing", tmp_path / "page.html", "c")


def test_the_command_writes_it(tmp_path, capsys):
    cart_fleet(2).save(tmp_path / "data")
    out = tmp_path / "page.html"
    arguments = ["data", "report", str(tmp_path / "data"), "--out", str(out)]
    assert main(arguments) == 0
    assert f"Report: {out}" in capsys.readouterr().out
    assert "safemesa data report" in out.read_text()
    assert main([*arguments, "--before", "0"]) == 2
    assert main(["data", "report", str(tmp_path / "no"), "--out", str(out)]) == 2
