"""`safemesa demo`: the method on one small problem, or a ready shield, with a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safemesa.cli.arguments import command_line, parse, prepare_jax

ARMS = ("safemesa", "mesa", "multitask", "rrl", "unconstrained")


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Five arms on Navigation 2, all three phases each, then a report that compares them.

    With `--shield`: a cart with a ready shield and without, in seconds; nothing is trained.
    """

    out: Path | None = None
    """Folder of the runs and the report; run again, it goes on where it stopped. Default:
    runs/demo, with --shield runs/demo_shield."""
    seed: int = 0
    """Test task, networks and noise; the ready shield has none to choose."""
    shield: bool = False
    """Show the ready shield."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Runs the arms one after the other and writes the report; or shows the ready shield."""
    flags = parse(DemoFlags, verb, arguments)
    if flags.shield:
        show_shield(flags.out or Path("runs/demo_shield"), command_line(verb, arguments))
    else:
        compare_arms(verb, arguments, flags.out or Path("runs/demo"), flags.seed)


def show_shield(out: Path, command: str) -> None:
    """Prints three numbers, and writes the picture."""
    from safemesa.shield.demo.demo_page import PAGE, in_numbers, write_demo

    for number, words in in_numbers(*write_demo(out, command)):
        print(f"{number} {words}")
    print(f"Report: {out / PAGE}")


def compare_arms(verb: str, arguments: Sequence[str], out: Path, seed: int) -> None:
    """Runs the arms one after the other."""
    prepare_jax()
    from safemesa.cli.run_arm import describe, run_options
    from safemesa.experiments.arms import configure
    from safemesa.experiments.report.report_page import write_report
    from safemesa.phases.run import run

    data_dir = out / "data"
    common = run_options(verb, arguments, data_dir, tensorboard=False)
    folders = []
    for arm in ARMS:
        folder = out / f"{arm}-{seed}"
        quick = f"{arm} navigation2 --preset quick --seed {seed} --out {folder}"
        options = replace(common, command=f"safemesa run {quick} --data-dir {data_dir}")
        config = replace(configure(arm, "navigation2", "quick"), seed=seed)
        print(f"{arm}: {options.command}")
        (summary,) = run([config], [folder], options)
        print(f"  {describe(summary)}")
        folders.append(folder)
    report = write_report(
        folders,
        out / "report",
        command_line(verb, arguments),
        progress=common.progress,
        with_calibration=True,
    )
    print(f"Report: {report}")
