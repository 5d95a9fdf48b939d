"""Where there is room for adapting the critic: priors, adapted critics, oracles on a test task.

Critics are asked about the test task under two policies: `data`, the random policy that collects
logs, and `task`, the policy that an unconstrained run learns. What no critic has seen is asked: a
log of its own, and every other episode of the run. Oracles are the same networks with a log of the
test task as large as a training log. Headroom is what an unadapted critic lacks to an oracle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.files import write_atomic
from safemesa.core.streams import Stream, root_key
from safemesa.core.types import PyTree
from safemesa.datasets.format import COLUMNS
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.arms import configure
from safemesa.experiments.headroom.critic_scores import (
    FirstViolations,
    critic_scores,
    escapes,
    first_violations,
    label_steps,
)
from safemesa.experiments.headroom.takeovers import rescues
from safemesa.experiments.measures.log_evaluation import risk_of
from safemesa.experiments.measures.run_contents import intervened, replay_columns
from safemesa.experiments.runs.run_records import RunRecord
from safemesa.guards import asks_a_critic
from safemesa.phases.adapt import adapt, scratch_prior, uses_training_logs
from safemesa.phases.collection.compiled import collect_log
from safemesa.phases.collection.host import random_log
from safemesa.phases.collection.logs import collect_test_log, load_or_collect_train
from safemesa.phases.collection.tasks import sample_test_task
from safemesa.phases.config import RunConfig, config_to_json
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.meta_train import meta_train
from safemesa.phases.progress import NoProgress, Progress
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import Prior, RiskModel, load_prior, load_risk_model
from safemesa.phases.storage.run_folder import RunFolder, provenance

DEPLOYED = ("multitask", "mesa", "rrl", "unconstrained")
"""Arms whose whole runs are read; missing ones are made."""

UNIT_FIELDS = ("domain", "preset", "seed")
"""What every row begins with."""

CRITICS_FILE, ESCAPES_FILE = "headroom.jsonl", "escapes.jsonl"


@dataclass(kw_only=True)
class Workplace:
    """Where runs and logs are, and where what is missing goes."""

    found: Sequence[RunRecord] = ()
    """Finished runs; those of the very configuration that is asked for are used."""
    runs_dir: Path = Path("runs")
    """Missing runs are made here, in `<domain>-<preset>/<arm>-<seed>`."""
    data_dir: Path = Path("data")
    jobs: int | None = None
    progress: Progress = field(default_factory=NoProgress)

    def find(self, config: RunConfig) -> Path | None:
        """The folder of a finished run of this configuration, if one was given.

        Packed runs have no folder, and no models to ask.
        """
        settings = config_to_json(config)
        paths = (one.path for one in self.found if one.settings == settings and one.path.is_dir())
        return next(paths, None)

    def run_of(self, config: RunConfig) -> Path:
        """The folder of such a run, which is made or gone on with where it is not finished."""
        found = self.find(config)
        if found is not None:
            return found
        group = f"{config.domain.replace(':', '-')}-{config.preset}"
        folder = self.runs_dir / group / f"{config.arm}-{config.seed}"
        options = RunOptions(
            data_dir=self.data_dir,
            jobs=self.jobs,
            command="safemesa headroom",
            progress=self.progress,
        )
        run([config], [folder], options)
        return folder


def configurations(
    domain: str, preset: str, seed: int, more_arms: Sequence[str] = ("mesa_as_printed",)
) -> dict[str, RunConfig]:
    """The arms that are compared, by name; `more_arms` are asked for their critics alone.

    Raises:
        ConfigurationError: unknown domain, preset or arm, or an arm without a prior.
    """
    names = dict.fromkeys((*DEPLOYED, *more_arms))
    configs = {name: replace(configure(name, domain, preset), seed=seed) for name in names}
    for name in set(names) - set(DEPLOYED):
        one = configs[name]
        if one.agent != "sac" or not asks_a_critic(one.guard) or not uses_training_logs(one):
            raise ConfigurationError(
                f"the arm {name!r} has no prior; expected one that learns a critic from training "
                "logs, such as mesa_metasgd."
            )
    return configs


def measure(
    configs: Mapping[str, RunConfig], place: Workplace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One domain and seed: a row per critic and policy, and a row per arm that recovers."""
    folders = {arm: place.run_of(configs[arm]) for arm in DEPLOYED}
    config = configs["multitask"]
    domain, task = (
        find_domain(config.domain),
        sample_test_task(find_domain(config.domain), config.seed),
    )
    test = OfflineTasks.load(RunFolder(folders["multitask"]).test_log)
    fitted, asked = _halves(
        _task_policy_log(folders["unconstrained"], configs["unconstrained"], test)
    )
    logs = {"data": asked_log(domain, config, task), "task": asked}
    critics = trained_critics(configs, folders, test, place)
    critics |= oracles(configs, critics["multitask_prior"], test, fitted)
    place.progress.start("score", len(critics) * len(logs), 0)
    gamma, limit = config.risk.gamma_risk, config.risk_limit
    assert limit is not None  # Multi-Task's guard has one
    rows = []
    for policy, log in logs.items():
        action = domain.spaces.to_unit(np.asarray(log.columns["action"]))
        length = _log_length(domain) if policy == "data" else None
        questions = first_violations(log.columns, action, gamma, length)
        for name, model in critics.items():
            scores = critic_scores(_risk(model, questions), questions, limit)
            rows.append({**_unit(config), "critic": name, "policy": policy, **scores})
            place.progress.update(len(rows))
    place.progress.finish()
    return rows, [
        escape_row(configs[arm], folder)
        for arm, folder in folders.items()
        if asks_a_critic(configs[arm].guard)
    ]


