"""Datasets for other programs: Minari folders and DSRL files, one per task.

What those formats have no place for (names, bounds, role, numbers of episodes) is kept beside it
under our name, so that importing the export gives the same dataset, bit for bit.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.files import atomic_folder, write_json
from safemesa.core.registry import Registry
from safemesa.datasets.importers.arrays import DECLARATION, EPISODE, STEP, declaration_text
from safemesa.datasets.importers.extras import import_extra
from safemesa.datasets.importers.minari_folder import NUMBERS_ATTRIBUTES
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.datasets.validation import row_chunks

Exporter = Callable[[OfflineTasks, Path], list[Path]]
exporters: Registry[Exporter] = Registry("export format")

DSRL_COLUMNS = {
    "observations": "obs",
    "next_observations": "next_obs",
    "actions": "action",
    "rewards": "reward",
    "costs": "cost",
    "terminals": "terminated",
    "timeouts": "truncated",
    # D4RL's readers pass over what has "metadata" in its name.
    EPISODE: "episode",
    STEP: "step",
}


@exporters.register("dsrl")
def export_dsrl(data: OfflineTasks, out: Path) -> list[Path]:
    """Writes `<task>.hdf5` files in DSRL's layout of flat arrays.

    Raises:
        OutputFolderError: `out` exists or cannot be written.
    """
    h5py = import_extra("h5py", "data")
    with atomic_folder(out) as folder:
        names = _file_names(data)
        for log, name in zip(data.logs, names, strict=True):
            with h5py.File(folder / f"{name}.hdf5", "w") as file:
                file.attrs[DECLARATION] = _declaration(data, log)
                for key, column in DSRL_COLUMNS.items():
                    values = log.columns[column]
                    dataset = file.create_dataset(key, values.shape, values.dtype)
                    for chunk in row_chunks(log.transitions):
                        dataset[chunk] = values[chunk]
    return [out / f"{name}.hdf5" for name in names]


@exporters.register("minari")
def export_minari(data: OfflineTasks, out: Path) -> list[Path]:
    """Writes Minari datasets `<task>-v0`; `MINARI_DATASETS_PATH=out` lets Minari load them.

    Raises:
        DatasetError: a next observation is not the following row's observation; Minari stores
            each observation once.
        OutputFolderError: `out` exists or cannot be written.
    """
    h5py = import_extra("h5py", "data")
    with atomic_folder(out) as folder:
        names = [f"{name}-v0" for name in _file_names(data)]
        for log, name in zip(data.logs, names, strict=True):
            _check_chained(log)
            inner = folder / name / "data"
            inner.mkdir(parents=True)
            with h5py.File(inner / "main_data.hdf5", "w", track_order=True) as file:
                for index, rows in enumerate(_episodes(log)):
                    _write_episode(file.create_group(f"episode_{index}"), index, log, rows)
            size = (inner / "main_data.hdf5").stat().st_size
            write_json(inner / "metadata.json", _minari_metadata(data, log, name, size))
    return [out / name for name in names]


def _write_episode(group: Any, index: int, log: TaskLog, rows: slice) -> None:
    columns = {name: np.asarray(values[rows]) for name, values in log.columns.items()}
    count = len(columns["cost"])
    group.attrs["id"] = index
    group.attrs["total_steps"] = count
    for key, column in zip(NUMBERS_ATTRIBUTES, ("episode", "step"), strict=True):
        group.attrs[key] = int(columns[column][0])
    # Contiguous storage: Minari's own growing chunks take 66 times the space of short episodes.
    group["observations"] = np.concatenate([columns["obs"], columns["next_obs"][-1:]])
    group["actions"] = columns["action"]
    group["rewards"] = columns["reward"]
    group["terminations"] = columns["terminated"]
    group["truncations"] = columns["truncated"]
    # Infos begin with that of the reset, which has no cost.
    group["infos/cost"] = np.concatenate([np.zeros(1, np.float32), columns["cost"]])


def _minari_metadata(data: OfflineTasks, log: TaskLog, name: str, size: int) -> dict[str, Any]:
    spaces = data.spaces
    unbounded = np.finfo(np.float32).max
    return {
        "total_episodes": log.episodes,
        "total_steps": log.transitions,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": _box(
            [-float(unbounded)] * spaces.obs_size, [float(unbounded)] * spaces.obs_size
        ),
        "action_space": _box(list(spaces.action_low), list(spaces.action_high)),
        "dataset_id": name,
        "dataset_size": round(size / 1e6, 1),
        "minari_version": "0.5.3",
        "description": f"{data.domain}, task {log.name}; infos['cost'] is 1 for a violation.",
        DECLARATION: _declaration(data, log),
    }


def _box(low: list[float], high: list[float]) -> str:
    space = {"type": "Box", "dtype": "float32", "shape": [len(low)], "low": low, "high": high}
    return json.dumps(space)


def _declaration(data: OfflineTasks, log: TaskLog) -> str:
    return declaration_text(
        {
            "domain": data.domain,
            "task": log.name,
            "role": log.role,
            "parameters": dict(log.parameters),
            "provenance": dict(data.provenance),
            "spaces": asdict(data.spaces),
        }
    )


def _file_names(data: OfflineTasks) -> list[str]:
    """Task names as file names that keep their order; different tasks get different ones."""
    width = len(str(len(data.logs) - 1))
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", log.name).strip("-") or "task" for log in data.logs]
    return [f"{index:0{width}d}-{name}" for index, name in enumerate(plain)]


def _episodes(log: TaskLog) -> Iterator[slice]:
    """Rows of each episode."""
    episode = np.asarray(log.columns["episode"])
    begins = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
    for start, stop in zip(begins, np.append(begins[1:], len(episode)), strict=True):
        yield slice(int(start), int(stop))


def _check_chained(log: TaskLog) -> None:
    episode, obs, next_obs = (log.columns[name] for name in ("episode", "obs", "next_obs"))
    for chunk in row_chunks(log.transitions - 1):
        after = slice(chunk.start + 1, chunk.stop + 1)
        inside = episode[chunk] == episode[after]
        differs = (next_obs[chunk] != obs[after]).any(axis=1) & inside
        if differs.any():
            row = chunk.start + int(np.argmax(differs))
            raise DatasetError(
                f"task {log.name!r}: next_obs of row {row} is not obs of row {row + 1}, but Minari "
                "stores each observation once. Export to DSRL, which keeps both."
            )
