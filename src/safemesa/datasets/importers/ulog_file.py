"""PX4 ULog files through pyulog (extra `robots`).

A topic is a logged message, `vehicle_attitude`; further instances are `sensor_accel:1`. Times are
the `timestamp` of each message. The library passes over damage in silence, so the file is walked
over first: it is whole but for its last message, and its formats are those of real messages. That
walk is also what `describe()` reads. The library holds the topics that are used, of one file at a
time.
"""

import contextlib
import io
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.findings import Finding, LogError
from safemesa.datasets.importers.describe import LogDescription, TopicDescription
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.message_path import (
    Array,
    Node,
    Path as MessagePath,
    Record,
    list_columns,
    parse_steps,
)
from safemesa.datasets.importers.resample_map import LOG
from safemesa.datasets.importers.source import reading
from safemesa.datasets.importers.topics import (
    CHUNK_MESSAGES,
    LATEST_TIME,
    Chunk,
    TopicRequest,
    TopicSamples,
    TopicSource,
    leaf_kind,
    topic_rate,
)

MAGIC = b"ULog\x01\x12\x35"
SIZES = {
    "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4,
    "int64_t": 8, "uint64_t": 8, "float": 4, "double": 8, "bool": 1, "char": 1,
}  # fmt: skip
KNOWN_KINDS = frozenset(b"FDIMPQARSOLCB")
FIXED_LENGTHS = {ord("O"): 2, ord("S"): 8}
LARGEST_MESSAGE = 65_535
LARGEST_UNKNOWN = 10_000
"""Bytes of a message of a kind that is not known; the library takes larger ones for damage."""
MAXIMUM_FORMATS = 5_000
MAXIMUM_DEPTH = 8
MICROSECOND = 1_000
LATEST_STAMP = LATEST_TIME // MICROSECOND
_FIELD = re.compile(r"([A-Za-z_][\w-]*)(?:\[(\d{1,5})\])? ([A-Za-z_][\w]*)")


@dataclass(frozen=True, slots=True)
class _Field:
    type: str
    length: int | None
    name: str


@dataclass(eq=False)
class _Topic:
    """One instance of a message: what the walk over the file counts."""

    format: str
    instance: int
    size: int = 0
    least: int = 0
    """Its size without padding at the end, which is not logged."""
    stamp: int = 0
    """Where its timestamp is."""
    count: int = 0
    first: int = 0
    last: int = 0


@dataclass(eq=False)
class _Survey:
    """What the walk over a file finds."""

    formats: dict[str, list[_Field]] = field(default_factory=dict)
    topics: dict[str, _Topic] = field(default_factory=dict)
    dropouts: list[int] = field(default_factory=list)
    """Milliseconds of each."""
    by_number: dict[int, _Topic] = field(default_factory=dict)
    cut: str = ""
    """Where the file ends amid a message, in words; empty if it does not."""


