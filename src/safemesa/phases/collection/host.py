"""Logs of host domains by a random policy: uniform over the action space (MESA section 5.1)."""

import numpy as np

from safemesa.core.streams import Stream, generator
from safemesa.core.types import PyTree
from safemesa.datasets.format import COLUMNS, make_provenance
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.domains.host import AbstractHostDomain
from safemesa.phases.collection.tasks import sample_test_task, sample_train_tasks
from safemesa.phases.config import DataConfig
from safemesa.phases.deployment.host import HostEnvironment
from safemesa.phases.progress import Progress

TRAIN_SEEDS = 1_000_000
"""Seeds of training logs begin here, apart from those of runs."""


def random_log(
    domain: AbstractHostDomain,
    task: PyTree,
    transitions: int,
    *,
    seed: int,
    name: str,
    role: str,
    stream: Stream,
    terminate_on_violation: bool = False,
) -> TaskLog:
    """A log of exactly `transitions` rows, whose last episode is cut short.

    Starts and actions are drawn from `stream`, the log's purpose.
    """
    env = domain.make_env(task, terminate_on_violation=terminate_on_violation)
    environment = HostEnvironment(env, seed, domain.spaces, stream)
    rng = generator(seed, stream)
    rows: dict[str, list] = {column: [] for column in COLUMNS}
    episode = step = 0
    obs = environment.reset(episode)
    for _ in range(transitions):
        action = rng.uniform(-1.0, 1.0, domain.spaces.action_size).astype(np.float32)
        result, following = environment.step(action, episode)
        step += 1
        truncated = not result.terminated and bool(result.truncated or step >= domain.log_length)
        physical = domain.spaces.from_unit(action)
        values = (obs, physical, result.reward, result.cost, result.obs, result.terminated)
        for column, value in zip(COLUMNS, (*values, truncated, episode, step - 1), strict=True):
            rows[column].append(value)
        obs = following
        if truncated and not result.truncated:
            obs = environment.reset(episode + 1)
        if truncated or result.terminated:
            episode, step = episode + 1, 0
    env.close()
    columns = {column: np.asarray(values, COLUMNS[column].dtype) for column, values in rows.items()}
    columns["truncated"][-1] = not columns["terminated"][-1]
    parameters = domain.task_parameters(task)
    return TaskLog(name=name, role=role, parameters=parameters, columns=columns)


def collect_test_host(domain: AbstractHostDomain, data: DataConfig, seed: int) -> OfflineTasks:
    """The small log of the new robot; its dynamics are the ones that Phase 3 runs on."""
    task = sample_test_task(domain, seed)
    rows, stream = data.test_transitions, Stream.TEST_LOG
    log = random_log(domain, task, rows, seed=seed, name="test", role="test", stream=stream)
    return _dataset(domain, seed, (), log)


def collect_random_train(
    domain: AbstractHostDomain, data: DataConfig, data_seed: int, progress: Progress
) -> OfflineTasks:
    """Logs of the training tasks by the random policy that collects the test log."""
    progress.start("collect", data.train_tasks, 0)
    logs, rows, stream = [], data.train_transitions, Stream.TRAINING_LOGS
    for index, task in enumerate(sample_train_tasks(domain, data.train_tasks, data_seed)):
        name, seed = f"train-{index:03d}", TRAIN_SEEDS + 1_000 * data_seed + index
        logs.append(
            random_log(domain, task, rows, seed=seed, name=name, role="train", stream=stream)
        )
        progress.update(index + 1)
    progress.finish()
    return _dataset(domain, data_seed, tuple(logs), None)


def _dataset(
    domain: AbstractHostDomain, seed: int, train: tuple[TaskLog, ...], test: TaskLog | None
) -> OfflineTasks:
    policy = f"uniform random actions for {domain.log_length} steps; violations end no episode"
    command = f"safemesa collect {domain.name}"
    return OfflineTasks(
        domain=domain.name,
        spaces=domain.spaces,
        train=train,
        test=test,
        provenance=make_provenance(command=command, seed=seed, policy=policy),
    )
