"""A whole run: data, Phase 1, Phase 2, Phase 3, summary; resumable after any interruption."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from safemesa.core.errors import (
    CheckpointError,
    ConfigurationError,
    DatasetError,
    OutputFolderError,
)
from safemesa.core.files import read_json, write_json
from safemesa.core.spaces import Spaces
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import extend
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.phases.adapt import adapt, scratch_prior, uses_training_logs
from safemesa.phases.artefacts import (
    Prior,
    RiskModel,
    load_prior,
    load_risk_model,
    prior_template,
    read_manifest,
    save_artefact,
)
from safemesa.phases.build import build_learners, phase_key, task_learner_key
from safemesa.phases.checkpoint import Checkpointer, ReplayFile
from safemesa.phases.collect import collect_test, collect_train, sample_test_task
from safemesa.phases.config import RunConfig
from safemesa.phases.deploy import (
    Chunk,
    DeployState,
    build_agent,
    deploy,
    deploy_roots,
    initial_state,
)
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.meta_train import meta_train
from safemesa.phases.progress import NoProgress, Progress
from safemesa.phases.run_folder import RunFolder
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.sinks import NoSink, Sink

FEW_VIOLATIONS = 5
"""Fewer violations than this in a test log earn a loud warning."""


class FewViolationsWarning(UserWarning):
    """The log of the new robot holds almost no example of an accident."""


@dataclass(kw_only=True)
class RunOptions:
    """How a run is carried out; none of this changes its result."""

    data_dir: Path = Path("data")
    command: str = ""
    progress: Progress = field(default_factory=NoProgress)
    make_sink: Callable[[Path], Sink] = lambda path: NoSink()


def run(
    configs: Sequence[RunConfig], folders: Sequence[Path], options: RunOptions
) -> list[dict[str, Any]]:
    """Runs configurations that differ in their seeds alone; returns their summaries.

    Finished runs are left as they are. Raises typed errors (`safemesa.core.errors`) before
    anything is written.
    """
    domain = jax_domain(configs[0].domain)
    build_learners(configs[0], domain.spaces)  # refuses unknown names before anything is written
    with ExitStack() as stack:
        runs = [RunFolder(Path(folder)) for folder in folders]
        for run_folder, config in zip(runs, configs, strict=True):
            run_folder.check(config)
            stack.enter_context(run_folder.lock())
            run_folder.open(config, options.command)
        todo = [i for i, run_folder in enumerate(runs) if not run_folder.finished]
        if todo:
            pipeline = _Pipeline(
                [configs[i] for i in todo], [runs[i] for i in todo], domain, options
            )
            pipeline.run()
        return [read_json(one.summary_file, error=OutputFolderError) for one in runs]


def adopt(
    folder: Path,
    config: RunConfig,
    domain: AbstractJaxDomain,
    model: RiskModel,
    spaces: Spaces,
    log: Path | None,
    command: str,
) -> None:
    """Prepares a run folder whose Phases 1 and 2 were done elsewhere; `run` goes on from there.

    Raises:
        CheckpointError: the risk model was made for other spaces.
    """
    if spaces.obs_size != domain.spaces.obs_size or spaces.action_size != domain.spaces.action_size:
        raise CheckpointError(
            f"the risk model reads {spaces.obs_size} observations and {spaces.action_size} "
            f"actions; {domain.name} has {domain.spaces.obs_size} and {domain.spaces.action_size}. "
            "Adapt a prior that was trained on logs of this domain."
        )
    given = OfflineTasks.load(log) if log is not None else None
    if given is not None:
        given.check_spaces(domain.spaces)
    run_folder = RunFolder(folder)
    run_folder.check(config)
    with run_folder.lock():
        run_folder.open(config, command)
        if not (run_folder.risk_model / "manifest.json").is_file():
            save_artefact(run_folder.risk_model, model, config, spaces, {})
        if given is not None and not run_folder.test_log.exists():
            only = replace(given, train=(), test=replace(given.only_log(), role="test"))
            only.save(run_folder.test_log)


def jax_domain(name: str) -> AbstractJaxDomain:
    """A domain that compiles.

    Raises:
        ConfigurationError: unknown.
    """
    found: AbstractDomain = find_domain(name)
    if not isinstance(found, AbstractJaxDomain):
        raise ConfigurationError(f"the domain {name!r} does not compile; expected a JAX domain.")
    return found


def load_or_collect_train(
    domain: AbstractJaxDomain, config: RunConfig, data_dir: Path, progress: Progress
) -> OfflineTasks:
    """The training logs of a data seed, from `data_dir` or collected into it.

    Raises:
        DatasetError: the folder there holds logs of other sizes.
    """
    folder = Path(data_dir) / f"{domain.name}-{config.preset}-{config.data_seed}"
    data = config.data
    if not folder.exists():
        progress.start("collect", data.train_tasks, 0)
        logs = collect_train(domain, data, config.data_seed, lambda i, _: progress.update(i))
        progress.finish()
        try:
            logs.save(folder)
        except OutputFolderError:
            if not folder.exists():
                raise
            # Another process was quicker; its logs are the same, since the seed decides them.
    loaded = OfflineTasks.load(folder)
    loaded.check_spaces(domain.spaces)
    sizes = {log.transitions for log in loaded.train}
    if len(loaded.train) != data.train_tasks or sizes != {data.train_transitions}:
        raise DatasetError(
            f"{folder} holds {len(loaded.train)} logs of {sorted(sizes)} transitions; this run "
            f"wants {data.train_tasks} of {data.train_transitions}. Choose another --data-dir."
        )
    return loaded


class _Pipeline:
    """The phases in their order, each skipped where its artefact is there already."""

    def __init__(
        self,
        configs: list[RunConfig],
        runs: list[RunFolder],
        domain: AbstractJaxDomain,
        options: RunOptions,
    ) -> None:
        self.configs, self.runs, self.domain, self.options = configs, runs, domain, options
        self.config, self.axis = configs[0], SeedAxis(len(configs))
        self.wall: dict[str, float] = {}
        self.sinks = [options.make_sink(run_folder.path) for run_folder in runs]
        self.agent = build_agent(self.config, domain.spaces)

    def run(self) -> None:
        """All phases."""
        test_logs = self.timed("collect", self.test_logs)
        if self.agent.guard.uses_risk:
            models = self.risk_models(test_logs)
        else:
            models = [prior_template(one, self.domain.spaces).model for one in self.configs]
        self.deploy(models, test_logs)
        for sink in self.sinks:
            sink.close()

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
                collected = collect_test(self.domain, config.data, config.seed)
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
        train = self.timed(
            "collect",
            lambda: load_or_collect_train(
                self.domain, self.config, self.options.data_dir, self.options.progress
            ),
        )
        loop = self.loop("meta_train")
        priors = meta_train(self.configs, train, test_logs, loop)
        self._save("meta_train", priors, loop, [one.prior for one in self.runs])
        return priors

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

    def deploy(self, models: list[RiskModel], test_logs: list[OfflineTasks]) -> None:
        """Phase 3."""
        recorders = [
            _Recorder(self, seed, model, log)
            for seed, (model, log) in enumerate(zip(models, test_logs, strict=True))
        ]
        states = _common_start(recorders, self.config.deploy.episodes)
        done = min(int(state.episode) for state in states)
        self.options.progress.start("deploy", self.config.deploy.episodes, done)
        final = deploy(
            self.axis,
            self.agent,
            self.domain,
            [one.task for one in recorders],
            [one.roots for one in recorders],
            states,
            lambda seed, chunk: recorders[seed].record(chunk),
        )
        self.options.progress.finish()
        for recorder, state in zip(recorders, final, strict=True):
            recorder.finish(state)


def _common_start(recorders: "list[_Recorder]", episodes: int) -> list[DeployState]:
    """Restores every seed; unfinished seeds go back to the last step they all have saved."""
    states = [one.restore(None) for one in recorders]
    unfinished = [int(state.step) for state in states if int(state.episode) < episodes]
    common = min(unfinished, default=0)
    for seed, state in enumerate(states):
        if int(state.episode) < episodes and int(state.step) > common:
            states[seed] = recorders[seed].restore(common)
    return states


class _Recorder:
    """Writes what one seed does in Phase 3, and restores it."""

    def __init__(
        self, pipeline: _Pipeline, seed: int, model: RiskModel, test_log: OfflineTasks
    ) -> None:
        self.pipeline, self.folder = pipeline, pipeline.runs[seed]
        self.config, self.sink = pipeline.configs[seed], pipeline.sinks[seed]
        self.agent, self.domain = pipeline.agent, pipeline.domain
        self.task = sample_test_task(self.domain, self.config.seed)
        self.roots = deploy_roots(phase_key(self.config.seed, "deploy"))
        self.start = initial_state(
            self.agent,
            self.domain,
            self.task,
            model,
            test_log if self.agent.guard.uses_risk else None,
            self.roots,
            task_learner_key(self.config),
        )
        self.saver = Checkpointer(self.folder.checkpoints, "deploy")
        self.file = ReplayFile(self.folder.replay / "rows.f32", self.agent.layout.width)
        self.cumulative, self.wall_before, self.began = 0, 0.0, time.perf_counter()

    def restore(self, at: int | None) -> DeployState:
        """The state of the last checkpoint (or of step `at`), files cut back to match it."""
        template = _without_rows(self.start)
        found = self.saver.restore(template, at=at) if at != 0 else None
        notes = found.notes if found else {}
        self.file.truncate(int(notes.get("replay_rows", 0)))
        self.folder.metrics.truncate(int(notes.get("metrics_bytes", 0)))
        self.folder.learning.truncate(int(notes.get("learning_bytes", 0)))
        self.cumulative = int(notes.get("cumulative_violations", 0))
        self.wall_before, self.began = float(notes.get("wall_s", 0.0)), time.perf_counter()
        if found is None:
            self._describe_replay()
            return self.start
        rows = self.file.read()
        replay = extend(self.start.replay, jnp.asarray(rows)) if len(rows) else self.start.replay
        return _with_rows(found.state, replay.rows)

    @property
    def wall(self) -> float:
        """Seconds of Phase 3 so far, interrupted processes included."""
        return self.wall_before + time.perf_counter() - self.began

    def record(self, chunk: Chunk) -> None:
        """Replay rows, then metrics, then the checkpoint that counts them."""
        state = chunk.state
        replay = state.replay
        first, last = chunk.first_step, int(state.step)
        ring = replay.capacity - replay.protected
        positions = replay.protected + np.arange(first, last) % ring
        self.file.append(np.asarray(replay.rows[jnp.asarray(positions)]))
        lines = []
        done = int(state.episode) - len(chunk.episodes)
        for number, episode in enumerate(chunk.episodes, start=done):
            self.cumulative += int(episode["violation"])
            lines.append(self._line(number, episode))
        metrics_bytes = self.folder.metrics.append(lines)
        learning = {"env_steps": last, **chunk.metrics}
        learning_bytes = self.folder.learning.append([learning])
        self.saver.save(
            last,
            _without_rows(state),
            {
                "replay_rows": last,
                "metrics_bytes": metrics_bytes,
                "learning_bytes": learning_bytes,
                "cumulative_violations": self.cumulative,
                "wall_s": self.wall,
            },
        )
        self.sink.write("deploy", last, chunk.metrics | {"violations": float(self.cumulative)})
        self.pipeline.options.progress.update(
            int(state.episode), ("violations", float(self.cumulative))
        )

    def _line(self, number: int, episode: dict[str, Any]) -> dict[str, Any]:
        return {
            "episode": number,
            "env_steps": episode["env_steps"],
            "return": episode["episode_return"],
            "length": episode["length"],
            "violation": int(episode["violation"]),
            "success": int(episode["success"]) if self.domain.has_success else None,
            "interventions": episode["interventions"],
            "violation_under_recovery": int(episode["violation_under_recovery"]),
            "cumulative_violations": self.cumulative,
            "risk_bias": episode["risk_bias"],
            "wall_s": round(self.wall, 3),
        }

    def _describe_replay(self) -> None:
        layout = [[name, width] for name, width in self.agent.layout.fields]
        write_json(self.folder.replay / "layout.json", {"dtype": "float32", "fields": layout})

    def finish(self, state: DeployState) -> None:
        """Saves the deployed risk model and the summary, then drops the checkpoints."""
        if self.agent.guard.uses_risk:
            risk = state.agent.risk
            model = RiskModel(risk.critic, risk.recovery.policy, state.agent.normaliser)
            spaces = self.domain.spaces
            save_artefact(self.folder.deployed_model, model, self.config, spaces, {})
        self.pipeline.wall["deploy"] = self.wall
        summary = summarise(self.config, self.folder, self.domain, self.pipeline.wall)
        write_json(self.folder.summary_file, summary)
        self.saver.remove()


def _without_rows(state: DeployState) -> DeployState:
    return _with_rows(state, state.replay.rows[:0])


def _with_rows(state: DeployState, rows: jax.Array) -> DeployState:
    return eqx.tree_at(lambda one: one.replay.rows, state, rows)


def summarise(
    config: RunConfig, folder: RunFolder, domain: AbstractDomain, wall: dict[str, float]
) -> dict[str, Any]:
    """The fields of `summary.json`, from the lines of `metrics.jsonl`."""
    lines = folder.metrics.read()
    returns = [line["return"] for line in lines]
    phases = ("collect", "meta_train", "adapt", "deploy")

    def total(name: str) -> int:
        return sum(line[name] for line in lines)

    return {
        "arm": config.arm,
        "domain": config.domain,
        "preset": config.preset,
        "seed": config.seed,
        "episodes": len(lines),
        "env_steps": lines[-1]["env_steps"],
        "violations": total("violation"),
        "violations_under_recovery": total("violation_under_recovery"),
        "successes": total("success") if domain.has_success else None,
        "return_mean": float(np.mean(returns)),
        "return_last_100": float(np.mean(returns[-100:])),
        "interventions": total("interventions"),
        "wall_s": {phase: round(wall.get(phase, 0.0), 3) for phase in phases},
    }


def warn_of_few_violations(data: OfflineTasks) -> None:
    """A test log without accidents cannot teach what an accident is."""
    log = data.only_log()
    if log.violations < FEW_VIOLATIONS:
        warnings.warn(
            f"the test log holds {log.violations} violations in {log.transitions} transitions; "
            f"with fewer than {FEW_VIOLATIONS} the adapted risk is hardly informed by this robot. "
            "Collect a longer log (--data.test-transitions).",
            FewViolationsWarning,
            stacklevel=2,
        )
