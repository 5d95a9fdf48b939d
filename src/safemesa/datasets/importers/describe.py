"""What a robot's log holds, before anybody wrote a map for it.

    describe(path) -> LogDescription

reads the description of a file (and the first message of each topic), not its values. It knows
ROS 2 bags (a folder with `metadata.yaml`, `.db3`, `.mcap`), MCAP with JSON or protobuf channels,
PX4 ULog (`.ulg`) and LeRobot folders. Each source of these formats has the method `describe()` with
the same result.
"""

from dataclasses import dataclass
from pathlib import Path

NUMBER, TEXT, BOOLEAN = "number", "text", "boolean"


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnDescription:
    """One field of a topic (or one column of a table), by the name that a map gives it."""

    name: str
    """Such as `/odom.twist.twist.linear.x` or `observation.state`."""
    kind: str
    """`number`, `boolean` or `text`."""
    type: str = ""
    """As the file says, such as `float64`."""
    width: int | None = None
    """Of arrays: numbers in it (in the first message, where that varies). None: a single one."""
    fixed: bool = True
    """Whether every row has this width. If not, name components: `position[0]`, `ranges[12]`."""
    names: tuple[str, ...] = ()
    """Of arrays: what their components are called; `position[wrist]` is one of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicDescription:
    """One topic with its columns; a table is one topic without name."""

    name: str
    type: str = ""
    """As the file says, such as `nav_msgs/msg/Odometry`."""
    count: int = 0
    """Messages, or rows."""
    rate: float | None = None
    """Messages per second over the whole log; None where it is too short to tell."""
    header: bool = False
    """Whether messages have a header with the time of measurement."""
    columns: tuple[ColumnDescription, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LogDescription:
    """One log."""

    path: Path
    format: str
    """`ros2 bag`, `mcap`, `ulog` or `lerobot`."""
    start: float | None = None
    """Seconds, on the clock of the log; None where it is unknown."""
    stop: float | None = None
    dt: float | None = None
    """Seconds between rows, where the format fixes it (LeRobot)."""
    episodes: int | None = None
    """Where the format counts them (LeRobot)."""
    topics: tuple[TopicDescription, ...] = ()
    unread: tuple[str, ...] = ()
    """Topics or columns that no map can use, such as videos."""


def describe(path: Path) -> LogDescription:
    """What a log of one of these formats holds.

    Raises:
        DatasetError: it is damaged, or of another format.
    """
    from safemesa.datasets.importers.find import open_source
    from safemesa.datasets.importers.import_map import ImportMap

    return open_source(path, ImportMap()).describe()
