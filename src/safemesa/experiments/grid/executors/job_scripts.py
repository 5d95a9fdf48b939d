"""Job scripts of a grid for SLURM, for sites without submitit. Nothing is submitted."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from safemesa.core.errors import ConfigurationError
from safemesa.core.files import write_atomic
from safemesa.core.outputs import check_outputs, is_our_folder
from safemesa.experiments.grid.executors.executor import unfinished
from safemesa.experiments.grid.executors.slurm_config import SlurmConfig
from safemesa.experiments.grid.grid_folder import Grid, GridFolder
from safemesa.experiments.grid.run_command import run_command
from safemesa.phases.workers import SINGLE_THREAD

SIGNAL_SECONDS = 120
"""A job hears so long before its time is over."""


def write_scripts(
    grid: Grid, folder: GridFolder, data_dir: Path, slurm: SlurmConfig, command: str, collect: str
) -> Path:
    """Writes the scripts that run what is unfinished as jobs, one run per index of an array.

    The commands are in the script, of which SLURM keeps a copy: jobs that wait do as they were told
    when the scripts are written again for other runs.

    Args:
        grid: The runs.
        folder: Their folder; the scripts go to `slurm/` below it.
        data_dir: Where training logs are kept.
        slurm: What jobs ask for.
        command: Recorded in `grid.json`.
        collect: The command that collects the training logs.

    Returns:
        The script to call, `submit.sh`.

    Raises:
        OutputFolderError: the folder holds other settings.
        ConfigurationError: the grid has several seeds per process, which is no `safemesa run`.
    """
    if grid.seeds_per_process > 1:
        raise ConfigurationError(
            "--emit sbatch writes a command per run; with --seeds-per-process use --executor slurm."
        )
    folder.check(grid)
    runs = [run for group in unfinished(grid, folder) for run in group]
    if not runs:
        raise ConfigurationError(f"all runs of {folder.path} are finished; there is nothing to do.")
    root = folder.path.absolute() / "slurm"
    if not is_our_folder(folder.path):
        check_outputs(root, ("runs.sbatch", "collect.sbatch", "submit.sh"))
    with folder.lock():
        folder.open(grid, command)
    lines = [
        run_command(run.config, folder.path.absolute() / run.name, data_dir.absolute())
        for run in runs
    ]
    files = {
        "runs.sbatch": _runs_script(root, lines, slurm),
        "collect.sbatch": _collect_script(root, collect, slurm),
        "submit.sh": _submit_script(root),
    }
    for name, text in files.items():
        write_atomic(root / name, text.encode())
    (root / "submit.sh").chmod(0o755)
    return root / "submit.sh"


def _header(slurm: SlurmConfig, output: Path, cpus: int, *options: str) -> list[str]:
    """The lines from `#!` to where the work begins."""
    asked = [
        "job-name=safemesa",
        f"output={output}",
        "open-mode=append",
        f"time={slurm.time}",
        f"cpus-per-task={cpus}",
        f"mem={slurm.memory}G",
        *options,
        *([f"partition={slurm.partition}"] if slurm.partition else []),
        *([f"gres=gpu:{slurm.gpus}"] if slurm.gpus else []),
        *slurm.options,
    ]
    return [
        "#!/bin/bash",
        *(f"#SBATCH --{option}" for option in asked),
        "set -eo pipefail",
        *slurm.setup,
        # After the setup: scripts of a site's modules use variables that are not set.
        "set -u",
        f"cd {shlex.quote(str(Path.cwd()))}",
    ]


def _safemesa(start: str = "") -> str:
    """A shell function that is this installation's command, wherever PATH leads."""
    return f'safemesa() {{ {start}{shlex.quote(sys.executable)} -m safemesa "$@"; }}'


def _runs_script(root: Path, commands: Sequence[str], slurm: SlurmConfig) -> str:
    array = f"0-{len(commands) - 1}%{slurm.parallel}"
    lines = _header(
        slurm,
        root / "%A_%a.log",
        slurm.cpus,
        f"array={array}",
        "requeue",
        f"signal=B:USR1@{SIGNAL_SECONDS}",
    )
    lines += [
        "# One compute thread, as in every run of a grid: the same results on any machine.",
        *(f"export {name}={shlex.quote(value)}" for name, value in SINGLE_THREAD.items()),
        _safemesa("exec "),
        "commands=(",
        *(f"  {shlex.quote(command)}" for command in commands),
        ")",
        "",
        "# Shortly before its time is over the job is queued again; the run then goes on.",
        "again() {",
        '  kill -TERM "$child" || true',
        '  wait "$child" || true',
        '  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
        "  exit 0",
        "}",
        "trap again USR1",
        'eval "${commands[SLURM_ARRAY_TASK_ID]}" &',
        "child=$!",
        'wait "$child"',
    ]
    return "\n".join(lines) + "\n"


def _collect_script(root: Path, collect: str, slurm: SlurmConfig) -> str:
    lines = _header(slurm, root / "collect.log", slurm.collect_cpus, "requeue")
    return "\n".join([*lines, _safemesa(), collect]) + "\n"


def _submit_script(root: Path) -> str:
    return "\n".join(
        [
            "#!/bin/bash",
            "# Submits the collection of training logs and, after it, the runs.",
            "set -euo pipefail",
            f"cd {shlex.quote(str(root))}",
            "collect=$(sbatch --parsable collect.sbatch)",
            'sbatch --dependency="afterok:${collect%%;*}" --kill-on-invalid-dep=yes runs.sbatch',
            "",
        ]
    )


def collect_command(verb: str, arguments: Sequence[str], slurm: SlurmConfig) -> str:
    """The same grid command, for the collection alone and on one machine."""
    words, skipping = ["safemesa", verb], False
    for word in arguments:
        if word.startswith("--"):
            name = word.partition("=")[0]
            skipping = name in ("--emit", "--jobs", "--executor") or name.startswith("--slurm.")
        if not skipping:
            words.append(word)
    return shlex.join([*words, "--collect-only", "--jobs", str(slurm.collect_cpus)])
