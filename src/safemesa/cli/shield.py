"""`safemesa shield export|check|seal|bench|replay`: from a risk model to a robot."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from safemesa.cli.arguments import Positional, command_line, parse, prepare_jax
from safemesa.core.errors import CheckpointError, ConfigurationError
from safemesa.core.outputs import check_output

MOST_MOMENTS = 100
"""Moments that a page of a replay can hold."""


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """Writes weights, manifest, model card and the runtime into one folder.

    The runtime needs NumPy and safetensors alone.
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run folder, or folder that `safemesa adapt` wrote."""
    out: Path
    """New folder."""
    model: str = "newest"
    """Of a run folder: `adapted` (after Phase 2), `deployed` (after Phase 3) or the `newest`."""
    risk_limit: float | None = None
    """Proposals above it are overridden; default: the limit the model was made for."""
    release_limit: float | None = None
    """Risk at which the policy gets control back; default: the risk limit."""
    minimum_dwell: float = 0.0
    """Seconds for which a recovery lasts at least."""
    safe_action: tuple[float, ...] | None = None
    """Action of every fault, in physical units; default: zero, or the nearest allowed one."""
    fallback: str = "constant"
    """On a fault: `constant` (the safe action) or `hold` (the last executed action)."""
    outside_training: str = "record"
    """Where an observation is unlike the training data: `record` it, `slow` (half of the way to
    the safe action), `recover`, or `stop` (the safe action)."""
    dynamics_changed: str = "record"
    """Where the monitor (`meta-train --monitor.enabled`) says that the robot has changed: `record`
    it, `tighten` the risk limit, `recover`, or `stop` (the safe action)."""
    outside_dynamics: str = "record"
    """Where the monitor's networks know too little: the same."""
    tighten: float = 0.5
    """Factor of `tighten` on the risk limit."""
    calibration: Path | None = None
    """JSON file that `safemesa evaluate --out` wrote; the shield carries it."""
    onnx: bool = False
    """Also write shield.onnx, and shield_monitor.onnx where there is a monitor (needs `pip install
    'safemesa[onnx]'`)."""
    force: bool = False
    """Allow enforcing although the log holds few violations, or the calibration speaks against."""


@dataclass(frozen=True, kw_only=True)
class CheckFlags:
    """Verifies hashes, settings and weights, and repeats the answers of the trainer."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="SHIELD")]
    """Folder that `safemesa shield export` wrote."""


@dataclass(frozen=True, kw_only=True)
class SealFlags:
    """Vouches for settings that were edited in the manifest; prints what the export had."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="SHIELD")]
    """Folder that `safemesa shield export` wrote."""


@dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """Times `decide` beside an empty loop. Set OPENBLAS_NUM_THREADS=1, as on the robot."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="SHIELD")]
    """Folder that `safemesa shield export` wrote."""
    ticks: int = 1_000_000
    """Calls of `decide`."""
    mode: str = "enforce"
    """off, monitor or enforce."""
    out: Path | None = None
    """JSON file for the result."""


@dataclass(frozen=True, kw_only=True)
class ReplayFlags:
    """Draws what a shield would have done on an old log, as one HTML file.

    The runtime decides about every row in `monitor` mode, as it would on the robot.
    """

    log: Annotated[Positional[Path], tyro.conf.arg(metavar="LOG")]
    """Dataset folder (`safemesa data import`), or a black box."""
    shield: Path
    """Folder that `safemesa shield export` wrote."""
    out: Path = Path("replay.html")
    """HTML file to write."""
    task: str | None = None
    """Robot of the dataset; default: the new one, or the only one."""
    seconds: float | None = None
    """Before each violation that are looked at; default: two effective horizons of the risk."""
    moments: int = 12
    """How many violations and takeovers are drawn."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Dispatches on the second word."""
    verbs: dict[str, Callable[[str, Sequence[str]], None]] = {
        "export": export,
        "check": check,
        "seal": seal,
        "bench": bench,
        "replay": replay,
    }
    if arguments and arguments[0] in ("-h", "--help"):
        print(
            "usage: safemesa shield export RUN --out DIR | check DIR | seal DIR | bench DIR | "
            "replay LOG --shield DIR"
        )
        raise SystemExit(0)
    if not arguments or arguments[0] not in verbs:
        given = arguments[0] if arguments else "nothing"
        raise ConfigurationError(
            f"`safemesa shield` got {given!r}; expected: export, check, seal, bench or replay."
        )
    verbs[arguments[0]](f"{verb} {arguments[0]}", arguments[1:])


