"""What all formats share whose logs are topics: columns by path, times, episodes, rows at dt.

A reader of one format says which topics there are (`tree`), and gives their messages in chunks
(`samples`); everything else is here.
"""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.datasets.findings import Finding, LogError
from safemesa.datasets.importers.describe import BOOLEAN, NUMBER, TEXT
from safemesa.datasets.importers.identity import labels
from safemesa.datasets.importers.import_map import STEPS, ColumnNames, ImportMap
from safemesa.datasets.importers.message_path import (
    Get,
    Leaf,
    Node,
    Path as MessagePath,
    find_path,
    list_columns,
    make_getter,
)
from safemesa.datasets.importers.plan import merge_maps
from safemesa.datasets.importers.resample import GridRows, Resampler
from safemesa.datasets.importers.resample_map import (
    HEADER,
    LAST,
    LOG,
    PUBLISH,
    ResampleMap,
    Rule,
    nanoseconds,
)
from safemesa.datasets.importers.source import (
    MAXIMUM_WIDTH,
    AbstractSource,
    Block,
    Declaration,
    no_column,
)

TIME, EPISODE = "time", "episode"
"""Columns that resampled rows have beside those of their messages."""
CHUNK_MESSAGES = 65_536
LATEST_TIME = 2**62
"""Nanoseconds; a clock beyond it (the year 2116) is damaged."""
SECONDS_FIELDS = ("sec", "secs", "seconds")
NANOSECONDS_FIELDS = ("nanosec", "nsec", "nsecs", "nanos")


