"""The dynamics monitor: learned from the fleet, adapted to the new robot, renewed as it runs.

A policy that learns drives the robot to states in which no log has been. There a model of the
dynamics is wrong although nothing has changed, so a monitor that stays as the log left it takes
the drift of the policy for a change. So every so many healthy steps the ensemble learns from them,
and the scale of what is usual follows: each row is judged before it is learned from. The threshold
comes from doing just that with robots of the fleet that the ensemble has not seen. The monitor of a
shield learns nothing on the robot, and its threshold comes from robots that are followed so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator, root_key, substream
from safemesa.core.types import Key
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import RowLayout
from safemesa.datasets.task_log import TaskLog
from safemesa.learners.carl.ensemble import (
    DynamicsEnsemble,
    ModelBatch,
    fit_scaling,
    model_loss,
    unit_scaling,
)
from safemesa.learners.carl.learner import ModelState
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.learners.monitor.detectors import CUSUM
from safemesa.learners.monitor.surprise import LEAST_ROWS
from safemesa.learners.monitor.threshold import Threshold, extrapolate_threshold
from safemesa.learners.monitor.tracker import (
    MOST_ALARMS,
    FleetMonitor as FleetMonitor,
    Tracker,
    Usual,
    look,
    remembered_rows,
    track,
    usual_of,
)
from safemesa.learners.optimiser import Adam

FLEET_ROWS = 50_000
"""Rows of the training logs that the ensemble is fitted to and goes on rehearsing."""
OWN_ROWS = 20_000
"""Newest rows of the new robot that it learns from."""
JUDGED_SHARE = 0.3
"""Share of a log that is judged by an ensemble which has learned from the rest: the first scale."""
FOLDS = 4
"""Ensembles without some robots each, from which the threshold is found."""


def monitor_layout(spaces: Spaces) -> RowLayout:
    """What the ensemble learns from; actions are in [-1, 1]."""
    return RowLayout(
        fields=(
            ("obs", spaces.obs_size),
            ("action", spaces.action_size),
            ("next_obs", spaces.obs_size),
        )
    )


def monitor_rows(log: TaskLog, spaces: Spaces) -> Float[np.ndarray, "rows width"]:
    """The rows of a log that begin in no violation, as those of Phase 3 do."""
    chosen = log.safe_starts
    columns = {
        name: np.asarray(log.columns[name])[chosen] for name in ("obs", "action", "next_obs")
    }
    columns["action"] = spaces.to_unit(columns["action"])
    return np.asarray(monitor_layout(spaces).pack(columns))


def fresh_model(config: MonitorConfig, spaces: Spaces, key: Key) -> ModelState:
    """Untrained networks."""
    sizes = (spaces.obs_size, spaces.action_size, config.hidden)
    ensemble = DynamicsEnsemble(config.networks, *sizes, key=key)
    scaling = unit_scaling(spaces.obs_size, spaces.action_size)
    return ModelState(ensemble, scaling, Adam(learning_rate=config.learning_rate).init(ensemble))


def fleet_template(config: MonitorConfig, spaces: Spaces) -> FleetMonitor:
    """The shapes of a fleet's monitor."""
    rows = jnp.zeros((FLEET_ROWS, monitor_layout(spaces).width))
    return FleetMonitor(fresh_model(config, spaces, jax.random.key(0)), rows, jnp.zeros(()))


def fresh_tracker(config: MonitorConfig, model: ModelState) -> Tracker:
    """A tracker that has seen nothing; also the shapes of one that has."""
    zero = jnp.zeros((), jnp.int32)
    return Tracker(
        model=model,
        usual=Usual(jnp.zeros(config.memory), jnp.zeros(config.memory), jnp.zeros(())),
        recent=jnp.zeros((config.memory, 2)),
        remembered=zero,
        threshold=jnp.zeros(()),
        reference=jnp.float32(config.reference),
        tightened=jnp.float32(config.tighten),
        statistic=jnp.zeros(()),
        calm=zero,
        first=zero,
        alarm=jnp.zeros((), bool),
        tight=jnp.zeros((), bool),
        alarms=jnp.zeros((MOST_ALARMS, 3)),
        count=zero,
        outside_rows=zero,
    )


