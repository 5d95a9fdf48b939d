"""After an alarm of a shield's monitor: Phase 2, also of the monitor, from the rows since then."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, root_key
from safemesa.core.types import Key
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import log_of_rows
from safemesa.learners.monitor.tracker import FleetMonitor, Tracker
from safemesa.phases.adapt import adapt
from safemesa.phases.config import RunConfig
from safemesa.phases.monitoring import Fitting, fleet_template, monitor_rows
from safemesa.phases.storage.artefacts import (
    FLEET_MONITOR,
    Prior,
    RiskModel,
    load_fleet_monitor,
    load_prior,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptAgain:
    """What is needed for it.

    Attributes:
        prior: Of Phase 1.
        fleet: The fleet's monitor.
        config: The risk model's.
        spaces: The robot's.
    """

    prior: Prior
    fleet: FleetMonitor
    config: RunConfig
    spaces: Spaces

    @staticmethod
    def load(prior: Path, config: RunConfig, spaces: Spaces) -> "AdaptAgain":
        """From the folder that `safemesa meta-train --monitor.enabled` wrote.

        Raises:
            ConfigurationError: it has no monitor.
            CheckpointError: it is damaged, or no prior of that risk model.
        """
        folder = prior / FLEET_MONITOR
        if not folder.is_dir():
            raise ConfigurationError(
                f"{prior} has no monitor, which adapting again needs. Make it with `safemesa "
                "meta-train --monitor.enabled`."
            )
        fleet = load_fleet_monitor(folder, fleet_template(config.monitor, spaces))
        return AdaptAgain(prior=load_prior(prior)[0], fleet=fleet, config=config, spaces=spaces)

    @property
    def wait(self) -> int:
        """Rows since the change that it takes."""
        return self.config.monitor.wait

    def __call__(
        self, columns: dict[str, np.ndarray], number: int
    ) -> tuple[RiskModel, Tracker] | None:
        """Risk model and monitor of the robot as it is now; None where the rows do not suffice.

        Args:
            columns: `obs`, `action`, `next_obs`, `cost`, `terminated` of the rows since the change,
                in their order and in physical units.
            number: How often it was adapted again before.
        """
        reward = np.zeros(len(columns["cost"]), np.float32)  # of which Phase 2 knows nothing
        log = log_of_rows("since-the-change", {**columns, "reward": reward})
        data = OfflineTasks(domain=self.config.domain, spaces=self.spaces, train=(), test=log)
        fitting = Fitting(config=self.config.monitor, spaces=self.spaces)
        rows = monitor_rows(log, self.spaces)
        try:
            tracker = fitting.begin(self.fleet, rows, 0, self._key(Stream.MONITOR_UPKEEP, number))
            roots = [self._key(Stream.ADAPT_AGAIN, number)]
            (model,) = adapt([self.config], [self.prior], [data], roots=roots)
        except DatasetError:
            # No limit can be found from these rows, or most of them begin in a violation.
            return None
        return model, tracker

    def _key(self, stream: Stream, number: int) -> Key:
        return jax.random.fold_in(root_key(self.config.seed, stream), number)
