"""What is observed and actuated: names, bounds and time step of a family of tasks."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Spaces:
    """Shapes and units that all tasks of a domain share."""

    obs_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    horizon: int
    dt: float = 1.0

    @property
    def obs_size(self) -> int:
        """Number of observed signals."""
        return len(self.obs_names)

    @property
    def action_size(self) -> int:
        """Number of actuated signals."""
        return len(self.action_names)

    def to_unit(self, action: np.ndarray) -> np.ndarray:
        """Physical actions `[..., act]` to [-1, 1] by their bounds; float32."""
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        return (2.0 * (action - low) / (high - low) - 1.0).astype(np.float32)

    def from_unit(self, action: Any) -> Any:
        """Actions `[..., act]` in [-1, 1] to physical ones within their bounds; float32.

        Takes arrays of NumPy and, also while compiling, of JAX.
        """
        low, high = _bounds(self.action_low, self.action_high)
        if isinstance(action, np.ndarray):
            physical = low + 0.5 * (action + 1.0) * (high - low)
            return np.clip(physical, low, high).astype(np.float32)
        import jax.numpy as jnp

        shape = (1,) * (action.ndim - 1) + (-1,)
        first, last = jnp.asarray(low).reshape(shape), jnp.asarray(high).reshape(shape)
        return jnp.clip(first + 0.5 * (action + 1.0) * (last - first), first, last)

    def difference(self, other: "Spaces") -> str | None:
        """Where two spaces differ first, in words; None where one's logs are the other's.

        Horizons may differ: logs may be cut short.
        """
        for name in ("obs_names", "action_names", "action_low", "action_high", "dt"):
            own, wanted = getattr(self, name), getattr(other, name)
            same = own == wanted if name.endswith("_names") else _close(own, wanted)
            if not same:
                return f"{name} is {own}, expected {wanted}"
        return None


@lru_cache(maxsize=64)
def _bounds(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """As arrays of float32, made once: a simulator asks at every step."""
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def _close(given: Any, expected: Any) -> bool:
    first, second = np.atleast_1d(given), np.atleast_1d(expected)
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-6, atol=0.0))
