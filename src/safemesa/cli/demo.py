"""`safemesa demo`: the method on one small problem, with a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safemesa.cli.arguments import command_line, parse, prepare_jax

ARMS = ("safemesa", "mesa", "multitask", "rrl", "unconstrained")


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Five arms on Navigation 2, all three phases each, then a report that compares them."""

    out: Path = Path("runs/demo")
    """Folder of the runs and the report; run again, it goes on where it stopped."""
    seed: int = 0
    """Test task, networks and noise."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Runs the arms one after the other and writes the report."""
    flags = parse(DemoFlags, verb, arguments)
    prepare_jax()
    from safemesa.cli.run_arm import describe, run_options
    from safemesa.experiments.arms import configure
    from safemesa.experiments.report.report_page import write_report
    from safemesa.phases.run import run

    data_dir = flags.out / "data"
    common = run_options(verb, arguments, data_dir, tensorboard=False)
    folders = []
    for arm in ARMS:
        folder = flags.out / f"{arm}-{flags.seed}"
        quick = f"{arm} navigation2 --preset quick --seed {flags.seed} --out {folder}"
        options = replace(common, command=f"safemesa run {quick} --data-dir {data_dir}")
        config = replace(configure(arm, "navigation2", "quick"), seed=flags.seed)
        print(f"{arm}: {options.command}")
        (summary,) = run([config], [folder], options)
        print(f"  {describe(summary)}")
        folders.append(folder)
    report = write_report(
        folders,
        flags.out / "report",
        command_line(verb, arguments),
        progress=common.progress,
        with_calibration=True,
    )
    print(f"Report: {report}")
