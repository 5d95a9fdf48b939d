"""Processes that are started again when they die."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grid_jobs
import pytest

from safemesa.core.errors import DatasetError, SafemesaError
from safemesa.experiments.grid.executors.supervise import DEATHS, Job, Watcher, supervise
from safemesa.phases.workers import WorkerError


class Notes(Watcher):
    """Counts what it sees."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.messages: list[tuple[str, Any]] = []
        self.results: list[tuple[str, SafemesaError | None]] = []
        self.most_at_once = 0

    def started(self, name: str) -> None:
        self.starts[name] += 1
        ends = sum(self.deaths.values()) + len(self.results)
        self.most_at_once = max(self.most_at_once, sum(self.starts.values()) - ends)

    def told(self, name: str, message: Any) -> None:
        self.messages.append((name, message))

    def died(self, name: str, exitcode: int) -> None:
        assert exitcode != 0
        self.deaths[name] += 1

    def ended(self, name: str, error: SafemesaError | None) -> None:
        self.results.append((name, error))

    def tick(self) -> None:
        pass


def test_every_job_is_done_once_and_a_failure_leaves_the_others(tmp_path: Path) -> None:
    file, notes = tmp_path / "lines", Notes()
    jobs = [
        Job(name=name, function=grid_jobs.note, arguments=(file, name)) for name in ("a", "b", "c")
    ]
    jobs.insert(1, Job(name="bad", function=grid_jobs.refuse, arguments=("no such log",)))
    failures = supervise(jobs, 2, notes)
    assert sorted(file.read_text().split()) == ["a", "b", "c"]
    assert list(failures) == ["bad"]
    assert isinstance(failures["bad"], DatasetError)
    assert str(failures["bad"]) == "no such log"
    assert sorted(name for name, _ in notes.results) == ["a", "b", "bad", "c"]
    assert ("bad", "about to refuse") in notes.messages
    assert notes.most_at_once == 2
    assert set(notes.starts.values()) == {1}


def test_a_job_that_gets_further_is_started_again_as_often_as_it_dies(tmp_path: Path) -> None:
    notes, until = Notes(), DEATHS + 2
    job = Job(
        name="killed",
        function=grid_jobs.count_and_die,
        arguments=(tmp_path, until),
        mark=lambda: len(list(tmp_path.iterdir())),
    )
    assert supervise([job], 1, notes) == {}
    assert notes.deaths["killed"] == until - 1
    assert [message for _, message in notes.messages] == list(range(until))
    assert notes.results == [("killed", None)]


def test_a_job_that_dies_without_getting_further_is_given_up(tmp_path: Path) -> None:
    notes, file = Notes(), tmp_path / "lines"
    jobs = [
        Job(name="broken", function=grid_jobs.die, arguments=(7,), log=tmp_path / "broken.log"),
        Job(name="sound", function=grid_jobs.note, arguments=(file, "x")),
    ]
    failures = supervise(jobs, 1, notes)
    assert notes.starts == {"broken": DEATHS, "sound": 1}
    assert isinstance(failures["broken"], WorkerError)
    for part in (f"died {DEATHS} times", "exit code is 7", "broken.log"):
        assert part in str(failures["broken"])
    assert file.read_text() == "x\n"


def test_output_of_a_job_goes_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "job.log"
    job = Job(name="bug", function=grid_jobs.note, arguments=(None, "x"), log=log)
    assert "bug" in supervise([job], 1, Notes())
    assert log.read_text().count("TypeError") == DEATHS


def test_an_interruption_leaves_no_process() -> None:
    class Interrupting(Notes):
        def tick(self) -> None:
            if self.messages:
                raise KeyboardInterrupt

    notes = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        supervise([Job(name="long", function=grid_jobs.hang, arguments=())], 1, notes)
    ((_, pid),) = notes.messages
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the worker lives on")
