"""Support and query sets, and rows drawn inside compiled code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.datasets.sampling import (
    RowIndex,
    make_row_index,
    sample_rows,
    split_support_query,
)

LENGTHS = st.lists(st.integers(1, 9), min_size=2, max_size=12)


@given(lengths=LENGTHS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_support_and_query_are_whole_episodes_and_disjoint(
    lengths: list[int], fraction: float, seed: int
) -> None:
    episode = np.repeat(np.arange(len(lengths)) * 3, lengths).astype(np.int32)
    split = functools.partial(split_support_query, episode, fraction=fraction)
    support, query = split(np.random.default_rng(seed))
    assert support.dtype == query.dtype == np.int32
    assert sorted([*support, *query]) == list(range(len(episode)))
    assert len(support) > 0
    assert len(query) > 0
    assert not set(episode[support]) & set(episode[query])
    assert abs(len(support) - fraction * len(episode)) <= max(lengths)
    again = split(np.random.default_rng(seed))
    np.testing.assert_array_equal(support, again[0])


def test_split_errors() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DatasetError, match="1 episodes, expected at least 2"):
        split_support_query(np.zeros(5, np.int32), rng)
    with pytest.raises(DatasetError, match="0 episodes"):
        split_support_query(np.zeros(0, np.int32), rng)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="support fraction"):
            split_support_query(np.arange(5, dtype=np.int32), rng, fraction)


def make_index() -> RowIndex:
    """Tasks: 10 rows with 2 violations; 3 without; 4 of which all violate."""
    costs = [np.zeros(20), np.zeros(3), np.ones(4)]
    costs[0][[4, 6, 15]] = 1
    rows = [np.arange(10, dtype=np.int32), np.arange(3), np.arange(4)]
    return make_row_index(rows, costs, offsets=[0, 100, 200])


ALLOWED = [set(range(10)), {100, 101, 102}, {200, 201, 202, 203}]
VIOLATIONS = [{4, 6}, set(), {200, 201, 202, 203}]


def test_row_index() -> None:
    index = make_index()
    assert index.count.tolist() == [10, 3, 4]
    assert index.violation_count.tolist() == [2, 0, 4]
    for task in range(3):
        assert set(np.asarray(index.rows)[task].tolist()) == ALLOWED[task]
        count, violations = int(index.count[task]), int(index.violation_count[task])
        last = np.asarray(index.rows)[task, count - violations : count]
        assert set(last.tolist()) == VIOLATIONS[task]
    assert index.rows.dtype == index.count.dtype == index.violation_count.dtype == jnp.int32


def test_row_index_errors() -> None:
    with pytest.raises(DatasetError, match="no tasks"):
        make_row_index([], [])
    with pytest.raises(DatasetError, match="task 1 has no rows"):
        make_row_index([np.arange(2), np.arange(0)], [np.zeros(2), np.zeros(2)])
    with pytest.raises(DatasetError, match="has no int32 number"):
        make_row_index([np.arange(2)], [np.zeros(2)], offsets=[2**31 - 1])


compiled = jax.jit(sample_rows, static_argnames=("batch", "violation_fraction"))


@pytest.mark.parametrize("fraction", [None, 0.3, 1.0])
@pytest.mark.parametrize("task", [0, 1, 2])
def test_draws_hold_the_exact_share_of_violations(task: int, fraction: float | None) -> None:
    for seed in range(5):
        key = jax.random.key(seed)
        rows = compiled(make_index(), jnp.array(task, jnp.int32), 25, fraction, key=key)
        assert rows.shape == (25,)
        assert rows.dtype == jnp.int32
        drawn = rows.tolist()
        assert set(drawn) <= ALLOWED[task]
        if fraction is not None and task == 0:
            assert sum(row in VIOLATIONS[0] for row in drawn) == round(25 * fraction)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_each_part_of_a_batch_has_its_share(parts: int) -> None:
    """Each inner step of a meta-learner is such a part."""
    rows = sample_rows(make_index(), 0, 50, 0.3, parts=parts, key=jax.random.key(0))
    for part in np.asarray(rows).reshape(parts, -1).tolist():
        assert sum(row in VIOLATIONS[0] for row in part) == round(0.3 * 50 / parts)


def test_compiled_draws_equal_eager_ones() -> None:
    key = jax.random.key(0)
    rows = compiled(make_index(), 0, 25, 0.3, key=key)
    np.testing.assert_array_equal(rows, sample_rows(make_index(), 0, 25, 0.3, key=key))


@pytest.mark.parametrize("fraction", [None, 0.25])
def test_draws_are_uniform_within_a_kind(fraction: float | None) -> None:
    rows = compiled(make_index(), 0, 40_000, fraction, key=jax.random.key(0))
    counts = np.bincount(rows, minlength=10)
    expected = np.full(10, 4_000.0)
    if fraction is not None:
        expected[:] = 30_000 / 8
        expected[[4, 6]] = 10_000 / 2
    chi_squared = float(np.sum((counts - expected) ** 2 / expected))
    assert chi_squared < 35  # 9 degrees of freedom: about one in ten thousand is above


def test_tasks_can_be_mapped() -> None:
    index, keys = make_index(), jax.random.split(jax.random.key(0), 3)
    draw = jax.jit(jax.vmap(lambda task, key: sample_rows(index, task, 8, 0.5, key=key)))
    rows = draw(jnp.arange(3), keys)
    for task in range(3):
        expected = compiled(index, task, 8, 0.5, key=keys[task])
        np.testing.assert_array_equal(rows[task], expected)


def test_an_impossible_fraction_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"violation fraction is 1\.5"):
        sample_rows(make_index(), 0, 8, 1.5, key=jax.random.key(0))


# One length, because each shape of the index compiles; it still pads the violations.
FLAGS = st.lists(st.booleans(), min_size=5, max_size=5)


@settings(max_examples=20)
@given(violations=st.lists(FLAGS, min_size=2, max_size=2))
def test_only_own_rows_are_drawn(violations: list[list[bool]]) -> None:
    costs = [np.array(flags, np.float32) for flags in violations]
    offsets = [3, 3 + len(costs[0])]
    index = make_row_index([np.arange(len(cost)) for cost in costs], costs, offsets)
    for task, flags in enumerate(violations):
        drawn = compiled(index, task, 7, 0.5, key=jax.random.key(task)).tolist()
        local = [row - offsets[task] for row in drawn]
        assert all(0 <= row < len(flags) for row in local)
        if 0 < sum(flags) < len(flags):
            assert sum(flags[row] for row in local) == round(0.5 * 7)
