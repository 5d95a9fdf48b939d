"""CARL's own pretraining: it drives in the training tasks and refits after every episode.

CARL section 4 and its published code: the first episode is random, the others are planned for the
return alone. What was driven is kept as a log, beside which Phase 3 learns on.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator, root_key, substream
from safemesa.core.types import Key, Metrics, PyTree
from safemesa.datasets.format import make_provenance
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.datasets.replay import Replay, RowLayout, append, make_replay, size
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain, Step
from safemesa.domains.host import AbstractHostDomain
from safemesa.learners.carl.ensemble import fit_scaling
from safemesa.learners.carl.learner import CARL, ModelState, PlanState
from safemesa.phases.carl.fit import Rows, build_carl, fit, fresh_model, model_batch
from safemesa.phases.collection.tasks import sample_train_tasks
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import replay_layout
from safemesa.phases.deployment.host import HostEnvironment
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.seeds import SeedAxis

EPISODES_PER_CHUNK = 5
"""Episodes between checkpoints and progress reports."""


class DrivingState(eqx.Module):
    """Everything that this pretraining changes."""

    model: ModelState
    replay: Replay


def driving_layout(spaces: Spaces) -> RowLayout:
    """The replay's columns, and which episode of which task a row belongs to."""
    marks = (("truncated", None), ("task", None), ("episode", None))
    return RowLayout(fields=(*replay_layout(spaces).fields, *marks))


def _row(
    layout: RowLayout, obs: Array, action: Array, result: Step, task: Array, episode: Array
) -> Float[Array, " width"]:
    return layout.pack(
        {
            "obs": obs,
            "proposed_action": action,
            "action": action,
            "next_obs": result.obs,
            "reward": result.reward,
            "cost": result.cost,
            "terminated": result.terminated,
            "truncated": result.truncated,
            "task": task.astype(jnp.float32),
            "episode": episode.astype(jnp.float32),
        }
    )


def _choose(
    carl: CARL, model: ModelState, plan: PlanState, obs: Array, episode: Array, key: Key
) -> tuple[Float[Array, " act"], PlanState]:
    """A random action in the first episode, then the first of a plan for the return alone."""
    key_random, key_plan = jax.random.split(key)
    random = jax.random.uniform(key_random, (carl.action_size,), jnp.float32, -1.0, 1.0)
    planned, rest = carl.act(model, plan, obs, cautious=False, key=key_plan)
    return jnp.where(episode == 0, random, planned), rest


def drive(
    carl: CARL,
    domain: AbstractJaxDomain,
    task: PyTree,
    number: Int[Array, ""],
    root: Key,
    state: DrivingState,
    episode: Int[Array, ""],
) -> DrivingState:
    """One episode in a compiled task, which ends as the domain's data collection says."""
    domain = dataclasses.replace(domain, terminate_on_violation=domain.log_ends_on_violation)
    layout, spaces = driving_layout(domain.spaces), domain.spaces
    key = jax.random.fold_in(substream(root, Stream.CARL_DRIVE), episode)
    key_reset, key_act, key_env = jax.random.split(key, 3)

    def step(carry: tuple) -> tuple:
        index, env, obs, plan, replay, _ = carry
        act_key = jax.random.fold_in(key_act, index)
        action, plan = _choose(carl, state.model, plan, obs, episode, act_key)
        physical = spaces.from_unit(action)
        env, result = domain.step(task, env, physical, key=jax.random.fold_in(key_env, index))
        replay = append(replay, _row(layout, obs, action, result, number, episode))
        done = result.terminated | result.truncated
        return index + 1, env, result.obs, plan, replay, done

    def going(carry: tuple) -> Bool[Array, ""]:
        return ~carry[-1]

    env, obs = domain.reset(task, key=key_reset)
    start = (jnp.int32(0), env, obs, carl.no_plan(), state.replay, jnp.zeros((), bool))
    return replace(state, replay=jax.lax.while_loop(going, step, start)[-2])


