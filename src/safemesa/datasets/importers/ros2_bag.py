"""ROS 2 bags through rosbags (extra `robots`): a folder with `metadata.yaml`, or one storage file.

Storage is sqlite3 (`.db3`) or MCAP with the profile `ros2`. Messages are decoded by the definitions
that the bag holds; where it holds none, as bags of ROS 2 Humble and older in sqlite3, by those of
its ROS distribution. `describe()` reads metadata and one message of each topic.

A bag comes from elsewhere, so that some of it is looked at before the library sees it: databases
hold plain tables only, and nothing unpacks to a size that it does not say.
"""

import re
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from safemesa.core.errors import DatasetError
from safemesa.datasets.findings import LogError
from safemesa.datasets.importers.describe import LogDescription, TopicDescription
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.mcap_structure import check_chunks
from safemesa.datasets.importers.message_path import (
    Array,
    Node,
    Record,
    list_columns,
)
from safemesa.datasets.importers.source import reading
from safemesa.datasets.importers.topics import (
    HEADER,
    Chunk,
    Collector,
    TopicRequest,
    TopicSource,
    clock_fields,
    leaf_kind,
    topic_rate,
    unreadable_message,
)

METADATA = "metadata.yaml"
STORAGES = (".db3", ".mcap")
MAXIMUM_METADATA = 2**19
"""Bytes; that of a bag with a thousand topics. YAML is read slowly."""
MAXIMUM_TOPICS = 10_000
MAXIMUM_DEFINITION = 2**20
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*){1,3}")


class Ros2BagSource(TopicSource):
    """One bag. Times are those of the recorder (`log`) or of the message (`header`)."""

    def __init__(self, path: Path, mapping: ImportMap) -> None:
        super().__init__(path, mapping)
        self._rosbags = import_extra("rosbags.rosbag2", "robots")
        with reading(path):
            _check_storage(path)
            self._types = _Types()
            with self._reader() as reader:
                self._connections = [
                    _Connection(one.topic, one.msgtype, one.msgdef, one.digest, one.msgcount)
                    for one in reader.connections
                ]
                self._distro = reader.ros_distro
                empty = not reader.message_count
                self._span = (
                    (0.0, 0.0) if empty else (reader.start_time / 1e9, (reader.end_time - 1) / 1e9)
                )
                self._empty = empty
        if len(self._connections) > MAXIMUM_TOPICS:
            raise DatasetError(f"{path} has {len(self._connections)} topics.")
        self._types.learn(self._connections, self._distro, path)

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        reader = self._rosbags.Reader(self.path)
        reader.open()
        try:
            yield reader
        finally:
            reader.close()

    @cached_property
    def _trees(self) -> dict[str, Node]:
        kinds: dict[str, set[str]] = {}
        for one in self._connections:
            kinds.setdefault(one.topic, set()).add(one.msgtype)
        return {
            topic: self._types.tree(next(iter(types)))
            for topic, types in kinds.items()
            if len(types) == 1 and self._types.knows(next(iter(types)))
        }

    def tree(self) -> Mapping[str, Node]:
        return self._trees

    def unread_topics(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(one.topic for one in self._connections if one.topic not in self._trees)
        )

    def samples(self, requests: Sequence[TopicRequest], late: int) -> Iterator[Chunk]:
        wanted = {one.topic for one in requests}
        plain = self._types.get
        collector = Collector(self.path, requests, self._trees, late, lambda topic: (plain, True))
        with self._reader() as reader:
            yield from collector.chunks(self._messages(reader, wanted))

    def _messages(self, reader: Any, wanted: set[str]) -> Iterator[tuple[str, int, int, Any]]:
        connections = [one for one in reader.connections if one.topic in wanted]
        if not connections:
            return
        decoders = {one.msgtype: self._types.decoder(one.msgtype) for one in connections}
        messages = reader.messages(connections=connections)
        counts = dict.fromkeys(wanted, 0)
        for number, (connection, time, raw) in enumerate(messages):
            try:
                message = decoders[connection.msgtype](raw, connection.msgtype)
            except Exception as error:
                raise unreadable_message(
                    self.path, connection.topic, number, f"{error} (at {time / 1e9:.6f} s)"
                ) from error
            counts[connection.topic] += 1
            yield connection.topic, time, time, message
        for topic, count in counts.items():
            declared = sum(one.msgcount for one in connections if one.topic == topic)
            if declared != count:
                raise LogError(
                    "lengths-differ",
                    f"{self.path}: the bag says that it has {declared} messages of {topic!r}, and "
                    f"holds {count}: some are lost. Restore it, or describe it anew (ros2 bag "
                    "reindex).",
                )

    def describe(self) -> LogDescription:
        start, stop = self._span
        examples = self._examples()
        counts: dict[str, int] = {}
        for one in self._connections:
            counts[one.topic] = counts.get(one.topic, 0) + one.msgcount
        kinds = {one.topic: one.msgtype for one in self._connections}
        return LogDescription(
            path=self.path,
            format="ros2 bag",
            start=None if self._empty else start,
            stop=None if self._empty else stop,
            topics=tuple(
                TopicDescription(
                    name=topic,
                    type=kinds[topic],
                    count=counts[topic],
                    rate=topic_rate(counts[topic], start, stop),
                    header=clock_fields(HEADER, node) is not None,
                    columns=list_columns(topic, node, examples.get(topic), self._types.get),
                )
                for topic, node in self._trees.items()
            ),
            unread=self.unread_topics(),
        )

    def _examples(self) -> dict[str, Any]:
        """The first message of each topic that has arrays whose length varies."""
        found: dict[str, Any] = {}
        with reading(self.path), self._reader() as reader:
            for topic, node in self._trees.items():
                if any(not one.fixed for one in list_columns(topic, node)):
                    first = next(self._messages(reader, {topic}), None)
                    if first is not None:
                        found[topic] = first[3]
        return found


