"""`safemesa calibration RUNS`: is the adapted risk a probability?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from safemesa.cli.arguments import Positional, command_line, parse, prepare_jax
from safemesa.core.errors import ConfigurationError
from safemesa.core.outputs import check_output


@dataclass(frozen=True, kw_only=True)
class CalibrationFlags:
    """Adapts each run's prior to held-out tasks and compares with Monte-Carlo roll-outs."""

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUNS ...")]
    """Run folders, or folders that contain some."""
    out: Path | None = None
    """JSON file for the table; printed only where not given."""
    tasks: int = 8
    """Held-out tasks."""
    pairs: int = 400
    """State-action pairs per task, from the collection distribution."""
    rollouts: int = 256
    """Monte-Carlo roll-outs per pair."""
    adapt_target_rate: float | None = None
    """Override Phase 2's target rate (1: bootstrap from the online critic)."""
    all_seeds: bool = False
    """Ask the priors of all seeds, not of each arm's lowest alone."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Prints and writes the table."""
    flags = parse(CalibrationFlags, verb, arguments)
    for name in ("tasks", "pairs", "rollouts"):
        if getattr(flags, name) < 1:
            raise ConfigurationError(f"--{name} is {getattr(flags, name)}; expected at least 1.")
    rate = flags.adapt_target_rate
    if rate is not None and not 0.0 <= rate <= 1.0:
        raise ConfigurationError(f"--adapt-target-rate is {rate}; expected a number from 0 to 1.")
    check_output(flags.out)
    prepare_jax()
    from safemesa.core.files import write_json
    from safemesa.experiments.measures.calibrate_runs import calibrate_runs, print_table, table_rows
    from safemesa.phases.progress import BarProgress

    results = calibrate_runs(
        flags.runs,
        tasks=flags.tasks,
        pairs=flags.pairs,
        rollouts=flags.rollouts,
        adapt_target_rate=flags.adapt_target_rate,
        all_seeds=flags.all_seeds,
        progress=BarProgress(),
    )
    rows = table_rows(results)
    print_table(rows)
    if flags.out is not None:
        write_json(flags.out, {"command": command_line(verb, arguments), "rows": rows})
        print(f"Table: {flags.out}")
