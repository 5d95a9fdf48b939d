"""Topics of different rates become rows that are dt apart.

Samples arrive in chunks, roughly in the order of their time. A row is made as soon as no sample can
change it any more, and samples that no later row needs are forgotten: what is held is a chunk and
the span of `late` and `max_age`. Rows begin where every column has begun; they pause where nothing
at all was logged for longer than `gap`, and begin again, in a new rhythm, with the next sample.
All times are nanoseconds, int64.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

from safemesa.datasets.importers.resample_map import LARGEST, LINEAR, NEAREST, Rule

ROWS = 65_536
NONE_YET = -(2**62)


@dataclass(frozen=True, kw_only=True, eq=False)
class GridRows:
    """Rows at `times` `[n]`; columns are float64 `[n]` or `[n, k]`, or objects `[n]` for text.

    What is missing is NaN, or None. `episode` numbers the episodes.
    """

    times: Int[np.ndarray, " n"]
    columns: Mapping[str, np.ndarray]
    episode: Int[np.ndarray, " n"]


@dataclass(eq=False)
class Lane:
    """Columns that share their times, such as all fields of a topic."""

    rules: Mapping[str, Rule]
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    values: dict[str, np.ndarray] = field(default_factory=dict)
    begins: dict[str, int] = field(default_factory=dict)
    """Where each column has its first value, as far as that is known."""
    _times: list[np.ndarray] = field(default_factory=list)
    _values: list[Mapping[str, np.ndarray]] = field(default_factory=list)

    def add(self, times: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Adds samples; they are put in order later."""
        if len(times):
            self._times.append(times)
            self._values.append(values)

    def merge(self) -> None:
        """Puts everything in the order of time; of samples at one time, the later one counts."""
        if not self._times:
            return
        times = np.concatenate([self.times, *self._times])
        parts = [self.values, *self._values] if self.values else self._values
        values = {name: np.concatenate([one[name] for one in parts]) for name in self.rules}
        if len(times) > 1 and (times[1:] < times[:-1]).any():
            order = np.argsort(times, kind="stable")
            times = times[order]
            values = {name: column[order] for name, column in values.items()}
        self.times, self.values = times, values
        self._times, self._values = [], []

    def trim(self, now: int) -> None:
        """Forgets what no row after `now` reads: all before the last sample until then."""
        first = int(np.searchsorted(self.times, now, "right")) - 1
        if first > 0:
            self.times = self.times[first:].copy()
            self.values = {name: column[first:].copy() for name, column in self.values.items()}

    def clear(self) -> None:
        """Forgets everything."""
        self.times = self.times[:0]
        self.values, self.begins, self._times, self._values = {}, {}, [], []

    def wait(self, late: int) -> int:
        """How long a row waits for a sample that could still change it."""
        both = [one.max_age for one in self.rules.values() if one.method in (LINEAR, NEAREST)]
        return late + max(both, default=0)

    def begin(self, floor: int) -> int | None:
        """Where all columns have a value, at `floor` or later; None if one has none yet."""
        if not len(self.times):
            return None
        place = int(np.searchsorted(self.times, floor, "right"))
        for name, rule in self.rules.items():
            if name in self.begins:
                continue
            if place and floor - int(self.times[place - 1]) <= rule.max_age:
                self.begins[name] = floor
            elif place < len(self.times):
                self.begins[name] = int(self.times[place])
        return max(self.begins.values()) if len(self.begins) == len(self.rules) else None

    def tail(self, end: int) -> int:
        """`end`, or the last sample before it where a row after that would lack the next one."""
        place = int(np.searchsorted(self.times, end, "right"))
        last = int(self.times[place - 1]) if place else end
        ages = [one.max_age for one in self.rules.values() if one.method == LINEAR]
        return last if ages and end - last <= max(ages) else end

    def at(self, times: np.ndarray, dt: int) -> dict[str, np.ndarray]:
        """The columns at these times."""
        if not len(self.times):
            return {name: np.full(len(times), np.nan) for name in self.rules}
        after = np.searchsorted(self.times, times, "right")
        return {
            name: _resampled(self.times, self.values[name], times, after, rule, dt)
            for name, rule in self.rules.items()
        }


