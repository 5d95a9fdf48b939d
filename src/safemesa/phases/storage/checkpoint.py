"""Checkpoints that survive `kill -9`.

A checkpoint is a pair: `<phase>-<step>.safetensors` (the state) and, written after it, a JSON file
with the step, bookkeeping and the hash of the first. The last two are kept; one that is damaged is
passed over for the one before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safemesa.core.errors import CheckpointError
from safemesa.core.files import read_checked_json, sha256, with_checksum, write_json
from safemesa.core.pytree import tree_from_tensors, tree_to_tensors
from safemesa.core.tensors import load_tensors, save_tensors
from safemesa.core.types import PyTree


@dataclass(frozen=True)
class Checkpoint:
    """A restored state, the step it was taken at, and what was noted with it."""

    state: PyTree
    step: int
    notes: dict[str, Any]


class Checkpointer:
    """Saves and restores the states of one phase in one folder."""

    def __init__(self, folder: Path, phase: str) -> None:
        self.folder, self.phase = folder, phase

    def save(self, step: int, state: PyTree, notes: dict[str, Any]) -> None:
        """Writes a checkpoint, then removes all but the last two."""
        tensors = self.folder / f"{self.phase}-{step:09d}.safetensors"
        save_tensors(tensors, tree_to_tensors(state))
        record = {"step": step, "notes": notes, "sha256": sha256(tensors)}
        write_json(tensors.with_suffix(".json"), with_checksum(record))
        for old in self._records()[2:]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def restore(
        self,
        template: PyTree,
        at: int | None = None,
        check: Callable[[dict[str, Any]], None] = lambda notes: None,
    ) -> Checkpoint | None:
        """The newest sound checkpoint (or the one of step `at`); None where there is none.

        `check` is given the notes of one, and raises `CheckpointError` where what they speak of is
        damaged.

        Raises:
            CheckpointError: there are checkpoints and none is sound.
        """
        problems = []
        for record_path in self._records():
            if at is not None and _step_of(record_path) != at:
                continue
            try:
                found = self._read(record_path, template)
                check(found.notes)
                return found
            except CheckpointError as error:
                problems.append(str(error))
        if problems:
            raise CheckpointError(
                f"no sound checkpoint in {self.folder}: {problems[0]} Remove that folder to begin "
                "this phase of the run again."
            )
        return None

    def steps(self) -> list[int]:
        """Steps that are saved, newest first; whether soundly is not asked."""
        return [_step_of(record) for record in self._records()]

    def remove(self, *, after: int = -1) -> None:
        """Deletes the checkpoints of later steps than `after`; by default all of them."""
        for record in self._records():
            if _step_of(record) > after:
                record.unlink()
                record.with_suffix(".safetensors").unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        """Newest first. Copies that somebody made under other names are none."""
        paths = self.folder.glob(f"{self.phase}-*.json")
        records = [path for path in paths if path.stem.removeprefix(f"{self.phase}-").isdecimal()]
        return sorted(records, reverse=True)

    def _read(self, record_path: Path, template: PyTree) -> Checkpoint:
        record = read_checked_json(record_path, error=CheckpointError)
        tensors = record_path.with_suffix(".safetensors")
        if not tensors.is_file() or sha256(tensors) != record.get("sha256"):
            raise CheckpointError(f"{tensors} is missing or does not match its hash.")
        state = tree_from_tensors(template, load_tensors(tensors), source=str(tensors))
        step, notes = _step_of(record_path), record.get("notes")
        if record.get("step") != step or not isinstance(notes, dict):
            raise CheckpointError(f"{record_path} is damaged: its step or notes are not its own.")
        return Checkpoint(state, step, notes)


def _step_of(record_path: Path) -> int:
    return int(record_path.stem.rpartition("-")[2])
