"""Fields of messages as columns: `/odom.twist.twist.linear.x`, `/joint_states.position[wrist]`.

A path is a topic and then fields `.name`, numbers `[3]` and names `[wrist]`. A name stands for the
place that it has in the array `name` (or `names`) beside the values, as in `JointState`; in a list
of records it is that of the record whose own `name` (or `child_frame_id`) it is. Names are looked
up in each message, since their order may change. Where a message has no such component, it says
nothing about the column.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from safemesa.datasets.importers.describe import TEXT, ColumnDescription

MAXIMUM_DEPTH = 16
MAXIMUM_LEAVES = 2_000
"""Columns of one topic that are listed; more can be named all the same."""
MAXIMUM_NAMED = 64
"""Components of one array that are listed by their names."""
SIBLINGS = ("name", "names")
OWN_NAMES = ("name", "child_frame_id")
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]+)\]")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A number, a truth value or a text."""

    kind: str
    type: str = ""


@dataclass(frozen=True)
class Record:
    """Named fields. They are worked out when they are asked for: types may contain themselves."""

    make: Callable[[], Mapping[str, "Node"]]
    type: str = ""

    @cached_property
    def fields(self) -> Mapping[str, "Node"]:
        """Fields by name."""
        return self.make()


@dataclass(frozen=True, slots=True)
class Array:
    """Many of one kind; `length` is None where it varies."""

    of: "Node"
    length: int | None = None


Node = Leaf | Record | Array


@dataclass(frozen=True, slots=True)
class Name:
    """The component of this name."""

    text: str


Step = str | int | Name


@dataclass(frozen=True, kw_only=True)
class Path:
    """A column: a topic, the way to a field in its messages, and what is there."""

    text: str
    topic: str
    steps: tuple[Step, ...]
    leaf: Leaf
    width: int | None = None
    """Of arrays of fixed length, else None."""
    optional: bool = field(default=False)
    """Whether a message may lack it."""


def find_path(text: str, topics: Mapping[str, Node]) -> Path | None:
    """The column that a text names, or None if there is no such field.

    A topic may have dots in its name: the longest one that fits is meant.
    """
    fitting = [
        topic
        for topic in topics
        if text.startswith(topic) and text[len(topic) : len(topic) + 1] in (".", "[")
    ]
    for topic in sorted(fitting, key=len, reverse=True):
        steps = parse_steps(text[len(topic) :])
        found = None if steps is None else _walk(steps, topics[topic])
        if steps is not None and found is not None:
            leaf, width, optional = found
            return Path(
                text=text, topic=topic, steps=steps, leaf=leaf, width=width, optional=optional
            )
    return None


def parse_steps(text: str) -> tuple[Step, ...] | None:
    """`.position[wrist]` as steps; None if it is no path."""
    steps: list[Step] = []
    place = 0
    while place < len(text):
        match = _STEP.match(text, place)
        if match is None:
            return None
        name, inside = match[1], match[2]
        if name is not None:
            steps.append(name)
        elif inside.isascii() and inside.isdecimal():
            if len(inside) > 9:
                return None
            steps.append(int(inside))
        else:
            steps.append(Name(inside))
        place = match.end()
    return tuple(steps) if 1 <= len(steps) <= MAXIMUM_DEPTH else None


def _walk(steps: Sequence[Step], node: Node) -> tuple[Leaf, int | None, bool] | None:
    optional = False
    for step in steps:
        if isinstance(step, str):
            following = node.fields.get(step) if isinstance(node, Record) else None
        elif isinstance(node, Array):
            short = isinstance(step, int) and node.length is not None and step >= node.length
            following = None if short else node.of
            optional |= node.length is None or isinstance(step, Name)
        else:
            following = None
        if following is None:
            return None
        node = following
    if isinstance(node, Leaf):
        return node, None, optional
    fixed = isinstance(node, Array) and isinstance(node.of, Leaf) and node.length is not None
    if fixed and isinstance(node, Array) and isinstance(node.of, Leaf) and node.of.kind != TEXT:
        return node.of, node.length, optional
    return None


def list_columns(
    topic: str, node: Node, message: Any = None, get: "Get | None" = None
) -> tuple[ColumnDescription, ...]:
    """Columns of a topic; an example shows how long arrays are and how their parts are called."""
    found: list[ColumnDescription] = []
    for text, place, parent in _leaves(topic, node):
        if len(found) >= MAXIMUM_LEAVES:
            break
        if isinstance(place, Leaf):
            found.append(ColumnDescription(name=text, kind=place.kind, type=place.type))
        elif isinstance(place.of, Leaf):
            width, names = place.length, ()
            if message is not None and get is not None:
                width, names = _example(text[len(topic) :], message, get, parent)
            found.append(
                ColumnDescription(
                    name=text,
                    kind=place.of.kind,
                    type=place.of.type,
                    width=place.length if place.length is not None else width,
                    fixed=place.length is not None,
                    names=names,
                )
            )
    return tuple(found)


