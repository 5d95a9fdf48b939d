"""Logs of compiled domains, by the random policies of MESA section 5.1."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from safemesa.core.streams import Stream, root_key
from safemesa.core.types import Key, PyTree
from safemesa.datasets.format import make_provenance
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.domains.base import AbstractJaxDomain
from safemesa.phases.collection.tasks import sample_test_task, sample_train_tasks
from safemesa.phases.config import DataConfig

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

ROLLOUTS_PER_CALL = 256
COLUMNS = ("obs", "action", "reward", "cost", "next_obs", "terminated", "truncated")


def _rollout(
    domain: AbstractJaxDomain, task: PyTree, key: Key, extra_steps: int
) -> tuple[dict, jax.Array]:
    """One rollout of the random policy: columns `[steps, ...]` and which rows are real.

    A rollout ends `extra_steps` after its length (truncated), at a goal or, where the domain's data
    collection says so, at a violation (terminated).
    """
    domain = dataclasses.replace(domain, terminate_on_violation=domain.log_ends_on_violation)
    key_start, key_steps = jax.random.split(key)
    state, obs, mode, length = domain.log_start(task, key=key_start)

    def step(carry: tuple, index: jax.Array) -> tuple[tuple, tuple]:
        state, obs, running = carry
        key_action, key_step = jax.random.split(jax.random.fold_in(key_steps, index))
        action = domain.log_action(mode, obs, key=key_action)
        state, result = domain.step(task, state, action, key=key_step)
        last = (index + jnp.int32(1) >= length + extra_steps) | result.truncated
        row = {
            "obs": obs,
            "action": action,
            "reward": result.reward,
            "cost": result.cost,
            "next_obs": result.obs,
            "terminated": result.terminated,
            "truncated": last & ~result.terminated,
        }
        return (state, result.obs, running & ~result.terminated & ~last), (row, running)

    indices = jnp.arange(domain.log_max_length + extra_steps, dtype=jnp.int32)
    start = (state, obs, jnp.asarray(True))
    return jax.lax.scan(step, start, indices)[1]


@partial(jax.jit, static_argnums=(0, 3))
def log_rollouts(
    domain: AbstractJaxDomain, task: PyTree, key: Key, extra_steps: int = 0
) -> tuple[dict, jax.Array]:
    """`ROLLOUTS_PER_CALL` independent rollouts; leaves are `[rollouts, steps, ...]`."""
    keys = jax.random.split(key, ROLLOUTS_PER_CALL)
    return jax.vmap(lambda one: _rollout(domain, task, one, extra_steps))(keys)


def collect_log(
    domain: AbstractJaxDomain,
    task: PyTree,
    transitions: int,
    *,
    key: Key,
    name: str,
    role: str,
    extra_steps: int = 0,
) -> TaskLog:
    """A log of exactly `transitions` rows; the last rollout is cut short (truncated).

    Every rollout goes on for `extra_steps` beyond the length that the domain gives it.
    """
    parts: list[dict[str, np.ndarray]] = []
    rows = episodes = call = 0
    while rows < transitions:
        block, running = log_rollouts(domain, task, jax.random.fold_in(key, call), extra_steps)
        real = np.asarray(running)
        columns = {column: np.asarray(values)[real] for column, values in block.items()}
        columns["episode"] = (np.nonzero(real)[0] + episodes).astype(np.int32)
        columns["step"] = np.nonzero(real)[1].astype(np.int32)
        parts.append(columns)
        rows += int(real.sum())
        episodes += ROLLOUTS_PER_CALL
        call += 1
    joined = {
        column: np.concatenate([part[column] for part in parts])[:transitions]
        for column in parts[0]
    }
    joined["truncated"][-1] = not joined["terminated"][-1]
    parameters = domain.task_parameters(task)
    return TaskLog(name=name, role=role, parameters=parameters, columns=joined)


def collect_train(
    domain: AbstractJaxDomain, data: DataConfig, data_seed: int, progress: Progress | None = None
) -> OfflineTasks:
    """The logs of all training tasks."""
    root = root_key(data_seed, Stream.TRAINING_LOGS)
    logs = []
    for index, task in enumerate(sample_train_tasks(domain, data.train_tasks, data_seed)):
        key = jax.random.fold_in(root, index)
        name = f"train-{index:03d}"
        log = collect_log(domain, task, data.train_transitions, key=key, name=name, role="train")
        logs.append(log)
        if progress:
            progress(index + 1, data.train_tasks)
    return OfflineTasks(
        domain=domain.name,
        spaces=domain.spaces,
        train=tuple(logs),
        test=None,
        provenance=_provenance(domain, data_seed),
    )


def collect_test(domain: AbstractJaxDomain, data: DataConfig, seed: int) -> OfflineTasks:
    """The small log of the new robot; its dynamics are the ones that Phase 3 runs on."""
    key = root_key(seed, Stream.TEST_LOG)
    task = sample_test_task(domain, seed)
    log = collect_log(domain, task, data.test_transitions, key=key, name="test", role="test")
    return OfflineTasks(
        domain=domain.name,
        spaces=domain.spaces,
        train=(),
        test=log,
        provenance=_provenance(domain, seed),
    )


def _provenance(domain: AbstractJaxDomain, seed: int) -> dict[str, object]:
    """What made the data."""
    end = (
        "ended by violations (docs/fidelity.md; not as in MESA section 5.1)"
        if domain.log_ends_on_violation
        else "not ended by violations (MESA section 5.1)"
    )
    policy = f"random rollouts of {domain.name}, {end}"
    return make_provenance(command=f"safemesa collect {domain.name}", seed=seed, policy=policy)