def _resampled(
    times: Int[np.ndarray, " samples"],
    values: np.ndarray,
    rows: Int[np.ndarray, " n"],
    after: Int[np.ndarray, " n"],
    rule: Rule,
    dt: int,
) -> np.ndarray:
    """One column at the times `rows`; `after` counts the samples at or before each."""
    before = np.maximum(after - 1, 0)
    following = np.minimum(after, len(times) - 1)
    age = rows - times[before]
    ahead = times[following] - rows
    known = (after > 0) & (age <= rule.max_age)
    comes = (after < len(times)) & (ahead <= rule.max_age)
    if rule.method == LINEAR:
        span = np.maximum(age + ahead, 1)
        weight = _column(np.where(age == 0, 0.0, age / span), values)
        with np.errstate(invalid="ignore", over="ignore"):
            mixed = values[before] * (1.0 - weight) + values[following] * weight
        exact = known & (age == 0)
        # At a sample its value counts alone, whatever comes next.
        mixed = np.where(_column(exact, values), values[before], mixed)
        return _masked(mixed, exact | (known & comes))
    if rule.method == NEAREST:
        takes_next = comes & (~known | (ahead < age))
        return _masked(values[np.where(takes_next, following, before)], known | comes)
    if rule.method == LARGEST:
        first = np.searchsorted(times, rows - dt, "right")
        found = values[before].copy()
        inside = np.flatnonzero(after - first > 1)
        if len(inside):
            # Pairs of (from, to), of which every second reduction is the one between two rows.
            bounds = np.stack([first[inside], after[inside]], axis=1).ravel()
            padded = np.concatenate([values, values[-1:]])
            found[inside] = np.maximum.reduceat(padded, bounds)[::2]
        return _masked(found, known)
    return _masked(values[before], known)


def _column(row: np.ndarray, values: np.ndarray) -> np.ndarray:
    return row if values.ndim == 1 else row[:, None]


def _masked(values: np.ndarray, known: Bool[np.ndarray, " n"]) -> np.ndarray:
    if known.all():
        return values
    values = values.copy()
    values[~known] = None if values.dtype == object else np.nan
    return values


