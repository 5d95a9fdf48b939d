"""A dataset folder as a stream of transitions, with the checks of its own structure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.files import sha256
from safemesa.core.spaces import Spaces
from safemesa.core.tensors import map_tensors
from safemesa.datasets.doctor.cells import Places, Report
from safemesa.datasets.findings import Finding
from safemesa.datasets.format import Manifest, TaskEntry, read_manifest
from safemesa.datasets.importers.assemble import Steps
from safemesa.datasets.importers.stream import OnRows
from safemesa.datasets.validation import check_columns, row_chunks


@dataclass
class NativeStream:
    """Reads a dataset folder task by task; goes on where a task's file is damaged."""

    folder: Path
    report: Report
    on_rows: OnRows = lambda done, rows: None
    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Reads the manifest; raises a `DatasetError` if that is damaged."""
        self.manifest: Manifest = read_manifest(self.folder)

    @property
    def spaces(self) -> Spaces:
        """Those of the manifest."""
        return self.manifest.spaces

    def __iter__(self) -> Iterator[Steps]:
        """The transitions of every task."""
        rows = done = 0
        for entry in self.manifest.tasks:
            path = self.folder / entry.file
            self.files.append(str(path))
            columns = self._columns(path, entry)
            if columns is None:
                continue
            for chunk in row_chunks(len(columns["cost"])):
                yield self._steps(entry, columns, chunk)
                rows += chunk.stop - chunk.start
                self.on_rows(done, rows)
            done += path.stat().st_size

    def _columns(self, path: Path, entry: TaskEntry) -> dict[str, np.ndarray] | None:
        def tell(code: str, detail: str) -> None:
            self.report(Finding(code=code, file=str(path), task=entry.name, detail=detail))

        try:
            columns = map_tensors(path, error=DatasetError)
            check_columns(columns, self.spaces, str(path))
        except DatasetError as error:
            tell("unreadable-file", str(error))
            return None
        if sha256(path) != entry.sha256:
            tell("changed-file", "its SHA-256 differs")
        return columns

    def _steps(self, entry: TaskEntry, columns: dict[str, np.ndarray], chunk: slice) -> Steps:
        # One row more, which shows whether the last one ends its episode.
        here = np.asarray(columns["episode"][chunk.start : chunk.stop + 1], np.int64)
        last = np.append(here[1:] != here[:-1], True)[: chunk.stop - chunk.start]
        values = {name: np.asarray(columns[name][chunk]) for name in columns}
        # A file may hold any byte where a bool belongs.
        flags = {
            name: np.ascontiguousarray(values[name]).view(np.uint8).astype(np.float64)
            for name in ("terminated", "truncated")
        }
        steps = Steps(
            task=entry.name,
            **{key: values[key].astype(np.float64) for key in ("obs", "action", "next_obs")},
            reward=values["reward"].astype(np.float64),
            cost=values["cost"].astype(np.float64),
            **flags,
            episode=here[: chunk.stop - chunk.start],
            step=values["step"].astype(np.int64),
            last=last,
            label=here[: chunk.stop - chunk.start],
            row=np.arange(chunk.start, chunk.stop, dtype=np.int64),
            file=np.full(chunk.stop - chunk.start, len(self.files) - 1, np.int64),
        )
        self._check_order(steps, columns, chunk)
        return steps

    def _check_order(self, steps: Steps, columns: dict[str, np.ndarray], chunk: slice) -> None:
        """Episodes ascend, steps follow each other, and nothing follows an end."""
        places = Places(steps, self.files, self.report)
        start = max(chunk.start - 1, 0)
        pairs = slice(start, chunk.stop)
        jump = np.diff(np.asarray(columns["episode"][pairs], np.int64))
        advance = np.diff(np.asarray(columns["step"][pairs], np.int64))
        lead = np.zeros(1 if start == chunk.start else 0, np.bool_)
        places.tell("episode-in-pieces", np.concatenate([lead, jump < 0]))
        places.tell("step-jump", np.concatenate([lead, (jump == 0) & (advance != 1)]), "step")
        ended = (steps.terminated == 1) | (steps.truncated == 1)
        places.tell("continues-after-end", ended & ~steps.last, "terminated")
