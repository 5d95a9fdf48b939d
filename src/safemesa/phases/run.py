"""A whole run: data, Phase 1, Phase 2, Phase 3, summary; resumable after any interruption."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from safemesa.core.errors import (
    CheckpointError,
    ConfigurationError,
    OutputFolderError,
)
from safemesa.core.spaces import Spaces
from safemesa.core.types import PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.base import AbstractDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.phases.adapt import adapt, scratch_prior, uses_training_logs
from safemesa.phases.agent_kinds import AGENTS, make_agent
from safemesa.phases.carl.carl_agent import WorldModel
from safemesa.phases.collection.logs import (
    collect_test_log,
    load_or_collect_train,
    train_folder,
    warn_of_few_violations,
)
from safemesa.phases.config import RunConfig, deployed_together, plugins_of
from safemesa.phases.deployment.deployment import make_deployment
from safemesa.phases.deployment.guarded_sac import Agent
from safemesa.phases.deployment.run_recorder import Recorder, common_start
from safemesa.phases.deployment.timeline import check_changes
from safemesa.phases.deployment.upkeep import Upkeep, begin_upkeep
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.meta_train import meta_train
from safemesa.phases.monitoring import FleetMonitor, fit_fleet_monitor, fleet_template
from safemesa.phases.progress import NoProgress, Progress
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.storage.artefacts import (
    Prior,
    RiskModel,
    load_fleet_monitor,
    load_prior,
    load_risk_model,
    read_manifest,
    save_artefact,
)
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.run_folder import RunFolder
from safemesa.phases.storage.seen import save_seen, seen_in_logs
from safemesa.phases.storage.shared_priors import SharedPriors
from safemesa.phases.storage.sinks import NoSink, Sink


@dataclass(kw_only=True)
class RunOptions:
    """How a run is carried out; none of this changes its result."""

    data_dir: Path = Path("data")
    jobs: int | None = None
    """Processes that collect the training logs of a simulator; None: this one."""
    priors: Path | None = None
    """Where runs keep priors for each other; None: every run does Phase 1 itself."""
    simulators: int = 0
    """Processes that step the simulators of Phase 3; 0: this one."""
    command: str = ""
    progress: Progress = field(default_factory=NoProgress)
    make_sink: Callable[[Path], Sink] = lambda path: NoSink()


def run(
    configs: Sequence[RunConfig], folders: Sequence[Path], options: RunOptions
) -> list[dict[str, Any]]:
    """Runs configurations side by side; returns their summaries.

    They differ in their seeds; or in their arms, too, where these do the same in Phase 3
    (`deployed_together`): Phases 1 and 2 are then done arm by arm, and Phase 3 by all of them in
    step. Finished runs are left as they are. Raises typed errors (`safemesa.core.errors`) before
    anything is written.
    """
    domain = find_domain(configs[0].domain)
    # Unknown names are refused before anything is written.
    for config in configs:
        for registry, name in plugins_of(config).values():
            registry.find(name)
        agent = make_agent(config, domain.spaces)
        if config.monitor.enabled and not isinstance(agent, Agent):
            raise ConfigurationError(
                f"--monitor.enabled watches SAC behind a guard; the arm {config.arm} learns by "
                f"{config.agent}. Leave it out."
            )
        check_changes(domain, config)
    if len({deployed_together(config) for config in configs}) > 1:
        names = ", ".join(dict.fromkeys(one.arm for one in configs))
        raise ConfigurationError(
            f"{names} do not share Phase 3. Expected arms of one domain with equal settings of "
            "Phase 3 and test logs of one size; run them one after the other."
        )
    with ExitStack() as stack:
        runs = [RunFolder(Path(folder)) for folder in folders]
        for run_folder, config in zip(runs, configs, strict=True):
            run_folder.check(config)
            stack.enter_context(run_folder.lock())
            run_folder.open(config, options.command)
        todo = [i for i, run_folder in enumerate(runs) if not run_folder.finished]
        arms: dict[RunConfig, list[int]] = {}
        for i in todo:
            arms.setdefault(replace(configs[i], seed=0), []).append(i)
        pipelines = [
            _Pipeline([configs[i] for i in arm], [runs[i] for i in arm], domain, options)
            for arm in arms.values()
        ]
        if pipelines:
            prepared = [pipeline.prepare() for pipeline in pipelines]
            _deploy(pipelines, prepared)
        return [one.read_summary() for one in runs]


def adopt(
    folder: Path,
    config: RunConfig,
    domain: AbstractDomain,
    model: RiskModel,
    spaces: Spaces,
    log: Path | None,
    command: str,
) -> None:
    """Prepares a run folder whose Phases 1 and 2 were done elsewhere; `run` goes on from there.

    Raises:
        CheckpointError: the risk model was made for other spaces.
        OutputFolderError: the folder holds a run of another model or log.
    """
    difference = spaces.difference(domain.spaces)
    if difference is not None:
        raise CheckpointError(
            f"the risk model does not fit {domain.name}: its {difference}. Adapt a prior that was "
            "trained on logs of this domain."
        )
    given = OfflineTasks.load(log) if log is not None else None
    if given is not None:
        given.check_spaces(domain.spaces)
    run_folder = RunFolder(folder)
    run_folder.check(config)
    with run_folder.lock():
        run_folder.open(config, command)
        begun = (run_folder.risk_model / "manifest.json").is_file()
        if not begun:
            notes = {"log_given": given is not None}
            save_artefact(run_folder.risk_model, model, config, spaces, notes)
        elif not _equal(load_risk_model(run_folder.risk_model)[0], model):
            raise _begun_with(folder, "risk model")
        elif read_manifest(run_folder.risk_model, "risk_model")[2].get("log_given") is (
            given is None
        ):
            raise _begun_with(folder, "log")
        if given is not None and not run_folder.test_log.exists():
            only = replace(given, train=(), test=replace(given.only_log(), role="test"))
            only.save(run_folder.test_log)
        elif given is not None:
            there = OfflineTasks.load(run_folder.test_log).only_log()
            if not _equal(dict(there.columns), dict(given.only_log().columns)):
                raise _begun_with(folder, "log")


def _equal(first: PyTree, second: PyTree) -> bool:
    return eqx.tree_equal(*(jax.tree.map(np.asarray, one) for one in (first, second))) is True


def _begun_with(folder: Path, what: str) -> OutputFolderError:
    return OutputFolderError(
        f"{folder} holds a run that was begun with another {what}. Choose another --out, or "
        "remove it."
    )


class _Pipeline:
    """The phases in their order, each skipped where its artefact is there already."""

    def __init__(
        self,
        configs: list[RunConfig],
        runs: list[RunFolder],
        domain: AbstractDomain,
        options: RunOptions,
    ) -> None:
        self.configs, self.runs, self.domain, self.options = configs, runs, domain, options
        self.config, self.axis = configs[0], SeedAxis(len(configs))
        self.wall: dict[str, float] = {}
        self.sinks = [options.make_sink(run_folder.path) for run_folder in runs]
        self.agent = make_agent(self.config, domain.spaces)

    def prepare(self) -> "tuple[Sequence[RiskModel | WorldModel], list[OfflineTasks]]":
        """What Phase 3 begins with: models of Phases 1 and 2, and test logs."""
        test_logs = self.timed("collect", self.test_logs)
        return self.models(test_logs), test_logs

    def models(self, test_logs: list[OfflineTasks]) -> Sequence[RiskModel | WorldModel]:
        """Phases 1 and 2: what the agent is deployed with."""
        return AGENTS[self.config.agent].prepare(self, test_logs)

    def train_logs(self) -> OfflineTasks:
        """The training logs, collected or read."""
        data_dir, progress = self.options.data_dir, self.options.progress
        return self.timed(
            "collect",
            lambda: load_or_collect_train(
                self.domain, self.config, data_dir, progress, self.options.jobs
            ),
        )

    def timed(self, phase: str, function: Callable[[], Any]) -> Any:
        """Calls and adds the time to the phase's wall time."""
        began = time.perf_counter()
        result = function()
        self.wall[phase] = self.wall.get(phase, 0.0) + time.perf_counter() - began
        return result

    def test_logs(self) -> list[OfflineTasks]:
        """The test logs, collected or read."""
        logs = []
        for config, run_folder in zip(self.configs, self.runs, strict=True):
            if not run_folder.test_log.exists():
                collected = collect_test_log(self.domain, config)
                collected.save(run_folder.test_log)
            log = OfflineTasks.load(run_folder.test_log)
            log.check_spaces(self.domain.spaces)
            warn_of_few_violations(log)
            logs.append(log)
        return logs

    def risk_models(self, test_logs: list[OfflineTasks]) -> list[RiskModel]:
        """Phases 1 and 2."""
        if all((one.risk_model / "manifest.json").is_file() for one in self.runs):
            self._recall_wall("adapt", [one.risk_model for one in self.runs])
            if (self.runs[0].prior / "manifest.json").is_file():
                self._recall_wall("meta_train", [one.prior for one in self.runs])
            return [load_risk_model(one.risk_model)[0] for one in self.runs]
        priors = self.priors(test_logs)
        loop = self.loop("adapt")
        models = adapt(self.configs, priors, test_logs, loop)
        self._save("adapt", models, loop, [one.risk_model for one in self.runs])
        return models

    def priors(self, test_logs: list[OfflineTasks]) -> list[Prior]:
        """Phase 1, or fresh networks for an arm that has none."""
        if not uses_training_logs(self.config):
            pairs = zip(self.configs, test_logs, strict=True)
            return [scratch_prior(config, log) for config, log in pairs]
        if all((one.prior / "manifest.json").is_file() for one in self.runs):
            self._recall_wall("meta_train", [one.prior for one in self.runs])
            return [load_prior(one.prior)[0] for one in self.runs]
        train, loop = self.train_logs(), self.loop("meta_train")
        shared = self._shared_priors()
        found = shared.find() if shared else None
        priors, loop.wall_seconds = found or (None, loop.wall_seconds)
        if priors is None:
            priors = meta_train(self.configs, train, test_logs, loop)
            if shared:
                shared.add(priors, loop.wall_seconds)
        seen = seen_in_logs(train.train)
        for one in self.runs:
            save_seen(one.prior, seen)
        self._save("meta_train", priors, loop, [one.prior for one in self.runs])
        return priors

    def upkeeps(self, test_logs: list[OfflineTasks]) -> list[Upkeep]:
        """Phases 1 and 2 of the monitors, and what is done about them in Phase 3."""
        agent = self.agent
        assert isinstance(agent, Agent)
        fleets = self.timed("meta_train", self.fleet_monitors)
        asked = agent.guard.uses_risk and self.config.monitor.adapt_again
        priors = self.priors(test_logs) if asked else [None] * len(self.configs)
        each = zip(self.configs, fleets, test_logs, priors, strict=True)
        return self.timed(
            "adapt",
            lambda: [
                begin_upkeep(config, agent, fleet, log, prior) for config, fleet, log, prior in each
            ],
        )

    def fleet_monitors(self) -> list[FleetMonitor]:
        """What Phase 1 leaves of the monitors: the same for all runs, as it depends on no seed."""
        spaces = self.domain.spaces
        template = fleet_template(self.config.monitor, spaces)
        folders = [one.fleet_monitor for one in self.runs]
        if not all((folder / "manifest.json").is_file() for folder in folders):
            fleet, threshold = fit_fleet_monitor(
                self.config.monitor,
                self.train_logs(),
                self.config.data.test_transitions,
                self.config.data_seed,
            )
            for folder, config in zip(folders, self.configs, strict=True):
                save_artefact(folder, fleet, config, spaces, {"threshold": threshold._asdict()})
        return [load_fleet_monitor(folder, template) for folder in folders]

    def _shared_priors(self) -> SharedPriors | None:
        """Priors of other runs, where there may be some."""
        if self.options.priors is None:
            return None
        shared = SharedPriors(
            folder=self.options.priors,
            configs=self.configs,
            spaces=self.domain.spaces,
            train=train_folder(self.domain, self.config, self.options.data_dir),
        )
        return shared if shared.possible else None

    def loop(self, phase: str) -> ChunkLoop:
        """A chunk loop that saves into the run folders."""
        return ChunkLoop(
            phase,
            [Checkpointer(one.checkpoints, phase) for one in self.runs],
            self.options.progress,
            lambda seed, step, metrics: self.sinks[seed].write(phase, step, metrics),
        )

    def _save(
        self, phase: str, trees: Sequence[Prior | RiskModel], loop: ChunkLoop, to: list[Path]
    ) -> None:
        self.wall[phase] = loop.wall_seconds
        notes = {"wall_s": loop.wall_seconds}
        for tree, config, folder in zip(trees, self.configs, to, strict=True):
            save_artefact(folder, tree, config, self.domain.spaces, notes)
        for saver in loop.checkpointers:
            saver.remove()

    def _recall_wall(self, phase: str, folders: list[Path]) -> None:
        kind = "prior" if phase == "meta_train" else "risk_model"
        self.wall[phase] = read_manifest(folders[0], kind)[2].get("wall_s", 0.0)


