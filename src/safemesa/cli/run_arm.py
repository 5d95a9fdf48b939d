"""`safemesa run ARM DOMAIN`: collects, meta-trains, adapts, deploys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from safemesa.cli.arguments import (
    ARM_HELP,
    DOMAIN_HELP,
    Common,
    Positional,
    check_jobs,
    command_line,
    parse_with_preset,
    prepare_jax,
    worker_count,
)
from safemesa.core.errors import ConfigurationError
from safemesa.core.files import file_name

if TYPE_CHECKING:
    from safemesa.phases.run import RunOptions


MOST_SEEDS = 1024
"""That run side by side."""


@dataclass(frozen=True, kw_only=True)
class RunFlags(Common):
    """Runs one arm on one domain through all phases; run again, it goes on where it stopped."""

    arm: Annotated[Positional[str], tyro.conf.arg(metavar="ARM", help=ARM_HELP)]
    domain: Annotated[Positional[str], tyro.conf.arg(metavar="DOMAIN", help=DOMAIN_HELP)]
    out: Path | None = None
    """Run folder; default runs/<domain>-<preset>/<arm>-<seed>."""
    seeds: int = 1
    """Run this many seeds (seed, seed + 1, ...) side by side in one process, for accelerators;
    each gets the folder <out>/seed-<n>."""
    data_dir: Path = Path("data")
    """Where the training logs are kept, shared by all arms and seeds."""
    jobs: int | None = None
    """Processes that collect the training logs of a simulated robot; default: one per core."""
    video: bool = False
    """Also write the last episode as a moving picture, episode.gif."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run folder."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Runs and prints where the results are."""
    flags, config = parse_with_preset(RunFlags, verb, arguments)
    if not 1 <= flags.seeds <= MOST_SEEDS:
        raise ConfigurationError(
            f"--seeds is {flags.seeds}; expected at least 1, at most {MOST_SEEDS}: they share a "
            "process. `safemesa grid` runs more."
        )
    check_jobs(flags.jobs)
    prepare_jax()
    from safemesa.phases.run import run

    name = f"{file_name(config.arm)}-{config.seed}"
    out = flags.out or Path("runs") / f"{file_name(config.domain)}-{config.preset}" / name
    seeds = [config.seed + offset for offset in range(flags.seeds)]
    folders = [out] if flags.seeds == 1 else [out / f"seed-{seed}" for seed in seeds]
    options = run_options(verb, arguments, flags.data_dir, flags.tensorboard)
    options.jobs = worker_count(flags.jobs)
    summaries = run([replace(config, seed=seed) for seed in seeds], folders, options)
    print_runs(summaries, folders)
    if flags.video:
        from safemesa.experiments.report.video import write_video

        for folder in folders:
            print(f"The last episode: {write_video(folder)}")
    print(f"A report with curves and maps: safemesa report {out}")


def run_options(
    verb: str, arguments: Sequence[str], data_dir: Path, tensorboard: bool
) -> "RunOptions":
    """Progress bar, sinks and the command, for a run from the command line."""
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.run import RunOptions
    from safemesa.phases.storage.sinks import NoSink, TensorBoardSink, require_tensorboard

    if tensorboard:
        require_tensorboard()
    return RunOptions(
        data_dir=data_dir,
        command=command_line(verb, arguments),
        progress=BarProgress(),
        make_sink=TensorBoardSink if tensorboard else lambda _: NoSink(),
    )


def print_runs(summaries: Sequence[dict[str, Any]], folders: Sequence[Path]) -> None:
    """A line per run and where its files are."""
    for folder, summary in zip(folders, summaries, strict=True):
        print(describe(summary))
        print(f"  results: {folder}/summary.json, {folder}/metrics.jsonl")


def describe(summary: dict[str, Any]) -> str:
    """A finished run in one line."""
    successes = summary["successes"]
    reached = "" if successes is None else f", {successes} reached the goal"
    return (
        f"{summary['arm']} on {summary['domain']} ({summary['preset']}, seed {summary['seed']}): "
        f"{summary['violations']} of {summary['episodes']} episodes violated "
        f"({summary['violations_under_recovery']} under the recovery policy){reached}, "
        f"{summary['interventions']} interventions in {summary['env_steps']} steps."
    )
