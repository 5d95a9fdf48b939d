"""`safemesa report RUNS`: one HTML file with curves, maps and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from safemesa.cli.arguments import Positional, command_line, parse, prepare_jax


@dataclass(frozen=True, kw_only=True)
class ReportFlags:
    """Compares finished runs: curves, violations, risk maps, calibration, a table."""

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUNS ...")]
    """Run folders, folders that contain some, or CSV files of other programs' episodes."""
    out: Path = Path("report")
    """Folder of report.html and the figures."""
    baseline: str = "multitask"
    """The arm that others are compared with, seed by seed."""
    calibration: bool = True
    """Also measure calibration against Monte-Carlo roll-outs (about half a minute per arm)."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Writes the report and prints where it is."""
    flags = parse(ReportFlags, verb, arguments)
    prepare_jax()
    from safemesa.experiments.report.report_page import write_report
    from safemesa.phases.progress import BarProgress

    path = write_report(
        flags.runs,
        flags.out,
        command_line(verb, arguments),
        baseline=flags.baseline,
        progress=BarProgress(),
        with_calibration=flags.calibration,
    )
    print(f"Report: {path}")
