"""`safemesa data info`: what a dataset holds."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safemesa.cli.arguments import Positional, parse
from safemesa.core.errors import ConfigurationError
from safemesa.experiments.paper_logs import PAPER_LOGS

if TYPE_CHECKING:
    from safemesa.datasets.offline_tasks import OfflineTasks


@dataclass(frozen=True, kw_only=True)
class InfoFlags:
    """Prints a dataset's tasks: transitions, violations, episodes, return."""

    folder: Positional[Path]
    """Dataset folder."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """`data info FOLDER`."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: safemesa data info FOLDER")
        return
    if not arguments or arguments[0] != "info":
        given = arguments[0] if arguments else "nothing"
        raise ConfigurationError(f"`safemesa data` got {given!r}; expected: data info FOLDER.")
    flags = parse(InfoFlags, f"{verb} info", arguments[1:])
    from safemesa.datasets.offline_tasks import OfflineTasks

    print_info(OfflineTasks.load(flags.folder))


def print_info(data: "OfflineTasks") -> None:
    """The dataset card."""
    from rich.console import Console
    from rich.table import Table

    rows = data.summary_rows()
    columns = [column for column in rows[0] if column != "parameters"]
    table = Table(title=f"{data.domain}: {len(rows)} tasks")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        values = [row[column] for column in columns]
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if data.domain in PAPER_LOGS:
        console.print(PAPER_LOGS[data.domain].in_words(), highlight=False)
    spaces = data.spaces
    console.print(f"observations: {', '.join(spaces.obs_names)}")
    console.print(f"actions: {', '.join(spaces.action_names)}")
    for name, value in data.provenance.items():
        console.print(f"{name}: {value}", markup=False)
