"""The data doctor: one pass over a dataset or over logs, all checks, one report."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.spaces import Spaces
from safemesa.datasets.doctor.cells import LARGEST, check_cells
from safemesa.datasets.doctor.fleet import check_fleet
from safemesa.datasets.doctor.native import NativeStream
from safemesa.datasets.doctor.sufficiency import Sufficiency, judge
from safemesa.datasets.doctor.task_scan import TaskScan
from safemesa.datasets.findings import Finding, Findings, LogError
from safemesa.datasets.format import MANIFEST_FILE
from safemesa.datasets.importers.assemble import Steps
from safemesa.datasets.importers.find import find_sources
from safemesa.datasets.importers.identity import robots_in_words
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.rows import take_rows
from safemesa.datasets.importers.stream import LogStream, OnRows
from safemesa.datasets.importers.write import full_name, report_skipped


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the doctor found."""

    findings: Findings
    sufficiency: Sufficiency
    transitions: int
    seconds: float
    robots: str
    """Which robots there are, in one line."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "findings": [
                {**asdict(one), "level": one.defect.level, "what": one.defect.what}
                for one in self.findings
            ],
            "sufficient": self.sufficiency.sufficient,
            "advice": list(self.sufficiency.advice),
            "tasks": list(self.sufficiency.tasks),
            "transitions": self.transitions,
            "seconds": self.seconds,
            "robots": self.robots,
        }


def examine(
    paths: Sequence[Path],
    mapping: ImportMap | None = None,
    on_rows: OnRows = lambda done, rows: None,
) -> Examination:
    """Examines one dataset folder, or logs with their map.

    Raises:
        DatasetError: there are no files, or the manifest of the folder is damaged.
        ConfigurationError: the map leaves something open.
    """
    began = time.perf_counter()
    findings = Findings()
    mapping = mapping or ImportMap()
    folders = [path for path in paths if (path / MANIFEST_FILE).is_file()]
    if folders and len(paths) > 1:
        raise ConfigurationError(f"{folders[0]} is a dataset: examine one at a time.")
    if folders and mapping.test is not None:
        raise ConfigurationError(
            f"{folders[0]} is a dataset, whose manifest says which task is the new robot; leave "
            "--test out."
        )
    if folders:
        scans, horizon = _examine_folder(folders[0], findings, on_rows)
        robots = robots_in_words({scan.task: 1 for scan in scans}, len(scans))
    else:
        scans, horizon, robots = _examine_logs(paths, mapping, findings, on_rows)
    for scan in scans:
        scan.finish(findings.add)
    check_fleet(scans, horizon, findings.add)
    return Examination(
        findings=findings,
        sufficiency=judge(scans),
        transitions=sum(scan.transitions for scan in scans),
        seconds=time.perf_counter() - began,
        robots=robots,
    )


def _examine_folder(
    folder: Path, findings: Findings, on_rows: OnRows
) -> tuple[list[TaskScan], int | None]:
    stream = NativeStream(folder, findings.add, on_rows)
    entries = {one.name: one for one in stream.manifest.tasks}
    scans: dict[str, TaskScan] = {}
    for steps in stream:
        role = entries[steps.task].role
        _take(steps, stream.spaces, stream.files, scans, findings, role)
    for entry in stream.manifest.tasks:
        scan = scans.get(entry.name)
        if scan is not None and scan.transitions != entry.transitions:
            detail = f"{scan.transitions} sound transitions, the manifest says {entry.transitions}"
            place = Finding(code="changed-file", file=entry.file, task=entry.name, detail=detail)
            findings.add(place)
    return list(scans.values()), stream.spaces.horizon


def _examine_logs(
    paths: Sequence[Path], mapping: ImportMap, findings: Findings, on_rows: OnRows
) -> tuple[list[TaskScan], int | None, str]:
    def tell(path: Path, error: DatasetError) -> None:
        code = error.code if isinstance(error, LogError) else "unreadable-file"
        findings.add(Finding(code=code, file=str(path), detail=str(error)))

    skipped: list[Path] = []
    sources = find_sources(paths, skipped)
    report_skipped(skipped, findings)
    stream = LogStream(sources, mapping, findings.add, on_rows, on_error=tell)
    scans: dict[str, TaskScan] = {}
    filled: set[int] = set()
    for steps in stream:
        filled.update(np.unique(steps.file).tolist())
        declared = stream.declared[steps.task].role
        test = mapping.test in (steps.task, steps.task.rsplit("/", 1)[-1])
        test = test or (mapping.test is None and declared == "test")
        role = "test" if test else "train"
        _take(steps, stream.spaces(1), stream.files, scans, findings, role)
    if mapping.test is not None and full_name(mapping.test, list(scans)) not in scans:
        known = ", ".join(map(repr, list(scans)[:20]))
        findings.add(Finding(code="no-such-test", task=mapping.test, detail=f"there are {known}"))
    told = {one.file for one in findings.errors()}
    for number, path in enumerate(map(str, sources)):
        if number not in filled and path not in told:
            findings.add(Finding(code="empty-log", file=path))
    horizon = mapping.horizon or (stream.plan and stream.plan.map.horizon)
    return list(scans.values()), horizon, stream.robots()


def _take(
    steps: Steps,
    spaces: Spaces,
    files: list[str],
    scans: dict[str, TaskScan],
    findings: Findings,
    role: str,
) -> None:
    """Checks cells, then hands the sound rows to the task's scan."""
    check_cells(steps, spaces, files, findings.add)
    if steps.task not in scans:
        scans[steps.task] = TaskScan(steps.task, spaces, files, role)
    parts = (steps.obs, steps.next_obs, steps.action, steps.reward[:, None], steps.cost[:, None])
    # False for NaN too.
    sound = np.logical_and.reduce([(np.abs(part) <= LARGEST).all(axis=1) for part in parts])
    if not sound.all():
        steps = take_rows(steps, np.flatnonzero(sound))
    scans[steps.task].add(steps, findings.add)
