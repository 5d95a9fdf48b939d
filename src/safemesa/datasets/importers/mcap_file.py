"""MCAP files with JSON or protobuf channels, through mcap (extra `robots`).

Files of the profile `ros2` are bags (`ros2_bag`). Messages come in the order of the file, so that a
clock of the recorder that was restarted is seen. What JSON channels hold is read off their first
messages. `describe()` reads these and the summary at the end of the file.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.describe import (
    BOOLEAN,
    NUMBER,
    TEXT,
    LogDescription,
    TopicDescription,
)
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.mcap_structure import (
    LARGEST_RECORD,
    check_chunks,
    mcap_profile,
)
from safemesa.datasets.importers.message_path import (
    Array,
    Leaf,
    Node,
    Record,
    get_key,
    list_columns,
)
from safemesa.datasets.importers.resample_map import HEADER, LOG, PUBLISH
from safemesa.datasets.importers.ros2_bag import Ros2BagSource
from safemesa.datasets.importers.source import AbstractSource, reading
from safemesa.datasets.importers.topics import (
    Chunk,
    Collector,
    TopicRequest,
    TopicSource,
    clock_fields,
    leaf_kind,
    topic_rate,
    unreadable_message,
)

MAXIMUM_CHANNELS = 10_000
EXAMPLES = 20
"""Messages of a JSON channel that show its fields."""
MAXIMUM_DEPTH = 16


def open_mcap(path: Path, mapping: ImportMap) -> AbstractSource:
    """The reader of an MCAP file: of a ROS 2 bag, or of other channels.

    Raises:
        DatasetError: it is damaged.
    """
    with reading(path):
        profile = mcap_profile(path)
    return Ros2BagSource(path, mapping) if profile == "ros2" else McapSource(path, mapping)


class McapSource(TopicSource):
    """One file. Times are those of recording (`log`), of publishing, or in a field."""

    clocks = (LOG, PUBLISH, HEADER)
    complete = False

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        super().__init__(path, mapping)
        self._mcap = import_extra("mcap.stream_reader", "robots")
        self._records = import_extra("mcap.records", "robots")
        with reading(path):
            check_chunks(path)
            self._counts: dict[int, int] = {}
            self._span: tuple[float, float] | None = None
            """Seconds of the first and the last message; None if there are none."""
            self._channels: dict[str, Any] = {}
            self._schemas: dict[int, Any] = {}
            self._survey()

    def _survey(self) -> None:
        """Channels, schemas and counts: from the summary, or without one from the whole file."""
        reader_module = import_extra("mcap.reader", "robots")
        with open(self.path, "rb") as file:
            summary = reader_module.SeekingReader(
                file, record_size_limit=LARGEST_RECORD
            ).get_summary()
        statistics = None if summary is None else summary.statistics
        if summary is not None and summary.channels and statistics is not None:
            channels, self._schemas = summary.channels, summary.schemas
            self._counts = statistics.channel_message_counts
            if statistics.message_count > 0:
                start, stop = statistics.message_start_time, statistics.message_end_time
                self._span = (start / 1e9, stop / 1e9)
        else:
            channels = self._walk()
        if len(channels) > MAXIMUM_CHANNELS:
            raise DatasetError(f"{self.path} has {len(channels)} channels.")
        self._by_id = channels
        for channel in channels.values():
            self._channels.setdefault(channel.topic, channel)

    def _walk(self) -> dict[int, Any]:
        channels: dict[int, Any] = {}
        for record in self._stream():
            if isinstance(record, self._records.Channel):
                channels[record.id] = record
            elif isinstance(record, self._records.Schema):
                self._schemas[record.id] = record
            elif isinstance(record, self._records.Message):
                self._counts[record.channel_id] = self._counts.get(record.channel_id, 0) + 1
                time = record.log_time / 1e9
                start, stop = self._span or (time, time)
                self._span = (min(start, time), max(stop, time))
        return channels

    def _stream(self) -> Iterator[Any]:
        """All records in the order of the file."""
        with open(self.path, "rb") as file:
            yield from self._mcap.StreamReader(
                file, validate_crcs=True, record_size_limit=LARGEST_RECORD
            ).records

    @cached_property
    def _trees(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        json_topics = []
        encodings: dict[str, set[str]] = {}
        for channel in self._by_id.values():
            encodings.setdefault(channel.topic, set()).add(channel.message_encoding)
        for topic, channel in self._channels.items():
            if len(encodings[topic]) > 1:
                # Fields are read by one encoding, and what comes in another would say nothing.
                continue
            if channel.message_encoding == "json":
                json_topics.append(topic)
            elif channel.message_encoding == "protobuf" and self._decoder(channel) is not None:
                try:
                    descriptor = self._decode(channel, b"").DESCRIPTOR
                except Exception:
                    continue
                found[topic] = _protobuf_record(descriptor)
        for topic, messages in self._examples(json_topics).items():
            node = None
            for message in messages:
                node = _merged(node, _json_node(message, 0))
            if isinstance(node, Record):
                found[topic] = node
        return {topic: found[topic] for topic in self._channels if topic in found}

    def _examples(self, topics: Sequence[str], count: int = EXAMPLES) -> dict[str, list[Any]]:
        """The first messages of some topics."""
        found: dict[str, list[Any]] = {topic: [] for topic in topics}
        waiting = {topic for topic in topics if self._message_count(topic) != 0}
        if not waiting:
            return found
        with reading(self.path):
            for topic, _, _, message in self._messages(waiting):
                found[topic].append(message)
                if len(found[topic]) >= min(count, self._message_count(topic)):
                    waiting.discard(topic)
                if not waiting:
                    break
        return found

    def _message_count(self, topic: str) -> int:
        return sum(
            self._counts.get(one.id, 0) for one in self._by_id.values() if one.topic == topic
        )

    @cached_property
    def _decoders(self) -> dict[int, Callable[[bytes], Any] | None]:
        return {}

    def _decoder(self, channel: Any) -> Callable[[bytes], Any] | None:
        if channel.id not in self._decoders:
            made: Callable[[bytes], Any] | None = None
            if channel.message_encoding == "json":
                made = json.loads
            elif channel.message_encoding == "protobuf":
                factory = import_extra("mcap_protobuf.decoder", "robots").DecoderFactory()
                try:
                    made = factory.decoder_for("protobuf", self._schemas.get(channel.schema_id))
                except Exception:
                    # A damaged schema: its topic is not read.
                    made = None
            self._decoders[channel.id] = made
        return self._decoders[channel.id]

    def _decode(self, channel: Any, data: bytes) -> Any:
        decoder = self._decoder(channel)
        assert decoder is not None
        return decoder(data)

    def tree(self) -> Mapping[str, Node]:
        return self._trees

    def unread_topics(self) -> tuple[str, ...]:
        return tuple(topic for topic in self._channels if topic not in self._trees)

    def samples(self, requests: Sequence[TopicRequest], late: int) -> Iterator[Chunk]:
        wanted = {one.topic for one in requests}

        def get(topic: str) -> Any:
            encoding = self._channels[topic].message_encoding
            return (get_key if encoding == "json" else _get_protobuf, False)

        collector = Collector(self.path, requests, self._trees, late, get)
        return collector.chunks(self._messages(wanted))

    def _messages(self, wanted: set[str]) -> Iterator[tuple[str, int, int, Any]]:
        """Decoded messages of topics, in the order of the file."""
        topics = {one.id: one.topic for one in self._by_id.values() if one.topic in wanted}
        message_type = self._records.Message
        number = 0
        for record in self._stream():
            if not isinstance(record, message_type) or record.channel_id not in topics:
                continue
            topic = topics[record.channel_id]
            if topic not in wanted:
                continue
            channel = self._by_id[record.channel_id]
            try:
                message = self._decode(channel, record.data)
            except Exception as error:
                reason = f"{error} (at {record.log_time / 1e9:.6f} s)"
                raise unreadable_message(self.path, topic, number, reason) from error
            number += 1
            yield topic, record.log_time, record.publish_time, message

    def describe(self) -> LogDescription:
        start, stop = self._span or (None, None)
        varied = [
            topic
            for topic, node in self._trees.items()
            if any(not one.fixed for one in list_columns(topic, node))
        ]
        examples = self._examples(varied, 1)
        topics = []
        for topic, node in self._trees.items():
            channel = self._channels[topic]
            schema = self._schemas.get(channel.schema_id)
            count = self._message_count(topic)
            example = next(iter(examples.get(topic, ())), None)
            get = get_key if channel.message_encoding == "json" else _get_protobuf
            topics.append(
                TopicDescription(
                    name=topic,
                    type=channel.message_encoding if schema is None else schema.name,
                    count=count,
                    rate=topic_rate(count, *(self._span or (0.0, 0.0))),
                    header=clock_fields(HEADER, node) is not None,
                    columns=list_columns(topic, node, example, get),
                )
            )
        return LogDescription(
            path=self.path,
            format="mcap",
            start=start,
            stop=stop,
            topics=tuple(topics),
            unread=self.unread_topics(),
        )


def _json_node(value: Any, depth: int) -> Node | None:
    """What a JSON value is; None where it does not say."""
    if isinstance(value, bool):
        return Leaf(BOOLEAN, "boolean")
    if isinstance(value, int | float):
        return Leaf(NUMBER, "number")
    if isinstance(value, str):
        return Leaf(TEXT, "string")
    if value is None or depth >= MAXIMUM_DEPTH:
        return None
    if isinstance(value, list):
        node = None
        for one in value[:EXAMPLES]:
            node = _merged(node, _json_node(one, depth + 1))
        return None if node is None else Array(node)
    fields = {name: _json_node(one, depth + 1) for name, one in value.items()}
    known = {name: one for name, one in fields.items() if one is not None}
    return Record(lambda: known)


def _merged(first: Node | None, second: Node | None) -> Node | None:
    """What both values are; the first counts where they differ."""
    if first is None or second is None:
        return first or second
    if isinstance(first, Record) and isinstance(second, Record):
        known = dict(first.fields)
        for name, node in second.fields.items():
            merged = _merged(known.get(name), node)
            assert merged is not None
            known[name] = merged
        return Record(lambda: known)
    if isinstance(first, Array) and isinstance(second, Array):
        inner = _merged(first.of, second.of)
        assert inner is not None
        return Array(inner)
    return first


def _protobuf_record(descriptor: Any) -> Record:
    def make() -> dict[str, Node]:
        found: dict[str, Node] = {}
        for one in descriptor.fields:
            if one.message_type is not None:
                if one.message_type.GetOptions().map_entry:
                    continue
                node: Node = _protobuf_record(one.message_type)
            else:
                node = leaf_kind(_PROTOBUF_TYPES.get(one.type, "number"))
            found[one.name] = Array(node) if one.is_repeated else node
        return found

    return Record(make, descriptor.full_name)


_PROTOBUF_TYPES = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32",
    8: "bool", 9: "string", 12: "bytes", 13: "uint32", 14: "enum", 15: "sfixed32", 16: "sfixed64",
    17: "sint32", 18: "sint64",
}  # fmt: skip
"""Numbers of field types in descriptors."""


def _get_protobuf(record: Any, name: str) -> Any:
    """A field; one that was not set says nothing, where the format tells that from zero."""
    field = record.DESCRIPTOR.fields_by_name.get(name)
    if field is None or (field.has_presence and not record.HasField(name)):
        return None
    value = getattr(record, name)
    return list(value) if field.is_repeated else value
