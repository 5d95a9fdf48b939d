"""Phase 3 on pure-JAX domains: a guarded SAC run as compiled chunks (MESA section 4.3)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from safemesa.core.streams import Stream, substream
from safemesa.core.types import Metrics, PyTree
from safemesa.domains.base import AbstractJaxDomain
from safemesa.phases.deployment.abstract_agent import AbstractAgent
from safemesa.phases.deployment.deploy_state import (
    Chunk,
    DeployState,
    EpisodeRecord,
    OnChunk,
    Roots,
    act_at,
    episodes_of,
    observe,
    reset_key,
    where,
)
from safemesa.phases.deployment.timeline import task_at
from safemesa.phases.deployment.upkeep import Upkeep
from safemesa.phases.seeds import SeedAxis


def environment_step(
    agent: AbstractAgent, domain: AbstractJaxDomain, task: PyTree, roots: Roots, state: DeployState
) -> tuple[DeployState, EpisodeRecord]:
    """Acts once, stores the transition, and starts the next episode where one has ended.

    `task` is a task, or the table of those of a robot that changes.
    """
    act = act_at(agent, state, roots)
    action = agent.spaces.from_unit(act.action)
    env, result = domain.step(
        task_at(task, state.step), state.env, action, key=jax.random.fold_in(roots.env, state.step)
    )
    observed, record = observe(agent, state, act, result)
    fresh_env, fresh_obs = domain.reset(
        task_at(task, observed.step), key=reset_key(roots, observed.episode)
    )
    new_state = replace(
        observed,
        env=where(record.done, fresh_env, env),
        obs=where(record.done, fresh_obs, result.obs),
    )
    return new_state, record


def deploy_chunk(
    agent: AbstractAgent,
    domain: AbstractJaxDomain,
    chunk: int,
    learning: bool,
    task: PyTree,
    roots: Roots,
    state: DeployState,
    steps: Int[Array, ""],
) -> tuple[DeployState, EpisodeRecord, Metrics]:
    """Up to `steps` (at most `chunk`) environment steps, each with one update if `learning`.

    Stops early when the run is finished. Records are `[chunk]`; metrics are those of the last
    update.
    """

    def one_step(state: DeployState) -> tuple[DeployState, EpisodeRecord, Metrics]:
        index = state.step
        state, record = environment_step(agent, domain, task, roots, state)
        if not learning:
            return state, record, {}
        learned, metrics = agent.learn(
            state.agent, state.replay, state.violations, key=jax.random.fold_in(roots.learn, index)
        )
        return replace(state, agent=learned), record, metrics

    def body(carry: tuple) -> tuple:
        index, state, records, _ = carry
        state, record, metrics = one_step(state)
        records = jax.tree.map(lambda all_, one: all_.at[index].set(one), records, record)
        return index + 1, state, records, metrics

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        index, state, _, _ = carry
        return (index < steps) & ~agent.config.finished(state.step, state.episode)

    _, record_shape, metrics_shape = jax.eval_shape(one_step, state)
    records = jax.tree.map(lambda leaf: jnp.zeros((chunk, *leaf.shape), leaf.dtype), record_shape)
    metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics_shape)
    start = (jnp.zeros((), jnp.int32), state, records, metrics)
    _, state, records, metrics = jax.lax.while_loop(unfinished, body, start)
    if learning:
        key = jax.random.fold_in(substream(roots.learn, Stream.CHUNK_METRICS), state.step)
        seen = agent.chunk_metrics(state.agent, state.replay, state.violations, key=key)
        metrics = metrics | seen
    return state, records, metrics


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), donate_argnums=7)
def _run_deploy(
    axis: SeedAxis,
    agent: AbstractAgent,
    domain: AbstractJaxDomain,
    chunk: int,
    learning: bool,
    tasks: PyTree,
    roots: Roots,
    state: DeployState,
    steps: Array,
) -> tuple[DeployState, EpisodeRecord, Metrics]:
    advance = partial(deploy_chunk, agent, domain, chunk, learning)
    return axis.map(advance, (0, 0, 0, None))(tasks, roots, state, steps)


def deploy(
    axis: SeedAxis,
    agent: AbstractAgent,
    domain: AbstractJaxDomain,
    tasks: Sequence[PyTree],
    roots: Sequence[Roots],
    states: Sequence[DeployState],
    on_chunk: OnChunk,
    upkeeps: Sequence[Upkeep] = (),
) -> list[DeployState]:
    """Runs all episodes of all seeds, from wherever `states` are.

    With `upkeeps`, one per seed, a chunk ends where they are due.
    """
    config = agent.config
    # Copied, because chunks donate their state and callers keep what they passed.
    state = jax.tree.map(jnp.copy, axis.stack(states))
    stacked_tasks, stacked_roots = axis.stack(tasks), axis.stack(roots)
    chunk = config.chunk_steps
    while True:
        per_seed = axis.unstack(state)
        first = [int(one.step) for one in per_seed]
        running = [not config.finished(int(one.step), int(one.episode)) for one in per_seed]
        if not any(running):
            return per_seed
        # Finished seeds stand still; the others have taken the same number of steps.
        done = max(step for step, runs in zip(first, running, strict=True) if runs)
        learning = done >= agent.learning_starts
        steps = chunk if learning else min(chunk, agent.learning_starts - done)
        if upkeeps:
            steps = min(steps, upkeeps[0].every - done % upkeeps[0].every)
        state, records, metrics = _run_deploy(
            axis,
            agent,
            domain,
            chunk,
            learning,
            stacked_tasks,
            stacked_roots,
            state,
            jnp.int32(steps),
        )
        if upkeeps and (done + steps) % upkeeps[0].every == 0:
            kept = [
                upkeep(one) if int(one.step) > began else one
                for upkeep, one, began in zip(upkeeps, axis.unstack(state), first, strict=True)
            ]
            # Copied, because chunks donate their state.
            state = jax.tree.map(jnp.copy, axis.stack(kept))
        parts = zip(axis.unstack(state), axis.unstack(records), axis.unstack(metrics), strict=True)
        for seed, (one, record, values) in enumerate(parts):
            if int(one.step) > first[seed]:
                numbers = {name: float(value) for name, value in values.items()}
                on_chunk(seed, Chunk(one, first[seed], episodes_of(record), numbers))