def refit(
    carl: CARL, layout: RowLayout, root: Key, state: DrivingState, episode: Int[Array, ""]
) -> tuple[DrivingState, Metrics]:
    """Scaling and `source_epochs` passes over all data so far."""
    rows, count = state.replay.rows, size(state.replay)
    there = (jnp.arange(rows.shape[0]) < count).astype(jnp.float32)
    model = replace(state.model, scaling=fit_scaling(model_batch(layout, rows), there))
    passes = carl.config.source_epochs / carl.config.batch
    updates = jnp.ceil(passes * count.astype(jnp.float32)).astype(jnp.int32)
    key = jax.random.fold_in(substream(root, Stream.CARL_FIT), episode)
    limits = jnp.int32(0), updates
    model, metrics = fit(carl, layout, rows, Rows(count, count, count), model, key, *limits)
    return DrivingState(model, state.replay), metrics


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=6)
def _run_drive(
    axis: SeedAxis,
    carl: CARL,
    domain: AbstractJaxDomain,
    tasks: PyTree,
    numbers: Array,
    roots: Array,
    state: DrivingState,
    episode: Array,
) -> DrivingState:
    mapped = axis.map(partial(drive, carl, domain), (0, 0, 0, 0, None))
    return mapped(tasks, numbers, roots, state, episode)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _run_refit(
    axis: SeedAxis,
    carl: CARL,
    layout: RowLayout,
    roots: Array,
    state: DrivingState,
    episode: Array,
) -> tuple[DrivingState, Metrics]:
    return axis.map(partial(refit, carl, layout), (0, 0, None))(roots, state, episode)


@partial(jax.jit, static_argnums=0)
def _run_choose(
    carl: CARL, model: ModelState, plan: PlanState, obs: Array, episode: Array, key: Key
) -> tuple[Array, PlanState]:
    return _choose(carl, model, plan, obs, episode, key)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _run_append(
    layout: RowLayout, replay: Replay, obs: Array, action: Array, result: Step, marks: Array
) -> Replay:
    return append(replay, _row(layout, obs, action, result, marks[0], marks[1]))


def drive_host(
    carl: CARL,
    domain: AbstractHostDomain,
    task: PyTree,
    number: int,
    config: RunConfig,
    state: DrivingState,
    episode: int,
) -> DrivingState:
    """One episode in a simulated task; no violation ends it."""
    layout, replay = driving_layout(domain.spaces), state.replay
    env = domain.make_env(task, terminate_on_violation=False)
    place = HostEnvironment(env, config.seed, domain.spaces, Stream.CARL_SIMULATOR)
    drive = substream(root_key(config.seed, Stream.META_TRAIN), Stream.CARL_DRIVE)
    root = jax.random.fold_in(drive, episode)
    obs, plan, done, index = place.reset(episode), carl.no_plan(), False, 0
    while not done:
        key = jax.random.fold_in(root, index)
        action, plan = _run_choose(carl, state.model, plan, obs, np.int32(episode), key)
        result, following = place.step(np.asarray(action), episode, goes_on=False)
        marks = np.asarray([number, episode], np.int32)
        replay = _run_append(layout, replay, obs, action, result, marks)
        done = bool(result.terminated) or bool(result.truncated)
        obs, index = following, index + 1
    env.close()
    return replace(state, replay=replay)