class _Connection:
    """A topic of one type, as the bag lists it."""

    def __init__(self, topic: str, msgtype: str, msgdef: Any, digest: str, msgcount: int) -> None:
        self.topic, self.msgtype, self.msgdef = topic, msgtype, msgdef
        self.digest, self.msgcount = digest, msgcount


class _Types:
    """Message types: those that the bag defines, and those of its distribution for the others."""

    def __init__(self) -> None:
        self._typesys = import_extra("rosbags.typesys", "robots")
        self._interfaces = import_extra("rosbags.interfaces", "robots")
        base = import_extra("rosbags.typesys.base", "robots")
        self._python_name = base.normalize_fieldname
        self._stores: dict[str, Any] = {}

    def learn(self, connections: Sequence[_Connection], distro: str | None, path: Path) -> None:
        """Reads definitions; a topic whose definition is of no use is not read."""
        known = None
        for one in connections:
            if one.msgtype in self._stores or not _TYPE.fullmatch(one.msgtype):
                continue
            try:
                store = self._defined(one)
                if store is None:
                    known = known or self._distribution(distro)
                    store = known
                if one.msgtype not in store.fielddefs:
                    continue
                digest = one.digest
                if digest and store.hash_rihs01(one.msgtype) != digest:
                    raise DatasetError(
                        f"{path}: topic {one.topic!r} is of {one.msgtype!r}, whose definition is "
                        "not the one that it was recorded with. Record it with definitions "
                        "(MCAP), or leave it out."
                    )
            except DatasetError:
                raise
            except Exception:
                # Damaged, or in a form that the library does not know: an unread topic.
                continue
            self._stores[one.msgtype] = store

    def _defined(self, one: _Connection) -> Any | None:
        formats = self._interfaces.MessageDefinitionFormat
        text = one.msgdef.data
        if one.msgdef.format == formats.NONE or not text:
            return None
        if len(text) > MAXIMUM_DEFINITION:
            raise ValueError("the definition is too long")
        if one.msgdef.format == formats.MSG:
            types = self._typesys.get_types_from_msg(text, one.msgtype)
        else:
            types = {}
            separator = "=" * 80 + "\n"
            parts = text.split(separator)[1:] if text.startswith(f"{separator}IDL: ") else [text]
            for part in parts:
                body = part.split("\n", 1)[1] if part.startswith("IDL: ") else part
                types.update(self._typesys.get_types_from_idl(body))
        store = self._typesys.get_typestore(self._typesys.Stores.EMPTY)
        # Every definition brings the types that it is made of, except ROS's own time.
        store.register({name: one for name, one in types.items() if name not in store.fielddefs})
        return store

    def _distribution(self, distro: str | None) -> Any:
        stores = self._typesys.Stores
        name = f"ROS2_{(distro or '').upper()}"
        return self._typesys.get_typestore(getattr(stores, name, stores.LATEST))

    def knows(self, msgtype: str) -> bool:
        """Whether messages of a type can be decoded."""
        return msgtype in self._stores

    def decoder(self, msgtype: str) -> Any:
        """A function from bytes and the name of the type to a message."""
        return self._stores[msgtype].deserialize_cdr

    def get(self, record: Any, name: str) -> Any:
        """A field of a message."""
        return getattr(record, name)

    def tree(self, msgtype: str) -> Node:
        """What a message of a type holds."""
        return self._record(self._stores[msgtype], msgtype)

    def _record(self, store: Any, msgtype: str) -> Record:
        def make() -> dict[str, Node]:
            fields = store.fielddefs[msgtype][1]
            return {
                self._python_name(name): self._node(store, kind)
                for name, kind in fields
                if name != "structure_needs_at_least_one_member"
            }

        return Record(make, msgtype)

    def _node(self, store: Any, kind: Any) -> Node:
        node_type = self._interfaces.Nodetype
        if kind[0] == node_type.BASE:
            return leaf_kind(kind[1][0])
        if kind[0] == node_type.NAME:
            return self._record(store, kind[1])
        inner, length = kind[1]
        return Array(self._node(store, inner), length if kind[0] == node_type.ARRAY else None)


