"""`safemesa power RUNS`: how many paired seeds a difference takes to be found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from safemesa.cli.arguments import Positional, parse


@dataclass(frozen=True, kw_only=True)
class PowerFlags:
    """Per domain, the pairs of seeds that find a given gap to a baseline in four of five cases."""

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUNS ...")]
    """Run folders, folders that contain some, or CSV files of other programs' episodes."""
    gap: float = 0.25
    """The difference to find, as a share of the baseline's mean."""
    metric: Literal["violations", "successes"] = "violations"
    """What is compared."""
    baseline: str = "multitask"
    """The arm that others are compared with."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Prints a table."""
    flags = parse(PowerFlags, verb, arguments)
    from safemesa.experiments.report.power_table import power_text
    from safemesa.experiments.report.seed_power import power_rows
    from safemesa.experiments.runs.run_records import scan_runs

    scan = scan_runs(flags.runs)
    rows = power_rows(scan.runs, metric=flags.metric, gap=flags.gap, baseline=flags.baseline)
    print(power_text(rows, flags.gap))
    for one in scan.set_aside:
        print(f"Left out: {one.name}: {one.reason}")
