"""Phase 3's safety update around a task policy that is not ours (MESA section 4.3)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator, root_key
from safemesa.core.types import Key, Metrics, PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import RowLayout
from safemesa.guards import AbstractGuard
from safemesa.learners.risk import RiskLearner, RiskState
from safemesa.phases.build import make_guard, risk_learner
from safemesa.phases.config import RunConfig
from safemesa.phases.log_tables import (
    LogTable,
    build_log_table,
    chosen_rows,
    log_layout,
)
from safemesa.phases.storage.artefacts import RiskModel, load_risk_model
from safemesa.phases.takeover_limit import fleet_level, recovery_risk
from safemesa.shield.adapt_again import AdaptAgain
from safemesa.shield.export import monitor_tensors, shield_tensors
from safemesa.shield.runtime import Shield

TaskPolicy = Callable[[np.ndarray], np.ndarray]
"""Physical observations `[n, obs]` to physical actions `[n, act]`."""


@partial(jax.jit, static_argnums=(0, 1))
def _update(
    learner: RiskLearner,
    layout: RowLayout,
    state: RiskState,
    rows: Float[Array, "batch width"],
    key: Key,
) -> tuple[RiskState, Metrics]:
    batch = LogTable(rows, layout).batch(jnp.arange(rows.shape[0]), key=key)
    return learner.update(state, batch)


@partial(jax.jit, static_argnums=0)
def _follow(
    guard: AbstractGuard,
    level: PyTree,
    state: RiskState,
    obs: Float[Array, "batch obs"],
    calm: Float[Array, " batch"],
) -> PyTree:
    """The guard's limit after an update, as in Phase 3."""
    return guard.follow(level, recovery_risk(state.critic, state.recovery.policy, obs), calm)