def tracker_template(config: MonitorConfig, spaces: Spaces) -> Tracker:
    """The shapes of a robot's monitor."""
    return fresh_tracker(config, fresh_model(config, spaces, jax.random.key(0)))


def shield_log_rows(data: OfflineTasks) -> int:
    """Rows of the log with which a shield's monitor will be adapted, as far as they are known.

    Those of the new robot's log where the dataset holds it, but at most half of what most training
    robots have: the other half says what is healthy.
    """
    half = int(np.median([len(log.safe_starts) for log in data.train])) // 2
    return half if data.test is None else min(half, len(data.only_log().safe_starts))


def _model_batch(layout: RowLayout, rows: Float[Array, "... width"]) -> ModelBatch:
    """Of rewards and costs the monitor knows nothing."""
    columns = layout.unpack(rows)
    nothing = jnp.zeros(rows.shape[:-1])
    return ModelBatch(columns["obs"], columns["action"], nothing, nothing, columns["next_obs"])


@partial(jax.jit, static_argnums=(0, 1))
def _fit(
    config: MonitorConfig,
    layout: RowLayout,
    state: ModelState,
    fleet: Float[Array, "fleet width"],
    own: Float[Array, "own width"],
    count: Int[Array, ""],
    root: Key,
    updates: Int[Array, ""],
) -> ModelState:
    """Updates on batches of the fleet's rows and the first `count` of the robot's own.

    Every network draws its own batches.
    """
    shape = (config.networks, config.batch)
    decay = (0.0,) * (len(config.hidden) + 1)
    rows = count.astype(jnp.float32)
    share = jnp.where(count > 0, rows / (rows + config.worth), 0.0)
    places = jnp.arange(config.batch, dtype=jnp.float32)
    is_own = (places < jnp.round(share * config.batch))[None, :, None]

    def update(index: Array, state: ModelState) -> ModelState:
        key_fleet, key_own = jax.random.split(jax.random.fold_in(root, index))
        others = jax.random.randint(key_fleet, shape, 0, fleet.shape[0], jnp.int32)
        newest = jax.random.randint(key_own, shape, 0, jnp.maximum(count, 1), jnp.int32)
        batch = _model_batch(layout, jnp.where(is_own, own[newest], fleet[others]))
        gradient, _ = jax.grad(model_loss, has_aux=True)(
            state.ensemble, state.scaling, batch, decay
        )
        adam = Adam(learning_rate=config.learning_rate)
        stepped, optimiser = adam.step(state.ensemble, gradient, state.optimiser)
        # Shorter and shorter: where the networks happen to be after steps of one length, they can
        # be off by several times the noise of the robot, which is taken for a change.
        rate = 1.0 - index.astype(jnp.float32) / updates.astype(jnp.float32)
        ensemble = jax.tree.map(lambda old, new: old + rate * (new - old), state.ensemble, stepped)
        return replace(state, ensemble=ensemble, optimiser=optimiser)

    return jax.lax.fori_loop(0, updates, update, state)


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a monitor learns, on robots of some spaces."""

    config: MonitorConfig
    spaces: Spaces

    @property
    def layout(self) -> RowLayout:
        """Of its rows."""
        return monitor_layout(self.spaces)

    def fit(
        self,
        state: ModelState,
        fleet: Float[Array, "fleet width"],
        own: Float[np.ndarray, "own width"],
        updates: int,
        key: Key,
    ) -> ModelState:
        """Goes on with an ensemble, with the newest rows of one robot beside the fleet's."""
        newest = np.zeros((OWN_ROWS, self.layout.width), np.float32)
        kept = own[-OWN_ROWS:]
        newest[: len(kept)] = kept
        count = jnp.int32(len(kept))
        return _fit(
            self.config, self.layout, state, fleet, jnp.asarray(newest), count, key,
            jnp.int32(updates),
        )  # fmt: skip

    def fleet_model(self, rows: Float[Array, "fleet width"], key: Key) -> ModelState:
        """An ensemble of the fleet."""
        state = fresh_model(self.config, self.spaces, substream(key, Stream.MONITOR_MODEL))
        batch = _model_batch(self.layout, rows)
        state = replace(state, scaling=fit_scaling(batch, jnp.ones(len(rows))))
        nothing = np.zeros((0, self.layout.width), np.float32)
        return self.fit(state, rows, nothing, self.config.fleet_updates, key)

    def begin(
        self, fleet: FleetMonitor, own: Float[np.ndarray, "rows width"], step: int, key: Key
    ) -> Tracker:
        """The monitor of a robot of which only `own` is known, before `step`.

        Raises:
            DatasetError: that is too little.
        """
        judged = round(JUDGED_SHARE * len(own))
        if judged < LEAST_ROWS:
            raise DatasetError(
                f"a monitor is adapted with {len(own)} rows of this robot that begin in no "
                f"violation; expected at least {round(LEAST_ROWS / JUDGED_SHARE)}. Record a longer "
                "log (--data.test-transitions), or leave the monitor out (--monitor.no-enabled)."
            )
        config = self.config
        key_part, key_all = jax.random.split(key)
        learned = own[:-judged]
        model = self.fit(fleet.model, fleet.rows, learned, config.log_updates, key_part)
        seen = self.look(model, own[-judged:])
        model = self.fit(model, fleet.rows, own, config.updates, key_all)
        kept = seen[-config.memory :]
        recent = np.zeros((config.memory, 2), np.float32)
        recent[: len(kept)] = kept
        return replace(
            fresh_tracker(config, model),
            usual=usual_of(kept, config.memory, config.outside),
            recent=jnp.asarray(recent),
            remembered=jnp.int32(len(kept)),
            threshold=jnp.asarray(fleet.threshold, jnp.float32),
            calm=jnp.int32(step),
            first=jnp.int32(step),
        )

    def renew(
        self, fleet: FleetMonitor, tracker: Tracker, own: Float[np.ndarray, "rows width"], key: Key
    ) -> Tracker:
        """The tracker after the ensemble has learned from `own`, the robot's healthy rows."""
        config = self.config
        model = self.fit(tracker.model, fleet.rows, own, config.updates, key)
        usual = usual_of(remembered_rows(tracker), config.memory, config.outside)
        return replace(tracker, model=model, usual=usual)

    def look(
        self, model: ModelState, rows: Float[np.ndarray, "rows width"]
    ) -> Float[np.ndarray, "rows 2"]:
        """Surprise and disagreement of rows."""
        return np.stack([np.asarray(one) for one in _look(self.layout, model, rows)], axis=-1)

    def follow(
        self, tracker: Tracker, rows: Float[np.ndarray, "rows width"], step: int
    ) -> tuple[Tracker, Float[np.ndarray, " rows"]]:
        """The tracker after some rows, from `step` on, and their scores."""
        tracker, scores = _follow(self.layout, tracker, jnp.asarray(rows), jnp.int32(step))
        return tracker, np.asarray(scores, np.float64)

    def rehearse(
        self,
        fleet: FleetMonitor,
        log: Float[np.ndarray, "log width"],
        rows: Float[np.ndarray, "rows width"],
        key: Key,
        *,
        renews: bool = True,
    ) -> "Rehearsal":
        """What a monitor would say of a robot's rows, adapted with its log before.

        Unless it `renews`, it stays as the log left it, as in a shield.
        """
        key_begin, key_renew = jax.random.split(key)
        tracker, scores, trackers = self.begin(fleet, log, 0, key_begin), [], []
        if not renews:
            return Rehearsal(self.follow(tracker, rows, 0)[1], [tracker])
        every = self.config.every
        for start in range(0, len(rows) - every + 1, every):
            trackers.append(tracker)
            block = rows[start : start + every]
            tracker, values = self.follow(tracker, block, start)
            scores.append(values)
            own = np.concatenate([log, rows[: start + every]])
            tracker = self.renew(fleet, tracker, own, jax.random.fold_in(key_renew, start))
        return Rehearsal(np.concatenate(scores), trackers)


