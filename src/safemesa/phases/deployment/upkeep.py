"""What is done about the monitor between two steps of Phase 3: on the host, at fixed steps.

Residual, test and tightened limit are part of every step (`deploy_state.observe`). Here the monitor
learns the robot's healthy rows, and after an alarm everything that was adapted to the robot is
adapted again. What is done at a step follows from the state alone, so a resumed run does the same.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from safemesa.core.errors import DatasetError
from safemesa.core.streams import Stream, root_key
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import positions
from safemesa.datasets.task_log import log_of_rows
from safemesa.learners.monitor.tracker import MOST_ALARMS, Tracker
from safemesa.phases.adapt import adapt
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.deploy_state import DeployState
from safemesa.phases.deployment.guarded_sac import Agent, AgentState, Forgotten
from safemesa.phases.monitoring import Fitting, FleetMonitor, monitor_rows
from safemesa.phases.storage.artefacts import Prior


@dataclass(frozen=True, kw_only=True, eq=False)
class Upkeep:
    """Of one run.

    Attributes:
        config: The run's.
        agent: Its agent.
        fleet: The fleet's monitor.
        begun: The monitor that was adapted with the new robot's log.
        test_log: That log.
        prior: Of Phase 1; None where Phase 2 cannot run again, as no critic is asked.
    """

    config: RunConfig
    agent: Agent
    fleet: FleetMonitor
    begun: Tracker
    test_log: OfflineTasks
    prior: Prior | None

    @property
    def every(self) -> int:
        """Steps between two times."""
        return self.config.monitor.every

    def __call__(self, state: DeployState) -> DeployState:
        """The state with which a run goes on after some multiple of `every` steps."""
        tracker: Tracker = state.monitor
        step = int(state.step)
        if bool(tracker.alarm):
            changed = int(tracker.calm)
            enough = step - changed >= self.config.monitor.wait
            return self._adapted(state, step, changed) if enough else state
        first = int(tracker.first)
        rows = self._rows(state, first, step)
        if first == 0:
            rows = np.concatenate([monitor_rows(self.test_log.only_log(), self._spaces), rows])
        tracker = self._fitting.renew(
            self.fleet, tracker, rows, self._key(Stream.MONITOR_UPKEEP, step)
        )
        # Calm again: the limit is the guard's own.
        return replace(state, monitor=replace(tracker, tight=jnp.zeros((), bool)))

    def _adapted(self, state: DeployState, step: int, changed: int) -> DeployState:
        """Everything that was adapted to the robot is adapted to it again, from `changed` on."""
        config = self.config.monitor
        rows = self._rows(state, changed, step)
        key = self._key(Stream.MONITOR_UPKEEP, step)
        fresh = self._fitting.begin(self.fleet, rows, changed, key)
        old: Tracker = state.monitor
        monitor = replace(
            fresh,
            threshold=old.threshold,
            tight=old.tight,
            alarms=old.alarms,
            count=old.count,
            outside_rows=old.outside_rows,
            calm=jnp.int32(step),
        )
        agent: AgentState = state.agent
        forgotten = self._forgotten(state, changed) if config.forget else None
        if config.adapt_again and self.prior is not None:
            # The observations are normalised as the task learner has always seen them.
            model = replace(self.prior.model, normaliser=agent.normaliser)
            prior = replace(self.prior, model=model)
            log = self._log(state, changed, step)
            root = self._key(Stream.ADAPT_AGAIN, step)
            try:
                again = adapt([self.config], [prior], [log], roots=[root])[0]
            except DatasetError:
                # No limit can be found from these rows. The present one stays tight, and the next
                # time there are more.
                return state
            agent = self.agent.adapted_again(agent, again)
        if forgotten is not None:
            agent = replace(agent, forgotten=forgotten)
        return replace(state, monitor=monitor, agent=agent)

    @property
    def _spaces(self) -> Any:
        return self.agent.spaces

    @property
    def _fitting(self) -> Fitting:
        return Fitting(config=self.config.monitor, spaces=self._spaces)

    def _key(self, stream: Stream, step: int) -> jax.Array:
        return jax.random.fold_in(root_key(self.config.seed, stream), step)

    def _columns(self, state: DeployState, first: int, last: int) -> dict[str, np.ndarray]:
        """Columns of the replay, of the steps from `first` to before `last`."""
        replay = state.replay
        oldest = max(first, last - (replay.capacity - replay.protected))
        rows = replay.rows[jnp.asarray(positions(replay, oldest, last - oldest))]
        return {name: np.array(value) for name, value in self.agent.layout.unpack(rows).items()}

    def _rows(self, state: DeployState, first: int, last: int) -> Float[np.ndarray, "rows width"]:
        """What the monitor learns from."""
        return np.asarray(self._fitting.layout.pack(self._columns(state, first, last)))

    def _log(self, state: DeployState, first: int, last: int) -> OfflineTasks:
        """The steps as a log, as Phase 2 reads it."""
        columns = self._columns(state, first, last)
        del columns["proposed_action"]
        columns["action"] = self._spaces.from_unit(columns["action"])
        log = log_of_rows("since-the-change", columns)
        return OfflineTasks(domain=self.config.domain, spaces=self._spaces, train=(), test=log)

    def _forgotten(self, state: DeployState, changed: int) -> Forgotten:
        """All rows before the change, the log's among them."""
        place = int(positions(state.replay, changed, 1)[0])
        known = np.asarray(state.violations.positions)[: int(state.violations.count)]
        return Forgotten(jnp.int32(place), jnp.int32(np.count_nonzero(known < place)))


def begin_upkeep(
    config: RunConfig,
    agent: Agent,
    fleet: FleetMonitor,
    test_log: OfflineTasks,
    prior: Prior | None,
) -> Upkeep:
    """Phase 2 of the monitor: it is adapted with the new robot's log.

    Raises:
        DatasetError: the log is too short.
    """
    fitting = Fitting(config=config.monitor, spaces=agent.spaces)
    rows = monitor_rows(test_log.only_log(), agent.spaces)
    root = root_key(config.seed, Stream.MONITOR_LOG)
    begun = fitting.begin(fleet, rows, 0, root)
    return Upkeep(
        config=config, agent=agent, fleet=fleet, begun=begun, test_log=test_log, prior=prior
    )


def recorded_alarms(tracker: Tracker, episode_ends: Any) -> list[dict[str, Any]]:
    """What `summary.json` says of the alarms of a run; at most `MOST_ALARMS` are kept."""
    rows = np.asarray(tracker.alarms)[: min(int(tracker.count), MOST_ALARMS)]
    return [
        {
            "step": int(step),
            "change": int(change),
            "episode": int(np.searchsorted(episode_ends, step, side="right")),
            "statistic": float(f"{statistic:.4g}"),
        }
        for step, change, statistic in rows
    ]
