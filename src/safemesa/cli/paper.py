"""`safemesa paper`: the paper's figures, tables and claims."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.cli.arguments import Positional, check_jobs, command_line, parse, prepare_jax
from safemesa.cli.grid import parse_seeds
from safemesa.core.errors import ConfigurationError

PARTS = {
    "figure2": "risk over the maze while the prior adapts",
    "figure3": "the domains",
    "figure4": "navigation: learning curves and cumulative violations",
    "figure5": "cartpole, halfcheetah, ant: the same",
    "figure6a": "halfcheetah: the size of the test log",
    "figure6b": "halfcheetah under partial failures",
    "table": "the settings in use beside Tables 1 to 5",
    "claims": "each claim of the paper, with the measured effect and a verdict",
    "verdicts": "the claims of several folders in one table",
    "all": "everything above, one HTML report and a page of results",
}
"""Part to what it is."""


@dataclass(frozen=True, kw_only=True)
class FigureFlags:
    """Runs what is missing for a figure of the paper, and draws it."""

    out: Path = Path("runs/paper")
    """Folder of the runs; figures go to <out>/figures."""
    preset: str = "paper"
    """`paper` (the paper's sizes), `cpu` (smaller, for a laptop) or `quick` (a minute)."""
    seeds: str | None = None
    """Seeds, such as `0-4` or `0,1,7`; default: `0-4`, with the preset `quick` `0`."""
    data_dir: Path = Path("data")
    """Where the training logs are kept."""
    jobs: int | None = None
    """Processes at a time; default: one per core."""
    draw_only: bool = False
    """Draw from the runs that are there; run nothing."""


@dataclass(frozen=True, kw_only=True)
class TableFlags:
    """Prints the settings of a preset beside the paper's Tables 1 to 5."""

    preset: str = "paper"
    """Whose settings."""


@dataclass(frozen=True, kw_only=True)
class ClaimsFlags:
    """Prints each claim of the paper with what finished runs say about it."""

    out: Path
    """Folder of the runs; claims.json and claims.md are written there."""
    preset: str | None = None
    """Which runs: presets are never mixed. Default: that of the runs in the folder."""
    calibration: Path | None = None
    """A file of `safemesa calibration`; default: calibration.json in the folder."""


@dataclass(frozen=True, kw_only=True)
class VerdictsFlags:
    """Prints each claim of the paper as the first of some folders that measured it says."""

    folders: Positional[tuple[Path, ...]]
    """Folders in which `safemesa paper claims` wrote; the first that measured a claim counts."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Dispatches."""
    part = arguments[0] if arguments else "nothing"
    if part in ("-h", "--help"):
        width = max(map(len, PARTS))
        print("usage: safemesa paper PART ...\n")
        print("\n".join(f"  {name:<{width}}  {text}" for name, text in PARTS.items()))
        raise SystemExit(0)
    if part not in PARTS:
        raise ConfigurationError(
            f"`safemesa paper` got {part!r}; expected one of {', '.join(PARTS)}."
        )
    if part == "table":
        table(verb, arguments)
    elif part == "claims":
        claims(verb, arguments)
    elif part == "verdicts":
        verdicts(verb, arguments)
    else:
        figures(verb, arguments)


def figures(verb: str, arguments: Sequence[str]) -> None:
    """One figure, or all of them with the claims and a report."""
    part = arguments[0]
    flags = parse(FigureFlags, f"{verb} {part}", arguments[1:])
    check_jobs(flags.jobs)
    prepare_jax()
    from safemesa.experiments.paper.produce import Production

    usual = "0" if flags.preset == "quick" else "0-4"
    production = Production(
        out=flags.out,
        preset=flags.preset,
        seeds=tuple(parse_seeds(flags.seeds or usual)),
        data_dir=flags.data_dir,
        jobs=flags.jobs,
        draw_only=flags.draw_only,
        command=command_line(verb, arguments),
    )
    paths = production.everything() if part == "all" else [production.figure(part)]
    for path in paths:
        print(path)


def table(verb: str, arguments: Sequence[str]) -> None:
    """Markdown on standard output."""
    flags = parse(TableFlags, f"{verb} table", arguments[1:])
    from safemesa.experiments.paper.settings_tables import tables_markdown

    print(tables_markdown(flags.preset))


def claims(verb: str, arguments: Sequence[str]) -> None:
    """Exits 0 whatever the verdicts."""
    flags = parse(ClaimsFlags, f"{verb} claims", arguments[1:])
    from safemesa.experiments.paper.claims_table import write_claims

    text = write_claims(flags.out, flags.preset, flags.calibration, command_line(verb, arguments))
    print(text)
    print(f"Written: {flags.out / 'claims.md'}, {flags.out / 'claims.json'}", file=sys.stderr)


def verdicts(verb: str, arguments: Sequence[str]) -> None:
    """Markdown on standard output."""
    flags = parse(VerdictsFlags, f"{verb} verdicts", arguments[1:])
    from safemesa.experiments.paper.claims_table import gathered_claims

    if not flags.folders:
        raise ConfigurationError("`safemesa paper verdicts` got no folder; expected one or more.")
    print(gathered_claims(flags.folders))