def _deploy(
    pipelines: "Sequence[_Pipeline]",
    prepared: "Sequence[tuple[Sequence[RiskModel | WorldModel], list[OfflineTasks]]]",
) -> None:
    """Phase 3 of all runs of all arms side by side."""
    first = pipelines[0]
    domain, agent, options = first.domain, first.agent, first.options
    configs = [config for pipeline in pipelines for config in pipeline.configs]
    upkeeps = [
        upkeep
        for pipeline, (_, test_logs) in zip(pipelines, prepared, strict=True)
        if pipeline.config.monitor.enabled
        for upkeep in pipeline.upkeeps(test_logs)
    ]
    deployment = make_deployment(domain, agent, configs, options.simulators, upkeeps)
    with closing(deployment):
        recorders: list[Recorder] = []
        behind: dict[int, int] = {}
        for pipeline, (models, test_logs) in zip(pipelines, prepared, strict=True):
            runs = zip(
                pipeline.runs, pipeline.configs, models, test_logs, pipeline.sinks, strict=True
            )
            for folder, config, model, log, sink in runs:
                recorders.append(
                    Recorder(
                        folder=folder,
                        config=config,
                        domain=domain,
                        agent=agent,
                        start=partial(deployment.start, len(recorders), model, log),
                        sink=sink,
                        progress=_Slowest(options.progress, behind, len(recorders)),
                    )
                )
        states = common_start(recorders, in_step=deployment.in_step)
        limits = first.config.deploy
        pairs = zip(recorders, states, strict=True)
        behind |= {run: recorder.done(state) for run, (recorder, state) in enumerate(pairs)}
        options.progress.start("deploy", limits.steps or limits.episodes, min(behind.values()))
        final = deployment.advance(states, lambda seed, chunk: recorders[seed].record(chunk))
        options.progress.finish()
    walls = [pipeline.wall for pipeline in pipelines for _ in pipeline.configs]
    for recorder, state, wall in zip(recorders, final, walls, strict=True):
        recorder.finish(state, wall)
    for pipeline in pipelines:
        for sink in pipeline.sinks:
            sink.close()


@dataclass
class _Slowest(Progress):
    """What one of several runs tells; all have come as far as the slowest of them."""

    shown: Progress
    behind: dict[int, int]
    run: int

    def start(self, phase: str, total: int, done: int) -> None:
        """Nothing: the phase is begun by all."""

    def update(self, done: int, note: tuple[str, float] | None = None) -> None:
        """Tells of all."""
        self.behind[self.run] = done
        self.shown.update(min(self.behind.values()), note)

    def finish(self) -> None:
        """Nothing."""
