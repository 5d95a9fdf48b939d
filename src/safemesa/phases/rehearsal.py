"""Rows of the training logs that a prior carries, so that later phases do not forget them.

A new robot's log is small, and often driven at random: what is learned from it alone erases what
the fleet taught, above all how to recover. The rows travel in the artefact, because where a robot
is adapted or deployed the fleet's logs need not be at hand.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import RowLayout
from safemesa.datasets.task_log import TaskLog
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.config import RunConfig
from safemesa.phases.log_tables import LogFiles, chosen_rows, log_layout

CALM_HORIZONS = 2.0
"""A state is calm where no violation follows within so many effective horizons, 1 / (1 - gamma)."""


def rehearsal_layout(spaces: Spaces) -> RowLayout:
    """The columns of a log table, and whether the row begins in a calm state."""
    return RowLayout(fields=(*log_layout(spaces).fields, ("calm", None)))


def calm_rows(log: TaskLog, gamma_risk: float) -> np.ndarray:
    """Whether each row of a log begins in a calm state, `[n]`."""
    return log.steps_to_violation > CALM_HORIZONS / (1.0 - gamma_risk)


def draw_rehearsal(
    data: OfflineTasks, config: RunConfig, normaliser: Normaliser
) -> Float[Array, "rows width"] | None:
    """`config.rehearsal.rows` rows of the training logs, every row alike; None for no rows.

    The rows depend on the data seed alone, so that all arms and seeds rehearse the same.
    """
    if not config.rehearsal.rows:
        return None
    files = LogFiles(
        logs=data.train,
        spaces=data.spaces,
        normaliser=normaliser,
        next_action=config.sampling.next_action,
    )
    starts = files.starts[:-1]
    numbers = np.concatenate(
        [
            start + chosen_rows(log, config.sampling)
            for log, start in zip(data.train, starts, strict=True)
        ]
    )
    rng = generator(config.data_seed, Stream.REHEARSAL)
    wanted = min(config.rehearsal.rows, len(numbers))
    taken = np.sort(rng.choice(numbers, wanted, replace=False))
    calm = np.concatenate([calm_rows(log, config.risk.gamma_risk) for log in data.train])
    rows = np.concatenate([files.rows(taken), calm[taken, None].astype(np.float32)], axis=1)
    return jnp.asarray(rows)
