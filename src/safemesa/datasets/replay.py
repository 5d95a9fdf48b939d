"""The online store: a ring buffer of packed rows as pure functions, for use inside `lax.scan`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import Key


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLayout:
    """How named arrays lie in one row of float32, so that a store is one array.

    Attributes:
        fields: `(name, width)` in order; a width of None is one number without an axis of its
            own, such as reward `[...]`, while obs of width 4 is `[..., 4]`.
    """

    fields: tuple[tuple[str, int | None], ...]

    @property
    def width(self) -> int:
        """Numbers per row."""
        return sum(_columns(width) for _, width in self.fields)

    @property
    def places(self) -> dict[str, int | slice]:
        """Where each field lies on the last axis."""
        found: dict[str, int | slice] = {}
        start = 0
        for name, width in self.fields:
            found[name] = start if width is None else slice(start, start + width)
            start += _columns(width)
        return found

    def pack(self, values: Mapping[str, Any] | tuple) -> Float[Array, "... width"]:
        """Packs a dictionary or NamedTuple of arrays `[..., field]` into rows `[..., width]`.

        Values that are no field are left out. Bools become 0 and 1.

        Raises:
            ConfigurationError: a field is missing, has another shape, or is neither float32 nor
                bool.
        """
        named = values if isinstance(values, Mapping) else _as_dict(values)
        parts = []
        for name, width in self.fields:
            if name not in named:
                raise ConfigurationError(
                    f"cannot pack a row: {name!r} is missing, given {', '.join(named)}."
                )
            value = jnp.asarray(named[name])
            if value.dtype not in (jnp.float32, jnp.bool_):
                raise ConfigurationError(
                    f"cannot pack a row: {name!r} is {value.dtype}, expected float32 or bool."
                )
            if width is None:
                value = value[..., None]
            if value.ndim == 0 or value.shape[-1] != _columns(width):
                raise ConfigurationError(
                    f"cannot pack a row: {name!r} has the shape {list(value.shape)}, expected "
                    f"[..., {width}]."
                )
            parts.append(value.astype(jnp.float32))
        leading = {
            name: part.shape[:-1] for (name, _), part in zip(self.fields, parts, strict=True)
        }
        if len(set(leading.values())) > 1:
            raise ConfigurationError(
                f"cannot pack rows: fields differ in their leading axes, {leading}. Give all of "
                "them the same number of rows."
            )
        return jnp.concatenate(parts, axis=-1)

    def unpack(self, rows: Float[Array, "... width"]) -> dict[str, Float[Array, "..."]]:
        """The inverse of `pack`; every field is float32.

        Raises:
            ConfigurationError: rows have another width.
        """
        if rows.shape[-1] != self.width:
            raise ConfigurationError(
                f"cannot unpack rows of {rows.shape[-1]} numbers, expected {self.width}."
            )
        return {name: rows[..., where] for name, where in self.places.items()}


class Replay(eqx.Module):
    """A ring buffer of rows.

    The first `protected` rows are written once and kept (D_test); the others are overwritten
    oldest first. `written` counts all rows ever written and must stay below 2^31.
    """

    rows: Float[Array, "capacity width"]
    written: Int[Array, ""]
    protected: int = eqx.field(static=True)

    @property
    def capacity(self) -> int:
        """Number of rows that fit."""
        return self.rows.shape[0]


def make_replay(*, capacity: int, width: int, protected: int = 0) -> Replay:
    """An empty buffer.

    Raises:
        ConfigurationError: nothing could be overwritten when it is full.
    """
    if width < 1 or not 0 <= protected < capacity:
        raise ConfigurationError(
            f"a replay buffer of capacity {capacity}, row width {width} and {protected} protected "
            "rows, expected width >= 1 and 0 <= protected < capacity. Raise the capacity."
        )
    return Replay(
        rows=jnp.zeros((capacity, width), jnp.float32),
        written=jnp.zeros((), jnp.int32),
        protected=protected,
    )


def append(replay: Replay, row: Float[Array, " width"]) -> Replay:
    """Writes one row. In place where the buffer is donated or carried by a scan."""
    position = _position(replay, replay.written)
    rows = jax.lax.dynamic_update_slice(replay.rows, row[None], (position, 0))
    return Replay(rows=rows, written=replay.written + 1, protected=replay.protected)


def extend(replay: Replay, rows: Float[Array, "n width"]) -> Replay:
    """Writes `n` rows; equal to appending them one after the other."""
    added = rows.shape[0]
    stream = replay.written + jnp.arange(added, dtype=jnp.int32)
    # Of rows that share a position only the last may be written: a scatter has no order.
    survives = stream >= replay.written + added - (replay.capacity - replay.protected)
    keep = survives | (stream < replay.protected)
    position = jnp.where(keep, _position(replay, stream), replay.capacity)
    written = replay.rows.at[position].set(rows, mode="drop")
    return Replay(rows=written, written=replay.written + added, protected=replay.protected)


def size(replay: Replay) -> Int[Array, ""]:
    """Number of rows that hold data."""
    return jnp.minimum(replay.written, replay.capacity)


def sample_positions(replay: Replay, batch: int, *, key: Key) -> Int[Array, " batch"]:
    """Draws positions of rows that hold data, uniformly and with replacement.

    At least one row must have been written; an empty buffer gives position 0, a row of zeros.
    """
    return jax.random.randint(key, (batch,), 0, jnp.maximum(size(replay), 1))


def positions(replay: Replay, first: int, count: int) -> Int[np.ndarray, " count"]:
    """Where `count` rows lie, of those that may be overwritten the ones from number `first` on."""
    return _in_ring(replay, np.arange(first, first + count))


def next_position(replay: Replay) -> Int[Array, ""]:
    """Where the next row goes, once the protected ones are written."""
    return _in_ring(replay, replay.written - replay.protected)


def _in_ring(replay: Replay, number: Any) -> Any:
    """Where row `number` of those that may be overwritten goes."""
    return replay.protected + number % (replay.capacity - replay.protected)


def _position(replay: Replay, stream: Int[Array, "..."]) -> Int[Array, "..."]:
    """Where the row that is written as number `stream` of all goes."""
    wrapped = _in_ring(replay, stream - replay.protected)
    return jnp.where(stream < replay.protected, stream, wrapped)


def _columns(width: int | None) -> int:
    return 1 if width is None else width


def _as_dict(values: Any) -> dict[str, Any]:
    return dict(zip(values._fields, values, strict=True))
