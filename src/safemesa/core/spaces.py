"""What is observed and actuated: names, bounds and time step of a family of tasks."""

from dataclasses import dataclass


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
