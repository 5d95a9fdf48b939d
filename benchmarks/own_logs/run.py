"""Every robot, seed, log and arm that the file of records lacks."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.own_logs.documented_path import Choice, Workshop, risk_facts
from benchmarks.own_logs.kinds import KINDS
from benchmarks.own_logs.measure import measure, shield_guard
from benchmarks.own_logs.robot import Guard
from safemesa.cli.grid import parse_seeds
from safemesa.phases.storage.run_folder import provenance

ARMS = ("none", "shield", "hand rule")
KEY = ("robot", "arm", "meta_seed", "log_seed", "horizon", "preset")
"""Fields that make a record the only one of its kind. Without a shield there is neither seed."""


def run(flags: argparse.Namespace) -> None:
    """Appends a line for each combination and arm; given again, goes on with what is missing."""
    commit = provenance()["git_commit"]
    work = flags.work or Path("runs/own_logs") / (commit or "installed").replace("+", "-")
    choice = Choice(horizon=flags.horizon, preset=flags.preset)
    path = flags.out / "results.jsonl"
    stamp = {
        "git_commit": commit,
        "command": shlex.join(["python", "-m", "benchmarks.own_logs", *sys.argv[1:]]),
    }
    for robot in flags.robots.split(","):
        workshop = Workshop(folder=work, kind=KINDS[robot], choice=choice)
        seeds, logs = parse_seeds(flags.seeds), parse_seeds(flags.logs)
        for key in combinations(robot, choice, seeds, logs):
            # Read afresh: another process may fill the same file with other robots.
            if key_of(key) in {key_of(record) for record in read_records(path)}:
                continue
            if key["arm"] == "shield":
                # Beforehand, so that the seconds of a record are those of its own log.
                workshop.prior(key["meta_seed"], key["log_seed"])
            began = time.perf_counter()
            guard, facts = guard_of(workshop, key)
            counts = measure(workshop.kind, guard)
            seconds = {"wall_s": round(time.perf_counter() - began, 1)}
            append(path, {**key, **counts._asdict(), **facts, **seconds, **stamp})


def combinations(
    robot: str, choice: Choice, seeds: list[int], logs: list[int]
) -> Iterator[dict[str, Any]]:
    """The keys of a robot's records: one for each arm without a shield, and one for each shield."""
    for arm in ("none", "hand rule"):
        nothing = dict.fromkeys(("meta_seed", "log_seed", "horizon", "preset"))
        yield {"robot": robot, "arm": arm, **nothing}
    for seed in seeds:
        for log in logs:
            yield {
                "robot": robot,
                "arm": "shield",
                "meta_seed": seed,
                "log_seed": log,
                "horizon": choice.horizon,
                "preset": choice.preset,
            }


def guard_of(workshop: Workshop, key: dict[str, Any]) -> tuple[Guard | None, dict[str, Any]]:
    """The guard of a combination, which is made if it is missing, and what is known of it."""
    kind = workshop.kind
    if key["arm"] == "none":
        return None, {}
    if key["arm"] == "hand rule":
        return kind.rule(kind.new), {}
    folder = workshop.shield(key["meta_seed"], key["log_seed"])
    facts = {"meta_train_wall_s": workshop.prior_seconds(key["meta_seed"]), **risk_facts(folder)}
    return shield_guard(folder), facts


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a record is the only one of."""
    return tuple(record[field] for field in KEY)


def append(path: Path, record: dict[str, Any]) -> None:
    """One more line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record), flush=True)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of records; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
