"""The three phases as plain functions of one configuration; `safemesa` re-exports them.

For runs that are saved and resumed use `phases.run.run` or `safemesa run`.
"""

from pathlib import Path
from typing import Any

from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.phases import (
    adapt as adapt_phase,
    collect,
    deploy as deploy_phase,
    meta_train as meta_train_phase,
)
from safemesa.phases.artefacts import Prior, RiskModel
from safemesa.phases.build import phase_key, task_learner_key
from safemesa.phases.config import RunConfig
from safemesa.phases.run import RunOptions, jax_domain, run
from safemesa.phases.seeds import SeedAxis


def collect_train(config: RunConfig) -> OfflineTasks:
    """Logs of the training tasks of `config.data_seed`."""
    return collect.collect_train(jax_domain(config.domain), config.data, config.data_seed)


def collect_test(config: RunConfig) -> OfflineTasks:
    """The small log of the new robot of `config.seed`."""
    return collect.collect_test(jax_domain(config.domain), config.data, config.seed)


def meta_train(config: RunConfig, train: OfflineTasks, test: OfflineTasks | None = None) -> Prior:
    """Phase 1: a prior from the training logs.

    `test` is needed only where `config.meta.recovery_logs` is "test".
    """
    logs = None if test is None else [test]
    return meta_train_phase.meta_train([config], train, logs)[0]


def adapt(config: RunConfig, prior: Prior, test: OfflineTasks) -> RiskModel:
    """Phase 2: the risk model of the new robot."""
    return adapt_phase.adapt([config], [prior], [test])[0]


def deploy(config: RunConfig, model: RiskModel, test: OfflineTasks) -> list[dict[str, Any]]:
    """Phase 3: learns the task behind the guard; one dictionary per episode."""
    domain = jax_domain(config.domain)
    agent = deploy_phase.build_agent(config, domain.spaces)
    task = collect.sample_test_task(domain, config.seed)
    roots = deploy_phase.deploy_roots(phase_key(config.seed, "deploy"))
    log = test if agent.guard.uses_risk else None
    key = task_learner_key(config)
    state = deploy_phase.initial_state(agent, domain, task, model, log, roots, key)
    episodes: list[dict[str, Any]] = []
    deploy_phase.deploy(
        SeedAxis(1),
        agent,
        domain,
        [task],
        [roots],
        [state],
        lambda _, chunk: episodes.extend(chunk.episodes),
    )
    return episodes


def run_arm(config: RunConfig, folder: str | Path, data_dir: str | Path = "data") -> dict[str, Any]:
    """All phases into a run folder, resumable; returns its summary."""
    return run([config], [Path(folder)], RunOptions(data_dir=Path(data_dir)))[0]
