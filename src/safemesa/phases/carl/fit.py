"""Fitting CARL's model: on the training logs, and on those and the new robot's log together.

Rows lie in one table: first those of the training tasks (the source), then, perhaps after a gap,
those of the new robot (the target).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, root_key, substream
from safemesa.core.types import Key, Metrics
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import RowLayout
from safemesa.learners.carl.ensemble import ModelBatch, fit_scaling
from safemesa.learners.carl.learner import CARL, ModelState
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import pack_logs, replay_layout
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.seeds import SeedAxis

CHUNK = 500
"""Updates between checkpoints and progress reports."""
FULL_SHARE_ROWS = 256
"""Rows of the new robot from which on they make half of each batch; before, proportionally less."""


class Rows(NamedTuple):
    """Where rows lie in a table: source `[0, source)`, target `[target, total)`."""

    source: Int[Array, ""]
    target: Int[Array, ""]
    total: Int[Array, ""]


def build_carl(config: RunConfig, spaces: Spaces) -> CARL:
    """The learner of a configuration."""
    return CARL(config=config.carl, obs_size=spaces.obs_size, action_size=spaces.action_size)


def fresh_model(config: RunConfig, spaces: Spaces) -> ModelState:
    """Untrained networks of a run seed: the same in every CARL arm."""
    return build_carl(config, spaces).init(key=root_key(config.seed, Stream.CARL_MODEL))


def bootstrap_rows(
    shape: tuple[int, int], first: Array, count: Array, *, resample: Key, key: Key
) -> Int[Array, "members batch"]:
    """Draws rows of `[first, first + count)`, each network from its own resample of them.

    The resample of network e is `I_e(j)`, j = 0..count - 1, drawn with replacement. It is never
    stored: `resample`, e and j decide `I_e(j)`, so tables may be of any size and may grow.
    """
    there = jnp.maximum(count, 1)
    position = jax.random.randint(key, shape, 0, there, jnp.int32)

    def one(member: Array, index: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(resample, member), index)
        return jax.random.randint(own, (), 0, there, jnp.int32)

    members = jnp.arange(shape[0], dtype=jnp.int32)
    return first + jax.vmap(jax.vmap(one, in_axes=(None, 0)))(members, position)


def batch_rows(
    shape: tuple[int, int], rows: Rows, *, resample: Key, key: Key
) -> Int[Array, "members batch"]:
    """Rows of one update: half source, half target, as far as there are rows of both.

    Below `FULL_SHARE_ROWS` rows of the target its share is proportionally smaller.
    """
    key_source, key_target = jax.random.split(key)
    targets, batch = rows.total - rows.target, shape[1]
    share = 0.5 * jnp.minimum(targets.astype(jnp.float32) / FULL_SHARE_ROWS, 1.0)
    wanted = jnp.where(rows.source > 0, jnp.round(share * batch), jnp.float32(batch))
    first = jnp.zeros((), jnp.int32)
    old = bootstrap_rows(shape, first, rows.source, resample=resample, key=key_source)
    new = bootstrap_rows(shape, rows.target, targets, resample=resample, key=key_target)
    return jnp.where((jnp.arange(batch, dtype=jnp.float32) < wanted)[None], new, old)


def model_batch(layout: RowLayout, rows: Float[Array, "... width"]) -> ModelBatch:
    """What the model learns from, of rows of any layout that has its columns."""
    columns = layout.unpack(rows)
    return ModelBatch(*(columns[name] for name in ModelBatch._fields))


def fit(
    carl: CARL,
    layout: RowLayout,
    table: Float[Array, "rows width"],
    rows: Rows,
    state: ModelState,
    root: Key,
    start: Int[Array, ""],
    stop: Int[Array, ""],
) -> tuple[ModelState, Metrics]:
    """Updates `start` to `stop`.

    Returns the mean of each metric. `root` decides the bootstrap resamples of this fit.
    """
    config = carl.config
    shape = (config.networks, config.batch)
    resample = substream(root, Stream.CARL_RESAMPLE)

    def update(index: Array, state: ModelState) -> tuple[ModelState, Metrics]:
        key = jax.random.fold_in(root, index)
        drawn = batch_rows(shape, rows, resample=resample, key=key)
        return carl.update(state, model_batch(layout, table[drawn]))

    def body(index: Array, carry: tuple) -> tuple:
        state, sums = carry
        state, metrics = update(index, state)
        return state, jax.tree.map(jnp.add, sums, metrics)

    shapes = jax.eval_shape(lambda one: update(start, one)[1], state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state, sums = jax.lax.fori_loop(start, stop, body, (state, zeros))
    updates = jnp.maximum(stop - start, 1).astype(jnp.float32)
    return state, jax.tree.map(lambda one: one / updates, sums)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=6)
def _run_fit(
    axis: SeedAxis,
    shared_table: bool,
    carl: CARL,
    layout: RowLayout,
    table: Array,
    rows: Rows,
    state: ModelState,
    roots: Array,
    start: Array,
    stop: Array,
) -> tuple[ModelState, Metrics]:
    own = None if shared_table else 0
    mapped = axis.map(partial(fit, carl, layout), (own, own, 0, 0, None, None))
    return mapped(table, rows, state, roots, start, stop)


def fit_to_logs(
    configs: Sequence[RunConfig], train: OfflineTasks, loop: ChunkLoop | None = None
) -> list[ModelState]:
    """CARL-Offline's pretraining: one fit of a fresh model to the training logs."""
    config, axis, spaces = configs[0], SeedAxis(len(configs)), train.spaces
    carl, layout = build_carl(config, spaces), replay_layout(spaces)
    table = jnp.asarray(pack_logs(train.train, spaces))
    rows = Rows(*(jnp.int32(len(table)),) * 3)
    scaling = fit_scaling(model_batch(layout, table), jnp.ones(len(table)))
    fresh = [replace(fresh_model(one, spaces), scaling=scaling) for one in configs]
    roots = axis.stack([root_key(one.seed, Stream.META_TRAIN) for one in configs])

    def advance(state: ModelState, start: int, stop: int) -> tuple[ModelState, Metrics]:
        limits = jnp.int32(start), jnp.int32(stop)
        return _run_fit(axis, True, carl, layout, table, rows, state, roots, *limits)

    loop = loop or ChunkLoop("meta_train")
    # Copied, because chunks donate their state, in which seeds share the scaling.
    state = jax.tree.map(jnp.copy, axis.stack(fresh))
    return axis.unstack(loop.run(axis, state, config.carl.log_updates, CHUNK, advance))


