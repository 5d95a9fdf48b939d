"""What a shield would have done on an old log, or did by its black box: monitor mode made visible.

The decisions are the runtime's own: every logged row goes through `Shield.decide` in `monitor`
mode, and where the shield would not have let the proposal pass, a second shield with the same past
decides in `enforce`. The log goes on as it was driven: what the robot would have done after an
override nobody knows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.format import MANIFEST_FILE
from safemesa.datasets.moments import violation_rows
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.datasets.validation import row_chunks
from safemesa.shield.runtime import (
    MODES,
    BlackBox,
    Decision,
    Reason,
    SettingsError,
    Shield,
    ShieldError,
    read_black_box,
)

REASONS = tuple(Reason)
SAME_DT = 0.01
"""Relative difference up to which two time steps are the same."""

OnTicks = Callable[[int, int], None]
"""Told how many ticks are done, and how many there are."""


class Recorded(NamedTuple):
    """What a black box says of each tick."""

    risk: np.ndarray
    """`[n]`; NaN where it was not asked."""
    action: np.ndarray
    """`[n, a]`: what was sent."""
    reasons: dict[str, int]
    """Of all records, also those without an observation or a proposal."""
    overridden: int
    modes: dict[str, int]
    same_model: np.ndarray
    """`[n]`: whether the manifest of the shield that recorded it is the one that replays it."""
    statistic: np.ndarray
    """`[n]`: of the dynamics monitor; NaN without one."""
    unreadable: int
    """Records without an observation or a proposal, which cannot be decided again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ticks:
    """Ticks in their order, which may be mapped from a file.

    `obs [n, o]` and `proposed [n, a]` in the shield's order and in physical units; `begins [n]`:
    the past is forgotten there; `violations [v]`: rows whose step reached one.
    """

    name: str
    obs: np.ndarray
    proposed: np.ndarray
    begins: np.ndarray
    violations: np.ndarray
    next_obs: np.ndarray | None
    numbers: np.ndarray
    """`[n]`: the row of the log, or the tick of the recording shield."""
    episodes: np.ndarray
    """`[n]`: ascending, one number for each part without a gap."""
    recorded: Recorded | None = None

    def __len__(self) -> int:
        """Number of ticks."""
        return len(self.begins)


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """What the shield says of each tick. Memory is 10 + 4 a bytes for each, and the log's columns.

    `risk [n]` float32, `reason [n]` (index into `REASONS`), `overridden [n]`: whether `enforce`
    would have sent something else; `action [n, a]` float32: what it would have sent.
    """

    ticks: Ticks
    risk: np.ndarray
    reason: np.ndarray
    overridden: np.ndarray
    action: np.ndarray
    statistic: np.ndarray
    """`[n]` float32: of the dynamics monitor; NaN without one, and of a black box, which lacks most
    steps."""
    statistics: dict[str, Any]
    """The monitoring runtime's own."""
    knows_recovery: bool
    """False: the recovery was not exported, so `action` is NaN where the shield would take over."""

    @property
    def takeovers(self) -> np.ndarray:
        """`[t, 2]`: runs of overrides within an episode, from the first tick to behind the last."""
        on = np.asarray(self.overridden, np.bool_)
        starts = on.copy()
        starts[1:] &= ~on[:-1] | self.ticks.begins[1:]
        firsts = np.flatnonzero(starts)
        stops = np.flatnonzero(on & ~np.append(on[1:] & ~self.ticks.begins[1:], False)) + 1
        return np.stack([firsts, stops], axis=1)

    def reasons(self) -> dict[str, int]:
        """Ticks by the reason that `monitor` gives."""
        counts = np.bincount(self.reason, minlength=len(REASONS))
        return {str(REASONS[i]): int(count) for i, count in enumerate(counts) if count}


class Lead(NamedTuple):
    """How long before a violation the shield would have taken over."""

    row: int
    seconds: float
    """From the first override within the window; NaN where there was none."""


def leads_of(replay: Replay, window: int, dt: float) -> list[Lead]:
    """Of every violation, looking back `window` ticks within its episode."""
    ticks, found = replay.ticks, []
    begins = np.flatnonzero(ticks.begins)
    for row in ticks.violations.tolist():
        begin = int(begins[np.searchsorted(begins, row, side="right") - 1])
        start = max(row + 1 - window, begin)
        hits = np.flatnonzero(replay.overridden[start : row + 1])
        first = start + int(hits[0]) if len(hits) else None
        found.append(Lead(row, math.nan if first is None else (row + 1 - first) * dt))
    return found


def unneeded(replay: Replay, window: int) -> np.ndarray:
    """Takeovers `[t, 2]` that no violation follows within `window` ticks, in their episode."""
    ticks, takeovers = replay.ticks, replay.takeovers
    places = np.searchsorted(ticks.violations, takeovers[:, 0])
    following = np.append(ticks.violations, -1)[places]
    followed = (
        (places < len(ticks.violations))
        & (following - (takeovers[:, 1] - 1) < window)
        & (ticks.episodes[following] == ticks.episodes[takeovers[:, 0]])
    )
    return takeovers[~followed]


