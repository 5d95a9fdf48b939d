"""`safemesa grid`: arms x domains x seeds, on this machine or on a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from safemesa.cli.arguments import (
    SECTIONS,
    check_jobs,
    command_line,
    current_spelling,
    parse_before_presets,
    parse_onto_all,
)
from safemesa.core.errors import ConfigurationError
from safemesa.experiments.arms import configure
from safemesa.experiments.grid.executors.job_scripts import collect_command, write_scripts
from safemesa.experiments.grid.executors.local import LocalExecutor
from safemesa.experiments.grid.executors.slurm import SlurmExecutor
from safemesa.experiments.grid.executors.slurm_config import SlurmConfig
from safemesa.experiments.grid.grid_folder import Grid, GridFolder, paired_runs
from safemesa.phases.config import SEEDS

MOST_SEEDS = 10_000
"""Of a grid."""


@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """Runs every arm on every domain with every seed; run again, it goes on where it stopped.

    Every arm and domain has the defaults of its preset; shown here are those of the first.
    """

    arms: str = "mesa,multitask,rrl,unconstrained"
    """Arms, with commas between them; see `safemesa run --help`."""
    domains: str = "navigation1,navigation2"
    """Domains, with commas between them."""
    seeds: str = "0-4"
    """Seeds, such as `0-4` or `0,1,7`. Seeds that are added later join the grid."""
    preset: str = "paper"
    """`paper` (the paper's sizes), `cpu` (smaller, for a laptop) or `quick` (a minute)."""
    data_seed: int = 0
    """Training tasks and logs."""
    out: Path | None = None
    """Folder of the grid; default runs/grid-<preset>. A run is <out>/<domain>/<arm>-<seed>."""
    data_dir: Path = Path("data")
    """Where the training logs are kept, shared by all runs."""
    jobs: int | None = None
    """Processes at a time; default: one per core, and one on an accelerator."""
    seeds_per_process: int = 1
    """Seeds of an arm that run side by side in one process (seeds 0 to N-1, N to 2N-1, ...); for
    accelerators."""
    dry_run: bool = False
    """Only list the runs and what has become of them."""
    collect_only: bool = False
    """Stop when the training logs are there."""
    executor: Literal["local", "slurm"] = "local"
    """`local` (processes of this machine) or `slurm` (jobs of a cluster; safemesa[slurm])."""
    emit: Literal["sbatch"] | None = None
    """Run nothing; write job scripts for SLURM into <out>/slurm."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """Of --executor slurm and --emit sbatch."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Runs what is unfinished and says where the results are."""
    words = current_spelling(verb, arguments)
    flags = parse_before_presets(GridFlags, verb, words, SECTIONS)
    check_jobs(flags.jobs)
    grid = make_grid(flags, verb, words)
    folder = GridFolder(flags.out or Path("runs") / f"grid-{flags.preset}")
    if flags.dry_run:
        folder.check(grid)
        describe(grid, folder)
        return
    command = command_line(verb, arguments)
    if flags.emit is not None:
        collect = collect_command(verb, arguments, flags.slurm)
        script = write_scripts(grid, folder, flags.data_dir, flags.slurm, command, collect)
        print(f"Job scripts: {script.parent}\nSubmit them with: bash {script}")
        return
    if flags.collect_only or flags.executor == "local":
        LocalExecutor(
            data_dir=flags.data_dir,
            command=command,
            jobs=flags.jobs,
            collect_only=flags.collect_only,
        ).carry_out(grid, folder)
    else:
        SlurmExecutor(data_dir=flags.data_dir, command=command, slurm=flags.slurm).carry_out(
            grid, folder
        )
    if flags.collect_only:
        print(f"Training logs: {flags.data_dir}")
        return
    print(f"{len(grid.runs)} of {len(grid.runs)} runs are finished: {folder.path}")
    print(f"Tables and curves: safemesa report {folder.path}")


def make_grid(flags: GridFlags, verb: str, arguments: Sequence[str]) -> Grid:
    """The grid of the flags: each arm's and domain's preset, changed by the flags that were given.

    Raises:
        ConfigurationError: an unknown name, or an impossible value.
    """
    arms, domains = names("arms", flags.arms), names("domains", flags.domains)
    presets = [configure(arm, domain, flags.preset) for domain in domains for arm in arms]
    _, configs = parse_onto_all(GridFlags, verb, arguments, presets, flags, SECTIONS, SECTIONS)
    configs = [replace(config, data_seed=flags.data_seed) for config in configs]
    runs = paired_runs(configs, parse_seeds(flags.seeds))
    return Grid(runs=runs, seeds_per_process=flags.seeds_per_process)


def names(flag: str, text: str) -> list[str]:
    """The names in `a,b,c`.

    Raises:
        ConfigurationError: there is none, or an empty one.
    """
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ConfigurationError(f"--{flag} is {text!r}; expected names with commas between them.")
    return found


def parse_seeds(text: str) -> list[int]:
    """The numbers in `0-4` or `0,1,7` or both.

    Raises:
        ConfigurationError: it is something else.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigurationError(f"--seeds is {text!r}; expected, say, 0-4 or 0,1,7.")
        if int(last or first) < int(first):
            raise ConfigurationError(f"--seeds is {text!r}; expected, say, 0-4: {part} is empty.")
        # Here, because a list of too many would be made before any run refuses its seed.
        if int(last or first) >= SEEDS:
            raise ConfigurationError(
                f"--seeds is {text!r}; expected numbers from 0 to {SEEDS - 1}."
            )
        if int(last or first) - int(first) + len(found) >= MOST_SEEDS:
            raise ConfigurationError(f"--seeds is {text!r}; expected at most {MOST_SEEDS} seeds.")
        found += range(int(first), int(last or first) + 1)
    return found


def describe(grid: Grid, folder: GridFolder) -> None:
    """A line per run."""
    states = []
    for run in grid.runs:
        there = folder.run(run)
        begun = "unfinished" if there.config_file.is_file() else "missing"
        states.append("finished" if there.finished else begun)
        print(f"{states[-1]:<10}  {there.path}")
    parts = [f"{states.count(one)} {one}" for one in dict.fromkeys(states)]
    print(f"{len(states)} runs: {', '.join(parts)}.")
