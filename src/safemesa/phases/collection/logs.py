"""Logs of any domain: of the training tasks, shared by all runs of a data seed, and of the test."""

import json
import math
import shutil
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.files import file_name
from safemesa.core.locks import folder_lock
from safemesa.datasets.format import make_provenance
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import FEW_VIOLATIONS
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.domains.host import AbstractHostDomain
from safemesa.phases.collection.compiled import collect_test, collect_train
from safemesa.phases.collection.host import collect_random_train, collect_test_host
from safemesa.phases.collection.sac import collect_sac
from safemesa.phases.collection.tasks import sample_train_tasks
from safemesa.phases.config import RunConfig
from safemesa.phases.progress import NoProgress, Progress


class OtherCollectionWarning(UserWarning):
    """Training logs are of a SAC with other settings."""


class FewViolationsWarning(UserWarning):
    """The log of the new robot holds almost no example of an accident."""


def collect_train_logs(
    domain: AbstractDomain,
    config: RunConfig,
    working: Path,
    progress: Progress | None = None,
    jobs: int | None = None,
) -> OfflineTasks:
    """The logs of the training tasks of `config.data_seed`.

    `working` and `jobs` serve slow collections only (see `collect_sac`).

    Raises:
        ConfigurationError: the domain's logs cannot be collected by `config.data.train_policy`.
    """
    found = _collect_train(domain, config, working, progress, jobs)
    return replace(found, provenance={**found.provenance, "domain": config.domain})


def _collect_train(
    domain: AbstractDomain,
    config: RunConfig,
    working: Path,
    progress: Progress | None,
    jobs: int | None,
) -> OfflineTasks:
    shown, data = progress or NoProgress(), config.data
    if isinstance(domain, AbstractHostDomain):
        collected = {"collection": collection_settings(domain, config)}
        if train_policy(domain, config) == "random":
            found = collect_random_train(domain, data, config.data_seed, shown)
            return replace(found, provenance={**found.provenance, **collected})
        logs = collect_sac(domain, config, working, progress, jobs)
        policy = "SAC that learns the task, from its first step on; violations end no episode"
        command = f"safemesa collect {domain.name}"
        return OfflineTasks(
            domain=domain.name,
            spaces=domain.spaces,
            train=logs,
            test=None,
            provenance={
                **make_provenance(command=command, seed=config.data_seed, policy=policy),
                **collected,
            },
        )
    if not isinstance(domain, AbstractJaxDomain) or train_policy(domain, config) != "random":
        raise ConfigurationError(
            f"the logs of {domain.name} are collected by its random policies; data.train-policy "
            f"is {data.train_policy!r}, expected 'random'."
        )
    shown.start("collect", data.train_tasks, 0)
    logs = collect_train(domain, data, config.data_seed, lambda done, _: shown.update(done))
    shown.finish()
    return logs


def train_policy(domain: AbstractDomain, config: RunConfig) -> str:
    """Who drives the training robots: `random` or `sac`."""
    if config.data.train_policy != "auto":
        return config.data.train_policy
    return "sac" if isinstance(domain, AbstractHostDomain) else "random"


def collection_settings(domain: AbstractDomain, config: RunConfig) -> dict[str, Any]:
    """What decides training logs beside their sizes, as plain values."""
    policy = train_policy(domain, config)
    found: dict[str, Any] = {"train_policy": policy}
    if isinstance(domain, AbstractHostDomain) and policy == "sac":
        found["sac"] = json.loads(json.dumps(asdict(replace(config.sac, normalise_obs=False))))
    return found


def collect_test_log(domain: AbstractDomain, config: RunConfig) -> OfflineTasks:
    """The small log of the new robot of `config.seed`, by a random policy."""
    if isinstance(domain, AbstractHostDomain):
        return collect_test_host(domain, config.data, config.seed)
    if isinstance(domain, AbstractJaxDomain):
        return collect_test(domain, config.data, config.seed)
    raise ConfigurationError(f"{domain.name} cannot be simulated; give the robot's own log.")


def train_folder(domain: AbstractDomain, config: RunConfig, data_dir: Path) -> Path:
    """Where the training logs of a data seed are kept."""
    # Domains of the user's may share a name, such as that of the robot that they change.
    name = domain.name if ":" not in config.domain else file_name(config.domain)
    return Path(data_dir) / f"{name}-{config.preset}-{config.data_seed}"


