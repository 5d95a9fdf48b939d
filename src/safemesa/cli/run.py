"""`safemesa run ARM DOMAIN`: collects, meta-trains, adapts, deploys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safemesa.cli.arguments import (
    Common,
    Positional,
    command_line,
    parse_with_preset,
    prepare_jax,
)
from safemesa.core.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class RunFlags(Common):
    """Runs one arm on one domain through all phases. Rerunning goes on or, if done, does nothing."""

    arm: Positional[str]
    """mesa, mesa_as_printed, mesa_metasgd, multitask, rrl, unconstrained, or
    <meta-learner>+<guard>."""
    domain: Positional[str]
    """navigation1 or navigation2."""
    out: Path | None = None
    """Run folder; default runs/<domain>-<preset>/<arm>-<seed>."""
    seeds: int = 1
    """Run this many seeds (seed, seed + 1, ...) side by side in one process, for accelerators;
    each gets the folder <out>/seed-<n>."""
    data_dir: Path = Path("data")
    """Where the training logs are kept, shared by all arms and seeds."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run folder."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Runs and prints where the results are."""
    flags, config = parse_with_preset(RunFlags, verb, arguments, None, None)
    if flags.seeds < 1:
        raise ConfigurationError(f"--seeds is {flags.seeds}; expected at least 1.")
    prepare_jax()
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.run import RunOptions, run
    from safemesa.phases.sinks import NoSink, TensorBoardSink

    name = f"{config.arm}-{config.seed}"
    out = flags.out or Path("runs") / f"{config.domain}-{config.preset}" / name
    seeds = [config.seed + offset for offset in range(flags.seeds)]
    folders = [out] if flags.seeds == 1 else [out / f"seed-{seed}" for seed in seeds]
    options = RunOptions(
        data_dir=flags.data_dir,
        command=command_line(verb, arguments),
        progress=BarProgress(),
        make_sink=TensorBoardSink if flags.tensorboard else lambda _: NoSink(),
    )
    summaries = run([replace(config, seed=seed) for seed in seeds], folders, options)
    for folder, summary in zip(folders, summaries, strict=True):
        print(describe(summary))
        print(f"  results: {folder}/summary.json, {folder}/metrics.jsonl")
    print(f"A report with curves and maps: safemesa report {out}")


def describe(summary: dict) -> str:
    """A finished run in one line."""
    successes = summary["successes"]
    reached = "" if successes is None else f", {successes} reached the goal"
    return (
        f"{summary['arm']} on {summary['domain']} ({summary['preset']}, seed {summary['seed']}): "
        f"{summary['violations']} of {summary['episodes']} episodes violated "
        f"({summary['violations_under_recovery']} under the recovery policy){reached}, "
        f"{summary['interventions']} interventions in {summary['env_steps']} steps."
    )
