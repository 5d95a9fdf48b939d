"""Pytrees of arrays to named tensors and back, bit-exact and without pickle."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from safemesa.core.errors import CheckpointError
from safemesa.core.types import PyTree

_ROOT = "value"
"""Name of the leaf of a pytree that is a single array."""


def tree_to_tensors(tree: PyTree) -> dict[str, np.ndarray]:
    """Names every array of `tree` by its path, such as `critic.layers.0.weight`.

    `None` and functions (activations inside modules) are left out. Typed PRNG keys are stored as
    their uint32 key data.

    Raises:
        CheckpointError: a leaf is no array, or two leaves have the same name.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, leaf in _named_leaves(tree):
        if callable(leaf):
            continue
        _check_is_array(name, leaf)
        if name in tensors:
            raise CheckpointError(
                f"two leaves of the pytree are named {name!r}: a dictionary key contains a dot. "
                "Rename that key."
            )
        tensors[name] = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return tensors


def tree_from_tensors(
    template: PyTree, tensors: Mapping[str, np.ndarray], *, source: str
) -> PyTree:
    """A pytree like `template` with the arrays of `tensors`.

    `template` holds arrays or `jax.ShapeDtypeStruct`s; NumPy leaves come back as NumPy arrays,
    all others as JAX arrays. Nothing is cast, broadcast or skipped. The result shares no memory
    with `tensors`, so it may be donated.

    Args:
        template: the structure, shapes and dtypes that are expected.
        tensors: what `tree_to_tensors` gave.
        source: where the tensors are from (a path), for error messages.

    Raises:
        CheckpointError: a leaf is missing, unexpected, or has another shape or dtype.
    """
    named = _named_leaves(template)
    wanted = {name for name, leaf in named if not callable(leaf)}
    _check_names(wanted, set(tensors), source)
    leaves = [
        leaf if callable(leaf) else _restore(name, leaf, tensors[name], source)
        for name, leaf in named
    ]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (jax.tree_util.keystr(path, simple=True, separator=".") or _ROOT, leaf)
        for path, leaf in leaves
    ]


def _restore(name: str, leaf: Any, tensor: np.ndarray, source: str) -> Any:
    _check_is_array(name, leaf)
    expected = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        raise CheckpointError(
            f"{source}: {name!r} is {tensor.dtype}{list(tensor.shape)}, expected "
            f"{expected.dtype}{list(expected.shape)}. It belongs to other networks or options; "
            "use those that it was made with."
        )
    if isinstance(leaf, np.ndarray | np.generic):
        return np.array(tensor)
    # A copy: `jnp.asarray` may alias the NumPy memory, which a donated state must not.
    array = jnp.array(tensor)
    if _is_key(leaf):
        return jax.random.wrap_key_data(array, impl=_key_impl(leaf))
    return array


def _check_names(wanted: set[str], given: set[str], source: str) -> None:
    missing, unexpected = sorted(wanted - given), sorted(given - wanted)
    if not missing and not unexpected:
        return
    parts = []
    if missing:
        parts.append(f"lacks {_some(missing)}")
    if unexpected:
        parts.append(f"has unexpected {_some(unexpected)}")
    raise CheckpointError(
        f"{source} {' and '.join(parts)}. It belongs to other networks or options; use those that "
        "it was made with."
    )


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_impl(leaf: Any) -> Any:
    """The PRNG of a key leaf; tracing makes it work for `jax.ShapeDtypeStruct` too."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]


def _check_is_array(name: str, leaf: Any) -> None:
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        raise CheckpointError(
            f"the leaf {name!r} is a {type(leaf).__name__}, expected an array. Make it an array, "
            "or a static field where it never changes."
        )
