"""Checks of one log against the declared spaces, in chunks so that no log need fit in memory."""

from collections.abc import Iterator, Mapping

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.datasets.format import COLUMNS

CHUNK_ROWS = 65_536
ACTION_TOLERANCE = 1e-4
"""Largest step outside of the bounds, relative to bounds above 1: rounding, not a wrong unit."""

Columns = Mapping[str, np.ndarray]


def row_chunks(rows: int) -> Iterator[slice]:
    """Slices that cover `rows` rows in order."""
    for start in range(0, rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, rows))


def check_columns(columns: Columns, spaces: Spaces, where: str) -> None:
    """Checks which columns there are, their shapes and dtypes. Reads no values.

    Raises:
        DatasetError: naming the column, what it is and what was expected.
    """
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        hint = (
            " Where cost is unknown, safety cannot be learned: label every transition, 1 where "
            "next_obs violates the constraint, else 0."
            if "cost" in missing
            else " Import the logs again with these columns."
        )
        raise DatasetError(f"{where}: missing column {', '.join(map(repr, missing))}.{hint}")
    unexpected = [name for name in columns if name not in COLUMNS]
    if unexpected:
        raise DatasetError(
            f"{where}: unexpected column {', '.join(map(repr, unexpected))}, expected only "
            f"{', '.join(COLUMNS)}. Remove it, or make it a part of obs."
        )
    obs = columns["obs"]
    rows = obs.shape[0] if obs.ndim else 0
    for name, column in COLUMNS.items():
        array = columns[name]
        expected = column.shape(rows, spaces)
        if array.shape != expected or array.dtype != column.dtype:
            signals = column.signals(spaces)
            meaning = f" (one column each for {', '.join(signals)})" if signals else ""
            raise DatasetError(
                f"{where}: column {name!r} is {array.dtype}{list(array.shape)}, expected "
                f"{column.dtype}{list(expected)}{meaning}. All tasks of a dataset share one "
                "declaration of signals; correct the column or the declaration."
            )
    if rows == 0:
        raise DatasetError(f"{where}: the log is empty, expected at least one transition.")


def check_values(columns: Columns, spaces: Spaces, where: str) -> None:
    """Checks every value: finite, 0/1 costs and flags, actions within bounds, rows in order.

    `check_columns` must have passed.

    Raises:
        DatasetError: naming the column, the signal and the first row that is wrong.
    """
    low, high = tolerated_bounds(spaces)
    for chunk in row_chunks(columns["obs"].shape[0]):
        for name in ("obs", "action", "reward", "cost", "next_obs"):
            _check_finite(name, columns[name][chunk], spaces, chunk.start, where)
        _check_binary(columns, chunk, where)
        _check_bounds(columns["action"][chunk], low, high, spaces, chunk.start, where)
        # From one row back, so that every pair of neighbours is seen.
        _check_order(columns, slice(max(chunk.start - 1, 0), chunk.stop), where)


def _check_finite(name: str, values: np.ndarray, spaces: Spaces, start: int, where: str) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    row, *signal = (int(index) for index in np.argwhere(~finite)[0])
    signals = COLUMNS[name].signals(spaces)
    of_signal = f", signal {signals[signal[0]]!r}" if signals else ""
    given = values[(row, *signal)]
    raise DatasetError(
        f"{where}: row {start + row} of column {name!r}{of_signal} is {given}, expected a finite "
        "number. Remove or repair the row in the source log and import it again."
    )


def _check_binary(columns: Columns, chunk: slice, where: str) -> None:
    cost = columns["cost"][chunk]
    wrong = (cost != 0) & (cost != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DatasetError(
            f"{where}: row {chunk.start + row} of column 'cost' is {cost[row]}, expected 0 or 1 "
            "(1 where next_obs violates the constraint). Threshold the cost when importing."
        )
    for name in ("terminated", "truncated"):
        # A bool read from a file may hold any byte, and NumPy then behaves in undefined ways.
        flags = np.ascontiguousarray(columns[name][chunk]).view(np.uint8)
        if flags.max() > 1:
            row = int(np.argmax(flags > 1))
            raise DatasetError(
                f"{where}: row {chunk.start + row} of column {name!r} holds the byte "
                f"{flags[row]}, expected 0 or 1. The file is damaged; restore or import it again."
            )


def tolerated_bounds(spaces: Spaces) -> tuple[np.ndarray, np.ndarray]:
    """Bounds `[a]` that an action may not leave: the declared ones, widened by rounding."""
    low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
    return (
        low - ACTION_TOLERANCE * np.maximum(1.0, np.abs(low)),
        high + ACTION_TOLERANCE * np.maximum(1.0, np.abs(high)),
    )


def _check_bounds(
    action: np.ndarray, low: np.ndarray, high: np.ndarray, spaces: Spaces, start: int, where: str
) -> None:
    outside = (action < low) | (action > high)
    if outside.any():
        row, signal = (int(index) for index in np.argwhere(outside)[0])
        raise DatasetError(
            f"{where}: row {start + row} of column 'action', signal "
            f"{spaces.action_names[signal]!r} is {action[row, signal]}, expected "
            f"[{spaces.action_low[signal]}, {spaces.action_high[signal]}] in physical units. "
            "Correct the unit or the declared bounds."
        )


def _check_order(columns: Columns, pairs: slice, where: str) -> None:
    """Checks rows of `pairs` and how each follows the one before."""
    episode, step = columns["episode"][pairs], columns["step"][pairs]
    ended = columns["terminated"][pairs] | columns["truncated"][pairs]
    if episode.min() < 0 or step.min() < 0:
        row = pairs.start + int(np.argmax((episode < 0) | (step < 0)))
        raise DatasetError(f"{where}: row {row} has a negative episode or step, expected 0, 1, ...")
    # int64, because the difference of two int32 can overflow.
    jump = np.diff(episode.astype(np.int64))
    advance = np.diff(step.astype(np.int64))
    same = jump == 0
    problems = (
        (jump < 0, "its episode is smaller than the one before: order rows by episode, then step"),
        (
            same & (advance != 1),
            "its step does not follow the one before by 1: order the rows by "
            "step, and begin a new episode where rows are missing",
        ),
        (
            same & ended[:-1],
            "it continues an episode that terminated or was truncated: give it "
            "a new episode number",
        ),
    )
    for wrong, problem in problems:
        if wrong.any():
            row = pairs.start + int(np.argmax(wrong)) + 1
            raise DatasetError(f"{where}: row {row} breaks the order; {problem}.")
