"""What a model was trained on, in short: rows of its logs and the range of every signal.

It lies beside an artefact, and the shield's export makes from it what tells the robot that it has
left its data. It decides nothing in training.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from safemesa.core.errors import CheckpointError
from safemesa.core.tensors import load_tensors, save_tensors
from safemesa.datasets.task_log import TaskLog
from safemesa.datasets.validation import row_chunks

SEEN_FILE = "seen.safetensors"
ROWS = 4096
"""Kept of the logs of a phase; the range is that of all rows."""


class Seen(NamedTuple):
    """Observations, then actions, in physical units."""

    rows: Float[np.ndarray, "rows signals"]
    """In the order of their logs and times."""
    low: Float[np.ndarray, " signals"]
    high: Float[np.ndarray, " signals"]

    @property
    def digest(self) -> np.ndarray:
        """SHA-256 of everything."""
        return np.frombuffer(hashlib.sha256(b"".join(x.tobytes() for x in self)).digest(), np.uint8)


def seen_in(obs: np.ndarray, action: np.ndarray) -> Seen:
    """Some rows of `[n, obs]` and `[n, act]`, which may be mapped from files, and their range.

    The rows are drawn: every n-th one would be of the same place in episodes of equal length.
    """
    drawn = np.random.default_rng(0).random(len(obs)) * len(obs) < ROWS
    parts = []
    for chunk in row_chunks(len(obs)):
        both = np.concatenate([obs[chunk], action[chunk]], axis=1, dtype=np.float32)
        parts.append(Seen(both[drawn[chunk]], both.min(axis=0), both.max(axis=0)))
    return together(parts)


def seen_in_logs(logs: Sequence[TaskLog]) -> Seen:
    """What some logs hold, of each alike."""
    found = [seen_in(log.columns["obs"], log.columns["action"]) for log in logs]
    share = min(1.0, ROWS / sum(len(one.rows) for one in found))
    rng = np.random.default_rng(0)
    return together(
        [one._replace(rows=one.rows[rng.random(len(one.rows)) < share]) for one in found]
    )


def together(parts: Sequence[Seen]) -> Seen:
    """What was seen in several phases."""
    return Seen(
        np.concatenate([part.rows for part in parts]),
        np.min([part.low for part in parts], axis=0),
        np.max([part.high for part in parts], axis=0),
    )


def save_seen(folder: Path, seen: Seen) -> None:
    """Writes it beside an artefact."""
    save_tensors(folder / SEEN_FILE, {**seen._asdict(), "sha256": seen.digest})


def load_seen(folder: Path, signals: int) -> Seen | None:
    """What lies beside an artefact; None for one of an earlier version.

    Raises:
        CheckpointError: it is damaged, or of another number of signals.
    """
    path = folder / SEEN_FILE
    if not path.is_file():
        return None
    tensors = load_tensors(path)
    if set(tensors) == {*Seen._fields, "sha256"}:
        seen = Seen(*(np.array(tensors[name]) for name in Seen._fields))
        shapes = [part.shape for part in seen]
        fits = shapes == [(len(seen.rows), signals), (signals,), (signals,)]
        if fits and np.array_equal(seen.digest, tensors["sha256"]):
            return seen
    raise CheckpointError(f"{path} is damaged, or of other signals. Make its model again.")
