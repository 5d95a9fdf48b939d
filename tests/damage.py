"""Bits that flip in run folders, and whether anybody notices: what the tests of damage share."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tiny import lines_without_wall

from safemesa.core.errors import SafemesaError
from safemesa.core.pytree import tree_to_tensors
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.experiments.measures.run_contents import replay_columns
from safemesa.experiments.runs.run_records import scan_runs
from safemesa.phases.config import RunConfig
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import load_prior, load_risk_model
from safemesa.phases.storage.seen import load_seen

REFUSED = "refused"


def files_of(folder: Path) -> list[Path]:
    """Everything with at least one byte, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def flips(folder: Path, count: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """Drawn places: a file below the folder, a byte of it, and a bit of that.

    Files take turns, so that small ones are met as often as large ones.
    """
    draw = random.Random(seed)
    files = [path.relative_to(folder).as_posix() for path in files_of(folder)]
    draw.shuffle(files)
    for number in range(count):
        file = files[number % len(files)]
        yield file, draw.randrange((folder / file).stat().st_size), draw.randrange(8)


def flip(file: Path, byte: int, bit: int) -> None:
    """Turns one bit around."""
    data = bytearray(file.read_bytes())
    data[byte] ^= 1 << bit
    file.write_bytes(data)


def contents(folder: Path, signals: int) -> dict[str, Any]:
    """What verbs read of a finished run, each `REFUSED` where it is refused by a sentence."""
    artefacts = folder / "artefacts"
    readers: dict[str, Callable[[], Any]] = {
        "summary": partial(_summary, folder),
        "settings": lambda: scan_runs([folder]).runs[0].settings,
        "replay": lambda: replay_columns(folder),
        "test log": partial(_log, artefacts / "test_log"),
        "seen": partial(_seen, artefacts / "prior", signals),
    }
    loads = {"prior": load_prior, "risk_model": load_risk_model}
    for name, load in {**loads, "deployed_risk_model": load_risk_model}.items():
        if (artefacts / name).is_dir():  # not every arm has all of them
            readers[name] = partial(_model, load, artefacts / name)
    found = {name: _read(read) for name, read in readers.items()}
    # A line is read by those who read the summary, which refuses another file than its own.
    refused = found["summary"] is REFUSED
    found["lines"] = REFUSED if refused else lines_without_wall(folder / "metrics.jsonl")
    return found


def _read(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except SafemesaError:
        return REFUSED


def _summary(folder: Path) -> Any:
    (record,) = scan_runs([folder]).runs
    return {name: value for name, value in record.summary.items() if name != "wall_s"}


def _log(folder: Path) -> Any:
    data = OfflineTasks.load(folder)
    return {"spaces": asdict(data.spaces), **data.only_log().columns}


def _model(load: Callable[[Path], Any], folder: Path) -> Any:
    tree, config, spaces = load(folder)
    return {"config": config, "spaces": asdict(spaces), **tree_to_tensors(tree)}


def _seen(folder: Path, signals: int) -> Any:
    seen = load_seen(folder, signals)
    return None if seen is None else seen._asdict()


def silent_differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What is read as something else, and refused by nobody."""
    return [
        name
        for name, value in expected.items()
        if found[name] is not REFUSED and not _same(found[name], value)
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


def gone_on(
    config: RunConfig, damaged: Path, straight: Path, options: RunOptions, signals: int
) -> str:
    """What becomes of a run folder with a flipped bit when its command is given again.

    `refused`, or `sound`: in the end everything is as in the run that nothing happened to, or
    refused. Anything else is an assertion.
    """
    try:
        run([config], [damaged], options)
    except SafemesaError:
        return REFUSED
    assert (damaged / "replay" / "rows.f32").read_bytes() == (
        straight / "replay" / "rows.f32"
    ).read_bytes()
    expected = contents(straight, signals)
    assert silent_differences(contents(damaged, signals), expected) == []
    return "sound"


def copied(folder: Path, to: Path) -> Path:
    """A copy in place of what was there."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to