class Rehearsal(NamedTuple):
    """Scores of the rows, and the tracker at the start of each block of `every` rows."""

    scores: Float[np.ndarray, " rows"]
    trackers: list[Tracker]


@partial(jax.jit, static_argnums=0)
def _look(layout: RowLayout, model: ModelState, rows: Float[Array, "rows width"]) -> Any:
    columns = layout.unpack(rows)
    return look(model, columns["obs"], columns["action"], columns["next_obs"])


@partial(jax.jit, static_argnums=0)
def _follow(
    layout: RowLayout, tracker: Tracker, rows: Float[Array, "rows width"], step: Int[Array, ""]
) -> tuple[Tracker, Float[Array, " rows"]]:
    def one(carry: tuple, row: Array) -> tuple:
        tracker, step = carry
        columns = layout.unpack(row)
        obs, action, next_obs = (columns[name] for name in ("obs", "action", "next_obs"))
        tracker, score = track(tracker, obs, action, next_obs, step)
        return (tracker, step + 1), score

    (tracker, _), scores = jax.lax.scan(one, (tracker, step), rows)
    return tracker, scores


def fleet_sample(
    rows: Sequence[Float[np.ndarray, "_ width"]], rng: np.random.Generator
) -> Float[Array, "fleet width"]:
    """`FLEET_ROWS` rows of some robots, every row alike; again and again where there are fewer."""
    everything = np.concatenate(rows)
    chosen = rng.choice(len(everything), FLEET_ROWS, replace=len(everything) < FLEET_ROWS)
    return jnp.asarray(everything[np.sort(chosen)])


