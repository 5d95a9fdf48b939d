"""Runs as a report finds them, in folders, packed or from CSV: checked, and in a fixed order."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safemesa.core.errors import CheckpointError, ConfigurationError, DatasetError
from safemesa.core.files import read_json
from safemesa.experiments.arms import ARMS
from safemesa.experiments.runs.episode_lines import contradiction, read_episode_lines
from safemesa.experiments.runs.external_runs import ExternalRun, external_runs, is_external
from safemesa.experiments.runs.packed_runs import (
    RUNS_FILE,
    PackedRuns,
    below,
    packed_place,
    packed_runs,
)
from safemesa.phases.config import RunConfig, config_from_json, config_to_json
from safemesa.phases.storage.run_folder import CONFIG_FILE, METRICS_FILE, RunFolder

METRICS = (
    "violations",
    "violations_under_recovery",
    "successes",
    "interventions",
    "return_mean",
    "env_steps",
)
"""Fields of `summary.json` that are tabulated, each a number per run (`successes` may be null)."""

PHASES = ("collect", "meta_train", "adapt", "deploy")
"""Keys of `wall_s` of `summary.json`, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunRecord:
    """One finished run.

    Attributes:
        path: The folder; of a packed run, that which it had; of another program's, its CSV file
            and what sets it apart there.
        name: Its path from where the search began; fit to be published.
        settings: The configuration as plain values, of whatever version wrote it.
        summary: `summary.json`.
        command: The command that made it; empty if it was started from Python.
        versions: Versions of Python and packages.
        git_commit: Commit of the sources, if they came from a checkout.
    """

    path: Path
    name: str
    settings: dict[str, Any]
    summary: dict[str, Any]
    command: str
    versions: dict[str, str]
    git_commit: str | None

    @property
    def config(self) -> RunConfig:
        """The configuration.

        Raises:
            ConfigurationError: another version wrote it; `settings` can still be read.
        """
        return config_from_json(RunConfig, self.settings, str(self.path / "config.json"))

    @property
    def arm(self) -> str:
        """Name of the arm."""
        return str(self.settings["arm"])

    @property
    def domain(self) -> str:
        """Name of the domain."""
        return str(self.settings["domain"])

    @property
    def preset(self) -> str:
        """Name of the preset."""
        return str(self.settings["preset"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.settings["seed"])

    @property
    def external(self) -> bool:
        """Whether another program made it, so that there is no folder and no configuration."""
        return "external" in self.settings

    @property
    def length(self) -> str:
        """When Phase 3 ends, in words."""
        deploy = self.settings.get("deploy", {})
        if deploy.get("steps") is not None:
            return f"{deploy['steps']} steps"
        return f"{deploy.get('episodes')} episodes"

    def number(self, metric: str) -> float | None:
        """A field of the summary; None where the domain has none."""
        value = self.summary[metric]
        return None if value is None else float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """A run folder that counts nowhere, and why: it is unfinished, damaged or there twice."""

    path: Path
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunScan:
    """What a search found: runs in the order of tables, and folders that could not be used."""

    runs: tuple[RunRecord, ...]
    set_aside: tuple[SetAside, ...]


def scan_runs(paths: Sequence[Path]) -> RunScan:
    """Searches `paths` and all folders below for runs, packed ones included.

    A path may also be a CSV file of episodes of other programs (`external_runs`).

    Raises:
        ConfigurationError: no path is given.
        DatasetError: a path is no folder, packed runs or a CSV file are damaged, or there is no
            finished run.
    """
    if not paths:
        raise ConfigurationError(
            "no folder is given; expected one or more: run folders, or folders that contain some, "
            "such as runs/demo."
        )
    runs: list[RunRecord] = []
    aside: list[SetAside] = []
    seen: set[Path] = set()
    files = dict.fromkeys(path for path in map(Path, paths) if is_external(path))
    for root in [path for path in map(Path, paths) if path not in files]:
        for place in run_places(root):
            if place.path.resolve() in seen:
                continue
            seen.add(place.path.resolve())
            try:
                runs.append(_read_run(place))
            except DatasetError as error:
                aside.append(SetAside(path=place.path, name=place.name, reason=str(error)))
    runs += _external_records(list(files), runs)
    unique, twins = _without_duplicates(sorted(runs, key=_order))
    scan = RunScan(runs=tuple(unique), set_aside=(*aside, *twins))
    if not scan.runs:
        raise DatasetError(_nothing_found(paths, aside))
    return scan


def find_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The finished runs of `scan_runs`, which also says what was set aside."""
    return list(scan_runs(paths).runs)


def _nothing_found(paths: Sequence[Path], aside: list[SetAside]) -> str:
    places = ", ".join(str(path) for path in paths)
    if aside:
        return (
            f"no finished run in {places}. {len(aside)} cannot be used; the first is "
            f"{aside[0].path}: {aside[0].reason}"
        )
    return (
        f"no run in {places}: expected folders with config.json and summary.json. Make one with "
        "`safemesa run ARM DOMAIN --out FOLDER`, or give another folder."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlace:
    """Where a run is.

    Attributes:
        path: Its folder; of a packed run, that which it had.
        name: Its path from where the search began, fit to be published.
        packed: The runs that it is packed with, and its name there; None for a folder.
    """

    path: Path
    name: str
    packed: tuple[PackedRuns, str] | None = None

    def config_record(self) -> dict[str, Any]:
        """`config.json`.

        Raises:
            DatasetError: it is missing, damaged, or no configuration of a run.
        """
        file = RunFolder(self.path).config_file
        if self.packed is None:
            record = read_json(file, error=DatasetError)
        else:
            record = self.packed[0].configs[self.packed[1]]
        settings = record.get("config")
        wanted = {"arm": str, "domain": str, "preset": str, "seed": int}
        if not isinstance(settings, dict) or any(
            not isinstance(settings.get(field), kind) for field, kind in wanted.items()
        ):
            raise DatasetError(
                f"{file} is no configuration of a run: expected 'config' with {', '.join(wanted)}."
            )
        return record

    def summary(self) -> dict[str, Any]:
        """`summary.json`, with every number that tables need.

        Raises:
            DatasetError: the run is unfinished, or its files are damaged or contradict each other.
        """
        folder = RunFolder(self.path)
        if self.packed is not None:
            summary = self.packed[0].summaries[self.packed[1]]
        elif folder.finished:
            summary = self._agreed_summary(folder)
        else:
            raise DatasetError("unfinished. Give its command again to resume it.")
        _check_summary(summary, folder.summary_file)
        return summary

    def _agreed_summary(self, folder: RunFolder) -> dict[str, Any]:
        """The summary of a folder whose other files say the same."""
        settings, problem = self.config_record()["config"], None
        try:
            summary = folder.read_summary()
            folder.check_files(CONFIG_FILE, METRICS_FILE)
            if folder.metrics.path.is_file():
                problem = contradiction(summary, read_episode_lines(self.path))
        except CheckpointError as error:
            raise DatasetError(str(error)) from error
        for name in ("arm", "domain", "preset", "seed"):
            if name in summary and summary[name] != settings[name]:
                problem = (
                    f"{name} is {summary[name]!r} there, and {settings[name]!r} in config.json"
                )
        if problem is not None:
            raise DatasetError(
                f"{folder.summary_file} contradicts the rest of the run: {problem}. One of them "
                "was damaged or edited. Restore the folder from a copy, or make the run again."
            )
        return summary


def run_places(root: Path) -> Iterator[RunPlace]:
    """Runs at and below a path: folders with a `config.json`, and packed ones.

    A folder that is there counts in place of what was packed of it.

    Raises:
        DatasetError: the path is no folder and nothing packed, or packed runs are damaged.
    """
    title = Path(root.resolve().name)

    def packed_below(folder: Path, place: str) -> list[RunPlace]:
        pack = packed_runs(folder)
        paths = {name: folder / name for name in below(list(pack.configs), place)}
        return [
            RunPlace(
                path=path, name=(title / path.relative_to(root)).as_posix(), packed=(pack, name)
            )
            for name, path in paths.items()
            if not (path / "config.json").is_file()
        ]

    above = packed_place(root)
    packed = [] if above is None else packed_below(*above)
    if not packed and is_external(root):
        raise DatasetError(
            f"{root} is no folder. It may be a CSV file of episodes: `safemesa report` and "
            "`safemesa power` read it as it is, and there is nothing to pack."
        )
    if not packed and not root.is_dir():
        raise DatasetError(f"{root} is no folder. Give run folders, or folders of them.")
    yield from packed
    for place, folders, files in os.walk(root):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(".")]
        path = Path(place)
        if "config.json" in files:
            folders.clear()
            yield RunPlace(path=path, name=(title / path.relative_to(root)).as_posix())
        elif RUNS_FILE in files and path != root:
            yield from packed_below(path, ".")


def _read_run(place: RunPlace) -> RunRecord:
    """Reads a run folder, or a packed run.

    Raises:
        DatasetError: it is unfinished, damaged, or no run.
    """
    record = place.config_record()
    versions = record.get("versions")
    commit = record.get("git_commit")
    return RunRecord(
        path=place.path,
        name=place.name,
        settings=_of_this_version(record["config"]),
        summary=place.summary(),
        command=str(record.get("command") or ""),
        versions={str(key): str(value) for key, value in versions.items()}
        if isinstance(versions, dict)
        else {},
        git_commit=commit if isinstance(commit, str) else None,
    )


def _external_records(files: Sequence[Path], ours: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs of other programs, placed beside ours where their files name no domain or preset.

    Raises:
        DatasetError: a file is damaged, shares an arm with another, or its place is not clear.
    """
    places = dict.fromkeys((run.domain, run.preset) for run in ours)
    arms: dict[str, Path | None] = {run.arm: None for run in ours}
    records = []
    for file in files:
        runs = external_runs(file)
        for arm in dict.fromkeys(run.arm for run in runs):
            if arm in arms:
                other = arms[arm]
                where = "run folders that are given, too" if other is None else other
                raise DatasetError(
                    f"{file} has an arm {arm!r}, and so have {where}: runs of two programs would "
                    "be averaged. Give one of them another name, or put all runs of an arm into "
                    "one file."
                )
        arms |= {run.arm: file for run in runs}
        for run in runs:
            domain, preset = _external_place(run, list(places))
            records.append(
                RunRecord(
                    path=run.path,
                    name=f"{file.name}/{run.path.relative_to(file).as_posix()}",
                    settings=run.settings(domain, preset),
                    summary=run.summary(),
                    command="",
                    versions={},
                    git_commit=None,
                )
            )
    return records


def _external_place(run: ExternalRun, places: list[tuple[str, str]]) -> tuple[str, str]:
    """Domain and preset of another program's run: what its file says, or those of our runs."""
    if run.domain is not None:
        places = [place for place in places if place[0] == run.domain]
    if run.preset is not None:
        places = [place for place in places if place[1] == run.preset]
    if len(places) > 1 and (run.domain is None or run.preset is None):
        names = ", ".join(f"{domain} ({preset})" for domain, preset in places)
        raise DatasetError(
            f"{run.file} does not say with which runs its own are compared; there are {names}. Add "
            f"{'a column domain' if run.domain is None else 'a column preset'} to it, or give runs "
            "of one place."
        )
    domain, preset = places[0] if places else (run.file.stem, "external")
    return run.domain or domain, run.preset or preset


def _of_this_version(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of fields that are newer than the run; others as they are."""
    try:
        return config_to_json(config_from_json(RunConfig, settings))
    except ConfigurationError:
        return settings


def _check_summary(summary: dict[str, Any], path: Path) -> None:
    """Whether a summary has every number that tables need.

    Raises:
        DatasetError: it has not.
    """
    wall = summary.get("wall_s")
    values = {name: summary.get(name) for name in (*METRICS, "episodes")}
    values |= (
        {f"wall_s.{name}": wall.get(name) for name in PHASES}
        if isinstance(wall, dict)
        else {"wall_s": wall}
    )
    for name, value in values.items():
        absent = name == "successes" and "successes" in summary and value is None
        if not absent and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise DatasetError(f"{path} has {value!r} as {name}; expected a number.")


def _without_duplicates(runs: list[RunRecord]) -> tuple[list[RunRecord], list[SetAside]]:
    """Keeps the first run of each configuration: others are the same run again."""
    kept: dict[str, RunRecord] = {}
    twins = []
    for run in runs:
        first = kept.setdefault(json.dumps(run.settings, sort_keys=True), run)
        if first is not run:
            reason = f"the same configuration and seed as {first.name}, so the same run."
            twins.append(SetAside(path=run.path, name=run.name, reason=reason))
    return list(kept.values()), twins


def _order(record: RunRecord) -> tuple:
    """Domains and presets by name, arms in their order, then seeds."""
    known = list(ARMS)
    place = known.index(record.arm) if record.arm in known else len(known)
    return (record.domain, record.preset, place, record.arm, record.seed, record.name)
