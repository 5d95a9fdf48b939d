"""What lies below a wrapper of an environment. Imports no Gymnasium."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from safemesa.core.errors import ConfigurationError

_NORMALISES = re.compile(r"normali[sz]\w*obs|obs\w*normali[sz]|^VecNormalize$", re.IGNORECASE)
_STATISTICS = "obs_rms"
"""Where Gymnasium, Stable-Baselines3 and their copies keep the running mean and variance."""

_ABSENT = object()


def require_physical_observations(env: Any, what: str) -> None:
    """Refuses observations whose scale moves while they are seen.

    A wrapper in another process cannot be seen.

    Raises:
        ConfigurationError: a wrapper within `env` normalises them; it is named.
    """
    for layer in _layers(env):
        names = [kind.__name__ for kind in type(layer).__mro__]
        # Wrappers forward what they lack: only what the layer itself has counts.
        known = inspect.getattr_static(layer, _STATISTICS, _ABSENT)
        if known is not _ABSENT or any(map(_NORMALISES.search, names)):
            raise ConfigurationError(
                f"{type(layer).__name__} is below {what}, so that observations are in the units of "
                f"a moving average and not of the robot. Put it around {what}: the agent still "
                "sees normalised numbers."
            )


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