def _leaves(topic: str, node: Node) -> Iterator[tuple[str, Leaf | Array, Node | None]]:
    """Fields and arrays of plain values, in their order; lists of records are not entered."""
    waiting: list[tuple[str, Node, Node | None, int]] = [(topic, node, None, 0)]
    while waiting:
        text, place, parent, depth = waiting.pop()
        if isinstance(place, Record):
            if depth < MAXIMUM_DEPTH:
                waiting.extend(
                    (f"{text}.{name}", inner, place, depth + 1)
                    for name, inner in reversed(list(place.fields.items()))
                )
        elif isinstance(place, Leaf) or isinstance(place.of, Leaf):
            yield text, place, parent


def _example(
    text: str, message: Any, get: "Get", parent: Node | None
) -> tuple[int | None, tuple[str, ...]]:
    """Length of an array in a message, and names of its components."""
    steps = parse_steps(text)
    if steps is None:
        return None, ()
    values = _follow(message, steps, get)
    if values is None:
        return None, ()
    names: tuple[str, ...] = ()
    if isinstance(parent, Record):
        given = next((one for one in SIBLINGS if one in parent.fields and one != steps[-1]), None)
        if given is not None:
            listed = _follow(message, (*steps[:-1], given), get)
            listed = listed if isinstance(listed, list | tuple) else ()
            if len(listed) == len(values) <= MAXIMUM_NAMED:
                names = tuple(map(str, listed))
    return len(values), names


Get = Callable[[Any, str], Any]
"""A field of a record by name; None where it says nothing."""


def get_key(record: Any, name: str) -> Any:
    """Of JSON: a field that is absent says nothing, one that is null is a missing value."""
    if not isinstance(record, dict) or name not in record:
        return None
    value = record[name]
    return float("nan") if value is None else value


def make_getter(
    paths: Sequence[Path], get: Get, plain: bool = False
) -> Callable[[Any], tuple[Any, ...]]:
    """A function from a message to its values on all paths; None stands for nothing said.

    `plain` says that fields are Python attributes that are always there, which is fast.
    """
    if plain and all(isinstance(step, str) for path in paths for step in path.steps):
        read = operator.attrgetter(*(".".join(map(str, path.steps)) for path in paths))
        return read if len(paths) > 1 else lambda message: (read(message),)
    readers = [_reader(path.steps, get, plain) for path in paths]
    return lambda message: tuple([read(message) for read in readers])


def _reader(steps: tuple[Step, ...], get: Get, plain: bool) -> Callable[[Any], Any]:
    if plain and all(isinstance(step, str) for step in steps):
        return operator.attrgetter(".".join(map(str, steps)))
    last = steps[-1]
    if plain and len(steps) > 1 and all(isinstance(step, str) for step in steps[:-1]):
        way = ".".join(map(str, steps[:-1]))
        array = operator.attrgetter(way)
        if isinstance(last, int):
            return lambda message: _component(array(message), last)
        parent = way.rpartition(".")[0]
        above = operator.attrgetter(parent) if parent else lambda message: message
        name = last.text if isinstance(last, Name) else ""
        return lambda message: _named(array(message), name, above(message), get)
    return lambda message: _follow(message, steps, get)


def _component(values: Any, index: int) -> Any:
    """None where there are not so many; a null in their list is a missing value, as in a field."""
    if index >= len(values):
        return None
    return float("nan") if values[index] is None else values[index]


def _named(values: Any, name: str, parent: Any, get: Get) -> Any:
    for key in OWN_NAMES:
        if len(values) and isinstance(_field(values[0], key, get), str):
            return next((one for one in values if _field(one, key, get) == name), None)
    for sibling in SIBLINGS:
        listed = _field(parent, sibling, get)
        if listed is not None and not isinstance(listed, str | float):
            names = list(listed)
            return _component(values, names.index(name)) if name in names else None
    return None


def _field(record: Any, name: str, get: Get) -> Any:
    try:
        return get(record, name)
    except (AttributeError, KeyError):
        return None


def _follow(message: Any, steps: Sequence[Step], get: Get) -> Any:
    parent, value = None, message
    for step in steps:
        if value is None or (isinstance(value, float) and value != value):
            return value
        if isinstance(step, str):
            parent, value = value, get(value, step)
        elif not hasattr(value, "__len__") or isinstance(value, str | dict):
            raise TypeError(f"no list where one was in the first message: {step!r}")
        elif isinstance(step, int):
            parent, value = value, _component(value, step)
        else:
            parent, value = value, _named(value, step.text, parent, get)
    return value