class Resampler:
    """Rows from lanes of samples."""

    def __init__(
        self, lanes: Mapping[str, Mapping[str, Rule]], dt: float, late: int, gap: int, events: bool
    ) -> None:
        """`lanes` names columns and their rules; `events` says that episodes begin and end.

        `dt` is in nanoseconds, and need not be whole.
        """
        self.lanes = {key: Lane(rules=rules) for key, rules in lanes.items()}
        self._dt, self._late, self._gap = dt, late, gap
        self._events = events
        self._event_times: list[np.ndarray] = []
        self._event_values: list[np.ndarray] = []
        self._known_times = np.zeros(0, np.int64)
        self._known_states = np.zeros((0, 2), np.int64)
        """At each event: whether an episode lasts, and how many had begun."""
        self._state = (0, 0)
        self._restarts = 0
        self._start: int | None = None
        self._floor: int | None = None
        self._next = 0
        self._until = NONE_YET
        self.late_samples = 0
        """Samples that came after the rows that they belong to."""
        self.skipped = 0
        """Nanoseconds before rows could begin, the longest of all."""
        self.slowest = ""
        """The column that was waited for."""

    def add(self, key: str, times: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Adds samples to a lane."""
        if self._until > NONE_YET:
            self.late_samples += int(np.count_nonzero(times < self._until))
        self.lanes[key].add(times, values)

    def add_events(self, times: np.ndarray, running: np.ndarray) -> None:
        """Adds events: 1 where an episode lasts from there on, 2 where a new one begins, else 0."""
        self._event_times.append(times)
        self._event_values.append(running)

    def restart(self) -> None:
        """Forgets what was before the clock was restarted; the next rows are a new episode."""
        for lane in self.lanes.values():
            lane.clear()
        if len(self._known_states):
            # What was started or stopped after the last row counts too.
            running, count = self._known_states[-1].tolist()
            self._state = (running, count)
        self._known_times, self._known_states = self._known_times[:0], self._known_states[:0]
        self._start = self._floor = None
        self._until = NONE_YET
        self._restarts += 1

    def missing(self) -> list[str]:
        """Columns that have no value yet since the last pause."""
        return [
            name
            for lane in self.lanes.values()
            for name in lane.rules
            if not len(lane.times) or (self._start is None and name not in lane.begins)
        ]

    def rows(self, final: bool = False) -> Iterator[GridRows]:
        """The rows that are certain now; all of them if nothing more comes."""
        for lane in self.lanes.values():
            lane.merge()
        self._merge_events()
        every = [lane.times for lane in self.lanes.values() if len(lane.times)]
        if not every:
            return
        union = np.unique(np.concatenate(every))
        if not final:
            union = union[: int(np.searchsorted(union, self._ready(int(union[-1])), "left"))]
        if not len(union):
            return
        breaks = np.flatnonzero(union[1:] - union[:-1] > self._gap)
        pauses, resumes = union[breaks], union[breaks + 1]
        bound = int(union[-1])
        while self._begun(union, max(bound, self._stop(bound)) if final else bound):
            assert self._start is not None
            now = self._time(self._next)
            place = int(np.searchsorted(resumes, now, "right"))
            pauses_here = place < len(pauses)
            end = int(pauses[place]) if pauses_here else bound
            if pauses_here or final:
                end = self._stop(end)
            yield from self._until_row(end)
            if not pauses_here:
                break
            self._start, self._floor = None, int(resumes[place])
            for lane in self.lanes.values():
                lane.begins.clear()
        self._trim(bound)

    def _ready(self, latest: int) -> int:
        """Rows before this time are certain."""
        ready = []
        for lane in self.lanes.values():
            last = int(lane.times[-1]) if len(lane.times) else NONE_YET
            ready.append(max(last - self._late, latest - lane.wait(self._late)))
        if self._events:
            ready.append(latest - self._late)
        return min(ready)

    def _begun(self, union: np.ndarray, bound: int) -> bool:
        """Whether there is a rhythm for the next rows, and there are samples for them."""
        if self._start is None:
            floor = int(union[0]) if self._floor is None else self._floor
            self._floor = floor
            begins = {key: lane.begin(floor) for key, lane in self.lanes.items()}
            known = {key: one for key, one in begins.items() if one is not None}
            if len(known) < len(begins) or max(known.values()) > bound:
                return False
            slowest = max(known, key=lambda key: known[key])
            self._start, self._next = known[slowest], 0
            if self._start - floor > self.skipped:
                self.skipped = self._start - floor
                self.slowest = next(iter(self.lanes[slowest].rules))
        return self._time(self._next) <= bound

    def _stop(self, end: int) -> int:
        """The time until which there are rows, where nothing follows a sample at `end`.

        One more row has the contact that came after the last one, as a crash does that ends a log;
        except where a `linear` column would be missing in it.
        """
        methods = {rule.method for lane in self.lanes.values() for rule in lane.rules.values()}
        if LARGEST in methods and LINEAR not in methods:
            return end + round(self._dt) - 1
        return min(lane.tail(end) for lane in self.lanes.values())

    def _time(self, row: int) -> int:
        assert self._start is not None
        return self._start + round(row * self._dt)

    def _until_row(self, end: int) -> Iterator[GridRows]:
        assert self._start is not None
        while self._time(self._next) <= end:
            count = min(int((end - self._start) / self._dt) + 2 - self._next, ROWS)
            index = np.arange(self._next, self._next + count)
            times = self._start + np.rint(index * self._dt).astype(np.int64)
            times = times[times <= end]
            self._next += len(times)
            self._until = int(times[-1])
            yield from self._made(times)

    def _made(self, times: np.ndarray) -> Iterator[GridRows]:
        episode = np.full(len(times), self._restarts, np.int64)
        if self._events:
            place = np.searchsorted(self._known_times, times, "right") - 1
            states = np.concatenate([np.asarray([self._state], np.int64), self._known_states])
            states = states[place + 1]
            chosen = states[:, 0] > 0
            times, episode = times[chosen], episode[chosen] + states[chosen, 1] - 1
        columns: dict[str, np.ndarray] = {}
        if len(times):
            for lane in self.lanes.values():
                columns |= lane.at(times, round(self._dt))
            yield GridRows(times=times, columns=columns, episode=episode)

    def _merge_events(self) -> None:
        if not self._event_times:
            return
        times = np.concatenate(self._event_times)
        values = np.concatenate(self._event_values)
        order = np.argsort(times, kind="stable")
        running, count = self._known_states[-1] if len(self._known_states) else self._state
        states = []
        for value in values[order].tolist():
            count += value == 2 or (value == 1 and not running)
            running = int(value > 0)
            states.append((running, count))
        self._event_times, self._event_values = [], []
        self._known_times = np.maximum.accumulate(np.concatenate([self._known_times, times[order]]))
        self._known_states = np.concatenate(
            [self._known_states, np.asarray(states, np.int64).reshape(-1, 2)]
        )

    def _trim(self, bound: int) -> None:
        now = bound if self._start is None else min(self._until, bound)
        for lane in self.lanes.values():
            lane.trim(now)
        passed = int(np.searchsorted(self._known_times, now, "right"))
        if passed:
            running, count = self._known_states[passed - 1].tolist()
            self._state = (running, count)
            self._known_times = self._known_times[passed:]
            self._known_states = self._known_states[passed:]
