"""Laws of the ring buffer, and of packing rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from safemesa.core.errors import ConfigurationError
from safemesa.core.pytree import tree_from_tensors, tree_to_tensors
from safemesa.core.types import RiskBatch
from safemesa.datasets.replay import (
    Replay,
    RowLayout,
    append,
    extend,
    make_replay,
    next_position,
    positions,
    sample_positions,
    size,
)

CAPACITY, WIDTH = 7, 2


def rows_from(first: int, count: int) -> np.ndarray:
    """Rows that hold their own number."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.repeat(numbers[:, None], WIDTH, axis=1)


def expected_rows(chunks: list[int], protected: int) -> np.ndarray:
    """The same buffer as a list, written one row at a time."""
    rows, place = np.zeros((CAPACITY, WIDTH), np.float32), 0
    for number in range(1, sum(chunks) + 1):
        rows[place] = number
        place = place + 1 if place + 1 < CAPACITY else protected
    return rows


append_jit, extend_jit, size_jit = jax.jit(append), jax.jit(extend), jax.jit(size)


# Few shapes, because each compiles: none, some, a lap without the prefix, whole laps and more.
COUNTS = st.sampled_from([0, 1, 4, 7, 11, 17])
PROTECTED = st.sampled_from([0, 3, CAPACITY - 1])


def write_all(chunks: list[int], protected: int, write: Callable[..., Replay]) -> Replay:
    replay = make_replay(capacity=CAPACITY, width=WIDTH, protected=protected)
    for done, count in enumerate(chunks):
        replay = write(replay, jnp.array(rows_from(1 + sum(chunks[:done]), count)))
    return replay


@settings(max_examples=30)
@given(chunks=st.lists(COUNTS, max_size=5), protected=PROTECTED)
def test_extend_is_appending_one_by_one(chunks: list[int], protected: int) -> None:
    replay = write_all(chunks, protected, extend_jit)
    np.testing.assert_array_equal(replay.rows, expected_rows(chunks, protected))
    assert int(replay.written) == sum(chunks)
    assert int(size_jit(replay)) == min(sum(chunks), CAPACITY)


def test_compiled_writes_equal_eager_ones() -> None:
    row, start = jnp.array([1.0, 2.0]), make_replay(capacity=CAPACITY, width=WIDTH, protected=1)
    np.testing.assert_array_equal(append(start, row).rows, append_jit(start, row).rows)
    for chunks, protected in (([4, 4], 0), ([11], 3)):
        eager = write_all(chunks, protected, extend)
        compiled = write_all(chunks, protected, extend_jit)
        np.testing.assert_array_equal(eager.rows, compiled.rows)
        assert int(size(eager)) == int(size_jit(compiled))


@settings(max_examples=20)
@given(count=st.integers(0, 30), protected=PROTECTED)
def test_append_wraps_and_keeps_the_prefix(count: int, protected: int) -> None:
    replay = make_replay(capacity=CAPACITY, width=WIDTH, protected=protected)
    for row in rows_from(1, count):
        replay = append_jit(replay, jnp.array(row))
    np.testing.assert_array_equal(replay.rows, expected_rows([count], protected))
    kept = min(count, protected)
    np.testing.assert_array_equal(np.asarray(replay.rows)[:kept], rows_from(1, kept))


def test_append_in_a_scan_equals_single_calls() -> None:
    @jax.jit
    def write(replay: Replay, rows: jax.Array) -> Replay:
        return jax.lax.scan(lambda carry, row: (append(carry, row), None), replay, rows)[0]

    rows = jnp.array(rows_from(4, 20))
    start = write_all([3], 3, extend)
    scanned, one_by_one = write(start, rows), start
    for row in rows_from(4, 20):
        one_by_one = append_jit(one_by_one, jnp.array(row))
    np.testing.assert_array_equal(scanned.rows, one_by_one.rows)
    np.testing.assert_array_equal(scanned.rows, expected_rows([23], 3))
    assert int(scanned.written) == 23


@pytest.mark.parametrize("write", ["append", "extend"])
def test_writing_in_a_scan_copies_no_buffer(write: str) -> None:
    def step(replay: Replay, number: jax.Array) -> tuple[Replay, None]:
        rows = jnp.full((4, 8), number)
        return (append(replay, rows[0]) if write == "append" else extend(replay, rows)), None

    def run(replay: Replay) -> Replay:
        return jax.lax.scan(step, replay, jnp.arange(10, dtype=jnp.float32))[0]

    replay = jax.eval_shape(lambda: make_replay(capacity=4096, width=8, protected=5))
    compiled = jax.jit(run, donate_argnums=0).lower(replay).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4096 * 8 * 4
    assert memory.alias_size_in_bytes >= 4096 * 8 * 4


