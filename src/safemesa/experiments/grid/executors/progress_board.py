"""What a person sees of a grid: a live table on a terminal, lines now and then elsewhere."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from safemesa.core.errors import SafemesaError
from safemesa.experiments.grid.executors.supervise import Watcher
from safemesa.experiments.grid.executors.worker_tasks import Advanced, PhaseStarted, Warned

LINE_SECONDS = 30.0
"""Between lines about the whole, where standard error is no terminal."""

SHOWN_WAITING = 3
"""Rows of the live table for what comes next."""


@dataclass(kw_only=True)
class Row:
    """One process' work."""

    name: str
    arm: str
    domain: str
    seeds: str
    state: str = "waiting"
    phase: str = ""
    total: int = 0
    done: int = 0
    restarts: int = 0
    first: int = 0
    phase_began: float = 0.0
    began: float = 0.0
    seconds: float = 0.0
    error: SafemesaError | None = None

    @property
    def position(self) -> str:
        """Steps done, of how many where that is known."""
        return f"{self.done}/{self.total}" if self.total else str(self.done)

    @property
    def line(self) -> str:
        """What it does, with steps per second and time left once these are known."""
        text = f"{self.name} {self.phase} {self.position}"
        if self.left is None:
            return text
        return f"{text}, {self.rate:.3g}/s, {_duration(self.left)} left"

    @property
    def rate(self) -> float:
        """Steps of the phase per second."""
        elapsed = time.monotonic() - self.phase_began
        return (self.done - self.first) / elapsed if elapsed > 0.0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to the end of the phase."""
        return (self.total - self.done) / self.rate if self.total and self.rate > 0.0 else None


class Board(Watcher):
    """Shows rows; `with board:` while there is something to see."""

    def __init__(self, rows: Sequence[Row], finished_before: int = 0) -> None:
        """`finished_before` runs of the grid are done already and have no row."""
        self.rows = {row.name: row for row in rows}
        self.finished_before, self.most_at_once = finished_before, 1
        self.warnings: dict[str, int] = {}
        self._began = self._last_line = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> "Board":
        if sys.stderr.isatty():
            console = Console(stderr=True)
            self._live = Live(console=console, get_renderable=self.table, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        for text, count in self.warnings.items():
            times = f" ({count} times)" if count > 1 else ""
            print(f"safemesa: WARNING{times} {text}", file=sys.stderr)

    def started(self, name: str) -> None:
        """The row is at work."""
        row = self.rows[name]
        row.state, row.phase, row.began = "running", "starting", time.monotonic()
        running = sum(one.state == "running" for one in self.rows.values())
        self.most_at_once = max(self.most_at_once, running)

    def told(self, name: str, message: Any) -> None:
        """Moves the row."""
        row = self.rows[name]
        match message:
            case PhaseStarted(phase, total, done):
                row.phase, row.total, row.done, row.first = phase, total, done, done
                row.phase_began = time.monotonic()
            case Advanced(done):
                row.done = done
            case Warned(text):
                self.warnings[text] = self.warnings.get(text, 0) + 1

    def died(self, name: str, exitcode: int) -> None:
        """The row waits for its next process."""
        row = self.rows[name]
        row.state, row.restarts = "waiting", row.restarts + 1
        self._say(f"{name}: its process died (exit code {exitcode}); it is started again.")

    def ended(self, name: str, error: SafemesaError | None) -> None:
        """The row is done or has failed."""
        row = self.rows[name]
        row.seconds = time.monotonic() - row.began
        row.state, row.error = "done" if error is None else "failed", error
        detail = f"failed: {error}" if error is not None else f"done in {_duration(row.seconds)}."
        self._say(f"{name}: {detail}")

    def tick(self) -> None:
        """A line about the whole now and then."""
        if self._live is None and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            running = [row for row in self.rows.values() if row.state == "running"]
            each = "; ".join(row.line for row in running)
            self._say(f"{self.totals()} {each}")

    def totals(self) -> str:
        """The whole in a line."""
        states = [row.state for row in self.rows.values()]
        done = states.count("done") + self.finished_before
        parts = [f"{done}/{len(states) + self.finished_before} done"]
        parts += [
            f"{states.count(state)} {state}"
            for state in ("running", "waiting", "failed")
            if state in states
        ]
        left = self.time_left()
        parts += [f"about {_duration(left)} left"] if left is not None else []
        elapsed = _duration(time.monotonic() - self._began)
        return f"{', '.join(parts)} after {elapsed}."

    def time_left(self) -> float | None:
        """Seconds to the end of the grid, from the mean of what ended; None before the first."""
        ended = [row.seconds for row in self.rows.values() if row.state == "done"]
        if not ended:
            return None
        mean, now = sum(ended) / len(ended), time.monotonic()
        left = 0.0
        for row in self.rows.values():
            if row.state == "waiting":
                left += mean
            elif row.state == "running":
                left += max(mean - (now - row.began), row.left or 0.0)
        return left / self.most_at_once

    def table(self) -> Table:
        """Rows at work, that failed, and that come next."""
        shown = Table(caption=self.totals(), expand=False)
        for title in ("arm", "domain", "seed", "phase", "done", "rate", "left"):
            right = title in ("done", "rate", "left")
            shown.add_column(title, justify="right" if right else "left")
        waiting = [row for row in self.rows.values() if row.state == "waiting"][:SHOWN_WAITING]
        for row in self.rows.values():
            if row.state == "running":
                again = f" (restarted {row.restarts}x)" if row.restarts else ""
                progress, rate, left = "", "", ""
                if row.phase != "starting":
                    progress, rate = row.position, f"{row.rate:.3g}/s"
                    left = "" if row.left is None else _duration(row.left)
                cells = (row.phase + again, progress, rate, left)
            elif row.state == "failed" or row in waiting:
                cells = (row.state, "", "", "")
            else:
                continue
            shown.add_row(row.arm, row.domain, row.seeds, *cells)
        return shown

    def _say(self, text: str) -> None:
        """A line; above the live table if there is one."""
        if self._live is not None:
            self._live.console.print(text.strip(), markup=False, highlight=False)
        else:
            print(text.strip(), file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """`95` as `1 min 35 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