@dataclass(frozen=True, kw_only=True, eq=False)
class TopicSamples:
    """Some messages of one topic: times in nanoseconds int64 `[n]`, and an array per path.

    `absent` says where a message had nothing to say about a path.
    """

    topic: str
    times: np.ndarray
    values: Mapping[str, np.ndarray]
    absent: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """Consecutive messages of the file, by topic."""

    samples: Sequence[TopicSamples]
    restarted: str = ""
    """What ran backwards before this chunk; empty if nothing did."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TopicRequest:
    """What is read of a topic, and which of its times counts."""

    topic: str
    paths: tuple[MessagePath, ...]
    """Empty where only the times matter."""
    clock: str


class TopicColumns(Mapping[str, int | None]):
    """Widths of all columns that a path can name; iteration lists those of plain fields."""

    def __init__(self, topics: Mapping[str, Node]) -> None:
        self.topics = topics

    def __getitem__(self, name: str) -> int | None:
        if name in (TIME, EPISODE):
            return None
        path = find_path(name, self.topics)
        if path is None:
            raise KeyError(name)
        return path.width

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (
            name in (TIME, EPISODE) or find_path(name, self.topics) is not None
        )

    def __iter__(self) -> Iterator[str]:
        for topic, node in self.topics.items():
            for one in list_columns(topic, node):
                yield one.name

    def __len__(self) -> int:
        return sum(1 for _ in self)


class TopicSource(AbstractSource):
    """A log of topics. Rows count from 0, in the order of time."""

    advice = (
        "A column is a topic and the way to a field: /odom.twist.twist.linear.x, or "
        "/joint_states.position[wrist] for a named component."
    )
    clocks: tuple[str, ...] = (LOG, HEADER)
    """Times that messages have beside those in their fields."""
    default_clock: str | None = None
    complete: bool = True
    """Whether every message has every field of its type."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        self.path = path
        self._map = mapping

    @abc.abstractmethod
    def tree(self) -> Mapping[str, Node]:
        """Topics that can be read, and what their messages hold."""

    @abc.abstractmethod
    def unread_topics(self) -> tuple[str, ...]:
        """Topics that cannot."""

    @abc.abstractmethod
    def samples(self, requests: Sequence[TopicRequest], late: int) -> Iterator[Chunk]:
        """Messages of these topics; `late` nanoseconds back, a clock was restarted."""

    def widths(self) -> Mapping[str, int | None]:
        return TopicColumns(self.tree())

    def rows(self) -> int | None:
        return None

    def declaration(self) -> Declaration:
        names = self._map.columns
        if names.time is not None:
            raise ConfigurationError(
                f"{self.path}: the map has a time column, but rows of a log of topics are made at "
                "times that are dt apart. Remove [columns] time; [resample] time says which time "
                "of a message counts."
            )
        if self._map.rows == STEPS:
            raise ConfigurationError(
                f'{self.path}: the map says rows = "steps", but topics are sampled at moments: '
                'expected rows = "states", where the next row shows what an action led to.'
            )
        if self._map.time_scale != 1.0:
            raise ConfigurationError(
                f"{self.path}: time_scale is {self._map.time_scale}, but times of messages are "
                "known to the nanosecond. Remove it."
            )
        unread = self.unread_topics()
        if unread:
            shown = ", ".join(map(repr, unread[:20]))
            self.advice = f"{type(self).advice} Topics of types that cannot be read: {shown}."
        return Declaration(
            layout=ImportMap(
                rows="states", columns=ColumnNames(time=TIME, episode=names.episode or EPISODE)
            ),
            unread=unread,
        )

    def leftovers(self, used: set[str]) -> tuple[str, ...]:
        """Topics of which nothing is read."""
        topics = self.tree()
        paths = [find_path(name, topics) for name in used]
        known = {path.topic for path in paths if path is not None} | used
        known |= {one.topic for one in self._event_requests() if one is not None}
        return tuple(one for one in (*topics, *self.unread_topics()) if one not in known)

    def blocks(self, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Block]:
        resample = self._resample()
        merged = merge_maps(self._map, self.declaration().layout)
        assert merged.dt is not None
        paths = self._paths([*numbers, *texts])
        rules = {name: self._rule(resample, path, name in texts) for name, path in paths.items()}
        lanes: dict[str, dict[str, Rule]] = {}
        for name, path in paths.items():
            lanes.setdefault(_lane(path), {})[name] = rules[name]
        events = self._event_requests()
        gap = resample.gap or max(resample.max_age or 0.0, 2 * merged.dt)
        if gap <= merged.dt:
            raise ConfigurationError(
                f"{self.path}: [resample] gap is {gap} s, and rows are {merged.dt} s apart; "
                "expected more."
            )
        resampler = Resampler(
            lanes,
            merged.dt * 1e9,
            nanoseconds(resample.late),
            nanoseconds(gap),
            any(one is not None for one in events),
        )
        made, named = 0, merged.columns.episode or EPISODE
        late = nanoseconds(resample.late)
        for chunk in self.samples(self._requests(paths, resample), late):
            if chunk.restarted:
                if resample.restart == "error":
                    raise LogError(
                        "clock-restarted",
                        f"{self.path}: {chunk.restarted}. Declare [resample] restart = "
                        '"split" if its clock was restarted (a new episode begins there), '
                        "another `time` if this one is not filled in, or more seconds of `late` "
                        "if messages come out of order.",
                    )
                for rows in resampler.rows(final=True):
                    yield _block(rows, numbers, texts, made, named)
                    made += len(rows.times)
                resampler.restart()
            self._feed(resampler, chunk, paths, events)
            if chunk.findings:
                yield self._told(numbers, texts, chunk.findings)
            for rows in resampler.rows():
                yield _block(rows, numbers, texts, made, named)
                made += len(rows.times)
        for rows in resampler.rows(final=True):
            yield _block(rows, numbers, texts, made, named)
            made += len(rows.times)
        yield self._told(numbers, texts, list(self._findings(resampler, made)))

    def _told(
        self, numbers: Sequence[str], texts: Sequence[str], findings: Sequence[Finding]
    ) -> Block:
        """Findings that belong to no row."""
        columns = {name: np.zeros(0) for name in numbers} | {
            name: np.zeros(0, np.str_) for name in texts
        }
        return Block(columns=columns, rows=np.zeros(0, np.int64), findings=tuple(findings))

    def _findings(self, resampler: Resampler, made: int) -> Iterator[Finding]:
        where = str(self.path)
        if not made:
            missing = resampler.missing()
            if missing:
                raise LogError(
                    "empty-log",
                    f"{where}: there is no row, because nothing was logged of "
                    f"{', '.join(map(repr, missing[:6]))}. Correct the map, or leave it out.",
                )
            raise LogError(
                "empty-log",
                f"{where}: there is no row: no episode was started while all topics were logged. "
                "Look at start, stop and running under [resample].",
            )
        if resampler.late_samples:
            yield Finding(code="late-message", file=where, count=resampler.late_samples)
        # Topics never begin at the same moment; what is worth saying is longer than a value stands.
        resample = self._resample()
        if resampler.skipped > nanoseconds(resample.max_age or 0.0):
            detail = f"{resampler.skipped / 1e9:.6g} s"
            yield Finding(code="late-start", file=where, column=resampler.slowest, detail=detail)

    def _resample(self) -> ResampleMap:
        if self._map.resample is None:
            raise ConfigurationError(
                f"{self.path}: its topics have rates of their own, and the map does not say how "
                "they become rows. Declare [resample]: max_age (seconds for which a value "
                'stands), time ("log" or "header") and method ("last", "linear", "nearest").'
            )
        return self._map.resample

    def _paths(self, names: Sequence[str]) -> dict[str, MessagePath]:
        topics, found = self.tree(), {}
        for name in dict.fromkeys(names):
            if name in (TIME, EPISODE):
                continue
            path = find_path(name, topics)
            if path is None:
                raise no_column([name], self.widths(), self.path)
            if (path.width or 0) > MAXIMUM_WIDTH:
                raise DatasetError(f"{self.path}: {name!r} has {path.width} numbers per message.")
            found[name] = path if self.complete else replace(path, optional=True)
        return found

    def _rule(self, resample: ResampleMap, path: MessagePath, is_text: bool) -> Rule:
        rule = resample.rule(path.text, path.topic, str(self.path))
        if is_text:
            return replace(rule, method=LAST)
        if path.leaf.kind == TEXT:
            raise DatasetError(
                f"{self.path}: {path.text!r} holds texts ({path.leaf.type}), expected numbers."
            )
        return rule

    def _requests(
        self, paths: Mapping[str, MessagePath], resample: ResampleMap
    ) -> list[TopicRequest]:
        wanted: dict[str, list[MessagePath]] = {}
        for path in paths.values():
            wanted.setdefault(path.topic, []).append(path)
        for event in self._event_requests():
            if event is not None:
                wanted.setdefault(event.topic, []).extend(
                    one for one in event.paths if one not in wanted.get(event.topic, [])
                )
        return [
            TopicRequest(topic=topic, paths=tuple(found), clock=self._clock(resample, topic))
            for topic, found in wanted.items()
        ]

    def _clock(self, resample: ResampleMap, topic: str) -> str:
        if resample.time is None and self.default_clock is not None:
            resample = replace(resample, time=self.default_clock)
        clock = resample.clock(topic, str(self.path))
        if clock in (LOG, PUBLISH) and clock not in self.clocks:
            raise ConfigurationError(
                f"{self.path}: [resample] time is {clock!r}, which this format does not have. "
                f"Expected one of {', '.join(map(repr, self.clocks))}, or a field of the message."
            )
        if clock not in (LOG, PUBLISH) and clock_fields(clock, self.tree()[topic]) is None:
            raise ConfigurationError(
                f"{self.path}: messages of {topic!r} have no {clock!r} that holds a time. Declare "
                f'[resample.topics."{topic}"] time = "log".'
            )
        return clock

    def _event_requests(self) -> tuple[TopicRequest | None, TopicRequest | None]:
        """What starts and stops episodes; the first alone where a field says `running`."""
        resample = self._map.resample
        if resample is None:
            return None, None
        if resample.running is not None:
            return self._event("running", resample.running, bare=False), None
        return (
            None if resample.start is None else self._event("start", resample.start),
            None if resample.stop is None else self._event("stop", resample.stop),
        )

    def _event(self, key: str, text: str, bare: bool = True) -> TopicRequest:
        topics = self.tree()
        if bare and text in topics:
            return TopicRequest(topic=text, paths=(), clock="")
        path = find_path(text, topics)
        if path is not None and not self.complete:
            path = replace(path, optional=True)
        if path is None or path.width is not None or path.leaf.kind == TEXT:
            names = list(topics)
            raise LogError(
                "missing-column",
                f"{self.path}: [resample] {key} is {text!r}, expected "
                f"{'a topic, or ' if bare else ''}the path of a number. Topics: "
                f"{', '.join(map(repr, names[:40]))}.",
            )
        return TopicRequest(topic=path.topic, paths=(path,), clock="")

    def _feed(
        self,
        resampler: Resampler,
        chunk: Chunk,
        paths: Mapping[str, MessagePath],
        events: tuple[TopicRequest | None, TopicRequest | None],
    ) -> None:
        by_topic: dict[str, list[str]] = {}
        for name, path in paths.items():
            by_topic.setdefault(path.topic, []).append(name)
        running = self._map.resample is not None and self._map.resample.running is not None
        for one in chunk.samples:
            shared = [name for name in by_topic.get(one.topic, ()) if not paths[name].optional]
            if shared:
                values = {name: one.values[name] for name in shared}
                resampler.add(one.topic, one.times, values)
            for name in by_topic.get(one.topic, ()):
                if paths[name].optional:
                    absent = one.absent.get(name)
                    times, values = one.times, one.values[name]
                    if absent is not None and absent.any():
                        times, values = times[~absent], values[~absent]
                    resampler.add(name, times, {name: values})
            for event, code in zip(events, (1 if running else 2, 0), strict=True):
                if event is not None and event.topic == one.topic:
                    _add_events(resampler, one, event, code)