class ULogSource(TopicSource):
    """One file."""

    clocks = (LOG,)
    default_clock = LOG
    advice = (
        "A column is a message and the way to a field: vehicle_attitude.q[0], or sensor_accel:1.x "
        "of the second instance."
    )

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        super().__init__(path, mapping)
        self._pyulog = import_extra("pyulog", "robots")
        with reading(path):
            self._survey = _walk(path)
        self._trees: dict[str, Node] = {
            name: self._record(topic.format) for name, topic in self._survey.topics.items()
        }

    def _record(self, name: str) -> Record:
        def make() -> dict[str, Node]:
            found: dict[str, Node] = {}
            for one in self._survey.formats[name]:
                if one.name.startswith("_padding") or (one.type == "char" and one.length):
                    continue
                node = leaf_kind(one.type) if one.type in SIZES else self._record(one.type)
                found[one.name] = node if one.length is None else Array(node, one.length)
            return found

        return Record(make, name)

    def tree(self) -> Mapping[str, Node]:
        return self._trees

    def unread_topics(self) -> tuple[str, ...]:
        return ()

    def samples(self, requests: Sequence[TopicRequest], late: int) -> Iterator[Chunk]:
        findings, where = [], str(self.path)
        lost = self._survey.dropouts
        if lost:
            detail = f"{sum(lost)} ms in all, the longest {max(lost)} ms"
            findings.append(
                Finding(code="lost-messages", file=where, count=len(lost), detail=detail)
            )
        if self._survey.cut:
            findings.append(Finding(code="cut-off", file=where, detail=self._survey.cut))
        yield Chunk(samples=(), findings=tuple(findings))
        everything = self._read(requests)
        runs = {one.topic: _runs(one.times, late) for one in everything}
        count = max((len(one) for one in runs.values()), default=0)
        uneven = [topic for topic, found in runs.items() if len(found) != count]
        if uneven:
            other = next(topic for topic in runs if topic not in uneven)
            raise LogError(
                "clock-restarted",
                f"{self.path}: the time of {other!r} runs backwards, that of {uneven[0]!r} does "
                "not, so that nobody knows which messages belong together. Leave one out.",
            )
        for number in range(count):
            parts = [_taken(one, runs[one.topic][number]) for one in everything]
            yield from _windows(parts, f"its clock starts again (part {number + 1})", number)

    def _read(self, requests: Sequence[TopicRequest]) -> list[TopicSamples]:
        names = {self._survey.topics[one.topic].format for one in requests}
        with contextlib.redirect_stdout(io.StringIO()):
            log = self._pyulog.ULog(str(self.path), sorted(names), False)
        if log.file_corruption:
            raise DatasetError(f"{self.path} is damaged: some of its messages cannot be read.")
        found = {(one.name, one.multi_id): one.data for one in log.data_list}
        samples = []
        for request in requests:
            topic = self._survey.topics[request.topic]
            data = found.get((topic.format, topic.instance))
            read = 0 if data is None else len(data["timestamp"])
            if read != topic.count:
                raise LogError(
                    "lengths-differ",
                    f"{self.path}: topic {request.topic!r} has {topic.count} messages, of which "
                    f"{read} can be read: it was subscribed to twice, or its number was used for "
                    "another topic. Leave the topic out.",
                )
            if data is not None:
                samples.append(self._samples(request, data))
        return samples

    def _samples(self, request: TopicRequest, data: Mapping[str, np.ndarray]) -> TopicSamples:
        if request.clock == LOG:
            stamps = data["timestamp"]
        else:
            steps = parse_steps(f".{request.clock}")
            assert steps is not None
            stamps = data[_flat(steps)]
        if len(stamps) and not 0 <= float(stamps.max()) < LATEST_STAMP:
            raise DatasetError(
                f"{self.path}: topic {request.topic!r}: a time is {stamps.max()} microseconds."
            )
        times = stamps.astype(np.int64) * MICROSECOND
        values = {one.text: self._values(one, data) for one in request.paths}
        return TopicSamples(
            topic=request.topic,
            times=times,
            values=values,
            absent={
                one.text: np.zeros(len(times), np.bool_) for one in request.paths if one.optional
            },
        )

    @staticmethod
    def _values(one: MessagePath, data: Mapping[str, np.ndarray]) -> np.ndarray:
        name = _flat(one.steps)
        if one.width is None:
            return data[name].astype(np.float64)
        parts = [data[f"{name}[{index}]"].astype(np.float64) for index in range(one.width)]
        return np.stack(parts, axis=1)

    def describe(self) -> LogDescription:
        topics = self._survey.topics
        logged = [one for one in topics.values() if one.count]
        start = min((one.first for one in logged), default=None)
        stop = max((one.last for one in logged), default=None)
        return LogDescription(
            path=self.path,
            format="ulog",
            start=None if start is None else start / 1e6,
            stop=None if stop is None else stop / 1e6,
            topics=tuple(
                TopicDescription(
                    name=name,
                    type=one.format,
                    count=one.count,
                    rate=topic_rate(one.count, one.first / 1e6, one.last / 1e6),
                    columns=list_columns(name, self._trees[name]),
                )
                for name, one in topics.items()
            ),
        )


def _flat(steps: Sequence[Any]) -> str:
    """A path as the library names its columns: `esc[0].esc_rpm`."""
    parts = [f".{one}" if isinstance(one, str) else f"[{one}]" for one in steps]
    return "".join(parts).removeprefix(".")


