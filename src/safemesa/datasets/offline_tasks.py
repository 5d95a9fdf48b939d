"""Logs of many tasks that share their spaces: what Phases 1 and 2 learn from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safemesa.core.errors import DatasetError
from safemesa.core.files import atomic_folder, sha256, with_checksum, write_json
from safemesa.core.spaces import Spaces
from safemesa.core.tensors import map_tensors, save_tensors
from safemesa.datasets.format import (
    COLUMNS,
    MANIFEST_FILE,
    ROLES,
    Manifest,
    TaskEntry,
    check_sound,
    read_manifest,
)
from safemesa.datasets.task_log import TaskLog
from safemesa.datasets.validation import check_columns, check_values


@dataclass(frozen=True, kw_only=True, eq=False)
class OfflineTasks:
    """Training logs and at most one test log; all share their spaces.

    Raises:
        DatasetError: at construction, when names, roles, shapes or dtypes are wrong. Values are
            checked by `validate`, which `save` and `load` call.
    """

    domain: str
    spaces: Spaces
    train: tuple[TaskLog, ...]
    test: TaskLog | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks everything that needs no look at values."""
        check_sound(self.spaces, f"dataset {self.domain!r}: spaces")
        if not self.logs:
            raise DatasetError(f"dataset {self.domain!r} has no tasks, expected at least one.")
        roles = [(log, "train") for log in self.train]
        roles += [(self.test, "test")] if self.test is not None else []
        seen: set[str] = set()
        for log, role in roles:
            if log.role != role:
                raise DatasetError(f"{_where(log)}: role is {log.role!r}, expected {role!r} here.")
            if log.name in seen:
                raise DatasetError(f"two tasks are named {log.name!r}: give each its own name.")
            seen.add(log.name)
            check_columns(log.columns, self.spaces, _where(log))

    @property
    def logs(self) -> tuple[TaskLog, ...]:
        """The training logs, then the test log if there is one."""
        return self.train if self.test is None else (*self.train, self.test)

    def validate(self) -> None:
        """Checks every value of every log, in chunks.

        Raises:
            DatasetError: naming task, column, signal and row.
        """
        for log in self.logs:
            check_values(log.columns, self.spaces, _where(log))

    def only_log(self) -> TaskLog:
        """The test log; or, without one, the only log there is.

        Raises:
            DatasetError: there are several training logs and no test log.
        """
        if self.test is not None:
            return self.test
        if len(self.train) != 1:
            raise DatasetError(
                f"dataset {self.domain!r} has {len(self.train)} training logs and no test log, "
                'expected one log to adapt to. Give the new robot\'s log the role "test", or '
                "use a dataset that holds only that log."
            )
        return self.train[0]

    def log_facts(self) -> dict[str, Any]:
        """What a shield's manifest says about the only log: counts and where it is from."""
        log = self.only_log()
        return {
            "dataset": self.domain,
            "task": log.name,
            "transitions": log.transitions,
            "violations": log.violations,
            "violation_events": log.violation_events,
            "episodes": log.episodes,
            "provenance": dict(self.provenance),
        }

    def check_spaces(self, spaces: Spaces) -> None:
        """Checks that the logs fit a domain. Horizons may differ: logs may be cut short.

        Raises:
            DatasetError: signal names, action bounds or dt differ.
        """
        difference = self.spaces.difference(spaces)
        if difference is not None:
            raise DatasetError(
                f"dataset {self.domain!r} does not fit: {difference}. Use a dataset of this "
                "domain, or declare the same signals."
            )

    def save(self, folder: str | Path) -> None:
        """Validates, then writes the dataset folder atomically.

        Raises:
            DatasetError: a value is wrong.
            OutputFolderError: `folder` exists or cannot be written.
        """
        with atomic_folder(folder) as temporary:
            self.validate()
            entries = []
            for index, log in enumerate(self.logs):
                path = temporary / f"{log.role}-{index:04d}.safetensors"
                save_tensors(path, {name: log.columns[name] for name in COLUMNS})
                entries.append(_entry(log, path))
            manifest = Manifest(
                domain=self.domain,
                spaces=self.spaces,
                tasks=tuple(entries),
                provenance=self.provenance,
            )
            write_json(temporary / MANIFEST_FILE, with_checksum(manifest.to_json()))

    @staticmethod
    def load(folder: str | Path, *, verify: bool = True) -> "OfflineTasks":
        """Maps a dataset folder into memory; rows are read from disk when they are used.

        Args:
            folder: what `save` wrote.
            verify: read everything once, to check hashes and values. Without it only names,
                shapes and dtypes are checked, which takes no time on data of any size.

        Raises:
            DatasetError: anything is missing, damaged or wrong; file, task, column and row are
                named.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        logs = [_load_log(folder, entry, manifest.spaces, verify) for entry in manifest.tasks]
        tests = [log for log in logs if log.role == "test"]
        if len(tests) > 1:
            raise DatasetError(
                f"{folder}: {len(tests)} tasks have the role 'test', expected at most one. Make "
                "a dataset per test task."
            )
        return OfflineTasks(
            domain=manifest.domain,
            spaces=manifest.spaces,
            train=tuple(log for log in logs if log.role == "train"),
            test=tests[0] if tests else None,
            provenance=manifest.provenance,
        )

    def summary_rows(self) -> list[dict[str, Any]]:
        """One row per task for `safemesa data info`: counts, violation rate and mean return."""
        return [
            {
                "task": log.name,
                "role": log.role,
                "transitions": log.transitions,
                "violations": log.violations,
                "violation_rate": log.violations / log.transitions,
                "episodes": log.episodes,
                "mean_length": log.transitions / log.episodes,
                "mean_return": log.total_reward / log.episodes,
                "parameters": dict(log.parameters),
            }
            for log in self.logs
        ]


def _where(log: TaskLog) -> str:
    return f"task {log.name!r}"


def _entry(log: TaskLog, path: Path) -> TaskEntry:
    return TaskEntry(
        name=log.name,
        role=log.role,
        file=path.name,
        sha256=sha256(path),
        transitions=log.transitions,
        violations=log.violations,
        episodes=log.episodes,
        parameters=dict(log.parameters),
    )


def _load_log(folder: Path, entry: TaskEntry, spaces: Spaces, verify: bool) -> TaskLog:
    path = folder / entry.file
    where = f"{path} (task {entry.name!r})"
    if entry.role not in ROLES:
        raise DatasetError(f"{where}: role is {entry.role!r}, expected 'train' or 'test'.")
    columns = map_tensors(path, error=DatasetError)
    check_columns(columns, spaces, where)
    log = TaskLog(name=entry.name, role=entry.role, columns=columns, parameters=entry.parameters)
    if verify:
        if sha256(path) != entry.sha256:
            raise DatasetError(
                f"{where}: its SHA-256 is not the manifest's, so the file was changed or is "
                "damaged. Restore it from a copy, or collect or import the logs again."
            )
        check_values(columns, spaces, where)
    counts = ("transitions", "violations", "episodes") if verify else ("transitions",)
    for name in counts:
        given, expected = getattr(log, name), getattr(entry, name)
        if given != expected:
            raise DatasetError(
                f"{where}: it has {given} {name}, the manifest says {expected}. One of them was "
                "changed; restore the folder, or collect or import the logs again."
            )
    return log