def _add_events(resampler: Resampler, one: TopicSamples, event: TopicRequest, code: int) -> None:
    """Messages that start (2) or stop (0) an episode, or say whether one lasts (1)."""
    if not event.paths:
        resampler.add_events(one.times, np.full(len(one.times), code, np.int64))
        return
    values = one.values[event.paths[0].text].astype(np.float64)
    known = ~np.isnan(values)
    times, holds = one.times[known], values[known] != 0
    if code == 1:
        resampler.add_events(times, holds.astype(np.int64))
    else:
        resampler.add_events(times[holds], np.full(int(holds.sum()), code, np.int64))


def _lane(path: MessagePath) -> str:
    """Columns share their times where all messages of the topic have them."""
    return path.text if path.optional else path.topic


def _block(
    rows: GridRows, numbers: Sequence[str], texts: Sequence[str], first: int, episode: str
) -> Block:
    """Rows as a block; `episode` is the column that names episodes."""
    made = {TIME: rows.times / 1e9, EPISODE: rows.episode.astype(np.float64), **rows.columns}
    columns = {name: made[name] for name in numbers}
    for name in texts:
        columns[name] = labels(made[name])
        if name == episode != EPISODE:
            columns[name] = _after_restarts(columns[name], rows.episode)
    return Block(columns=columns, rows=np.arange(first, first + len(rows.times), dtype=np.int64))


