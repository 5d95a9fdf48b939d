"""`safemesa pack RUNS --out FOLDER`: many run folders in two files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from safemesa.cli.arguments import Positional, parse


@dataclass(frozen=True, kw_only=True)
class PackFlags:
    """Packs settings, summaries and episodes of finished runs; given again, it adds new ones.

    Verbs that compare runs read FOLDER as they read the run folders. Models and transitions are not
    packed, and nothing is deleted. Needs pyarrow: pip install 'safemesa[data]'.
    """

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUNS ...")]
    """Run folders, or folders that contain some."""
    out: Path
    """Folder of packed_runs.json and episodes.parquet; what is packed there stays."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Packs, and says how much."""
    flags = parse(PackFlags, verb, arguments)
    from safemesa.core.errors import ConfigurationError
    from safemesa.experiments.runs.pack_runs import pack_runs
    from safemesa.experiments.runs.packed_runs import EPISODES_FILE, RUNS_FILE

    if not flags.runs:
        raise ConfigurationError("`safemesa pack` got no folder; expected one or more.")
    packing = pack_runs(flags.runs, flags.out)
    files = [flags.out / RUNS_FILE, flags.out / EPISODES_FILE]
    size = sum(file.stat().st_size for file in files) / 1024
    print(f"{packing.runs} runs, {packing.new} of them new, in {size:.0f} KiB:")
    for file in files:
        print(f"  {file}")
    for run in packing.left_out:
        print(f"Left out: {run.name}: {run.reason}")
