"""Logs of the training tasks of host domains: replays of SAC runs that were stopped early.

MESA section 5.1: an unconstrained SAC learns each training task; no violation ends an episode; its
whole replay up to `train_transitions` steps is the log. Each task is a run folder of its own while
it is collected, so that an interrupted collection goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import PyTree
from safemesa.datasets.offline_tasks import TaskLog
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.learners.carl.config import CARLConfig
from safemesa.learners.config import RiskConfig, SamplingConfig
from safemesa.phases.collection.host import TRAIN_SEEDS
from safemesa.phases.collection.tasks import sample_train_tasks
from safemesa.phases.config import SEEDS, AdaptConfig, DataConfig, DeployConfig, RunConfig
from safemesa.phases.deployment.deployment import HostDeployment
from safemesa.phases.deployment.guarded_sac import build_agent
from safemesa.phases.deployment.run_recorder import Recorder, common_start
from safemesa.phases.deployment.timeline import unchanging
from safemesa.phases.progress import NoProgress, Progress
from safemesa.phases.storage.artefacts import prior_template
from safemesa.phases.storage.replay_file import read_replay, replay_file
from safemesa.phases.storage.run_folder import (
    LAYOUT_FILE,
    METRICS_FILE,
    ROWS_FILE,
    RunFolder,
)
from safemesa.phases.storage.sinks import NoSink
from safemesa.phases.workers import run_workers

CHUNK_STEPS = 5_000
"""Steps between checkpoints, at the least."""

SEEDS_PER_DATA_SEED = 1_000
"""Seeds of the SAC runs of one data seed: one per training task."""

MOST_DATA_SEED = (SEEDS - TRAIN_SEEDS) // SEEDS_PER_DATA_SEED - 1
"""Above it, seeds of SAC runs would be none."""


def collect_sac(
    domain: AbstractHostDomain,
    config: RunConfig,
    working: Path,
    progress: Progress | None = None,
    jobs: int | None = None,
) -> tuple[TaskLog, ...]:
    """The logs of all training tasks of `config.data_seed`.

    Args:
        domain: The domain of `config`.
        config: Sizes (`data`) and the SAC (`sac`).
        working: Folder of the unfinished collection; what is there is gone on with.
        progress: Told of steps done.
        jobs: Number of worker processes with one thread each; results do not depend on it. None
            collects in this process: all tasks in step on an accelerator, otherwise in turn.
    """
    tasks = sample_train_tasks(domain, config.data.train_tasks, config.data_seed)
    if config.data_seed > MOST_DATA_SEED or len(tasks) > SEEDS_PER_DATA_SEED:
        raise ConfigurationError(
            f"data_seed is {config.data_seed} with {len(tasks)} training tasks; logs of SAC "
            f"(data.train_policy) have seeds for 0 to {MOST_DATA_SEED} with {SEEDS_PER_DATA_SEED} "
            "tasks each."
        )
    configs = collection_configs(config)
    folders = [working / f"task-{index:03d}" for index in range(len(tasks))]
    shown = progress or NoProgress()
    total = config.data.train_transitions
    layout = build_agent(configs[0], domain.spaces).layout

    def done() -> int:
        files = [replay_file(RunFolder(one).replay, layout) for one in folders]
        return sum(min(file.rows, total) for file in files)

    shown.start("collect", total * len(tasks), done())
    if jobs is None:
        together = jax.default_backend() != "cpu"
        groups = [range(len(tasks))] if together else [[index] for index in range(len(tasks))]
        for group in groups:
            collect_tasks(
                domain,
                [configs[index] for index in group],
                [tasks[index] for index in group],
                [folders[index] for index in group],
            )
            shown.update(done())
    else:
        shares = [range(first, len(tasks), jobs) for first in range(min(jobs, len(tasks)))]
        arguments = [
            (config.domain, [configs[i] for i in share], [str(folders[i]) for i in share])
            for share in shares
        ]
        run_workers(_collect_share, arguments, lambda: shown.update(done()))
    shown.finish()
    return tuple(
        read_log(folder, domain, task, f"train-{index:03d}")
        for index, (folder, task) in enumerate(zip(folders, tasks, strict=True))
    )


def collection_configs(config: RunConfig) -> list[RunConfig]:
    """The SAC runs that collect the training logs of a configuration, one per task."""
    return [_collection_config(config, index) for index in range(config.data.train_tasks)]


def _collection_config(config: RunConfig, index: int) -> RunConfig:
    """A run of Unconstrained on one training task that ends after so many steps.

    It is the same for all arms: settings that do not concern it are set back.
    """
    steps = config.data.train_transitions
    data = DataConfig(
        train_tasks=config.data.train_tasks,
        train_transitions=steps,
        train_policy="sac",
    )
    return replace(
        config,
        arm="collection",
        data=data,
        agent="sac",
        carl=CARLConfig(),
        sampling=SamplingConfig(),
        risk=RiskConfig(),
        # There is no risk model whose normaliser SAC could share.
        sac=replace(config.sac, normalise_obs=False),
        adapt=AdaptConfig(),
        meta_learner="scratch",
        meta=None,
        guard="none",
        guard_settings=None,
        seed=TRAIN_SEEDS + SEEDS_PER_DATA_SEED * config.data_seed + index,
        deploy=DeployConfig(episodes=steps, steps=steps, chunk_steps=CHUNK_STEPS),
    )


def _collect_share(domain_name: str, configs: Sequence[RunConfig], folders: Sequence[str]) -> None:
    """What a worker process does: its tasks in turn."""
    domain = find_domain(domain_name)
    assert isinstance(domain, AbstractHostDomain)
    data = configs[0].data
    tasks = sample_train_tasks(domain, data.train_tasks, configs[0].data_seed)
    for config, folder in zip(configs, folders, strict=True):
        index = (config.seed - TRAIN_SEEDS) % SEEDS_PER_DATA_SEED
        collect_tasks(domain, [config], [tasks[index]], [Path(folder)])


def collect_tasks(
    domain: AbstractHostDomain,
    configs: Sequence[RunConfig],
    tasks: Sequence[PyTree],
    folders: Sequence[Path],
) -> None:
    """Runs SAC on tasks side by side, each into its folder; finished ones are left as they are."""
    runs = [RunFolder(folder) for folder in folders]
    if all(one.finished for one in runs):
        return
    agent = build_agent(configs[0], domain.spaces)
    deployment = HostDeployment(
        agent=agent,
        configs=configs,
        timelines=[unchanging(task) for task in tasks],
        domain=domain,
        terminate_on_violation=False,
    )
    recorders = []
    for index, (run, config) in enumerate(zip(runs, configs, strict=True)):
        run.check(config)
        run.path.mkdir(parents=True, exist_ok=True)
        run.open(config, f"safemesa collect {domain.name}")
        recorders.append(
            Recorder(
                folder=run,
                config=config,
                domain=domain,
                agent=agent,
                start=partial(
                    deployment.start, index, prior_template(config, domain.spaces).model, None
                ),
                sink=NoSink(),
                progress=NoProgress(),
            )
        )
    states = common_start(recorders, in_step=False)
    final = deployment.advance(states, lambda seed, chunk: recorders[seed].record(chunk))
    deployment.close()
    for recorder, state in zip(recorders, final, strict=True):
        recorder.finish(state, {})


def read_log(folder: Path, domain: AbstractHostDomain, task: PyTree, name: str) -> TaskLog:
    """The log that a finished collection of one task holds."""
    run = RunFolder(folder)
    run.check_files(ROWS_FILE, LAYOUT_FILE, METRICS_FILE)
    # Copied, because the folder goes when the collection is complete.
    columns = {name: np.array(column) for name, column in read_replay(run.replay).items()}
    rows = len(columns["obs"])
    columns["action"] = domain.spaces.from_unit(columns["action"])
    del columns["proposed_action"]
    lengths = [line["length"] for line in run.metrics.read()]
    left = rows - sum(lengths)
    lengths += [left] if left else []
    last = np.cumsum(lengths) - 1
    terminated = columns["terminated"] > 0.5
    truncated = np.zeros(rows, np.bool_)
    truncated[last] = ~terminated[last]
    columns |= {
        "terminated": terminated,
        "truncated": truncated,
        "episode": np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        "step": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
    }
    parameters = domain.task_parameters(task)
    return TaskLog(name=name, role="train", parameters=parameters, columns=columns)
