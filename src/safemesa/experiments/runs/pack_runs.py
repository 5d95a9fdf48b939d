"""Packs finished run folders into two files beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.core.errors import CheckpointError, ConfigurationError, DatasetError
from safemesa.core.outputs import check_outputs
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.runs.packed_runs import (
    EPISODES_FILE,
    RUNS_FILE,
    PackedRun,
    PackedRuns,
    write_packed_runs,
)
from safemesa.experiments.runs.run_records import RunPlace, SetAside, run_places
from safemesa.phases.storage.run_folder import first_difference


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """What was done.

    Attributes:
        runs: All runs that `out` holds now.
        new: How many of them were not there before.
        left_out: Run folders that are unfinished or damaged.
    """

    runs: int
    new: int
    left_out: tuple[SetAside, ...]


def pack_runs(paths: Sequence[Path], out: Path) -> Packing:
    """Adds the finished runs at and below `paths` to the packed runs of `out`.

    A run's name is its path below the path given, or below `out` where it lies there. One that is
    packed already is replaced. Nothing is deleted.

    Raises:
        ConfigurationError: pyarrow is not installed, or two different runs have one name.
        DatasetError: a path is no folder, or there is no finished run.
        OutputFolderError: `out` cannot be written.
    """
    check_outputs(out, (RUNS_FILE, EPISODES_FILE))
    runs: dict[str, PackedRun] = {}
    if (out / RUNS_FILE).is_file():
        pack = PackedRuns(out)
        runs = {
            name: PackedRun(config=config, summary=pack.summaries[name], lines=pack.lines(name))
            for name, config in pack.configs.items()
        }
    before, left_out, found = set(runs), [], 0
    for root in paths:
        for place in run_places(root):
            try:
                run = PackedRun(
                    config=place.config_record(),
                    summary=place.summary(),
                    lines=read_episode_lines(place.path),
                )
            except (DatasetError, CheckpointError) as error:
                left_out.append(SetAside(path=place.path, name=place.name, reason=str(error)))
                continue
            name, found = _name(place, root, out), found + 1
            if name in runs and runs[name].config["config"] != run.config["config"]:
                difference = first_difference(runs[name].config["config"], run.config["config"])
                raise ConfigurationError(
                    f"two different runs are called {name!r}; the second is {place.path} "
                    f"({difference}). Give the folder that both lie in, so that their names "
                    "differ, or another --out."
                )
            runs[name] = run
    if not found:
        reasons = "".join(f" {one.name}: {one.reason}" for one in left_out[:1])
        raise DatasetError(
            f"no finished run in {', '.join(map(str, paths))}; nothing is packed.{reasons}"
        )
    write_packed_runs(out, runs)
    written = PackedRuns(out)
    for name, run in runs.items():
        if (written.configs[name], written.summaries[name], written.lines(name)) != (
            run.config,
            run.summary,
            run.lines,
        ):
            raise DatasetError(
                f"{name} does not come back from {out} as it was: keep its folder, and report this."
            )
    return Packing(runs=len(runs), new=len(set(runs) - before), left_out=tuple(left_out))


def _name(place: RunPlace, root: Path, out: Path) -> str:
    path = place.path.resolve()
    above = out.resolve() if path.is_relative_to(out.resolve()) else root.resolve()
    name = path.relative_to(above).as_posix()
    return path.name if name == "." else name
