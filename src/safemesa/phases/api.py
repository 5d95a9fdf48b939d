"""The three phases as plain functions of one configuration; `safemesa` re-exports them.

For runs that are saved and resumed use `phases.run.run` or `safemesa run`.
"""

import tempfile
from pathlib import Path
from typing import Any

from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.registry import domain as find_domain
from safemesa.phases import adapt as adapt_phase, meta_train as meta_train_phase
from safemesa.phases.collection.logs import collect_test_log, collect_train_logs
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.deployment import make_deployment
from safemesa.phases.deployment.guarded_sac import build_agent
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import Prior, RiskModel


def collect_train(config: RunConfig) -> OfflineTasks:
    """Logs of the training tasks of `config.data_seed`."""
    domain = find_domain(config.domain)
    with tempfile.TemporaryDirectory() as working:
        return collect_train_logs(domain, config, Path(working))


def collect_test(config: RunConfig) -> OfflineTasks:
    """The small log of the new robot of `config.seed`."""
    return collect_test_log(find_domain(config.domain), config)


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
    domain = find_domain(config.domain)
    agent = build_agent(config, domain.spaces)
    deployment = make_deployment(domain, agent, [config])
    episodes: list[dict[str, Any]] = []
    start = deployment.start(0, model, test)
    deployment.advance([start], lambda _, chunk: episodes.extend(chunk.episodes))
    deployment.close()
    return episodes


def run_arm(config: RunConfig, folder: str | Path, data_dir: str | Path = "data") -> dict[str, Any]:
    """All phases into a run folder, resumable; returns its summary."""
    return run([config], [Path(folder)], RunOptions(data_dir=Path(data_dir)))[0]
