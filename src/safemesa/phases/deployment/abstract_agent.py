"""What Phase 3 asks of whoever learns the task; its loops, replay and files know no more."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.spaces import Spaces
from safemesa.core.types import Key, Metrics, PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import Replay, RowLayout
from safemesa.datasets.task_log import TaskLog
from safemesa.phases.config import DeployConfig
from safemesa.phases.storage.artefacts import Artefact


class Act(NamedTuple):
    """Actions in [-1, 1]. `risk` belongs to the proposal, `executed_risk` to the action.

    `proposed` is what SAC remembers: see `safemesa.guards.Decision.task_action`. `memory` is what
    the agent wants to know again at the next step (`AbstractAgent.after`).
    """

    proposed: Float[Array, " act"]
    action: Float[Array, " act"]
    risk: Float[Array, ""]
    executed_risk: Float[Array, ""]
    intervened: Bool[Array, ""]
    memory: PyTree = ()


class ViolationIndex(eqx.Module):
    """Positions of violating rows of the replay, for balanced batches."""

    positions: Int[Array, " capacity"]
    count: Int[Array, ""]


def replay_layout(spaces: Spaces) -> RowLayout:
    """One store for both learners: SAC reads `proposed_action`, the safety critic `action`."""
    return RowLayout(
        fields=(
            ("obs", spaces.obs_size),
            ("proposed_action", spaces.action_size),
            ("action", spaces.action_size),
            ("next_obs", spaces.obs_size),
            ("reward", None),
            ("cost", None),
            ("terminated", None),
        )
    )


def pack_logs(logs: Sequence[TaskLog], spaces: Spaces) -> Float[np.ndarray, "rows width"]:
    """Logs in the layout of the replay, one after the other; they propose what they did."""
    layout, parts = replay_layout(spaces), []
    for log in logs:
        columns = dict(log.columns)
        columns["action"] = spaces.to_unit(np.asarray(columns["action"]))
        columns["proposed_action"] = columns["action"]
        parts.append(np.asarray(layout.pack(columns)))
    return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True)
class AbstractAgent(abc.ABC):
    """Acts and learns in Phase 3. Hashable, hence jit-static; its state is a pytree."""

    config: DeployConfig
    spaces: Spaces

    @property
    def layout(self) -> RowLayout:
        """Columns of the replay."""
        return replay_layout(self.spaces)

    @property
    @abc.abstractmethod
    def gamma_risk(self) -> float:
        """Discount of future violations, for `risk_bias`."""

    @property
    @abc.abstractmethod
    def warmup_steps(self) -> int:
        """Online steps at the start that `act` is told of."""

    @property
    @abc.abstractmethod
    def learning_starts(self) -> int:
        """Online steps before the first update."""

    @abc.abstractmethod
    def first_rows(
        self, model: Any, test_log: OfflineTasks | None
    ) -> Float[np.ndarray, "rows width"]:
        """What the replay holds before the first step, in its layout."""

    @abc.abstractmethod
    def initial(self, model: Any, *, key: Key) -> PyTree:
        """The state before the first step, from what Phases 1 and 2 left."""

    @abc.abstractmethod
    def act(
        self,
        state: PyTree,
        obs: Float[Array, " obs"],
        warmup: Bool[Array, ""],
        *,
        key: Key,
        limit_factor: Float[Array, ""] | None = None,
    ) -> Act:
        """What to do at an observation; a risk limit is multiplied by `limit_factor`."""

    @abc.abstractmethod
    def after(
        self, state: PyTree, act: Act, length: Int[Array, ""], done: Bool[Array, ""]
    ) -> PyTree:
        """The state once `act` was taken as step number `length` of its episode."""

    @abc.abstractmethod
    def learn(
        self, state: PyTree, replay: Replay, violations: ViolationIndex, *, key: Key
    ) -> tuple[PyTree, Metrics]:
        """What is learned after a step."""

    @abc.abstractmethod
    def chunk_metrics(
        self, state: PyTree, replay: Replay, violations: ViolationIndex, *, key: Key
    ) -> Metrics:
        """Metrics that are worth a look per chunk, not per step."""

    @abc.abstractmethod
    def deployed(self, state: PyTree) -> Artefact | None:
        """What is kept of a finished run, if anything."""