def is_bag(path: Path) -> bool:
    """Whether a folder is one ROS 2 bag."""
    try:
        return (path / METADATA).is_file() and any(
            name.suffixes and any(one in STORAGES for one in name.suffixes)
            for name in path.iterdir()
        )
    except OSError:
        return False


def _check_storage(path: Path) -> None:
    """Looks at files before a library reads them.

    Raises:
        DatasetError: they hold what no bag has.
    """
    if path.is_file():
        _check_file(path)
        return
    size = (path / METADATA).stat().st_size
    if size > MAXIMUM_METADATA:
        raise DatasetError(f"{path / METADATA} has {size} bytes: no description of a bag.")
    for file in sorted(path.iterdir()):
        if file.suffix == ".zstd" and any(one in file.suffixes for one in STORAGES):
            raise DatasetError(
                f"{file} is compressed as a whole, so that nobody knows how large it becomes. "
                f"Decompress it first: ros2 bag convert, or zstd -d."
            )
        if file.is_file() and file.suffix in STORAGES:
            _check_file(file)


def _check_file(file: Path) -> None:
    if file.suffix == ".db3":
        _check_database(file)
    else:
        check_chunks(file)


def _check_database(file: Path) -> None:
    """A view or a trigger would run as a program when it is read."""
    size = file.stat().st_size
    journal = file.with_name(f"{file.name}-wal")
    if journal.is_file() and journal.stat().st_size:
        raise DatasetError(
            f"{file} was not closed: its last messages are in {journal.name}, which is not read. "
            "Open and close it once with sqlite3, or with ros2 bag reindex."
        )
    with open(file, "rb") as opened:
        head = opened.read(100)
    if len(head) == 100 and head.startswith(b"SQLite format 3\0"):
        page = struct.unpack(">H", head[16:18])[0]
        page = 65_536 if page == 1 else page
        pages = struct.unpack(">I", head[28:32])[0]
        if page * pages > size:
            raise DatasetError(
                f"{file} is cut off: it has {size} bytes of {page * pages}. Restore it, or repair "
                "the bag (ros2 bag reindex)."
            )
    uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        rows = database.execute("SELECT type, name, sql FROM sqlite_master").fetchmany(1000)
    for kind, name, text in rows:
        virtual = str(text or "").lstrip().upper().startswith("CREATE VIRTUAL")
        if kind not in ("table", "index") or virtual:
            raise DatasetError(
                f"{file} has a {'virtual table' if virtual else kind} {str(name)[:60]!r}, which no "
                "bag has: refused."
            )