def load_ticks(path: Path, shield: Shield, task: str | None = None) -> Ticks:
    """A dataset folder, or a black box, as ticks of this shield.

    Args:
        path: what `safemesa data import` or a `BlackBox` wrote.
        shield: whose names and sizes it must have.
        task: a robot of the dataset; None: the new one, or the only one.

    Raises:
        DatasetError: nothing is there, it is of other signals or another dt, or the robot is not
            there.
    """
    if path.is_dir() and (path / MANIFEST_FILE).is_file():
        return ticks_of_log(OfflineTasks.load(path, verify=False), shield, task, str(path))
    if path.is_dir() or not path.exists():
        raise DatasetError(
            f"{path} is neither a dataset folder nor a black box. Import logs with `safemesa data "
            "import` first, or give the file that `Shield.load(..., black_box=...)` wrote."
        )
    if task is not None:
        raise DatasetError(f"{path} is a black box, which names no robot: leave --task out.")
    return ticks_of_black_box(path, shield)


def ticks_of_log(data: OfflineTasks, shield: Shield, task: str | None, where: str) -> Ticks:
    """One robot's log; its actions are taken for proposals."""
    log = _choose(data, task, where)
    settings, spaces = shield.settings, data.spaces
    columns = []
    for kind, own, wanted in (
        ("observations", spaces.obs_names, settings.observations.names),
        ("actions", spaces.action_names, settings.actions.names),
    ):
        if sorted(own) != sorted(wanted):
            raise DatasetError(
                f"{where} has the {kind} {', '.join(own)}; this shield expects "
                f"{', '.join(wanted)}. Give a log of the robot that it was exported for."
            )
        columns.append([own.index(name) for name in wanted])
    if abs(spaces.dt - settings.dt) > SAME_DT * settings.dt:
        raise DatasetError(
            f"{where} has a step of {spaces.dt:g} s, and this shield one of {settings.dt:g} s: "
            "risk, dwell and rates would mean something else. Import the log at that step."
        )
    episode = np.asarray(log.columns["episode"])
    begins = np.concatenate([[True], episode[1:] != episode[:-1]])
    return Ticks(
        name=log.name,
        obs=_ordered(log.columns["obs"], columns[0]),
        proposed=_ordered(log.columns["action"], columns[1]),
        begins=begins,
        violations=violation_rows(log),
        next_obs=_ordered(log.columns["next_obs"], columns[0]),
        numbers=np.arange(log.transitions),
        episodes=episode,
    )


