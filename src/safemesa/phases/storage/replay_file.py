"""All steps of Phase 3 on disk: rows of float32 that are appended and never changed."""

from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import CheckpointError
from safemesa.core.files import read_json, write_json
from safemesa.datasets.replay import RowLayout
from safemesa.phases.storage.growing_file import GrowingFile

NEEDED = {"obs", "action", "next_obs"}
"""Fields that every agent stores."""

MOST_COLUMNS = 2**24
"""Of a field of the layout; more is damage."""


class ReplayFile(GrowingFile):
    """Rows of float32, appended and never changed; a checkpoint stores how many there are."""

    def __init__(self, path: Path, width: int) -> None:
        super().__init__(path)
        self.width = width

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return 4 * self.width

    @property
    def rows(self) -> int:
        """How many are there; one that was begun does not count."""
        return self.size // self.row_bytes

    def truncate(self, rows: int) -> None:
        """Drops what was appended after the checkpoint that counted `rows`.

        Raises:
            CheckpointError: the file holds fewer rows than the checkpoint counted.
            OutputFolderError: it cannot be written.
        """
        self.truncate_bytes(rows * self.row_bytes)

    def append(self, rows: np.ndarray) -> None:
        """Adds rows `[count, width]` and flushes them to disk.

        Raises:
            OutputFolderError: the file cannot be written.
        """
        self.append_bytes(np.ascontiguousarray(rows, np.float32).tobytes())

    def read(self) -> np.ndarray:
        """All rows `[rows, width]`, memory-mapped."""
        if self.rows == 0:
            return np.zeros((0, self.width), np.float32)
        return np.memmap(self.path, np.float32, "r", shape=(self.rows, self.width))


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
        CheckpointError: the layout is missing or damaged, or lacks a field.
    """
    file = folder / "layout.json"
    fields = read_json(file, error=CheckpointError).get("fields")
    if not isinstance(fields, list) or not all(map(_is_field, fields)):
        raise CheckpointError(
            f"{file} is damaged: expected 'fields' as pairs of a name and a width. Restore the run "
            "folder."
        )
    layout = RowLayout(fields=tuple((name, width) for name, width in fields))
    lacking = NEEDED - set(layout.places)
    if lacking:
        raise CheckpointError(f"{file} lacks {', '.join(sorted(lacking))}. Restore the run folder.")
    rows = replay_file(folder, layout).read()
    return {name: rows[:, where] for name, where in layout.places.items()}


def _is_field(field: Any) -> bool:
    if not isinstance(field, list) or len(field) != 2 or not isinstance(field[0], str):
        return False
    return field[1] is None or (type(field[1]) is int and 0 < field[1] < MOST_COLUMNS)
