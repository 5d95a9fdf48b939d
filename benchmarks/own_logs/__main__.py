"""How many accidents a shield prevents that was made from CSV logs with defaults only.

    python -m benchmarks.own_logs run --robots cart,drone --seeds 0-2 --logs 0-2
    python -m benchmarks.own_logs table results/own_logs/results.jsonl
    python -m benchmarks.own_logs logs --robot cart --log-seed 0 --out logs
    python -m benchmarks.own_logs measure --robot cart --shield my_shield

An engineer has CSV logs of six robots and a small log of a seventh, and follows the documented path
(`data import`, `meta-train`, `adapt`, `shield export`) with its defaults. `run` does this for every
robot, with a prior for each seed and a shield for each seed and log of the new robot, drives the
new robot for 100 episodes behind each shield, without one, and behind a hand-written rule that
knows the physics, and appends one line for each to `results.jsonl` in `--out`; given again, it goes
on with what is missing.
Starts, disturbances, operators and sensors of the episodes are the same in every arm.

What it makes on the way (logs, priors, shields) lies in `--work`, by default a folder of the commit
of the sources: after another commit it makes everything afresh that no record has yet. Sources with
changes that are not committed share a folder, so empty it, or name another, after each change.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.own_logs.kinds import KINDS
from benchmarks.own_logs.measure import measure, shield_guard
from benchmarks.own_logs.run import read_records, run
from benchmarks.own_logs.table import summary_of, table_of
from benchmarks.own_logs.write_logs import write_logs


def table(flags: argparse.Namespace) -> None:
    """Prints the table."""
    records = read_records(flags.records)
    print(table_of(records))
    print()
    print(summary_of(records))


def logs(flags: argparse.Namespace) -> None:
    """Writes the logs and the map."""
    for fact in write_logs(KINDS[flags.robot], flags.out, flags.log_seed):
        print(f"{fact.robot}: {fact.violations} of {fact.episodes} episodes end in a violation")


def measure_shields(flags: argparse.Namespace) -> None:
    """Counts what happens without a shield, with the hand-written rule, and with shields."""
    kind = KINDS[flags.robot]
    print("none", measure(kind, None))
    print("hand rule", measure(kind, kind.rule(kind.new)))
    for folder in flags.shield:
        print(folder, measure(kind, shield_guard(folder)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    every = verbs.add_parser("run")
    every.set_defaults(verb=run)
    every.add_argument("--robots", default=",".join(KINDS), help=", ".join(KINDS))
    every.add_argument("--seeds", default="0-2", help="of meta-training: 0-2 or 0,1,2")
    every.add_argument("--logs", default="0-2", help="of the new robot: 0-2 or 0,1,2")
    every.add_argument("--horizon", default="none", choices=("none", "stated"))
    every.add_argument("--preset", help="of meta-train; default: its own")
    every.add_argument("--work", type=Path, help="default: runs/own_logs/COMMIT")
    every.add_argument("--out", type=Path, default=Path("results/own_logs"))
    one = verbs.add_parser("table")
    one.set_defaults(verb=table)
    one.add_argument("records", type=Path)
    two = verbs.add_parser("logs")
    two.set_defaults(verb=logs)
    two.add_argument("--robot", default="cart", choices=KINDS)
    two.add_argument("--log-seed", type=int, default=0)
    two.add_argument("--out", type=Path, required=True)
    three = verbs.add_parser("measure")
    three.set_defaults(verb=measure_shields)
    three.add_argument("--robot", default="cart", choices=KINDS)
    three.add_argument("--shield", type=Path, nargs="*", default=[])
    flags = parser.parse_args(arguments)
    flags.verb(flags)


if __name__ == "__main__":
    main()