def load_or_collect_train(
    domain: AbstractDomain,
    config: RunConfig,
    data_dir: Path,
    progress: Progress,
    jobs: int | None = None,
) -> OfflineTasks:
    """The training logs of a data seed, from `data_dir` or collected into it.

    Of several processes that want them one collects and the others wait.

    Raises:
        DatasetError: the folder there holds logs of other sizes, or collected in another way.
    """
    folder, data = train_folder(domain, config, data_dir), config.data
    if not folder.exists():
        working = folder.with_name(f".{folder.name}.unfinished")
        with folder_lock(working, _Waiting(folder)):
            if not folder.exists():
                collect_train_logs(domain, config, working, progress, jobs).save(folder)
        shutil.rmtree(working, ignore_errors=True)
    loaded = OfflineTasks.load(folder)
    loaded.check_spaces(domain.spaces)
    sizes = {log.transitions for log in loaded.train}
    if len(loaded.train) != data.train_tasks or sizes != {data.train_transitions}:
        raise DatasetError(
            f"{folder} holds {len(loaded.train)} logs of {sorted(sizes)} transitions; this run "
            f"wants {data.train_tasks} of {data.train_transitions}. Choose another --data-dir."
        )
    _check_collection(
        folder, loaded.provenance.get("collection"), collection_settings(domain, config)
    )
    _check_tasks(folder, domain, config, loaded)
    return loaded


def _check_tasks(
    folder: Path, domain: AbstractDomain, config: RunConfig, loaded: OfflineTasks
) -> None:
    """Refuses logs of other robots than the data seed stands for, such as of an edited domain."""
    tasks = sample_train_tasks(domain, config.data.train_tasks, config.data_seed)
    for log, task in zip(loaded.train, tasks, strict=True):
        wanted = json.loads(json.dumps(dict(domain.task_parameters(task))))
        # Logs that were made in another way may say nothing of their robots.
        if log.parameters and not _alike(dict(log.parameters), wanted):
            raise DatasetError(
                f"{folder} holds logs of other robots: the parameters of {log.name} are "
                f"{dict(log.parameters)}, and those of {domain.name} with data seed "
                f"{config.data_seed} are {wanted}. Choose another --data-dir."
            )


def _alike(first: Any, second: Any) -> bool:
    """Whether plain values are equal, numbers up to what processors differ by."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_alike(first[k], second[k]) for k in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_alike, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
    return bool(first == second)


def _check_collection(folder: Path, there: Any, wanted: dict[str, Any]) -> None:
    """Refuses logs of another kind of policy; says where SAC had other settings.

    Those may be meant: a run can try other settings of SAC on the logs that there are.
    """
    # Logs of earlier versions do not say.
    if not isinstance(there, dict) or there == wanted:
        return
    if there.get("train_policy") != wanted["train_policy"]:
        raise DatasetError(
            f"{folder} holds logs of the policy {there.get('train_policy')!r}, and this run wants "
            f"{wanted['train_policy']!r} (data.train-policy). Choose another --data-dir."
        )
    warnings.warn(
        f"the training logs in {folder} were collected by SAC with other settings than this run's; "
        "they are used as they are. Another --data-dir collects new ones.",
        OtherCollectionWarning,
        stacklevel=3,
    )


class _Waiting:
    """Says once that another process is collecting, and waits."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, False

    def __call__(self) -> None:
        """A second of waiting."""
        if not self.said:
            print(f"Another process collects {self.folder}; waiting for it.", file=sys.stderr)
            self.said = True
        time.sleep(1.0)


def warn_of_few_violations(data: OfflineTasks) -> None:
    """A test log without accidents cannot teach what an accident is."""
    log = data.only_log()
    if log.violation_events < FEW_VIOLATIONS:
        warnings.warn(
            f"the new robot's log holds {log.violation_events} violations in {log.transitions} "
            f"transitions; with fewer than {FEW_VIOLATIONS} the adapted risk is hardly informed by "
            "this robot. A longer log helps (of our domains: --data.test-transitions).",
            FewViolationsWarning,
            stacklevel=2,
        )
