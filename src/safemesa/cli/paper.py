"""`safemesa paper`: the paper's figures, tables and claims."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.cli.arguments import Positional, check_jobs, command_line, parse, prepare_jax
from safemesa.cli.grid import names, parse_seeds
from safemesa.core.errors import ConfigurationError
from safemesa.phases.workers import cores

MOST_PROBE = 3600.0
"""Seconds."""

PARTS = {
    "figure2": "risk over the maze while the prior adapts",
    "figure3": "the domains",
    "figure4": "navigation: learning curves and cumulative violations",
    "figure5": "cartpole, halfcheetah, ant: the same",
    "figure6a": "halfcheetah: the size of the test log",
    "figure6b": "halfcheetah under partial failures",
    "gpu": "figures 4 to 6 on one accelerator, seeds and arms side by side",
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
class GpuFlags:
    """Runs what is missing for Figures 4 to 6 on one accelerator, and draws them.

    Seeds of an arm, and arms that differ in Phases 1 and 2 alone, are one program; simulators step
    in processes of their own. Says first how long it takes. Run again, it goes on where it stopped.
    """

    out: Path = Path("runs/paper-gpu")
    """Folder of the runs; figures go to <out>/figures."""
    preset: str = "paper"
    """`paper` (the paper's sizes), `cpu` (smaller, for a laptop) or `quick` (a minute)."""
    seeds: str = "0-4"
    """Seeds, such as `0-4` or `0,1,7`."""
    seeds_per_process: int = 5
    """Seeds that run side by side (seeds 0 to N-1, N to 2N-1, ...)."""
    figures: str = "figure4,figure5,figure6a,figure6b"
    """Figures, with commas between them."""
    data_dir: Path = Path("data")
    """Where the training logs are kept."""
    simulators: int | None = None
    """Processes that step simulators; default: one per core but one, at least one. Results do not
    depend on it."""
    estimate: bool = False
    """Only measure how long it would take; write nothing."""
    probe_seconds: float = 60.0
    """How long to measure beside compilation; 0: not at all."""


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
    elif part == "gpu":
        gpu(verb, arguments)
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


def gpu(verb: str, arguments: Sequence[str]) -> None:
    """Measures, runs, draws."""
    flags = parse(GpuFlags, f"{verb} gpu", arguments[1:])
    if flags.simulators is not None and flags.simulators < 1:
        raise ConfigurationError(f"--simulators is {flags.simulators}; expected at least 1.")
    if not 0.0 <= flags.probe_seconds <= MOST_PROBE or (flags.estimate and not flags.probe_seconds):
        raise ConfigurationError(
            f"--probe-seconds is {flags.probe_seconds}; expected a number from 0 to {MOST_PROBE}, "
            "and above 0 with --estimate."
        )
    from safemesa.experiments.paper.produce import Production

    # Here only figures are drawn: a process that holds the accelerator would leave none for runs.
    production = Production(
        out=flags.out,
        preset=flags.preset,
        seeds=tuple(parse_seeds(flags.seeds)),
        data_dir=flags.data_dir,
        jobs=1,
        draw_only=False,
        command=command_line(verb, arguments),
        seeds_per_process=flags.seeds_per_process,
        simulators=flags.simulators or max(1, cores() - 1),
    )
    figures = names("figures", flags.figures)
    if flags.probe_seconds:
        print(production.estimated(figures, flags.probe_seconds), file=sys.stderr, flush=True)
    if not flags.estimate:
        for path in production.figures(figures):
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