def _unit(config: RunConfig) -> dict[str, Any]:
    """What all rows of a domain and seed begin with."""
    return {
        "domain": config.domain,
        "preset": config.preset,
        "seed": config.seed,
        "gamma_risk": config.risk.gamma_risk,
        "risk_limit": config.risk_limit,
    }


def _risk(model: RiskModel, rows: FirstViolations) -> np.ndarray:
    return risk_of(model, rows.obs, rows.action)


def trained_critics(
    configs: Mapping[str, RunConfig],
    folders: Mapping[str, Path],
    test: OfflineTasks,
    place: Workplace,
) -> dict[str, RiskModel]:
    """Priors (`_prior`) and what Phase 2 makes of them on the test log, from runs or anew."""
    critics = {}
    for arm, config in configs.items():
        if not asks_a_critic(config.guard):
            continue
        folder = folders.get(arm) or place.find(config)
        prior, model = _from_run(config, folder) if folder else _anew(config, test, place)
        if prior is not None:
            critics[f"{arm}_prior"] = prior.model
        critics[arm] = model
    return critics


def _from_run(config: RunConfig, folder: Path) -> tuple[Prior | None, RiskModel]:
    """Prior and risk model of a finished run."""
    place = RunFolder(folder)
    prior = load_prior(place.prior)[0] if uses_training_logs(config) else None
    return prior, load_risk_model(place.risk_model)[0]


def _anew(config: RunConfig, test: OfflineTasks, place: Workplace) -> tuple[Prior, RiskModel]:
    """Phases 1 and 2."""
    domain = find_domain(config.domain)
    train = load_or_collect_train(domain, config, place.data_dir, place.progress, place.jobs)
    loop = ChunkLoop("meta_train", (), place.progress)
    prior = meta_train([config], train, [test], loop)[0]
    return prior, adapt([config], [prior], [test])[0]


def oracles(
    configs: Mapping[str, RunConfig],
    multitask: RiskModel,
    test: OfflineTasks,
    task_policy: TaskLog,
) -> dict[str, RiskModel]:
    """Critics with as much of the test task as a prior has of a training task.

    `oracle_scratch` takes as many steps as Phase 1, `oracle` as many from the Multi-Task prior as
    Phase 2 from scratch; both on a log of the random policy. `oracle_task_policy` is `oracle` on
    episodes of the task policy, and learns the risk of its logged actions.
    """
    config, scratch = configs["multitask"], configs["rrl"]
    long = replace(config.data, test_transitions=config.data.train_transitions)
    log = collect_test_log(find_domain(config.domain), replace(config, data=long))
    steps = config.adapt.scratch_steps
    prior = Prior(multitask, scratch_prior(config, log).log_step_sizes)
    logged = replace(config, sampling=replace(config.sampling, next_action="logged"))
    driven = replace(test, train=(), test=task_policy)
    fresh = scratch_prior(scratch, log)
    return {
        "oracle_scratch": adapt([scratch], [fresh], [log], steps=config.meta.iterations)[0],
        "oracle": adapt([config], [prior], [log], steps=steps)[0],
        "oracle_task_policy": adapt([logged], [prior], [driven], steps=steps)[0],
    }


def asked_log(domain: AbstractDomain, config: RunConfig, task: PyTree) -> TaskLog:
    """A log of the random policy on the test task, as large as a training log, that ends late.

    Violations end episodes. Each rollout goes on, beyond where it would end in the collection,
    until the label of its last scored step is known.

    Raises:
        ConfigurationError: the domain cannot be simulated.
    """
    extra, rows = label_steps(config.risk.gamma_risk), config.data.train_transitions
    if isinstance(domain, AbstractHostDomain):
        longer = replace(domain, log_length=domain.log_length + extra)
        return random_log(
            longer,
            task,
            rows,
            seed=config.seed,
            stream=Stream.HEADROOM_LOG,
            name="asked",
            role="test",
            terminate_on_violation=True,
        )
    if not isinstance(domain, AbstractJaxDomain):
        raise ConfigurationError(f"{domain.name} cannot be simulated; headroom is not measured.")
    key = root_key(config.seed, Stream.HEADROOM_LOG)
    return collect_log(domain, task, rows, key=key, name="asked", role="test", extra_steps=extra)


