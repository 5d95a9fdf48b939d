"""What a long phase tells a person: phase, steps, rate and time left."""

import abc
import sys
import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as RichProgress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Progress(abc.ABC):
    """Receives the progress of one phase after another."""

    @abc.abstractmethod
    def start(self, phase: str, total: int, done: int) -> None:
        """A phase of `total` steps begins, of which `done` are done already."""

    @abc.abstractmethod
    def update(self, done: int, note: tuple[str, float] | None = None) -> None:
        """`done` steps are done; `note` is one number worth showing."""

    @abc.abstractmethod
    def finish(self) -> None:
        """The phase is over."""


class NoProgress(Progress):
    """Says nothing."""

    def start(self, phase: str, total: int, done: int) -> None:
        """Nothing."""

    def update(self, done: int, note: tuple[str, float] | None = None) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


class BarProgress(Progress):
    """A bar on a terminal; a line now and then where standard error is no terminal."""

    LINE_SECONDS = 15.0

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._phase, self._total, self._began, self._first = "", 0, 0.0, 0
        self._last_line = 0.0

    def start(self, phase: str, total: int, done: int) -> None:
        """Opens a bar."""
        self._phase, self._total, self._first = phase, total, done
        self._began = self._last_line = time.monotonic()
        if not sys.stderr.isatty():
            return
        from rich.console import Console

        self._bar = RichProgress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(phase, total=total, completed=done, rate="", note="")

    def update(self, done: int, note: tuple[str, float] | None = None) -> None:
        """Moves the bar, or prints a line if the last one is old."""
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._began, 1e-9)
        text = f"{note[0]} {note[1]:.4g}" if note else ""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, rate=f"{rate:.0f}/s", note=text)
        elif now - self._last_line > self.LINE_SECONDS:
            self._last_line = now
            left = f"{(self._total - done) / rate:.0f} s left" if rate > 0.0 else "starting"
            line = f"{self._phase}: {done}/{self._total}, {rate:.0f}/s, {left}. {text}"
            print(line.strip(), file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
