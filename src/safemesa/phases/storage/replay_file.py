"""All steps of Phase 3 on disk: rows of float32 that are appended and never changed."""

import os
from pathlib import Path

import numpy as np

from safemesa.core.errors import CheckpointError
from safemesa.core.files import read_json, write_json
from safemesa.datasets.replay import RowLayout


class ReplayFile:
    """Rows of float32, appended and never changed; a checkpoint stores how many there are."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return 4 * self.width

    @property
    def rows(self) -> int:
        """How many are there."""
        return self.path.stat().st_size // self.row_bytes if self.path.is_file() else 0

    def truncate(self, rows: int) -> None:
        """Drops what was appended after the checkpoint that counted `rows`.

        Raises:
            CheckpointError: the file holds fewer rows than the checkpoint counted.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            size = file.tell()
            if size < rows * self.row_bytes:
                raise CheckpointError(
                    f"{self.path} holds {size // self.row_bytes} rows; the checkpoint counts "
                    f"{rows}. The replay is damaged: remove the run folder and run again."
                )
            file.truncate(rows * self.row_bytes)

    def append(self, rows: np.ndarray) -> None:
        """Adds rows `[count, width]` and flushes them to disk."""
        with open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(rows, np.float32).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> np.ndarray:
        """All rows `[rows, width]`, memory-mapped."""
        if not self.path.is_file() or self.path.stat().st_size == 0:
            return np.zeros((0, self.width), np.float32)
        return np.memmap(self.path, np.float32, "r").reshape(-1, self.width)


def replay_file(folder: Path, layout: RowLayout) -> ReplayFile:
    """The rows in the replay folder of a run."""
    return ReplayFile(folder / "rows.f32", layout.width)


def describe_replay(folder: Path, layout: RowLayout) -> None:
    """Writes what the columns are beside the rows."""
    fields = [[name, width] for name, width in layout.fields]
    write_json(folder / "layout.json", {"dtype": "float32", "fields": fields})


def read_replay(folder: Path) -> dict[str, np.ndarray]:
    """Columns `[steps, ...]` of a replay folder, memory-mapped; actions are in [-1, 1].

    Raises:
        CheckpointError: the layout is missing or damaged.
    """
    file = folder / "layout.json"
    fields = read_json(file, error=CheckpointError).get("fields")
    if not isinstance(fields, list):
        raise CheckpointError(f"{file} has no 'fields'. Restore the run folder.")
    layout = RowLayout(fields=tuple((str(name), width) for name, width in fields))
    rows = replay_file(folder, layout).read()
    return {name: rows[:, where] for name, where in layout.places.items()}