def _runs(times: np.ndarray, late: int) -> list[np.ndarray]:
    """Places of the messages between two restarts of the clock, each in the order of time."""
    cuts = np.flatnonzero(times[1:] < times[:-1] - late) + 1
    return [
        part[np.argsort(times[part], kind="stable")]
        for part in np.split(np.arange(len(times)), cuts)
    ]


def _taken(one: TopicSamples, index: np.ndarray) -> TopicSamples:
    return TopicSamples(
        topic=one.topic,
        times=one.times[index],
        values={name: values[index] for name, values in one.values.items()},
        absent={name: values[index] for name, values in one.absent.items()},
    )


def _windows(parts: Sequence[TopicSamples], restarted: str, number: int) -> Iterator[Chunk]:
    """Samples of all topics, in chunks of the same stretch of time."""
    every = np.sort(np.concatenate([one.times for one in parts]))
    edges = [*every[CHUNK_MESSAGES::CHUNK_MESSAGES].tolist(), LATEST_TIME]
    places = {one.topic: 0 for one in parts}
    for index, edge in enumerate(edges):
        samples = []
        for one in parts:
            stop = int(np.searchsorted(one.times, edge, "left"))
            samples.append(_taken(one, np.arange(places[one.topic], stop)))
            places[one.topic] = stop
        yield Chunk(samples=samples, restarted=restarted if number and not index else "")


def _walk(path: Path) -> _Survey:
    """Walks over all messages of a file, without reading their fields.

    Raises:
        DatasetError: it is damaged; the byte is named.
    """
    found = _Survey()
    size = path.stat().st_size
    appended: list[int] = []
    with open(path, "rb") as file:
        head = file.read(16)
        if not head.startswith(MAGIC) or len(head) < 16:
            raise DatasetError(
                f"{path} does not begin as a ULog file does. It is damaged, or of another kind."
            )
        place = 16
        while place < size:
            head = file.read(3)
            if len(head) < 3:
                found.cut = _cut(found, head, b"", path, place)
                break
            length, kind = struct.unpack("<HB", head)
            following = place + 3 + length
            if appended and following > appended[0]:
                # What was written before a crash may end amid a message; the crash log follows.
                place = appended.pop(0)
                file.seek(place)
                continue
            data = file.read(length)
            if following > size:
                found.cut = _cut(found, head, data, path, place)
                break
            if kind == ord("B"):
                appended = _appended(data, path, size)
            elif kind in _HANDLERS:
                _HANDLERS[kind](found, data, path, place)
            elif kind not in KNOWN_KINDS and (not kind or not 0 < length <= LARGEST_UNKNOWN):
                raise DatasetError(
                    f"{path} is damaged at byte {place}: there is no message of the kind {kind}."
                )
            place = following
    return found


def _cut(found: _Survey, head: bytes, data: bytes, path: Path, place: int) -> str:
    """What to say of a file whose last message begins at `place` and is not whole.

    Logs end so where the power was cut. A damaged length looks alike, so that what is there must be
    the beginning of a message that could have been logged.

    Raises:
        DatasetError: it is not, or nothing was logged before.
    """
    if not any(one.count for one in found.topics.values()):
        raise DatasetError(
            f"{path} is cut off at byte {place}, before anything was logged. Leave it out."
        )
    if len(head) == 3:
        length, kind = struct.unpack("<HB", head)
        known = kind in KNOWN_KINDS and length == FIXED_LENGTHS.get(kind, length)
        if kind == ord("D") and len(data) >= 2:
            topic = found.by_number.get(struct.unpack("<H", data[:2])[0])
            known = topic is not None and topic.least <= length - 2 <= topic.size
        if not known:
            raise DatasetError(
                f"{path} is damaged at byte {place}: there is no such message, and the file ends "
                "before it would. Restore it, or leave it out."
            )
    return f"at byte {place}, {len(head) + len(data)} bytes are left out"