def _log_length(domain: AbstractDomain) -> int | None:
    """Steps of a rollout of the random policy."""
    if isinstance(domain, AbstractJaxDomain):
        return domain.log_max_length
    return domain.log_length if isinstance(domain, AbstractHostDomain) else None


def _task_policy_log(folder: Path, config: RunConfig, test: OfflineTasks) -> TaskLog:
    """The episodes of a run that begin after its warm-up, as a log."""
    replayed = replay_columns(folder)
    starts = np.flatnonzero(replayed["step"] == 0)
    late = starts[starts >= config.sac.warmup_steps]
    if len(late) < 2:
        raise DatasetError(
            f"{folder} has {len(late)} episodes after its warm-up; expected two at least. Make the "
            "run longer, or measure another preset."
        )
    columns = {name: values[late[0] :] for name, values in replayed.items() if name in COLUMNS}
    terminated = columns["terminated"] > 0.5
    ends = np.append(columns["step"][1:] == 0, True)
    columns["action"] = test.spaces.from_unit(columns["action"])
    columns |= {"terminated": terminated, "truncated": ends & ~terminated}
    return replace(test.only_log(), columns=columns)


def _halves(log: TaskLog) -> tuple[TaskLog, TaskLog]:
    """Every other episode, and the others: the policy changes from the first to the last."""
    odd = np.asarray(log.columns["episode"]) % 2 == 1

    def take(chosen: np.ndarray) -> TaskLog:
        return replace(log, columns={name: v[chosen] for name, v in log.columns.items()})

    return take(odd), take(~odd)


def escape_row(config: RunConfig, folder: Path) -> dict[str, Any]:
    """How recovery fared in a finished run, and whether other actions would have fared better."""
    replayed, domain = replay_columns(folder), find_domain(config.domain)
    task, steps = sample_test_task(domain, config.seed), label_steps(config.risk.gamma_risk)
    return {
        **_unit(config),
        "arm": config.arm,
        **escapes(intervened(replayed), replayed["cost"] > 0.5, replayed["episode"]),
        **rescues(domain, task, replayed, steps, config.seed),
    }


@dataclass(frozen=True, kw_only=True)
class HeadroomFiles:
    """What was measured so far, in a folder; a domain and seed is there whole or not at all."""

    folder: Path

    def critics(self) -> list[dict[str, Any]]:
        """A row per domain, seed, critic and policy."""
        return _read_lines(self.folder / CRITICS_FILE)

    def escapes(self) -> list[dict[str, Any]]:
        """A row per domain, seed and arm that recovers."""
        return _read_lines(self.folder / ESCAPES_FILE)

    def has(self, config: RunConfig) -> bool:
        """Whether a domain and seed was measured.

        Raises:
            ConfigurationError: it was, at another preset.
        """
        for row in self.critics():
            if (row["domain"], row["seed"]) == (config.domain, config.seed):
                if row["preset"] != config.preset:
                    raise ConfigurationError(
                        f"{self.folder} holds {config.domain} at preset {row['preset']!r}, asked "
                        f"for was {config.preset!r}. Choose another --out."
                    )
                return True
        return False

    def add(self, critics: list[dict[str, Any]], escaped: list[dict[str, Any]]) -> None:
        """Adds a domain and seed, with the commit that measured it.

        The critics' file, which `has` reads, is written last.
        """
        commit = {"git_commit": provenance()["git_commit"]}
        critics, escaped = ([{**row, **commit} for row in rows] for rows in (critics, escaped))
        unit = (critics[0]["domain"], critics[0]["seed"])
        others = [row for row in self.escapes() if (row["domain"], row["seed"]) != unit]
        _write_lines(self.folder / ESCAPES_FILE, [*others, *escaped])
        _write_lines(self.folder / CRITICS_FILE, [*self.critics(), *critics])


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none where there is no file.

    Raises:
        DatasetError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged: {error}. Restore it, or remove it.") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not set(UNIT_FIELDS) <= set(row):
            raise DatasetError(
                f"{path}, line {number} is no measurement of `safemesa headroom`, which has "
                f"{', '.join(UNIT_FIELDS)}. Choose another --out, or restore the file."
            )
    return rows


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    write_atomic(path, text.encode())
