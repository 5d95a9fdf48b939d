"""Where learning curves go beside the run folder's own files."""

import abc
from collections.abc import Mapping
from importlib import util
from pathlib import Path

from safemesa.core.errors import ConfigurationError


class Sink(abc.ABC):
    """Receives scalars while a run goes on."""

    @abc.abstractmethod
    def write(self, phase: str, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars of a phase at a step."""

    @abc.abstractmethod
    def close(self) -> None:
        """No more scalars will come."""


class NoSink(Sink):
    """Keeps nothing."""

    def write(self, phase: str, step: int, scalars: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def require_tensorboard() -> None:
    """Refuses early, before anything is written, where the extra is missing.

    Raises:
        ConfigurationError: tensorboardX is not installed.
    """
    if util.find_spec("tensorboardX") is None:
        raise ConfigurationError(
            "--tensorboard needs tensorboardX: pip install 'safemesa[tensorboard]'."
        )


class TensorBoardSink(Sink):
    """Event files under `<run>/tensorboard`."""

    def __init__(self, run: Path) -> None:
        """Needs the extra `safemesa[tensorboard]`."""
        require_tensorboard()
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def write(self, phase: str, step: int, scalars: Mapping[str, float]) -> None:
        """One scalar per name, under the phase."""
        for name, value in scalars.items():
            self._writer.add_scalar(f"{phase}/{name}", value, step)

    def close(self) -> None:
        """Flushes."""
        self._writer.close()