def _after_restarts(names: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Names of episodes, told apart where a clock was restarted amid one name."""
    if not episode.any():
        return names
    pairs = zip(names.tolist(), episode.tolist(), strict=True)
    return np.asarray([f"{name}+{part}" if name and part else name for name, part in pairs])


def clock_fields(clock: str, node: Node) -> tuple[MessagePath, MessagePath | None] | None:
    """The fields of a message that hold its time: seconds and nanoseconds, or one number.

    `clock` is `header`, or the path of a field within the message.
    """
    where = "header.stamp" if clock == HEADER else clock
    topics = {"": node}
    single = find_path(f".{where}", topics)
    if single is not None and single.width is None and single.leaf.kind != TEXT:
        return single, None
    found = [
        next((path for name in names if (path := find_path(f".{where}.{name}", topics))), None)
        for names in (SECONDS_FIELDS, NANOSECONDS_FIELDS)
    ]
    seconds, nanos = found
    if seconds is not None and nanos is not None:
        return seconds, nanos
    return None


def make_clock(clock: str, node: Node, get: Get, plain: bool) -> Callable[[Any], int] | None:
    """A function from a message to its time in nanoseconds; None where the file keeps it.

    A single number counts seconds.
    """
    if clock in (LOG, PUBLISH):
        return None
    fields = clock_fields(clock, node)
    assert fields is not None
    seconds, nanos = fields
    if nanos is None:
        read_one = make_getter([seconds], get, plain)

        def single(message: Any) -> int:
            (value,) = read_one(message)
            return round(float(value) * 1e9)

        return single
    read_both = make_getter([seconds, nanos], get, plain)

    def both(message: Any) -> int:
        whole, part = read_both(message)
        return int(whole) * 1_000_000_000 + int(part)

    return both


class Collector:
    """Gathers messages of topics into chunks, as formats do that hold one message after the other.

    `add` takes what was decoded; `flush` gives what was gathered.
    """

    def __init__(
        self,
        path: Path,
        requests: Sequence[TopicRequest],
        trees: Mapping[str, Node],
        late: int,
        get: Callable[[str], tuple[Get, bool]],
    ) -> None:
        """`get(topic)` says how fields of its messages are read, and whether that is plain."""
        self.path = path
        self._late = late
        self._lanes: dict[str, _TopicBuffer] = {}
        for one in requests:
            how, plain = get(one.topic)
            self._lanes[one.topic] = _TopicBuffer(
                request=one,
                read=make_getter(one.paths, how, plain) if one.paths else None,
                clock=make_clock(one.clock, trees[one.topic], how, plain),
            )
        self._count = 0

    def chunks(self, messages: Iterator[tuple[str, int, int, Any]]) -> Iterator[Chunk]:
        """Chunks of (topic, time of the log, time of publishing, decoded message)."""
        restarted = ""
        for topic, logged, published, message in messages:
            lane = self._lanes[topic]
            time = lane.time(logged, published, message, self.path)
            if time < lane.latest - self._late:
                yield self._flush(restarted)
                restarted = (
                    f"{topic!r}: the time of a message ({lane.request.clock}) is {time / 1e9:.6g} "
                    f"s, before it was {lane.latest / 1e9:.6g} s"
                )
                for one in self._lanes.values():
                    one.latest = -LATEST_TIME
            if time > lane.latest:
                lane.latest = time
            lane.add(time, message, self.path)
            self._count += 1
            if self._count >= CHUNK_MESSAGES:
                yield self._flush(restarted)
                restarted = ""
        yield self._flush(restarted)

    def _flush(self, restarted: str) -> Chunk:
        self._count = 0
        samples = [lane.take(self.path) for lane in self._lanes.values() if lane.times]
        return Chunk(samples=samples, restarted=restarted)


@dataclass(eq=False)
class _TopicBuffer:
    """Messages of one topic that wait to be flushed."""

    request: TopicRequest
    read: Callable[[Any], tuple[Any, ...]] | None
    clock: Callable[[Any], int] | None
    times: list[int] = field(default_factory=list)
    values: list[tuple[Any, ...]] = field(default_factory=list)
    latest: int = -LATEST_TIME
    count: int = 0

    def time(self, logged: int, published: int, message: Any, path: Path) -> int:
        """Of one message, in nanoseconds."""
        if self.clock is None:
            time = published if self.request.clock == PUBLISH else logged
        else:
            try:
                time = self.clock(message)
            except Exception as error:
                raise self.unreadable(path, f"its time ({self.request.clock}): {error}") from error
        if not -LATEST_TIME < time < LATEST_TIME:
            raise self.unreadable(path, f"its time is {time} ns")
        return time

    def add(self, time: int, message: Any, path: Path) -> None:
        """Keeps what is wanted of one message."""
        self.times.append(time)
        if self.read is not None:
            try:
                self.values.append(self.read(message))
            except Exception as error:
                raise self.unreadable(path, str(error)) from error
        self.count += 1

    def take(self, path: Path) -> TopicSamples:
        """Everything that was kept, as arrays."""
        times = np.asarray(self.times, np.int64)
        values: dict[str, np.ndarray] = {}
        absent: dict[str, np.ndarray] = {}
        columns = zip(*self.values, strict=True) if self.values else ()
        for one, column in zip(self.request.paths, columns, strict=False):
            values[one.text] = self._array(one, column, path)
            if one.optional:
                absent[one.text] = np.asarray([value is None for value in column])
        self.times, self.values = [], []
        return TopicSamples(topic=self.request.topic, times=times, values=values, absent=absent)

    def _array(self, one: MessagePath, column: Sequence[Any], path: Path) -> np.ndarray:
        if one.leaf.kind == TEXT:
            made = np.empty(len(column), object)
            made[:] = [_text(value) for value in column]
            return made
        try:
            if one.width is not None:
                empty = np.full(one.width, np.nan)
                column = [empty if value is None else value for value in column]
            made = np.asarray(column, np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise self.unreadable(path, f"{one.text!r}: {error}") from error
        expected = (len(column),) if one.width is None else (len(column), one.width)
        if made.shape != expected:
            raise self.unreadable(path, f"{one.text!r} has other lengths than {one.width}")
        return made

    def unreadable(self, path: Path, reason: str) -> DatasetError:
        """The error that names the topic and the place in it."""
        return unreadable_message(path, self.request.topic, self.count, reason)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def unreadable_message(path: Path, topic: str, number: int, reason: str) -> DatasetError:
    """The error of a message that cannot be decoded."""
    reason = " ".join(reason.split())[:200]
    return LogError(
        "unreadable-file",
        f"{path}: topic {topic!r}, about message {number}: cannot be read: {reason}. The file is "
        "damaged, or its description is of another type. Restore it, or leave the topic out.",
    )


def leaf_kind(type_name: str) -> Leaf:
    """A leaf by the name of its type, as ROS, protobuf and ULog call them."""
    kind = NUMBER
    if type_name in ("string", "wstring", "bytes"):
        kind = TEXT
    elif type_name == "bool":
        kind = BOOLEAN
    return Leaf(kind, type_name)


def topic_rate(count: int, start: float, stop: float) -> float | None:
    """Messages per second over a whole log."""
    return (count - 1) / (stop - start) if count > 1 and stop > start else None
