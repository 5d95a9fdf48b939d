"""At which risk the guard takes over: found from the data, per critic.

Critics that rank states equally well differ in their level by a factor of ten, and a limit that is
a factor of two beside the right one overrides everything or saves nothing. What fixes the level is
what a critic says of states that its own recovery policy holds: a takeover must begin just above
that. Below it the robot is never given back; far above it the recovery comes too late.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator
from safemesa.datasets.task_log import TaskLog
from safemesa.learners.recovery import AbstractRecovery
from safemesa.networks.critics import RiskCritic
from safemesa.phases.config import RunConfig
from safemesa.phases.log_tables import chosen_rows
from safemesa.phases.rehearsal import calm_rows, rehearsal_layout
from safemesa.phases.storage.artefacts import RiskModel

ENOUGH_OF_THE_ROBOT = 500
"""Calm states of the new robot's own log from which on the fleet's are not asked."""
FEWEST = 30
"""Calm states without which no limit is found."""
FLAT = 0.85
"""Of the robots on which this was tried, shields failed with .9 and more, and worked up to .7."""
RESAMPLES = 200
BLOCKS = 50
"""Of the fleet's rows, which lie in the order of its logs, resampled in place of episodes."""
WIDE = 2.0
"""A factor of two beside the right limit a shield overrides all or saves nothing."""
LARGEST_LIMIT = 0.9
"""A limit above it would wait for what is nearly certain."""


@dataclass(frozen=True, kw_only=True)
class FoundLimit:
    """A limit, and what it rests on."""

    limit: float
    states: int
    """Calm states that were asked about."""
    source: str
    """Whose: `new robot` or `fleet`."""
    quantiles: dict[str, float]
    """What the critic says of the recovery's action in them."""
    interval: tuple[float, float]
    """In which 95 % of the limits lie that resampled episodes give."""

    @property
    def is_uncertain(self) -> bool:
        """Whether another log of this size might give a limit that protects otherwise."""
        low, high = self.interval
        return high > WIDE * self.limit or low < self.limit / WIDE

    @property
    def tells_little(self) -> bool:
        """Whether the critic says nearly the same of all calm states.

        Then it knows what their drivers risk, and not who can still be saved: takeovers come late.
        """
        return self.quantiles["0.5"] > FLAT * self.quantiles["0.95"]

    def notes(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "limit": self.limit,
            "calm_states": self.states,
            "source": self.source,
            "interval": list(self.interval),
            "risk_of_recovery": self.quantiles,
        }


def find_limit(model: RiskModel, config: RunConfig, log: TaskLog, spaces: Spaces) -> FoundLimit:
    """The risk that `calm_share` of the calm states lie below as the recovery acts there.

    Calm states are those of the new robot's log where it has enough, otherwise the fleet's, which
    the model rehearses.

    Raises:
        DatasetError: there are too few calm states, or the critic calls them all dangerous.
    """
    own = chosen_rows(log, config.sampling)
    own = own[calm_rows(log, config.risk.gamma_risk)[own]]
    obs = np.asarray(log.columns["obs"])[own]
    normalised = np.asarray(model.normaliser(jnp.asarray(obs, jnp.float32)))
    source, groups = "new robot", np.asarray(log.columns["episode"])[own]
    if len(own) < ENOUGH_OF_THE_ROBOT and model.rehearsal is not None:
        columns = rehearsal_layout(spaces).unpack(model.rehearsal)
        fleet = np.asarray(columns["obs"])[np.asarray(columns["calm"]) > 0.5]
        if len(fleet) > len(own):
            normalised, source = fleet, "fleet"
            groups = np.arange(len(fleet)) * BLOCKS // len(fleet)
    if len(normalised) < FEWEST:
        raise DatasetError(
            f"no limit can be found from {len(normalised)} calm states (of no violation within "
            f"{2.0 * spaces.dt / (1.0 - config.risk.gamma_risk):.3g} s); at least {FEWEST} are "
            "needed. Log more safe driving, shorten the horizon, let the prior carry rows of the "
            "fleet (--rehearsal.rows), or give a limit."
        )
    risk = calm_risks(model, normalised)
    shares = (0.5, 0.75, 0.9, 0.95, 0.99)
    limit = float(np.quantile(risk, config.guard_settings.calm_share))
    if limit > LARGEST_LIMIT:
        raise DatasetError(
            f"no limit can be found: the critic gives calm states of the {source} a risk of "
            f"{float(np.median(risk)):.3f} (median), so it tells no danger from safety. More "
            "iterations of Phase 1, or more violations in the logs, may mend it."
        )
    return FoundLimit(
        limit=limit,
        states=len(risk),
        source=source,
        quantiles={f"{share:g}": float(np.quantile(risk, share)) for share in shares},
        interval=_interval(risk, groups, config.guard_settings.calm_share),
    )


def _interval(
    risk: Float[np.ndarray, " n"], groups: np.ndarray, share: float
) -> tuple[float, float]:
    """95 % percentile interval of a quantile, from a bootstrap of whole groups of rows.

    Rows of an episode are alike, so that resampled rows would promise too much.
    """
    rng = generator(0, Stream.LIMIT_INTERVAL)
    names, index = np.unique(groups, return_inverse=True)
    order = np.argsort(risk)
    ranked, whose = risk[order], index[order]
    limits = []
    for _ in range(RESAMPLES):
        counts = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        weight = np.cumsum(counts[whose])
        limits.append(ranked[np.searchsorted(weight, share * weight[-1])])
    low, high = np.quantile(limits, (0.025, 0.975))
    return float(low), float(high)


def fleet_level(model: RiskModel, spaces: Spaces, share: float) -> float:
    """The quantile `share` of the risk of the recovery's action in the fleet's calm states.

    1 where the model carries no rows of the fleet.
    """
    if model.rehearsal is None:
        return 1.0
    columns = rehearsal_layout(spaces).unpack(model.rehearsal)
    calm = np.asarray(columns["obs"])[np.asarray(columns["calm"]) > 0.5]
    return float(np.quantile(calm_risks(model, calm), share)) if len(calm) else 1.0


def calm_risks(model: RiskModel, obs: Float[np.ndarray, "n obs"]) -> Float[np.ndarray, " n"]:
    """What the critic says of the recovery's action at normalised observations."""
    asked = jnp.asarray(obs, jnp.float32)
    return np.asarray(_recovery_risk(model.critic, model.recovery, asked), np.float64)


def recovery_risk(
    critic: RiskCritic, recovery: AbstractRecovery, obs: Float[Array, "n obs"]
) -> Float[Array, " n"]:
    """Risk of the recovery's action at normalised observations, as where a takeover begins."""

    def single(one: Float[Array, " obs"]) -> Float[Array, ""]:
        return critic(one, recovery.act(critic, one, recovery.begin())[0])

    return jax.vmap(single)(obs)


_recovery_risk = jax.jit(recovery_risk)