def fit_to_test_logs(
    configs: Sequence[RunConfig],
    models: Sequence[ModelState],
    train: Sequence[OfflineTasks],
    test_logs: Sequence[OfflineTasks],
    loop: ChunkLoop | None = None,
) -> list[ModelState]:
    """Goes on fitting with the new robot's log as the first data of the target, per run.

    The scaling stays what the training data made it.
    """
    config, axis, spaces = configs[0], SeedAxis(len(configs)), test_logs[0].spaces
    carl, layout = build_carl(config, spaces), replay_layout(spaces)
    sources = [pack_logs(own.train, spaces) for own in train]
    targets = [pack_logs((log.only_log(),), spaces) for log in test_logs]
    gap = max(map(len, sources))
    table = axis.stack(
        [jnp.asarray(joined(*pair, gap)) for pair in zip(sources, targets, strict=True)]
    )
    rows = axis.stack(
        [
            Rows(jnp.int32(len(source)), jnp.int32(gap), jnp.int32(gap + len(target)))
            for source, target in zip(sources, targets, strict=True)
        ]
    )
    roots = axis.stack([root_key(one.seed, Stream.ADAPT) for one in configs])

    def advance(state: ModelState, start: int, stop: int) -> tuple[ModelState, Metrics]:
        limits = jnp.int32(start), jnp.int32(stop)
        return _run_fit(axis, False, carl, layout, table, rows, state, roots, *limits)

    loop = loop or ChunkLoop("adapt")
    state = jax.tree.map(jnp.copy, axis.stack(models))
    return axis.unstack(loop.run(axis, state, config.carl.test_log_updates, CHUNK, advance))


def joined(
    source: Float[np.ndarray, "source width"], target: Float[np.ndarray, "target width"], gap: int
) -> Float[np.ndarray, "rows width"]:
    """A table whose target rows begin at row `gap`, so that tables of several runs stack."""
    padding = np.zeros((gap - len(source), source.shape[1]), np.float32)
    return np.concatenate([source, padding, target])
