"""The episodes of a run, from its folder or packed, and whether its summary says the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import CheckpointError
from safemesa.experiments.runs.external_runs import external_file, external_lines
from safemesa.experiments.runs.packed_runs import packed_place, packed_runs
from safemesa.phases.storage.run_folder import METRIC_FIELDS, METRICS_FILE, RunFolder

SUMS = {
    "violations": "violation",
    "violations_under_recovery": "violation_under_recovery",
    "interventions": "interventions",
    "successes": "success",
}
"""Fields of the summary that are sums over the lines, by the field of a line."""


def read_episode_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, one per episode; of a packed run where there is no such file.

    Of another program's run, from its CSV file: there, numbers that are not known are None.

    Raises:
        CheckpointError: they are missing, damaged, or not those that the summary vouches for.
        ConfigurationError: the run is packed, and pyarrow is not installed.
        DatasetError: `packed_runs.json` or a CSV file is damaged.
    """
    external = external_file(folder)
    if external is not None:
        return external_lines(folder, external)
    run = RunFolder(folder)
    file = run.metrics
    packed = None if file.path.is_file() else packed_place(folder)
    if packed is not None:
        lines = packed_runs(packed[0]).lines(packed[1])
    else:
        run.check_files(METRICS_FILE)
        lines = file.read()
    if not lines or any(set(METRIC_FIELDS) - set(line) for line in lines):
        raise CheckpointError(
            f"{file.path} is missing, empty, or lacks fields. Restore it, or make the run again."
        )
    for number, line in enumerate(lines, start=1):
        wrong = [name for name in METRIC_FIELDS if not _is_number(line[name], name)]
        if wrong:
            raise CheckpointError(
                f"{file.path}, line {number} has {line[wrong[0]]!r} as {wrong[0]}; expected a "
                "number. Restore it from a copy, or make the run again."
            )
    return lines


def _is_number(value: Any, name: str) -> bool:
    absent = name == "success" and value is None
    return absent or (isinstance(value, int | float) and not isinstance(value, bool))


def contradiction(summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str | None:
    """What a summary says otherwise than the lines of its run, in words; None: nothing."""
    said: dict[str, int | None] = {"episodes": len(lines)}
    for name, field in SUMS.items():
        values = [line[field] for line in lines]
        said[name] = None if None in values else sum(values)
    returns = [line["return"] for line in lines]
    means = {"return_mean": np.mean(returns), "return_last_100": np.mean(returns[-100:])}
    for name, value in said.items():
        if name in summary and summary[name] != value:
            return f"{name} is {summary[name]} there, and {value} over the lines"
    for name, mean in means.items():
        if name in summary and not np.isclose(summary[name], mean, rtol=1e-6, atol=1e-9):
            return f"{name} is {summary[name]} there, and {mean} over the lines"
    return None
