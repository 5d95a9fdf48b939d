"""Pytrees to tensors and back."""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from safemesa.core.errors import CheckpointError
from safemesa.core.pytree import tree_from_tensors, tree_to_tensors
from safemesa.core.tensors import load_tensors, save_tensors


class State(NamedTuple):
    critic: eqx.nn.MLP
    optimiser: Any
    steps: jax.Array
    key: jax.Array
    extra: Any


def make(seed: int = 0) -> State:
    critic = eqx.nn.MLP(3, "scalar", 8, 1, key=jax.random.key(seed))
    return State(
        critic=critic,
        optimiser=optax.chain(optax.clip(1.0), optax.adam(optax.constant_schedule(1e-3))).init(
            eqx.filter(critic, eqx.is_array)
        ),
        steps=jnp.array(seed, jnp.int32),
        key=jax.random.key(seed + 5),
        extra={
            "flag": jnp.array(seed == 0),
            "count": (jnp.array([seed], jnp.uint32), None),
            "wide": np.array([1.0 + seed, np.nan]),
            "empty": jnp.zeros((0, 3)),
        },
    )


def test_round_trip_through_a_file_is_bit_exact(tmp_path: Path) -> None:
    state = make(0)
    written = tree_to_tensors(state)
    assert "critic.layers.0.weight" in written
    assert {"steps", "key", "extra.flag", "extra.count.0"} <= set(written)
    assert all(isinstance(array, np.ndarray) for array in written.values())
    save_tensors(tmp_path / "a", written)
    loaded = tree_from_tensors(make(1), load_tensors(tmp_path / "a"), source="a")
    again = tree_to_tensors(loaded)
    assert set(again) == set(written)
    for name, array in written.items():
        assert again[name].dtype == array.dtype
        assert again[name].shape == array.shape
        assert again[name].tobytes() == array.tobytes()
    assert isinstance(loaded.extra["wide"], np.ndarray)
    assert isinstance(loaded.steps, jax.Array)
    assert jax.random.bits(loaded.key) == jax.random.bits(state.key)
    obs = jnp.ones(3)
    assert loaded.critic(obs) == state.critic(obs)


def test_the_template_may_be_shapes_only() -> None:
    state = {"w": jnp.arange(3.0), "key": jax.random.key(3)}
    template = jax.eval_shape(lambda: {"w": jnp.zeros(3), "key": jax.random.key(0)})
    loaded = tree_from_tensors(template, tree_to_tensors(state), source="a")
    np.testing.assert_array_equal(loaded["w"], state["w"])
    assert jax.random.bits(loaded["key"]) == jax.random.bits(state["key"])


def test_loaded_arrays_do_not_alias_the_tensors() -> None:
    tensors = tree_to_tensors(jnp.zeros(1024))
    assert list(tensors) == ["value"]
    source = {"value": np.array(tensors["value"])}
    loaded = tree_from_tensors(jnp.zeros(1024), source, source="a")
    source["value"][:] = 1.0
    assert not np.any(np.asarray(loaded))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"w": np.zeros((2, 3), np.float32)},
            r"a: 'w' is float32\[2, 3\], expected float32\[3, 2\]",
        ),
        ({"w": np.zeros((3, 2), np.float64)}, r"'w' is float64\[3, 2\], expected float32\[3, 2\]"),
        ({"n": np.zeros(1, np.int32)}, r"'n' is int32\[1\], expected int32\[\]"),
        ({"key": np.zeros(4, np.uint32)}, r"'key' is uint32\[4\], expected uint32\[2\]"),
        ({"v": np.zeros(1)}, r"a has unexpected 'v'"),
        ({"w": None}, r"a lacks 'w'"),
        ({"w": None, "W": np.zeros(1)}, r"a lacks 'w' and has unexpected 'W'"),
        ({str(i): np.zeros(1) for i in range(9)}, r"'4' and 4 more"),
    ],
)
def test_misfits_name_the_leaf(change: dict[str, Any], message: str) -> None:
    template = {"w": jnp.zeros((3, 2)), "n": jnp.array(0, jnp.int32), "key": jax.random.key(0)}
    tensors = {**tree_to_tensors(template), **change}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    with pytest.raises(CheckpointError, match=message):
        tree_from_tensors(template, tensors, source="a")


def test_leaves_that_are_no_arrays_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"the leaf 'a\.0' is a float"):
        tree_to_tensors({"a": [1.0]})
    with pytest.raises(CheckpointError, match="the leaf 'a' is a str"):
        tree_from_tensors({"a": "x"}, {"a": np.zeros(1)}, source="a")
    with pytest.raises(CheckpointError, match=r"two leaves of the pytree are named 'a\.b'"):
        tree_to_tensors({"a": {"b": jnp.zeros(1)}, "a.b": jnp.zeros(1)})
