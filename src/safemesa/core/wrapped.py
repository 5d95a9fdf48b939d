"""What lies below a wrapper of an environment. Imports no Gymnasium."""

from collections.abc import Iterator
from typing import Any

_NORMALISERS = ("NormalizeObservation", "VecNormalize")
_STATISTICS = "obs_rms"
"""Where Gymnasium, Stable-Baselines3 and their copies keep the running mean and variance."""


def moving_scale(env: Any) -> str | None:
    """The name of a wrapper within `env` that rescales observations by statistics that move.

    Numbers from above it have no units: what they mean changes while it learns. None where there
    is no such wrapper, or where it is in another process and cannot be seen.
    """
    for layer in _layers(env):
        names = {kind.__name__ for kind in type(layer).__mro__}
        if names & set(_NORMALISERS) or _STATISTICS in getattr(layer, "__dict__", {}):
            return type(layer).__name__
    return None


def _layers(env: Any) -> Iterator[Any]:
    """The environment, what it wraps, and the environments of a vector."""
    waiting, seen = [env], set()
    while waiting:
        layer = waiting.pop()
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        inner = getattr(layer, "__dict__", {})
        waiting += [inner.get("env"), inner.get("venv"), *(inner.get("envs") or ())]
