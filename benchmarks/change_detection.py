"""`python -m benchmarks.change_detection`: how soon is a change of a robot noticed, at what price?

From training logs and from finished runs of the domain, all as they are on disk: nothing is
driven. Runs with a `--deploy.change` give the delay after it. In every run, with `--change`, a
changed robot is also put into the states of healthy rows and takes their actions: a sudden change
at `--points` steps. (It goes on from the healthy robot's states, so what follows from being changed
is missing.)

A JSON line per detector and rate of false alarms:

- `threshold`, and `low` to `high`: false alarms per hour, by resampling the fleet's robots;
- `alarms` in `hours` of healthy rows of runs, in which a policy learns;
- `delay_s`, median in seconds of robot time; `found`, and `within_2s`: shares of the changes.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.streams import Stream, generator, root_key, substream
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.base import AbstractDomain, sample_test_task
from safemesa.domains.changes import changed_task
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.learners.monitor.detectors import (
    CUSUM,
    EWMA,
    Detector,
    SingleRow,
    WindowedZ,
    excursions,
    first_alarm,
)
from safemesa.learners.monitor.threshold import extrapolate_threshold
from safemesa.phases.monitoring import (
    Fitting,
    FleetMonitor,
    Rehearsal,
    fleet_sample,
    held_out_rehearsals,
    monitor_rows,
)
from safemesa.phases.storage.replay_file import read_replay

RATES = (10.0, 1.0, 0.1)
"""False alarms per hour."""


class Run(NamedTuple):
    """A finished run: its rows, where its robot changes, and its seed."""

    log: np.ndarray
    rows: np.ndarray
    change: int | None
    seed: int


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.change_detection", description=__doc__
    )
    parser.add_argument("--domain", default="cartpole")
    parser.add_argument("--data", type=Path, required=True, help="training logs")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="finished runs")
    parser.add_argument("--change", nargs="*", default=[], help="PARAMETERS, such as {...}")
    parser.add_argument("--points", type=int, default=10, help="changes per run")
    parser.add_argument("--steps", type=int, default=10_000, help="most steps of a run")
    parser.add_argument("--log-rows", type=int, default=1_000, help="of a training robot's log")
    parser.add_argument("--every", type=int, help="steps between renewals (MonitorConfig.every)")
    parser.add_argument("--outside", type=float, help="MonitorConfig.outside")
    parser.add_argument("--scores", type=Path, help="keeps all scores as an .npz file")
    return parser.parse_args(arguments)


def read_run(fitting: Fitting, folder: Path, steps: int) -> Run:
    """A run folder."""
    columns = read_replay(folder / "replay")
    log = OfflineTasks.load(folder / "artefacts" / "test_log").only_log()
    summary = json.loads((folder / "summary.json").read_text())
    changes = summary.get("changes", [])
    names = ("obs", "action", "next_obs")
    rows = np.asarray(fitting.layout.pack({name: np.array(columns[name]) for name in names}))
    change = int(changes[0]["step"]) if changes else None
    return Run(monitor_rows(log, fitting.spaces), rows[:steps], change, int(summary["seed"]))


def changed_rows(
    fitting: Fitting, domain: AbstractDomain, run: Run, change: Any, start: int, count: int
) -> np.ndarray:
    """Rows from `start` on, as the changed robot takes them."""
    assert isinstance(domain, AbstractHostDomain)
    task = changed_task(domain, sample_test_task(domain, run.seed), change)
    env = cast(Any, domain.make_env(task, terminate_on_violation=False))
    rows, places = run.rows[start : start + count].copy(), fitting.layout.places
    for row in rows:
        env.observe_again(row[places["obs"]])
        row[places["next_obs"]] = env.step(fitting.spaces.from_unit(row[places["action"]]))[0]
    env.close()
    return rows


def delays_of(
    fitting: Fitting,
    domain: AbstractDomain,
    run: Run,
    rehearsal: Rehearsal,
    change: Any,
    points: int,
) -> Iterator[tuple[np.ndarray, int]]:
    """Scores through each change, and where in them it is."""
    every = fitting.config.every
    healthy = run.rows[: run.change]
    blocks = len(healthy) // every
    ahead = min(250, every)
    rng = np.random.default_rng(0)
    for block in np.unique(np.linspace(1, blocks - 1, points).round().astype(int)):
        point = int(block * every + rng.integers(every // 2))
        changed = changed_rows(fitting, domain, run, change, point, ahead)
        tracker = rehearsal.trackers[block]
        both = np.concatenate([run.rows[block * every : point], changed])
        padded = np.concatenate([both, np.repeat(both[-1:], 2 * every - len(both), axis=0)])
        _, scores = fitting.follow(tracker, padded, block * every)
        before = rehearsal.scores[: block * every]
        yield np.concatenate([before, scores[: len(both)]]), point


def keep_scores(
    file: Path,
    fleet: Sequence[np.ndarray],
    healthy: Sequence[np.ndarray],
    changed: dict[str, list[tuple[np.ndarray, int]]],
) -> None:
    """All scores; the name of a change has its number, that of the row, and its place in there."""
    arrays = {f"fleet{index}": one for index, one in enumerate(fleet)}
    arrays |= {f"healthy{index}": one for index, one in enumerate(healthy)}
    for number, pairs in enumerate(changed.values()):
        for index, (scores, point) in enumerate(pairs):
            arrays[f"changed{number}.{index}.{point}"] = scores
    np.savez(file, **cast(Any, arrays))


def judged(
    detector: Detector,
    rate: float,
    fleet: Sequence[np.ndarray],
    healthy: Sequence[np.ndarray],
    changed: dict[str, list[tuple[np.ndarray, int]]],
    dt: float,
) -> dict[str, Any]:
    """What a detector says at a rate of false alarms per hour, of scores and of changes in them."""
    line: dict[str, Any] = {"fleet_h": round(sum(map(len, fleet)) * dt / 3600, 3)}
    statistics = [detector.statistic(one) for one in fleet]
    try:
        found = extrapolate_threshold(statistics, rate * dt / 3600, np.random.default_rng(0))
    except DatasetError as error:
        return line | {"refused": str(error)}
    line |= {
        "threshold": round(found.value, 3),
        "low": float(f"{found.low * 3600 / dt:.3g}"),
        "high": float(f"{found.high * 3600 / dt:.3g}"),
    }
    line["alarms"] = [
        int(np.sum(excursions(detector.statistic(one)).peak > found.value)) for one in healthy
    ]
    for name, pairs in changed.items():
        rows = [
            first_alarm(detector.statistic(scores)[point:], found.value) for scores, point in pairs
        ]
        delay = np.array([np.inf if row is None else (row + 1) * dt for row in rows])
        middle = float(np.median(delay))
        line[name] = {
            "changes": len(delay),
            "delay_s": round(middle, 3) if np.isfinite(middle) else None,
            "within_2s": round(float(np.mean(delay <= 2.0)), 3),
            "found": round(float(np.mean(np.isfinite(delay))), 3),
        }
    return line


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    flags = parse(arguments)
    given = {name: getattr(flags, name) for name in ("every", "outside")}
    config = MonitorConfig(**{name: value for name, value in given.items() if value is not None})
    domain, data = find_domain(flags.domain), OfflineTasks.load(flags.data)
    fitting = Fitting(config=config, spaces=data.spaces)
    dt = data.spaces.dt
    robots = [monitor_rows(log, data.spaces) for log in data.train]
    fleet = [one.scores for one in held_out_rehearsals(fitting, robots, flags.log_rows, 0)]
    rows = fleet_sample(robots, generator(0, Stream.MONITOR_ROWS, 0))
    whole = FleetMonitor(
        fitting.fleet_model(rows, root_key(0, Stream.MONITOR_FLEET)), rows, jnp.float32(jnp.inf)
    )
    healthy: list[np.ndarray] = []
    changed: dict[str, list[tuple[np.ndarray, int]]] = {}
    for folder in flags.runs:
        run = read_run(fitting, folder, flags.steps)
        key = substream(root_key(run.seed, Stream.MONITOR_UPKEEP), Stream.MONITOR_LOG)
        rehearsal = fitting.rehearse(whole, run.log, run.rows, key)
        healthy.append(rehearsal.scores[: run.change])
        if run.change is not None:
            changed.setdefault("in the run", []).append((rehearsal.scores, run.change))
        for text in flags.change:
            found = delays_of(fitting, domain, run, rehearsal, json.loads(text), flags.points)
            changed.setdefault(text, []).extend(found)
    if flags.scores is not None:
        keep_scores(flags.scores, fleet, healthy, changed)
    hours = round(sum(map(len, healthy)) * dt / 3600, 3)
    detectors = (*(CUSUM(reference=k) for k in (0.5, 1.0, 1.5)), WindowedZ(), EWMA(), SingleRow())
    for detector, rate in itertools.product(detectors, RATES):
        line = {"detector": repr(detector), "per_hour": rate, "hours": hours}
        print(json.dumps(line | judged(detector, rate, fleet, healthy, changed, dt)), flush=True)


if __name__ == "__main__":
    main()
