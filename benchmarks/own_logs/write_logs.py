"""Writes the logs of a fleet and of a new robot as CSV, as their loggers do, and the map.

    from benchmarks.own_logs.kinds import KINDS
    from benchmarks.own_logs.write_logs import write_logs

    write_logs(KINDS["cart"], Path("logs"), log_seed=0)  # logs/csv/ROBOT/DAY.csv, logs/map.toml

The logs of the fleet are always the same; only those of the new robot depend on the log seed.
"""

import csv
import datetime
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.own_logs.episodes import Moment, drive
from benchmarks.own_logs.robot import Kind

FLEET_EPISODES = 120
NEW_EPISODES = 30
FIRST_DAY = datetime.datetime(2026, 3, 2, 8)
PAUSE = 60.0
"""Seconds between episodes."""
JITTER = 0.02
"""Standard deviation of a row's time, as a share of dt."""
PEOPLE = ("anna", "bernd", "chloé")
FLEET_SEED, NEW_SEED = 100, 1000
"""First numbers of the seeds of episodes: no log shares any with another log or with the test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the logs of a robot hold."""

    robot: str
    episodes: int
    steps: int
    violations: int


def write_logs(
    kind: Kind,
    folder: Path,
    log_seed: int,
    *,
    fleet_episodes: int = FLEET_EPISODES,
    new_episodes: int = NEW_EPISODES,
) -> list[Facts]:
    """Writes `csv/ROBOT/DAY.csv` of all robots, and `map.toml`, into a folder."""
    facts = [
        _write_robot(kind, folder / "csv", robot, (FLEET_SEED + number,), fleet_episodes, 4)
        for number, robot in enumerate(kind.fleet)
    ]
    seed = (NEW_SEED + log_seed,)
    facts.append(_write_robot(kind, folder / "csv", kind.new_name, seed, new_episodes, 3))
    (folder / "map.toml").write_text(map_of(kind))
    return facts


def _write_robot(
    kind: Kind, folder: Path, robot: str, seed: Sequence[int], episodes: int, files: int
) -> Facts:
    """One file a day, each with its share of the episodes."""
    place = folder / robot
    place.mkdir(parents=True, exist_ok=True)
    machine, operator = kind.machine(kind.parameters(robot)), kind.operator()
    # No episode draws from it: theirs have `number` and `number, 1` or `number, 2` after the seed.
    logger = np.random.default_rng((*seed, 0, 3))
    steps = violations = 0
    for day, numbers in enumerate(np.array_split(np.arange(episodes), files)):
        start = FIRST_DAY + datetime.timedelta(days=day)
        with open(place / f"{start:%Y-%m-%d}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(header_of(kind))
            begin = 0.0
            for number in numbers.tolist():
                moments: list[Moment] = []
                episode = drive(
                    kind,
                    machine,
                    operator,
                    kind.habits(robot),
                    (*seed, number),
                    record=moments.append,
                )
                table.writerows(_rows(kind, moments, number, start, begin, logger))
                begin += episode.steps * kind.dt + PAUSE
                steps += episode.steps
                violations += episode.violated
    return Facts(robot=robot, episodes=episodes, steps=steps, violations=violations)


def header_of(kind: Kind) -> list[str]:
    """The columns of a file. Nothing needs `operator` and `supply_v`; loggers have such columns."""
    signals = [signal.column for signal in kind.signals]
    commands = [command.column for command in kind.commands]
    names = [kind.time_column, kind.episode_column, "operator", "supply_v"]
    return [*names, *signals, *commands, kind.alarm]


def _rows(
    kind: Kind,
    moments: Sequence[Moment],
    number: int,
    start: datetime.datetime,
    begin: float,
    logger: np.random.Generator,
) -> Iterator[list[Any]]:
    """The rows of an episode that begins so many seconds after the start of its file."""
    person = str(logger.choice(PEOPLE))
    supply = logger.uniform(23.0, 26.0)
    for step, moment in enumerate(moments):
        seconds = begin + kind.dt * (step + float(np.clip(logger.normal(0.0, JITTER), -0.1, 0.1)))
        supply -= logger.exponential(1e-4)
        # Of the last two rows none is lost: a violation after a gap would be lost with it.
        if logger.random() < kind.dropped_rows and step < len(moments) - 2:
            continue
        time = f"{seconds:.3f}"
        if kind.time_column == "timestamp":
            moment_of_day = start + datetime.timedelta(seconds=seconds)
            time = moment_of_day.isoformat(timespec="milliseconds") + "Z"
        cells = [
            f"{(value - signal.offset) / signal.scale:.{signal.digits}f}"
            for signal, value in zip(kind.signals, moment.obs.tolist(), strict=True)
        ]
        cells += [
            f"{value:.{command.digits}f}"
            for command, value in zip(kind.commands, moment.action.tolist(), strict=True)
        ]
        yield [time, number, person, f"{supply:.2f}", *cells, int(moment.violated)]


def map_of(kind: Kind) -> str:
    """The map that an engineer writes for these files (docs/import_csv.md)."""
    lines = [
        f'domain = "{kind.name}"',
        'rows = "states"',
        f"dt = {kind.dt}",
        f"horizon = {kind.steps}",
        'task_from = "folder"',
    ]
    if kind.dropped_rows > 0.0:
        lines.append('gaps = "split"')
    lines += ["", "obs = ["]
    for signal in kind.signals:
        entry = f'name = "{signal.name}", column = "{signal.column}", unit = "{signal.unit}"'
        if signal.scale != 1.0:
            entry += f", scale = {signal.scale!r}"
        if signal.offset != 0.0:
            entry += f", offset = {signal.offset!r}"
        lines.append(f"  {{{entry}}},")
    lines += ["]", "action = ["]
    lines += [
        f'  {{name = "{command.name}", column = "{command.column}", unit = "{command.unit}", '
        f"low = {command.low}, high = {command.high}}},"
        for command in kind.commands
    ]
    lines += [
        "]",
        "",
        "[[signal]]",
        f'name = "{kind.alarm}"',
        "",
        "[columns]",
        f'time = "{kind.time_column}"',
        f'episode = "{kind.episode_column}"',
        "",
        "[cost]",
        f'limit = "{kind.alarm} > 0.5"',
        "",
        "[tasks]",
        f'test = "{kind.new_name}"',
    ]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text
