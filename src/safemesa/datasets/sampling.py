"""Which rows are learned from: support and query sets, uniform and balanced batches."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.types import Key


class RowIndex(eqx.Module):
    """Rows of many tasks in a table that all share; ragged lists are padded to the longest.

    The first `count - violation_count` entries of a task's `rows` are its safe rows and the
    following `violation_count` are its violations, so that both kinds can be drawn by position.
    """

    rows: Int[Array, "tasks most_rows"]
    count: Int[Array, " tasks"]
    violation_count: Int[Array, " tasks"]


def split_support_query(
    episode: Int[np.ndarray, " n"], rng: np.random.Generator, fraction: float = 0.5
) -> tuple[Int[np.ndarray, " support"], Int[np.ndarray, " query"]]:
    """Splits a log's rows into disjoint support and query rows; an episode is never cut.

    Rows of one episode resemble each other, so a query row of an episode that the support holds
    would not measure how an adapted critic generalises. Both sets get at least one episode.

    Args:
        episode: the episode of every row.
        rng: draws which episodes are support.
        fraction: share of rows that the support should hold, in (0, 1); met as far as episodes
            allow.

    Returns:
        Row numbers in ascending order, int32: `(support, query)`.

    Raises:
        ConfigurationError: `fraction` is not within (0, 1).
        DatasetError: there are fewer than two episodes.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigurationError(f"support fraction is {fraction}, expected a number in (0, 1).")
    identifiers, lengths = np.unique(episode, return_counts=True)
    if identifiers.size < 2:
        raise DatasetError(
            f"a log has {identifiers.size} episodes, expected at least 2: support and query sets "
            "are disjoint and split by episode. Cut the log into episodes, or add one."
        )
    order = rng.permutation(identifiers.size)
    # Support rows if the first 1, 2, ... episodes of the order were support; the last is query.
    rows_so_far = np.cumsum(lengths[order])[:-1]
    taken = 1 + int(np.argmin(np.abs(rows_so_far - fraction * len(episode))))
    is_support = np.isin(episode, identifiers[order[:taken]])
    support, query = np.flatnonzero(is_support), np.flatnonzero(~is_support)
    return support.astype(np.int32), query.astype(np.int32)


def make_row_index(
    rows: Sequence[Int[np.ndarray, " _rows"]],
    costs: Sequence[np.ndarray],
    offsets: Sequence[int] | None = None,
) -> RowIndex:
    """Builds the index of all tasks from the rows that each may draw.

    Args:
        rows: per task, row numbers within the task's log.
        costs: per task, the cost of every row of the log `[n]`, 0 or 1.
        offsets: per task, where its log begins in the shared table; zeros if not given.

    Raises:
        DatasetError: there is no task, a task has no rows, or the table has 2^31 rows or more.
    """
    starts = np.zeros(len(rows), np.int64) if offsets is None else np.asarray(offsets, np.int64)
    if not rows:
        raise DatasetError("there are no tasks to draw rows from, expected at least one.")
    ordered: list[np.ndarray] = []
    violations: list[int] = []
    for task, (own, cost, start) in enumerate(zip(rows, costs, starts, strict=True)):
        if len(own) == 0:
            raise DatasetError(f"task {task} has no rows to draw, expected at least one.")
        is_violation = np.asarray(cost)[own] > 0
        shifted = np.asarray(own, np.int64) + start
        if shifted.max() > np.iinfo(np.int32).max:
            raise DatasetError(
                f"row {shifted.max()} of the shared table has no int32 number. Use fewer or "
                "shorter logs at a time."
            )
        violations.append(int(is_violation.sum()))
        ordered.append(np.concatenate([shifted[~is_violation], shifted[is_violation]]))
    return RowIndex(*_pad(ordered), jnp.array(violations, jnp.int32))


def sample_rows(
    index: RowIndex,
    task: int | Int[Array, ""],
    batch: int,
    violation_fraction: float | None = None,
    *,
    parts: int = 1,
    key: Key,
) -> Int[Array, " batch"]:
    """Draws rows of one task with replacement; works inside compiled code.

    With `violation_fraction`, exactly `round(violation_fraction * batch / parts)` rows of each part
    are violations and the others are safe (Recovery RL's `pos_fraction`). A task that lacks either
    kind is drawn from uniformly in its place.

    Args:
        index: what `make_row_index` gave.
        task: which task; may be traced.
        batch: number of rows, static.
        violation_fraction: share of violations in [0, 1], static; None draws uniformly.
        parts: equal parts of the batch, one after the other, that each hold this share.
        key: consumed.
    """
    count = index.count[task]
    if violation_fraction is None:
        position = jax.random.randint(key, (batch,), 0, count)
        return index.rows[task, position]
    if not 0.0 <= violation_fraction <= 1.0:
        raise ConfigurationError(
            f"violation fraction is {violation_fraction}, expected a number in [0, 1]."
        )
    violations = index.violation_count[task]
    safe = count - violations
    wanted = round(violation_fraction * batch / parts)
    # One call for both kinds: bounds differ per row of the batch, see the order of `RowIndex`.
    is_violation = jnp.arange(batch) % (batch // parts) < wanted
    low = jnp.where(is_violation & (violations > 0), safe, 0)
    high = jnp.where(~is_violation & (safe > 0), safe, count)
    position = jax.random.randint(key, (batch,), low, high)
    return index.rows[task, position]


def _pad(lists: list[np.ndarray]) -> tuple[Int[Array, "tasks most"], Int[Array, " tasks"]]:
    """Stacks ragged lists, none empty. Padding repeats a list's first row: no entry is wrong."""
    counts = np.array([len(rows) for rows in lists], np.int32)
    table = np.zeros((len(lists), int(counts.max())), np.int32)
    for task, rows in enumerate(lists):
        table[task] = rows[0]
        table[task, : len(rows)] = rows
    return jnp.array(table), jnp.array(counts)
