"""The episodes of a run, from its folder or packed."""

from pathlib import Path
from typing import Any

from safemesa.core.errors import CheckpointError
from safemesa.experiments.runs.packed_runs import packed_place, packed_runs
from safemesa.phases.storage.run_folder import METRIC_FIELDS, RunFolder


def read_episode_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, one per episode; of a packed run where there is no such file.

    Raises:
        CheckpointError: they are missing, or damaged.
        ConfigurationError: the run is packed, and pyarrow is not installed.
        DatasetError: `packed_runs.json` is damaged.
    """
    file = RunFolder(folder).metrics
    packed = None if file.path.is_file() else packed_place(folder)
    if packed is not None:
        lines = packed_runs(packed[0]).lines(packed[1])
    else:
        try:
            lines = file.read()
        except ValueError as error:
            raise CheckpointError(
                f"{file.path} is damaged: {error}. Make the run again."
            ) from error
    if not lines or any(set(METRIC_FIELDS) - set(line) for line in lines):
        raise CheckpointError(
            f"{file.path} is missing, empty, or lacks fields. Restore it, or make the run again."
        )
    return lines