def export(verb: str, arguments: Sequence[str]) -> None:
    """Writes one shield."""
    flags = parse(ExportFlags, verb, arguments)
    prepare_jax()
    from safemesa.shield.export import (
        ShieldOptions,
        export_shield,
        find_source,
        read_calibration,
    )

    source = find_source(flags.run, flags.model)
    if flags.calibration is not None:
        source = replace(source, calibration=read_calibration(flags.calibration))
    options = ShieldOptions(
        risk_limit=flags.risk_limit,
        release_limit=flags.release_limit,
        minimum_dwell=flags.minimum_dwell,
        safe_action=flags.safe_action,
        fallback=flags.fallback,
        outside_training=flags.outside_training,
        dynamics_changed=flags.dynamics_changed,
        outside_dynamics=flags.outside_dynamics,
        tighten=flags.tighten,
        force=flags.force,
    )
    manifest = export_shield(source, flags.out, options, onnx=flags.onnx)
    for text in manifest["warnings"]:
        print(f"WARNING: {text}")
    enforce = manifest["shield"]["enforce"]
    if not enforce["allowed"]:
        print("This shield monitors; it enforces only if it is exported again with --force.")
    print(f"Shield: {flags.out}")


def check(verb: str, arguments: Sequence[str]) -> None:
    """Prints what was found; an error where anything is wrong."""
    flags = parse(CheckFlags, verb, arguments)
    from safemesa.shield import runtime

    try:
        found = runtime.check_folder(flags.folder)
    except runtime.ShieldError as error:
        raise CheckpointError(str(error)) from error
    print(*runtime.check_lines(found), sep="\n")
    lacking = runtime.not_verified(found)
    if lacking:
        raise CheckpointError(f"not everything is verified: {lacking}. See above.")
    print("The shield is sound.")


def seal(verb: str, arguments: Sequence[str]) -> None:
    """Prints what was edited."""
    flags = parse(SealFlags, verb, arguments)
    from safemesa.shield import runtime

    try:
        edits = runtime.seal_folder(flags.folder)
    except runtime.ShieldError as error:
        raise CheckpointError(str(error)) from error
    print(*edits or ["Nothing differs from the export."], sep="\n")


def bench(verb: str, arguments: Sequence[str]) -> None:
    """Prints and writes the durations."""
    flags = parse(BenchFlags, verb, arguments)
    check_output(flags.out)
    from safemesa.core.files import write_json
    from safemesa.shield import runtime

    try:
        result = runtime.bench(flags.folder, ticks=flags.ticks, mode=flags.mode)
    except runtime.ShieldError as error:
        raise CheckpointError(str(error)) from error
    for name, value in result.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if flags.out is not None:
        command = command_line("shield", ["bench", *arguments])
        write_json(flags.out, {"command": command, **result})


def replay(verb: str, arguments: Sequence[str]) -> None:
    """Writes the page, and prints what it says first."""
    flags = parse(ReplayFlags, verb, arguments)
    if flags.seconds is not None and not 0.0 < flags.seconds < math.inf:
        raise ConfigurationError(f"--seconds is {flags.seconds}; expected more than 0.")
    if not 0 <= flags.moments <= MOST_MOMENTS:
        raise ConfigurationError(f"--moments is {flags.moments}; expected 0 to {MOST_MOMENTS}.")
    from safemesa.phases.progress import BarProgress
    from safemesa.shield import runtime
    from safemesa.shield.replay_page import write_replay

    progress, started = BarProgress(), []

    def on_ticks(done: int, of: int) -> None:
        if not started:
            progress.start("replay", of, 0)
            started.append(of)
        progress.update(done)

    try:
        result = write_replay(
            flags.log,
            flags.shield,
            flags.out,
            command_line("shield", ["replay", *arguments]),
            task=flags.task,
            seconds=flags.seconds,
            moments=flags.moments,
            on_ticks=on_ticks,
        )
    except runtime.ShieldError as error:
        raise CheckpointError(str(error)) from error
    finally:
        if started:
            progress.finish()
    count = len(result.ticks)
    # A black box does not say what violated.
    known = result.ticks.recorded is None
    violations = f"; {len(result.ticks.violations)} violations" if known else ""
    print(
        f"{int(result.overridden.sum())} of {count} ticks would be overridden, in "
        f"{len(result.takeovers)} takeovers{violations}."
    )
    print(f"Replay: {flags.out}")