def pretrain_in_tasks(
    configs: Sequence[RunConfig], domain: AbstractDomain, loop: ChunkLoop | None = None
) -> list[tuple[ModelState, OfflineTasks]]:
    """A model per configuration and what it drove; configurations may differ in seeds alone."""
    config, axis, spaces = configs[0], SeedAxis(len(configs)), domain.spaces
    carl, layout = build_carl(config, spaces), driving_layout(spaces)
    tasks = sample_train_tasks(domain, config.data.train_tasks, config.data_seed)
    roots = axis.stack([root_key(one.seed, Stream.META_TRAIN) for one in configs])
    driven = _driver(axis, carl, domain, configs, tasks, roots)

    def advance(state: DrivingState, start: int, stop: int) -> tuple[DrivingState, Metrics]:
        metrics: Metrics = {}
        for episode in range(start, stop):
            state = driven(state, episode)
            state, fitted = _run_refit(axis, carl, layout, roots, state, jnp.int32(episode))
            metrics = fitted if config.carl.source_epochs else {}
        return state, metrics

    capacity = config.carl.source_episodes * spaces.horizon
    fresh = [
        DrivingState(fresh_model(one, spaces), make_replay(capacity=capacity, width=layout.width))
        for one in configs
    ]
    loop = loop or ChunkLoop("meta_train")
    episodes = config.carl.source_episodes
    state = loop.run(axis, axis.stack(fresh), episodes, EPISODES_PER_CHUNK, advance)
    return [
        (final.model, driven_logs(domain, final.replay, tasks, one.seed))
        for final, one in zip(axis.unstack(state), configs, strict=True)
    ]


def _driver(
    axis: SeedAxis,
    carl: CARL,
    domain: AbstractDomain,
    configs: Sequence[RunConfig],
    tasks: Sequence[PyTree],
    roots: Array,
) -> Callable[[DrivingState, int], DrivingState]:
    """How an episode is driven on the domain; every episode draws its task anew."""

    def numbers(episode: int) -> list[int]:
        rngs = [generator(one.seed, Stream.CARL_TASKS, episode) for one in configs]
        return [int(rng.integers(len(tasks))) for rng in rngs]

    if isinstance(domain, AbstractJaxDomain):

        def compiled(state: DrivingState, episode: int) -> DrivingState:
            drawn = numbers(episode)
            chosen = axis.stack([tasks[number] for number in drawn])
            marks = axis.stack([jnp.int32(number) for number in drawn])
            number = jnp.int32(episode)
            return _run_drive(axis, carl, domain, chosen, marks, roots, state, number)

        return compiled
    assert isinstance(domain, AbstractHostDomain)

    def simulated(state: DrivingState, episode: int) -> DrivingState:
        states = []
        for one, config, number in zip(axis.unstack(state), configs, numbers(episode), strict=True):
            states.append(drive_host(carl, domain, tasks[number], number, config, one, episode))
        return axis.stack(states)

    return simulated


def driven_logs(
    domain: AbstractDomain, replay: Replay, tasks: Sequence[PyTree], seed: int
) -> OfflineTasks:
    """What was driven, as the logs of the tasks that were visited."""
    spaces = domain.spaces
    rows = replay.rows[: int(size(replay))]
    columns = {
        name: np.asarray(value) for name, value in driving_layout(spaces).unpack(rows).items()
    }
    columns["action"] = spaces.from_unit(columns["action"])
    columns["episode"] = columns["episode"].astype(np.int32)
    first = np.flatnonzero(np.diff(columns["episode"], prepend=-1))
    lengths = np.diff(np.append(first, len(rows)))
    columns["step"] = np.concatenate([np.arange(one, dtype=np.int32) for one in lengths])
    for name in ("terminated", "truncated"):
        columns[name] = columns[name] > 0.5
    number = columns.pop("task").astype(np.int32)
    del columns["proposed_action"]
    logs = [
        TaskLog(
            name=f"train-{index:03d}",
            role="train",
            parameters=domain.task_parameters(tasks[index]),
            columns={name: values[number == index] for name, values in columns.items()},
        )
        for index in sorted(set(number.tolist()))
    ]
    return OfflineTasks(
        domain=domain.name,
        spaces=spaces,
        train=tuple(logs),
        test=None,
        provenance=make_provenance(
            command=f"safemesa run carl {domain.name}",
            seed=seed,
            policy="CARL, planning for the return alone; the first episode is random",
        ),
    )