@final
class OnlineRisk:
    """The critic and the recovery policy, learning from what the shielded robot does.

    Learner, loss, target, batch and optimiser are those of Phase 3 and the risk model's own
    configuration. What differs is the action that bootstraps: the next proposal as it was made, or
    a fresh one where `policy` can be asked. Where an episode was cut off before a next proposal, it
    is uniform, as for logs.
    """

    def __init__(
        self,
        model: RiskModel,
        config: RunConfig,
        spaces: Spaces,
        *,
        log: OfflineTasks | None = None,
        policy: TaskPolicy | None = None,
        capacity: int = 200_000,
        seed: int = 0,
        again: AdaptAgain | None = None,
    ) -> None:
        """Starts from an adapted risk model.

        Args:
            model: what Phase 2 left.
            config: the configuration it came with.
            spaces: the signals it came with.
            log: the new robot's log; it stays in the replay (`deploy.keep_test_log`).
            policy: the task policy; without it, bootstrapping uses the proposals of the past.
            capacity: rows of experience beside the log; the oldest are overwritten.
            seed: of batches and uniform actions.
            again: after an alarm of the shield's monitor, adapts everything again (`adapt_again`).
        """
        if capacity < 1:
            raise ConfigurationError(f"capacity is {capacity}; expected at least 1.")
        self.spaces, self.normaliser, self.policy = spaces, model.normaliser, policy
        self._model = model
        self.learner = risk_learner(config, config.deploy.target_rate, config.deploy.learning_rate)
        self.batch, self._fraction = config.sac.batch, config.sampling.violation_fraction
        self.noise = getattr(config.guard_settings, "recovery_noise", 0.0)
        self.layout = log_layout(spaces)
        kept = np.zeros((0, self.layout.width), np.float32)
        if log is not None and config.deploy.keep_test_log:
            log.check_spaces(spaces)
            only = log.only_log()
            table = build_log_table((only,), spaces, model.normaliser, "logged")
            kept = np.asarray(table.rows)[chosen_rows(only, config.sampling)]
        self._fleet, self._worth = None, config.rehearsal.worth
        if model.rehearsal is not None and config.rehearsal.rows:
            self._fleet = np.asarray(model.rehearsal)
        self._guard = make_guard(config)
        self._level = self._first_level()
        self._again, self._adapted, self._next_try = again, 0, 0
        self._kept, self._written = len(kept), 0
        self._rows = np.concatenate([kept, np.zeros((capacity, self.layout.width), np.float32)])
        self._mean = np.asarray(model.normaliser.mean)
        self._std = np.asarray(model.normaliser.std)
        if again is not None:
            theirs = again.prior.model.normaliser
            for given, own in ((theirs.mean, self._mean), (theirs.std, self._std)):
                if not np.allclose(given, own, rtol=1e-5):
                    raise ConfigurationError(
                        "the prior to adapt again is not the one that this risk model comes from: "
                        "its normalisation differs. Give the folder that `safemesa adapt` read."
                    )
        self._rng, self._key = (
            generator(seed, Stream.ONLINE_ROWS),
            root_key(seed, Stream.ONLINE_UPDATES),
        )
        self._updates, self.skipped = 0, 0
        self.state = self.learner.init(model.critic, model.recovery)

    @staticmethod
    def load(
        artefact: Path,
        *,
        log: OfflineTasks | None = None,
        policy: TaskPolicy | None = None,
        seed: int = 0,
        adapt_again: Path | None = None,
    ) -> "OnlineRisk":
        """From the folder that `safemesa adapt` wrote.

        `adapt_again` is the prior's folder, and turns that on; it helped nowhere where it was
        measured (docs/changing_robots.md).
        """
        model, config, spaces = load_risk_model(artefact)
        again = None if adapt_again is None else AdaptAgain.load(adapt_again, config, spaces)
        return OnlineRisk(model, config, spaces, log=log, policy=policy, seed=seed, again=again)

    @property
    def adapts_again(self) -> bool:
        """Whether an alarm leads to anything."""
        return self._again is not None

    def adapt_again(self, shield: Shield) -> bool:
        """Adapts risk, limit and monitor again after an alarm, and gives them to the shield.

        It does so, and returns True, once there are enough rows since the estimated change. Rows
        before the change are forgotten, since they are of another robot. Where the rows do
        not suffice, it waits for as many more.
        """
        monitor, again = shield.dynamics, self._again
        if again is None or monitor is None or not monitor.alarm:
            self._next_try = 0
            return False
        count = min(monitor.rising, self._written, len(self._rows) - self._kept)
        if count < max(again.wait, self._next_try):
            return False
        places = np.arange(self._written - count, self._written)
        rows = self._rows[self._kept + places % (len(self._rows) - self._kept)]
        found = again(self._physical(rows), self._adapted)
        if found is None:
            self._next_try = count + again.wait
            return False
        self._model, tracker = found
        self.state = self.learner.init(self._model.critic, self._model.recovery)
        self._level = self._first_level()
        self._rows[:count], self._kept, self._written = rows, 0, count
        self._adapted, self._next_try = self._adapted + 1, 0
        outside = float(tracker.usual.outside)
        shield.replace_monitor(monitor_tensors(tracker), outside=outside)
        shield.replace_weights(shield_tensors(self._model), risk_limit=self.limit)
        return True

    def _physical(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of packed rows as a log has them."""
        names = ("obs", "next_obs", "action", "cost", "terminated")
        columns = {name: self._column(rows, name) for name in names}
        for name in ("obs", "next_obs"):
            columns[name] = (columns[name] * self._std + self._mean).astype(np.float32)
        columns["action"] = self.spaces.from_unit(columns["action"])
        return columns | {name: columns[name][:, 0] for name in ("cost", "terminated")}

    def _first_level(self) -> PyTree:
        """Of the guard's limit, as the risk model has it."""
        model = self._model
        if model.limit is None:
            return None
        share = self._guard.calm_share
        level = 1.0 if share is None else fleet_level(model, self.spaces, share)
        return self._guard.begin(model.limit, jnp.asarray(level, jnp.float32))

    @property
    def size(self) -> int:
        """Rows to learn from."""
        capacity = len(self._rows) - self._kept
        return self._kept + min(self._written, capacity)

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        next_obs: np.ndarray,
        cost: float,
        terminated: bool,
        next_action: np.ndarray | None,
    ) -> None:
        """Stores one step of the robot: executed action and next proposal, in physical units."""
        unknown = next_action is None
        following = np.zeros(self.spaces.action_size) if unknown else next_action
        # A proposal may be outside its limits; what would have run is within them.
        following = np.clip(self.spaces.to_unit(following), -1.0, 1.0)
        columns = {
            "obs": (obs - self._mean) / self._std,
            "action": self.spaces.to_unit(action),
            "next_obs": (next_obs - self._mean) / self._std,
            "next_action": following,
            "cost": cost,
            "terminated": terminated,
            "next_action_logged": not unknown,
        }
        row = np.concatenate([np.atleast_1d(columns[name]) for name, _ in self.layout.fields])
        if not np.isfinite(row).all():
            # A sensor fault: the shield has dealt with it, and there is nothing to learn from it.
            self.skipped += 1
            return
        self._rows[self._kept + self._written % (len(self._rows) - self._kept)] = row
        self._written += 1

    def learn(self) -> dict[str, np.ndarray] | None:
        """One update; the new weights for `Shield.replace_weights`, or None before a full batch."""
        if self.size < self.batch:
            return None
        rows, calm = self._rows[self._draw()], None
        if self.policy is not None:
            rows = self._with_fresh_proposals(rows, self.policy)
        if self._fleet is not None:
            # As Phases 1 and 2 learned them: it is not this agent that drives there.
            fleet = self._fleet[self._rng.integers(len(self._fleet), size=self.batch)]
            own = self._rng.random(self.batch) < self.size / (self.size + self._worth)
            rows, calm = np.where(own[:, None], rows, fleet[:, :-1]), fleet
        key = jax.random.fold_in(self._key, self._updates)
        self.state, self.metrics = _update(self.learner, self.layout, self.state, rows, key)
        if calm is not None and self._level is not None:
            obs = self._column(calm[:, :-1], "obs")
            self._level = _follow(self._guard, self._level, self.state, obs, calm[:, -1])
        self._updates += 1
        return shield_tensors(self.risk_model)

    @property
    def limit(self) -> float | None:
        """The limit that goes with the networks as they are; None where it is the settings'."""
        limit = None if self._level is None else self._guard.limit_of(self._level)
        return None if limit is None else float(limit)

    @property
    def risk_model(self) -> RiskModel:
        """The risk model as it is now; `phases.artefacts.save_artefact` writes it."""
        limit = self._model.limit if self._level is None else self._guard.limit_of(self._level)
        return replace(
            self._model,
            critic=self.state.critic,
            recovery=self.state.recovery.policy,
            limit=limit,
        )

    def _draw(self) -> np.ndarray:
        """Positions of a batch, with a share of violations where the configuration asks for it."""
        positions = self._rng.integers(self.size, size=self.batch)
        fraction = self._fraction
        if fraction is None:
            return positions
        costs = self._column(self._rows[: self.size], "cost")[:, 0]
        violating = np.flatnonzero(costs > 0.5)
        if len(violating):
            wanted = round(fraction * self.batch)
            positions[:wanted] = self._rng.choice(violating, wanted)
        return positions

    def _with_fresh_proposals(self, rows: np.ndarray, policy: TaskPolicy) -> np.ndarray:
        next_obs = self._column(rows, "next_obs") * self._std + self._mean
        action = np.asarray(policy(next_obs), np.float64)
        if action.shape != (len(rows), self.spaces.action_size) or not np.isfinite(action).all():
            raise ConfigurationError(
                f"the policy gave {list(action.shape)} for {len(rows)} observations; expected "
                f"finite [{len(rows)}, {self.spaces.action_size}] in physical units."
            )
        self._column(rows, "next_action")[:] = np.clip(self.spaces.to_unit(action), -1.0, 1.0)
        self._column(rows, "next_action_logged")[:] = 1.0
        return rows

    def _column(self, rows: np.ndarray, wanted: str) -> np.ndarray:
        """A view of one field of packed rows, `[n, width]`."""
        start = 0
        for name, width in self.layout.fields:
            stop = start + (1 if width is None else width)
            if name == wanted:
                return rows[:, start:stop]
            start = stop
        raise KeyError(wanted)