def _appended(data: bytes, path: Path, size: int) -> list[int]:
    if len(data) < 40:
        raise DatasetError(f"{path} is damaged: its flags have {len(data)} bytes, expected 40.")
    if not data[8] & 1:
        return []
    offsets = [one for one in struct.unpack("<QQQ", data[16:40]) if one]
    if sorted(offsets) != offsets or any(not 16 < one <= size for one in offsets):
        raise DatasetError(f"{path} is damaged: it names appended data at bytes {offsets}.")
    return offsets


def _add_format(found: _Survey, data: bytes, path: Path, place: int) -> None:
    name, _, text = data.decode("ascii").partition(":")
    fields = []
    for one in text.split(";"):
        if not one:
            continue
        match = _FIELD.fullmatch(one)
        if match is None:
            raise DatasetError(f"{path}: the format at byte {place} has the field {one[:60]!r}.")
        fields.append(_Field(match[1], None if match[2] is None else int(match[2]), match[3]))
    if not name or len(found.formats) >= MAXIMUM_FORMATS:
        raise DatasetError(f"{path}: the format at byte {place} has no name, or is one too many.")
    found.formats[name] = fields


def _size(found: _Survey, name: str, path: Path, depth: int = 0) -> int:
    """Bytes of a message; types may not contain themselves, or be larger than messages are."""
    if name not in found.formats or depth > MAXIMUM_DEPTH:
        raise DatasetError(f"{path}: the type {name!r} has no format, or contains itself.")
    total = 0
    for one in found.formats[name]:
        total += _bytes(found, one, path, depth)
        if total > LARGEST_MESSAGE:
            raise DatasetError(f"{path}: messages {name!r} are said to be larger than any is.")
    return total


def _bytes(found: _Survey, one: _Field, path: Path, depth: int = 0) -> int:
    inner = SIZES.get(one.type)
    inner = _size(found, one.type, path, depth + 1) if inner is None else inner
    return inner * (1 if one.length is None else one.length)


def _add_topic(found: _Survey, data: bytes, path: Path, place: int) -> None:
    if len(data) < 4:
        raise DatasetError(f"{path} is damaged at byte {place}: a topic without a name.")
    instance, number = struct.unpack("<BH", data[:3])
    name = data[3:].decode("ascii")
    size = _size(found, name, path)
    fields = found.formats[name]
    if not any(one.name == "timestamp" and one.type == "uint64_t" for one in fields):
        raise DatasetError(f"{path}: messages {name!r} (byte {place}) have no timestamp.")
    before = fields[: [one.name for one in fields].index("timestamp")]
    stamp = sum(_bytes(found, one, path) for one in before)
    padding = fields[-1] if fields and fields[-1].name.startswith("_padding") else None
    least = size - (0 if padding is None else SIZES.get(padding.type, 0) * (padding.length or 1))
    topic = _Topic(name, instance, size, least, stamp)
    topic = found.topics.setdefault(name if not instance else f"{name}:{instance}", topic)
    found.by_number[number] = topic


def _count(found: _Survey, data: bytes, path: Path, place: int) -> None:
    topic = found.by_number.get(struct.unpack("<H", data[:2].ljust(2, b"\0"))[0])
    if topic is None:
        raise DatasetError(f"{path} is damaged at byte {place}: a message of an unknown topic.")
    if not topic.least <= len(data) - 2 <= topic.size:
        raise DatasetError(
            f"{path} is damaged at byte {place}: a message {topic.format!r} has {len(data) - 2} "
            f"bytes, expected {topic.size}."
        )
    place = 2 + topic.stamp
    (stamp,) = struct.unpack("<Q", data[place : place + 8])
    if not topic.count:
        topic.first = stamp
    topic.last = stamp
    topic.count += 1


def _add_dropout(found: _Survey, data: bytes, path: Path, place: int) -> None:
    if len(data) != 2:
        raise DatasetError(f"{path} is damaged at byte {place}: a dropout of {len(data)} bytes.")
    found.dropouts.append(struct.unpack("<H", data)[0])


_HANDLERS = {ord("F"): _add_format, ord("A"): _add_topic, ord("D"): _count, ord("O"): _add_dropout}
"""What the walk does at messages of each kind."""