def _ordered(values: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """The columns in another order; the mapped file itself where that is the same."""
    same = list(columns) == list(range(values.shape[1]))
    return values if same else np.asarray(values)[:, list(columns)]


def _choose(data: OfflineTasks, task: str | None, where: str) -> TaskLog:
    names = ", ".join(log.name for log in data.logs[:20])
    if task is not None:
        for log in data.logs:
            if log.name == task:
                return log
        raise DatasetError(f"{where} has no robot {task!r}. There are: {names}.")
    if data.test is not None or len(data.logs) == 1:
        return data.only_log()
    raise DatasetError(f"{where} has {len(data.logs)} robots: name one with --task: {names}.")


def ticks_of_black_box(path: Path, shield: Shield) -> Ticks:
    """The records of a black box. It holds interventions and faults, not what was quiet."""
    try:
        records = read_black_box(path)
    except ShieldError as error:
        raise DatasetError(str(error)) from error
    sizes = len(shield.settings.observations.names), len(shield.settings.actions.names)
    sound = []
    for place, record in enumerate(records):
        fits = [
            record[name] is None or record[name].shape == (size,)
            for name, size in (("obs", sizes[0]), ("proposed", sizes[1]), ("action", sizes[1]))
        ]
        if not all(fits):
            raise DatasetError(
                f"{path}, record {place}: its observation or action has another size than the "
                f"{sizes[0]} and {sizes[1]} of this shield. Give the shield that wrote it."
            )
        if record["obs"] is not None and record["proposed"] is not None:
            sound.append(record)
    ticks = np.array([_whole(record.get("tick")) for record in sound], np.int64)
    # Quiet ticks lie between records that do not follow each other: what came before is not known.
    begins = np.concatenate([[True] * bool(len(ticks)), np.diff(ticks) != 1]).astype(np.bool_)
    return Ticks(
        name=path.name,
        obs=_stacked([record["obs"] for record in sound], sizes[0]),
        proposed=_stacked([record["proposed"] for record in sound], sizes[1]),
        begins=begins,
        violations=np.zeros(0, np.int64),
        next_obs=None,
        numbers=ticks,
        episodes=np.cumsum(begins, dtype=np.int32) - 1,
        recorded=Recorded(
            risk=np.array([_number(record.get("risk")) for record in sound]),
            statistic=np.array([_positive(record.get("statistic")) for record in sound]),
            action=_stacked([record["action"] for record in sound], sizes[1]),
            reasons=_counted((record.get("reason") for record in records), list(map(str, REASONS))),
            overridden=sum(record.get("overridden") is True for record in records),
            modes=_counted((record.get("mode") for record in records), MODES),
            same_model=np.array(
                [record.get("model") == shield.digest for record in sound], np.bool_
            ),
            unreadable=len(records) - len(sound),
        ),
    )


def _whole(value: Any) -> int:
    return value if type(value) is int and abs(value) < 2**53 else 0


def _number(value: Any) -> float:
    whole = type(value) is int and 0 <= value <= 1
    return float(value) if whole or type(value) is float else math.nan


def _positive(value: Any) -> float:
    sound = type(value) in (int, float) and 0.0 <= value < math.inf
    return float(value) if sound else math.nan


def _counted(values: Iterable[Any], known: Sequence[str]) -> dict[str, int]:
    """How often each comes, in their order of appearance; a forged file may hold any text."""
    counts: dict[str, int] = {}
    for value in values:
        name = value if isinstance(value, str) and value in known else "unknown"
        counts[name] = counts.get(name, 0) + 1
    return counts


def _stacked(values: Sequence[np.ndarray | None], width: int) -> np.ndarray:
    rows = [np.full(width, np.nan) if value is None else value for value in values]
    return np.stack(rows) if rows else np.zeros((0, width))


def monitoring(folder: Path) -> Shield:
    """The shield of an export folder, as it would be deployed to watch; it keeps no records.

    Raises:
        ModelError: the folder is damaged.
    """
    return Shield.load(folder, mode="monitor", black_box=BlackBox(keep=0))


def replay_ticks(shield: Shield, ticks: Ticks, on_ticks: OnTicks = lambda done, of: None) -> Replay:
    """Asks a monitoring shield about every tick, in order."""
    shield.set_mode("monitor")
    shadow = _Shadow(shield)
    count, width = len(ticks), len(shield.settings.actions.names)
    risk = np.full(count, np.nan, np.float32)
    reason = np.zeros(count, np.uint8)
    overridden = np.zeros(count, np.bool_)
    action = np.full((count, width), np.nan, np.float32)
    statistic = np.full(count, np.nan, np.float32)
    monitor = shield.dynamics if ticks.recorded is None else None
    index = {one: number for number, one in enumerate(REASONS)}
    for chunk in row_chunks(count):
        on_ticks(chunk.start, count)
        obs, proposed = np.asarray(ticks.obs[chunk]), np.asarray(ticks.proposed[chunk])
        for row in range(chunk.start, chunk.stop):
            if ticks.begins[row]:
                shield.reset()
            here = obs[row - chunk.start], proposed[row - chunk.start]
            past = shadow.past()
            decision = shield.decide(*here)
            risk[row] = decision.risk
            reason[row] = index[decision.reason]
            if monitor is not None:
                statistic[row] = monitor.statistic
            if decision.reason is not Reason.OK:
                # What `monitor` finds nothing about, `enforce` lets pass too.
                decision = shadow.decide(past, *here, decision)
            overridden[row] = decision.overridden
            action[row] = decision.action
    return Replay(
        ticks=ticks,
        risk=risk,
        reason=reason,
        overridden=overridden,
        action=action,
        statistic=statistic,
        statistics=shield.statistics(),
        knows_recovery=shadow.can_act,
    )


class _Shadow:
    """The same shield in `enforce`, with the past of the one that monitors."""

    _PAST = ("engaged", "_held", "_part", "_last_now", "_has_last")

    def __init__(self, shield: Shield) -> None:
        self.watching, self.acting, self.can_act = shield, shield.fork(), True
        try:
            self.acting.set_mode("enforce", force=True)
        except SettingsError:
            # The recovery is the caller's own and was not exported.
            self.can_act = False

    def past(self) -> tuple[tuple[Any, ...], np.ndarray, tuple[Any, ...] | None]:
        """All that a decision depends on, beside the tick itself."""
        monitor = self.watching.dynamics
        return (
            tuple(getattr(self.watching, name) for name in self._PAST),
            self.watching._last.copy(),
            None if monitor is None else monitor.past(),
        )

    def decide(
        self,
        past: tuple[tuple[Any, ...], np.ndarray, tuple[Any, ...] | None],
        obs: np.ndarray,
        proposed: np.ndarray,
        watched: Decision,
    ) -> Decision:
        """What `enforce` sends at a tick of which `monitor` said `watched`."""
        if not self.can_act:
            unusual = (Reason.OUTSIDE_TRAINING, Reason.DYNAMICS_CHANGED)
            passes = watched.reason in unusual and self.watching.unusual_policy in (
                "record",
                "tighten",
            )
            would = watched.overridden or not passes
            unknown = np.full(len(watched.action), np.nan)
            action = unknown if would and not watched.overridden else watched.action
            return watched._replace(overridden=would, action=action)
        for name, value in zip(self._PAST, past[0], strict=True):
            setattr(self.acting, name, value)
        self.acting._last[:] = past[1]
        if self.acting.dynamics is not None and past[2] is not None:
            self.acting.dynamics.restore(past[2])
        return self.acting.decide(obs, proposed)
