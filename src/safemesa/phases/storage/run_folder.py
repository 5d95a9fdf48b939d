"""The folder of a run: what is in it, what may be written, and what a rerun finds."""

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from safemesa.core.errors import (
    CheckpointError,
    ConfigurationError,
    OutputFolderError,
    SafemesaError,
)
from safemesa.core.files import read_json, write_json
from safemesa.core.locks import sole_owner
from safemesa.phases.config import RunConfig, config_from_json, config_to_json

METRIC_FIELDS = (
    "episode",
    "env_steps",
    "return",
    "length",
    "violation",
    "success",
    "interventions",
    "violation_under_recovery",
    "cumulative_violations",
    "risk_bias",
    "wall_s",
)
"""Keys of each line of `metrics.jsonl`."""


class JsonLines:
    """A file of one JSON object per line that can go back to an earlier length."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def truncate(self, size: int) -> None:
        """Drops everything after the first `size` bytes.

        Raises:
            CheckpointError: the file is shorter than the checkpoint says.
        """
        with open(self.path, "ab") as file:
            if file.tell() < size:
                raise CheckpointError(
                    f"{self.path} has {file.tell()} bytes, the checkpoint expects {size}: it was "
                    "shortened. Remove the run folder and run again."
                )
            file.truncate(size)

    def append(self, records: Iterable[dict[str, Any]]) -> int:
        """Adds records, flushes them to disk, and returns the file's new size in bytes.

        Raises:
            SafemesaError: a number is not finite; nothing is written.
        """
        lines = "".join(f"{self._line(record)}\n" for record in records)
        with open(self.path, "ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def _line(self, record: dict[str, Any]) -> str:
        try:
            return json.dumps(record, allow_nan=False)
        except ValueError as error:
            wrong = [
                f"{name} is {value}"
                for name, value in record.items()
                if isinstance(value, float) and not math.isfinite(value)
            ]
            raise SafemesaError(
                f"{self.path}, step {record.get('env_steps')}: {', '.join(wrong)}. Learning has "
                "diverged: lower the learning rates, or look at what the environment reports. The "
                "run goes on from the checkpoint before, and would come to the same."
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """All records; an unfinished last line is left out."""
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]


def _same(given: Any, config: RunConfig) -> bool:
    """Whether a configuration on disk is this one; a setting that it lacks has its default."""
    try:
        return isinstance(given, dict) and config_from_json(RunConfig, given) == config
    except ConfigurationError:
        return False


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.summary_file = path / "summary.json"
        self.checkpoints = path / "checkpoints"
        self.prior = path / "artefacts" / "prior"
        self.risk_model = path / "artefacts" / "risk_model"
        self.deployed_model = path / "artefacts" / "deployed_risk_model"
        self.test_log = path / "artefacts" / "test_log"
        self.replay = path / "replay"
        self.metrics = JsonLines(path / "metrics.jsonl")
        self.learning = JsonLines(path / "learning.jsonl")

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.summary_file.is_file()

    def check(self, config: RunConfig) -> None:
        """Refuses a folder that belongs to something else; writes nothing.

        Raises:
            OutputFolderError: the folder holds something else.
        """
        if self.config_file.is_file():
            given = read_json(self.config_file, error=OutputFolderError).get("config")
            wanted = json.loads(json.dumps(config_to_json(config)))
            if not _same(given, config):
                raise OutputFolderError(
                    f"{self.path} holds a run of another configuration "
                    f"({first_difference(given, wanted)}). Choose another --out, or remove it."
                )
        elif self.path.is_dir() and any(name for name in os.listdir(self.path) if name != ".lock"):
            raise OutputFolderError(
                f"{self.path} is not empty and is no run folder. Choose another --out."
            )
        elif self.path.exists() and not self.path.is_dir():
            raise OutputFolderError(f"{self.path} is a file. Choose another --out.")

    def open(self, config: RunConfig, command: str) -> None:
        """Claims the folder for `config`; call `check` first."""
        if self.config_file.is_file():
            return
        record = {"config": config_to_json(config), "command": command, **provenance()}
        write_json(self.config_file, record)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder against a second process; released also by `kill -9`.

        Raises:
            OutputFolderError: another process is working on this run.
        """
        with sole_owner(self.path):
            yield


def first_difference(given: Any, wanted: Any, place: str = "") -> str:
    """Where two configurations differ first, in words."""
    if isinstance(given, dict) and isinstance(wanted, dict):
        for name in [*wanted, *given]:
            if given.get(name) != wanted.get(name):
                inner = f"{place}.{name}".lstrip(".")
                return first_difference(given.get(name), wanted.get(name), inner)
    return f"{place or 'config'} is {given!r} there and {wanted!r} here"


def provenance() -> dict[str, Any]:
    """Versions, machine and commit that a result was made with."""
    packages = ("safemesa", "jax", "equinox", "optax", "numpy", "gymnasium")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count()},
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Commit of the source tree this runs from; None for an installed package."""
    # As a module, not by an import, which would be one upwards.
    package = Path(str(sys.modules["safemesa"].__file__)).resolve().parent
    # A clone holds the package in `src`; an environment that lies in some clone does not.
    source = package.parents[1]
    if package.parent.name != "src" or not (source / ".git").exists():
        return None
    try:
        commit, dirty = (
            subprocess.run(
                ["git", "-C", str(source), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "src"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if dirty else "")
