"""The folder of a run: what is in it, what may be written, and what a rerun finds."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from safemesa.core.errors import (
    CheckpointError,
    ConfigurationError,
    OutputFolderError,
)
from safemesa.core.files import read_checked_json, read_json, with_checksum, write_json
from safemesa.core.locks import sole_owner
from safemesa.phases.config import RunConfig, config_from_json, config_to_json
from safemesa.phases.storage.growing_file import GrowingFile, JsonLines

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

VOUCHED = "files"
"""Key of `files.json`, and of the notes of a checkpoint, that says how files are or begin."""

FORMAT = 1
"""Version of `files.json`."""

ROWS_FILE, LAYOUT_FILE = "replay/rows.f32", "replay/layout.json"
METRICS_FILE, LEARNING_FILE = "metrics.jsonl", "learning.jsonl"
CONFIG_FILE, SUMMARY_FILE = "config.json", "summary.json"


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
        self.config_file = path / CONFIG_FILE
        self.summary_file = path / SUMMARY_FILE
        self.files_file = path / "files.json"
        self.checkpoints = path / "checkpoints"
        self.prior = path / "artefacts" / "prior"
        self.risk_model = path / "artefacts" / "risk_model"
        self.deployed_model = path / "artefacts" / "deployed_risk_model"
        self.test_log = path / "artefacts" / "test_log"
        self.fleet_monitor = path / "artefacts" / "fleet_monitor"
        self.replay = path / "replay"
        self.metrics = JsonLines(path / METRICS_FILE)
        self.learning = JsonLines(path / LEARNING_FILE)

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.summary_file.is_file()

    def read_summary(self) -> dict[str, Any]:
        """`summary.json`.

        Raises:
            CheckpointError: it is missing, damaged or edited.
        """
        self.check_files(SUMMARY_FILE)
        return read_json(self.summary_file, error=CheckpointError)

    def vouch(self, summary: bytes) -> None:
        """Writes `files.json`, which says how all files are, of a run that has this summary."""
        files = {
            METRICS_FILE: self.metrics,
            LEARNING_FILE: self.learning,
            **{
                name: GrowingFile(self.path / name)
                for name in (ROWS_FILE, LAYOUT_FILE, CONFIG_FILE)
            },
        }
        digest = {"bytes": len(summary), "sha256": hashlib.sha256(summary).hexdigest()}
        record = {name: file.vouch() for name, file in files.items()} | {SUMMARY_FILE: digest}
        write_json(self.files_file, with_checksum({"format": FORMAT, VOUCHED: record}))

    def check_files(self, *names: str) -> None:
        """Whether files of a finished run are what they were when it ended.

        A run of an earlier version has no `files.json`, and nothing is known of it.

        Args:
            *names: Paths below the folder, with `/`.

        Raises:
            CheckpointError: one of them is missing, damaged or edited.
        """
        if not self.finished or not self.files_file.is_file():
            return
        known = read_checked_json(self.files_file, error=CheckpointError).get(VOUCHED)
        for name in names:
            path = self.path / name
            file = JsonLines(path) if path.suffix == ".jsonl" else GrowingFile(path)
            file.check(known.get(name) if isinstance(known, dict) else None, whole=True)

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
