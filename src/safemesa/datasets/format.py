"""The native dataset folder: `manifest.json` beside one safetensors file of columns per task."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.files import read_checked_json
from safemesa.core.spaces import Spaces

FORMAT_NAME = "safemesa-dataset"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ROLES = ("train", "test")

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a log. `width` names the signals it holds; None is one number per row."""

    dtype: np.dtype
    width: str | None = None

    def shape(self, rows: int, spaces: Spaces) -> tuple[int, ...]:
        """The shape that the column must have in a log of `rows` transitions."""
        names = self.signals(spaces)
        return (rows,) if names is None else (rows, len(names))

    def signals(self, spaces: Spaces) -> tuple[str, ...] | None:
        """Names of the signals, or None for one number per row."""
        if self.width is None:
            return None
        return spaces.obs_names if self.width == "obs" else spaces.action_names


_FLOAT, _BOOL, _INT = np.dtype(np.float32), np.dtype(np.bool_), np.dtype(np.int32)

COLUMNS: dict[str, Column] = {
    "obs": Column(dtype=_FLOAT, width="obs"),
    # Physical units, as the actuators received it.
    "action": Column(dtype=_FLOAT, width="action"),
    "reward": Column(dtype=_FLOAT),
    # 1 where `next_obs` violates the constraint, else 0.
    "cost": Column(dtype=_FLOAT),
    "next_obs": Column(dtype=_FLOAT, width="obs"),
    "terminated": Column(dtype=_BOOL),
    "truncated": Column(dtype=_BOOL),
    # Rows are ordered by episode, then by step; steps of an episode have no gaps.
    "episode": Column(dtype=_INT),
    "step": Column(dtype=_INT),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEntry:
    """What the manifest says about one task."""

    name: str
    role: str
    file: str
    sha256: str
    transitions: int
    violations: int
    episodes: int
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of `manifest.json`."""

    domain: str
    spaces: Spaces
    tasks: tuple[TaskEntry, ...]
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON; `read_manifest` is its inverse."""
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "domain": self.domain,
            "spaces": asdict(self.spaces),
            "tasks": [asdict(task) for task in self.tasks],
            "provenance": dict(self.provenance),
        }


def make_provenance(*, command: str, seed: int | None, policy: str) -> dict[str, Any]:
    """Where a dataset is from: the command, its seed, the policy that drove, and versions."""
    versions = {"python": platform.python_version()}
    for package in ("safemesa", "numpy", "jax", "mujoco"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"command": command, "seed": seed, "policy": policy, "versions": versions}


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks `manifest.json`.

    Raises:
        DatasetError: it is missing, damaged, of another format or version, or contradicts itself.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is no dataset folder. Check the path, or make one with "
            "`safemesa collect` or `safemesa data import`."
        )
    path = folder / MANIFEST_FILE
    record = read_checked_json(path, error=DatasetError)
    where = str(path)
    if record.get("format") != FORMAT_NAME:
        raise DatasetError(
            f"{where}: format is {record.get('format')!r}, expected {FORMAT_NAME!r}. Import other "
            "formats with `safemesa data import`."
        )
    version = _field(record, "version", int, where)
    if version != FORMAT_VERSION:
        raise DatasetError(
            f"{where}: format version {version}, this safemesa reads {FORMAT_VERSION}. Install a "
            "safemesa that reads it, or import the logs again."
        )
    spaces = _read_spaces(_field(record, "spaces", dict, where), f"{where}: spaces")
    check_sound(spaces, f"{where}: spaces")
    tasks = tuple(
        _read_task(task, f"{where}: tasks[{index}]")
        for index, task in enumerate(_field(record, "tasks", list, where))
    )
    return Manifest(
        domain=_field(record, "domain", str, where),
        spaces=spaces,
        tasks=tasks,
        provenance=_field(record, "provenance", dict, where),
    )


def check_sound(spaces: Spaces, where: str) -> None:
    """Checks that spaces are possible at all.

    Raises:
        DatasetError: no or repeated names, bounds that do not fit, a step or horizon below one.
    """

    def require(condition: bool, given: str, expected: str) -> None:
        if not condition:
            raise DatasetError(f"{where}: {given}, expected {expected}. Correct the declaration.")

    for field, names in (("obs_names", spaces.obs_names), ("action_names", spaces.action_names)):
        require(len(names) > 0, f"{field} is empty", "one name per signal")
        require(len(set(names)) == len(names), f"{field} repeats a name: {names}", "unique names")
    low, high = spaces.action_low, spaces.action_high
    require(
        len(low) == len(high) == spaces.action_size,
        f"{len(low)} lower and {len(high)} upper bounds",
        f"one of each for the {spaces.action_size} actions",
    )
    for name, smallest, largest in zip(spaces.action_names, low, high, strict=True):
        require(
            math.isfinite(smallest) and math.isfinite(largest) and smallest < largest,
            f"the bounds of action {name!r} are [{smallest}, {largest}]",
            "finite numbers, low < high",
        )
    require(spaces.horizon >= 1, f"horizon is {spaces.horizon}", "at least 1 step")
    require(math.isfinite(spaces.dt) and spaces.dt > 0, f"dt is {spaces.dt}", "seconds above 0")


def _read_spaces(record: dict[str, Any], where: str) -> Spaces:
    return Spaces(
        obs_names=_items(record, "obs_names", str, where),
        action_names=_items(record, "action_names", str, where),
        action_low=_items(record, "action_low", float, where),
        action_high=_items(record, "action_high", float, where),
        horizon=_field(record, "horizon", int, where),
        dt=_field(record, "dt", float, where),
    )


def _read_task(record: Any, where: str) -> TaskEntry:
    if not isinstance(record, dict):
        raise DatasetError(f"{where} is {record!r}, expected an object {{...}}.")
    entry = TaskEntry(
        name=_field(record, "name", str, where),
        role=_field(record, "role", str, where),
        file=_field(record, "file", str, where),
        sha256=_field(record, "sha256", str, where),
        transitions=_field(record, "transitions", int, where),
        violations=_field(record, "violations", int, where),
        episodes=_field(record, "episodes", int, where),
        parameters=_field(record, "parameters", dict, where),
    )
    # A manifest from elsewhere must not make us open files outside of its folder.
    if entry.file in ("", ".", "..") or any(mark in entry.file for mark in "/\\:\0"):
        raise DatasetError(f"{where}: file is {entry.file!r}, expected a name without folders.")
    return entry


def _items(record: Mapping[str, Any], key: str, kind: type[Value], where: str) -> tuple[Value, ...]:
    values: Sequence[Any] = _field(record, key, list, where)
    by_index = {str(index): value for index, value in enumerate(values)}
    return tuple(_field(by_index, index, kind, f"{where}.{key}") for index in by_index)


def _field(record: Mapping[str, Any], key: str, kind: type[Value], where: str) -> Value:
    """`record[key]`, checked to be of type `kind`; whole numbers pass as float."""
    if key not in record:
        raise DatasetError(f"{where}: {key!r} is missing. The manifest is damaged; restore it.")
    value = record[key]
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    # `isinstance` would take true and false for whole numbers.
    if type(value) is kind:
        return cast(Value, value)
    raise DatasetError(
        f"{where}: {key!r} is {str(value)[:80]!r}, expected {kind.__name__}. The manifest is "
        "damaged; restore it."
    )
