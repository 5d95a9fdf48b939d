"""What is observed and actuated: names, bounds and time step of a family of tasks."""

from dataclasses import dataclass
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


def _close(given: Any, expected: Any) -> bool:
    first, second = np.atleast_1d(given), np.atleast_1d(expected)
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-6, atol=0.0))
