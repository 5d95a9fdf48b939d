"""The table `[resample]` of a map: how topics of different rates become rows that are dt apart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from safemesa.core.errors import ConfigurationError

LAST, LINEAR, NEAREST, LARGEST = "last", "linear", "nearest", "max"
METHODS = (LAST, LINEAR, NEAREST, LARGEST)
LOG, HEADER, PUBLISH = "log", "header", "publish"
RESTARTS = ("error", "split")


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicRule:
    """How one topic, or one of its columns, is read; None: as the table says for all."""

    method: str | None = None
    max_age: float | None = None
    time: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How a column becomes rows."""

    method: str
    """`last` value at or before the row, `linear` between the values around it, the `nearest`
    value, or the `max` of those since the row before."""
    max_age: int
    """Nanoseconds from a value to the row that it may stand for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResampleMap:
    """What the map says of logs that are topics, and not rows."""

    method: str = LAST
    max_age: float | None = None
    """Seconds beyond which a value is missing."""
    time: str | None = None
    """`log`: when the message was recorded; `header`: when it was measured (`header.stamp`);
    `publish` (MCAP): when it was sent; else the field of the message that says so."""
    late: float = 1.0
    """Seconds by which a message may come after later ones. Further back, the clock restarted."""
    gap: float | None = None
    """Seconds without any message for which there are no rows. None: `max_age`."""
    restart: str = "error"
    """Of a clock that was restarted: `error`, or `split`: a new episode begins."""
    start: str | None = None
    """Topic whose messages begin an episode; a path: those in which this field is not 0."""
    stop: str | None = None
    """The same for the end of an episode."""
    running: str | None = None
    """Path of a field that is not 0 while an episode lasts."""
    topics: Mapping[str, TopicRule] = field(default_factory=dict)
    """Exceptions, by topic or by column."""

    def __post_init__(self) -> None:
        """Refuses what contradicts itself."""
        every = {"": TopicRule(method=self.method, max_age=self.max_age), **self.topics}
        for name, rule in every.items():
            where = f"map: resample.topics.{name}" if name else "map: resample"
            if rule.method is not None and rule.method not in METHODS:
                raise ConfigurationError(
                    f"{where}: method is {rule.method!r}, expected one of {METHODS}."
                )
            _check_seconds(rule.max_age, f"{where}: max_age")
        _check_seconds(self.late, "map: resample: late")
        _check_seconds(self.gap, "map: resample: gap")
        if self.restart not in RESTARTS:
            raise ConfigurationError(
                f"map: resample: restart is {self.restart!r}, expected one of {RESTARTS}."
            )
        if self.running is not None and (self.start is not None or self.stop is not None):
            raise ConfigurationError(
                "map: resample has running beside start or stop, expected one way of saying when "
                "an episode lasts."
            )
        if self.stop is not None and self.start is None:
            raise ConfigurationError("map: resample has stop without start. Name both.")

    def rule(self, column: str, topic: str, where: str) -> Rule:
        """How a column is read: by its own rule, its topic's, or the table's.

        Raises:
            ConfigurationError: nothing says for how long a value stands.
        """
        levels = [self.topics.get(column), self.topics.get(topic)]
        known = [one for one in levels if one is not None]
        method = next((one.method for one in known if one.method is not None), self.method)
        age = next((one.max_age for one in known if one.max_age is not None), self.max_age)
        if age is None:
            raise ConfigurationError(
                f"{where}: nothing says for how long a value of {topic!r} stands, and an old one "
                "is never taken for a new one. Declare [resample] max_age = ..., in seconds, for "
                f'all or under [resample.topics."{topic}"].'
            )
        return Rule(method=method, max_age=nanoseconds(age))

    def clock(self, topic: str, where: str) -> str:
        """What tells the time of a topic's messages.

        Raises:
            ConfigurationError: nothing says so.
        """
        rule = self.topics.get(topic)
        given = self.time if rule is None or rule.time is None else rule.time
        if given is None:
            raise ConfigurationError(
                f"{where}: nothing says which time counts. Declare [resample] time = "
                '"log" (when a message was recorded) or "header" (when it was measured).'
            )
        return given


def _check_seconds(given: float | None, what: str) -> None:
    if given is not None and not (math.isfinite(given) and 0 < given <= 1e9):
        raise ConfigurationError(f"{what} is {given}, expected seconds above 0, at most 1e9.")


def nanoseconds(seconds: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(seconds * 1e9)