def held_out_rehearsals(
    fitting: Fitting,
    robots: Sequence[Float[np.ndarray, "_ width"]],
    log_rows: int,
    seed: int,
    *,
    renews: bool = True,
) -> list[Rehearsal]:
    """Robots of the fleet, each in turn as a new one with a log of `log_rows` rows.

    Raises:
        DatasetError: fewer than two have enough rows.
    """
    config = fitting.config
    least = log_rows + (config.every if renews else LEAST_ROWS)
    able = [number for number, rows in enumerate(robots) if len(rows) >= least]
    if len(able) < 2:
        raise DatasetError(
            f"a monitor's threshold is found from training robots with at least {least} rows that "
            f"begin in no violation; {len(able)} of {len(robots)} have so many, expected 2. "
            "Record longer logs, or leave --monitor.enabled out."
        )
    wanted = min(config.fleet_robots, len(able))
    tried = [able[index] for index in np.linspace(0, len(able) - 1, wanted).round().astype(int)]
    root = root_key(seed, Stream.MONITOR_FOLDS)
    found = []
    for fold in range(min(FOLDS, len(tried))):
        held_out = tried[fold::FOLDS]
        others = [rows for number, rows in enumerate(robots) if number not in held_out]
        rows = fleet_sample(others, generator(seed, Stream.MONITOR_ROWS, 1 + fold))
        key = jax.random.fold_in(root, fold)
        fleet = FleetMonitor(fitting.fleet_model(rows, key), rows, jnp.float32(jnp.inf))
        for number in held_out:
            own = robots[number]
            end = log_rows + config.fleet_steps
            key_robot = jax.random.fold_in(substream(key, Stream.MONITOR_UPKEEP), number)
            log, rows = own[:log_rows], own[log_rows:end]
            found.append(fitting.rehearse(fleet, log, rows, key_robot, renews=renews))
    return found


def fit_fleet_monitor(
    config: MonitorConfig,
    data: OfflineTasks,
    test_transitions: int,
    seed: int,
    *,
    renews: bool = True,
) -> tuple[FleetMonitor, Threshold]:
    """Phase 1 of the monitor, from the training logs.

    Args:
        config: Its settings.
        data: The training logs.
        test_transitions: Rows of a new robot's log.
        seed: The data seed, on which alone all of it depends.
        renews: Whether the monitor goes on learning as the robot runs; a shield's does not.

    Raises:
        DatasetError: the logs are too few or too short.
    """
    spaces = data.spaces
    fitting = Fitting(config=config, spaces=spaces)
    robots = [monitor_rows(log, spaces) for log in data.train]
    rehearsals = held_out_rehearsals(fitting, robots, test_transitions, seed, renews=renews)
    detector = CUSUM(reference=config.reference)
    rate = config.false_alarms_per_hour * spaces.dt / 3600.0
    threshold = extrapolate_threshold(
        [detector.statistic(one.scores) for one in rehearsals],
        rate,
        generator(seed, Stream.MONITOR_THRESHOLD),
    )
    rows = fleet_sample(robots, generator(seed, Stream.MONITOR_ROWS, 0))
    model = fitting.fleet_model(rows, root_key(seed, Stream.MONITOR_FLEET))
    return FleetMonitor(model, rows, jnp.float32(threshold.value)), threshold