def test_sampled_positions_hold_data() -> None:
    sample = jax.jit(lambda replay, key: sample_positions(replay, 200, key=key))
    replay = make_replay(capacity=CAPACITY, width=WIDTH, protected=2)
    assert set(sample(replay, jax.random.key(0)).tolist()) == {0}
    replay = extend_jit(replay, jnp.array(rows_from(1, 4)))
    drawn = sample(replay, jax.random.key(0))
    assert drawn.dtype == jnp.int32
    assert set(drawn.tolist()) == {0, 1, 2, 3}
    drawn = sample(extend_jit(replay, jnp.array(rows_from(5, 11))), jax.random.key(0))
    assert set(drawn.tolist()) == set(range(CAPACITY))


def test_a_buffer_is_a_pytree_that_can_be_mapped_and_stored() -> None:
    starts = jax.vmap(lambda _: make_replay(capacity=3, width=WIDTH, protected=1))(jnp.arange(2))
    written = jax.jit(jax.vmap(append))(starts, jnp.array(rows_from(1, 2)))
    np.testing.assert_array_equal(written.rows[:, 0], rows_from(1, 2))
    loaded = tree_from_tensors(starts, tree_to_tensors(written), source="a")
    np.testing.assert_array_equal(loaded.rows, written.rows)
    assert loaded.protected == 1


@pytest.mark.parametrize(("capacity", "protected", "width"), [(0, 0, 1), (3, 3, 1), (3, 0, 0)])
def test_impossible_buffers_are_refused(capacity: int, protected: int, width: int) -> None:
    with pytest.raises(ConfigurationError, match="protected < capacity"):
        make_replay(capacity=capacity, width=width, protected=protected)


LAYOUT = RowLayout(
    fields=(
        ("obs", 3),
        ("action", 1),
        ("cost", None),
        ("next_obs", 3),
        ("next_action", 1),
        ("terminated", None),
        ("policy_action", 1),
    )
)


def make_batch(shape: tuple[int, ...]) -> RiskBatch:
    rng = np.random.default_rng(0)

    def draw(*width: int) -> jax.Array:
        return jnp.array(rng.normal(size=(*shape, *width)), jnp.float32)

    return RiskBatch(
        obs=draw(3),
        action=draw(1),
        cost=draw(),
        next_obs=draw(3),
        next_action=draw(1),
        terminated=draw(),
        policy_action=draw(1),
    )


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (0,)])
def test_pack_and_unpack_are_inverse(shape: tuple[int, ...]) -> None:
    batch = make_batch(shape)
    rows = LAYOUT.pack(batch)
    assert rows.shape == (*shape, LAYOUT.width) == (*shape, 11)
    for name, value in LAYOUT.unpack(rows).items():
        np.testing.assert_array_equal(value, getattr(batch, name))
    np.testing.assert_array_equal(jax.jit(LAYOUT.pack)(batch._asdict()), rows)
    assert RiskBatch(**LAYOUT.unpack(rows)).cost.shape == shape


def test_bools_become_zero_and_one_and_other_values_are_left_out() -> None:
    layout = RowLayout(fields=(("terminated", None),))
    rows = layout.pack({"terminated": np.array([True, False]), "other": "x"})
    np.testing.assert_array_equal(rows, [[1.0], [0.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": None}, "'obs' is missing"),
        (
            {"obs": np.zeros((5, 2), np.float32)},
            r"'obs' has the shape \[5, 2\], expected \[..., 3\]",
        ),
        ({"action": np.zeros((), np.float32)}, "'action' has the shape"),
        ({"cost": np.zeros(5, np.int32)}, "'cost' is int32"),
        ({"cost": np.zeros((5, 1), np.float32)}, "differ in their leading axes"),
    ],
)
def test_wrong_rows_are_refused(change: dict[str, Any], message: str) -> None:
    values = {**make_batch((5,))._asdict(), **change}
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(ConfigurationError, match=message):
        LAYOUT.pack(values)


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="rows of 4 numbers, expected 11"):
        LAYOUT.unpack(jnp.zeros((2, 4)))


def test_positions_are_those_that_rows_were_appended_to() -> None:
    """Protected rows stay; the others go round, as often as the ring is full."""
    replay = make_replay(capacity=7, width=1, protected=2)
    replay = extend(replay, jnp.arange(2.0)[:, None])
    for number in range(13):
        assert int(next_position(replay)) == 2 + number % 5
        replay = append(replay, jnp.full((1,), 100.0 + number))
    rows = np.asarray(replay.rows)[positions(replay, 8, 5), 0]
    assert rows.tolist() == [108.0, 109.0, 110.0, 111.0, 112.0]
    assert np.asarray(replay.rows)[:2, 0].tolist() == [0.0, 1.0]
