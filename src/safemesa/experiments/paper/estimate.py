"""How long a grid takes on this machine: each of its programs is measured, the rest is arithmetic.

The measurement is done in a process of its own, which frees the accelerator for the runs when it
ends. Imports JAX inside functions (see `Worker`).
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.grid.grid_folder import GridRun
from safemesa.phases.config import RunConfig
from safemesa.phases.progress import Progress
from safemesa.phases.workers import Tell, Worker

LOG_ROWS = 1_000
"""Logs are this short where only speed is asked for; sizes of batches and networks decide it."""

REPORT_STEPS = 20
"""Steps between looks at the clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A phase of some runs that do it side by side.

    Attributes:
        domain: Where.
        arms: Who.
        phase: `collect`, `meta_train`, `adapt` or `deploy`.
        runs: How many are side by side.
        steps: Of each run, at most.
        rate: Steps per second of each, while all are at work.
    """

    domain: str
    arms: str
    phase: str
    runs: int
    steps: int
    rate: float

    @property
    def seconds(self) -> float:
        """At most."""
        return self.steps / self.rate

    def __str__(self) -> str:
        """A line for a person."""
        return (
            f"{self.domain:<20} {self.phase:<10} {self.steps:>9} steps at {self.rate:>8.1f}/s, "
            f"{self.runs:>2} runs side by side: {duration(self.seconds):>8}  {self.arms}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measurement:
    """What is measured: the runs, the phase, and how many steps it has."""

    configs: tuple[RunConfig, ...]
    phase: str
    steps: int

    @property
    def arms(self) -> str:
        return ", ".join(dict.fromkeys(one.arm for one in self.configs))


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The sum over a grid.

    Attributes:
        backend: The kind of device on which JAX computes.
        measured: Every phase of every group of runs.
        unknown: Arms of which a part was not measured.
    """

    backend: str
    measured: tuple[Measured, ...]
    unknown: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """At most, but for compilation and for what is `unknown`."""
        return sum(one.seconds for one in self.measured)

    def __str__(self) -> str:
        """Lines for a person."""
        lines = [str(one) for one in self.measured]
        lines.append(f"At most {duration(self.seconds)} on {self.backend}, beside compilation.")
        if self.unknown:
            lines.append(f"Not in it: the pretraining of {', '.join(self.unknown)}.")
        return "\n".join(lines)


def estimate(
    groups: Sequence[Sequence[GridRun]],
    data_dir: Path,
    simulators: int,
    seconds: float,
    shown: Callable[[Measured], None] = lambda one: None,
) -> Estimate:
    """Measures for `seconds` beside compilation, as if nothing of these runs was begun.

    Raises:
        SafemesaError: what a run would raise, too.
    """
    configs = [tuple(run.config for run in group) for group in groups]
    arguments = (configs, data_dir.absolute(), simulators, seconds)
    worker = Worker(_measure, arguments, has_children=True)
    measured: list[Measured] = []
    try:
        while not isinstance(message := worker.receive(), str):
            measured.append(message)
            shown(message)
    finally:
        worker.stop()
    carl = dict.fromkeys(one.arm for group in configs for one in group if one.agent == "carl")
    return Estimate(backend=message, measured=tuple(measured), unknown=tuple(carl))


def duration(seconds: float) -> str:
    """`5400` as `1.5 h`."""
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def _measure(
    tell: Tell,
    groups: Sequence[tuple[RunConfig, ...]],
    data_dir: Path,
    simulators: int,
    seconds: float,
) -> None:
    """Tells a `Measured` per phase and group, then the name of the device."""
    from safemesa.phases.compilation import use_compilation_cache

    use_compilation_cache()
    # Logs are short here; the runs warn of their own.
    warnings.simplefilter("ignore")
    import jax

    work = _work(groups, data_dir)
    # Phases that are the same program on as many runs are measured once.
    rates: dict[Any, float] = {}
    share = seconds / max(1, len({_program(one) for one in work}))
    for one in work:
        program = _program(one)
        if program not in rates:
            rates[program] = _rate(one, simulators, share)
        tell(
            Measured(
                domain=one.configs[0].domain,
                arms=one.arms,
                phase=one.phase,
                runs=len(one.configs),
                steps=one.steps,
                rate=rates[program],
            )
        )
    tell(jax.default_backend())


def _program(one: _Measurement) -> Any:
    return one.phase, tuple(replace(config, seed=0) for config in one.configs)


def _work(groups: Sequence[tuple[RunConfig, ...]], data_dir: Path) -> list[_Measurement]:
    """What the groups do, phase by phase; training logs that are there are not collected."""
    from safemesa.domains.registry import domain as find_domain
    from safemesa.guards.registry import asks_a_critic
    from safemesa.phases.adapt import adaptation_steps, uses_training_logs
    from safemesa.phases.collection.logs import train_folder, train_policy
    from safemesa.phases.collection.sac import collection_configs

    work, logs = list[_Measurement](), set[Path]()
    for group in groups:
        domain = find_domain(group[0].domain)
        for arm in dict.fromkeys(config.arm for config in group):
            seeds = tuple(config for config in group if config.arm == arm)
            first = seeds[0]
            if first.agent == "carl" or not asks_a_critic(first.guard):
                continue
            if uses_training_logs(first):
                folder = train_folder(domain, first, data_dir)
                if not folder.exists() and folder not in logs:
                    logs.add(folder)
                    if train_policy(domain, first) == "sac":
                        collection = tuple(collection_configs(first))
                        steps = first.data.train_transitions
                        work.append(_Measurement(configs=collection, phase="collect", steps=steps))
                work.append(
                    _Measurement(configs=seeds, phase="meta_train", steps=first.meta.iterations)
                )
            steps = adaptation_steps(first)
            if steps:
                work.append(_Measurement(configs=seeds, phase="adapt", steps=steps))
        steps = group[0].deploy.maximum_steps(domain.spaces.horizon)
        work.append(_Measurement(configs=tuple(group), phase="deploy", steps=steps))
    return work


class _EnoughError(Exception):
    """The clock has seen enough."""


@dataclass(kw_only=True)
class _Clock(Progress):
    """Steps per second from the first report on, before which everything is compiled."""

    seconds: float
    began: float = field(default_factory=time.perf_counter)
    reports: list[tuple[float, int]] = field(default_factory=list)

    def start(self, phase: str, total: int, done: int) -> None:
        """Nothing: what comes first is compilation."""

    def update(self, done: int, note: tuple[str, float] | None = None) -> None:
        """Looks at the clock."""
        self.reports.append((time.perf_counter(), done))
        if self.reports[-1][0] - self.reports[0][0] > self.seconds:
            raise _EnoughError

    def finish(self) -> None:
        """Nothing."""

    @property
    def rate(self) -> float:
        """Of a phase that ended before its second report: compilation included."""
        (first, before), (last, after) = self.reports[0], self.reports[-1]
        if after == before:
            return after / (last - self.began)
        return (after - before) / (last - first)


def _rate(work: _Measurement, simulators: int, seconds: float) -> float:
    """Steps per second of one phase."""
    clock = _Clock(seconds=seconds)
    try:
        if work.phase in ("deploy", "collect"):
            _deploy(work, simulators if work.phase == "deploy" else 0, clock)
        else:
            _learn_risk(work, clock)
    except _EnoughError:
        pass
    if not clock.reports:
        raise ConfigurationError(
            f"{work.phase} of {work.arms} on {work.configs[0].domain} ends before anything is "
            "learned, so that its speed cannot be measured. Give --probe-seconds 0."
        )
    return clock.rate


def _short_logs(config: RunConfig) -> RunConfig:
    data = config.data
    return replace(
        config,
        data=replace(
            data,
            train_transitions=min(data.train_transitions, LOG_ROWS),
            test_transitions=min(data.test_transitions, LOG_ROWS),
            train_policy="random",
        ),
    )


def _learn_risk(work: _Measurement, clock: _Clock) -> None:
    """Phase 1 or 2 on logs of random actions; nothing is saved."""
    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.adapt import adapt, scratch_prior
    from safemesa.phases.collection.logs import collect_test_log, collect_train_logs
    from safemesa.phases.loop import ChunkLoop
    from safemesa.phases.meta_train import meta_train

    configs = [_short_logs(config) for config in work.configs]
    domain = find_domain(configs[0].domain)
    loop = ChunkLoop(work.phase, progress=clock, chunk=REPORT_STEPS)
    test_logs = [collect_test_log(domain, configs[0])] * len(configs)
    if work.phase == "adapt":
        priors = [
            scratch_prior(config, log) for config, log in zip(configs, test_logs, strict=True)
        ]
        adapt(configs, priors, test_logs, loop)
        return
    with tempfile.TemporaryDirectory() as working:
        train = collect_train_logs(domain, configs[0], Path(working))
    meta_train(configs, train, test_logs, loop)


def _deploy(work: _Measurement, simulators: int, clock: _Clock) -> None:
    """Phase 3, or a collection by SAC, with fresh networks; nothing is saved."""
    import jax
    import numpy as np

    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.agent_kinds import make_agent
    from safemesa.phases.carl.carl_agent import CARLAgent, WorldModel
    from safemesa.phases.collection.logs import collect_test_log
    from safemesa.phases.deployment.deploy_state import Chunk
    from safemesa.phases.deployment.deployment import make_deployment
    from safemesa.phases.storage.artefacts import prior_template

    first = _short_logs(work.configs[0])
    configs = [
        replace(config, deploy=replace(config.deploy, chunk_steps=REPORT_STEPS))
        for config in work.configs
    ]
    domain = find_domain(first.domain)
    agent = make_agent(configs[0], domain.spaces)
    log = collect_test_log(domain, first)
    deployment = make_deployment(domain, agent, configs, simulators)
    if isinstance(agent, CARLAgent):
        source = np.zeros((4, agent.layout.width), np.float32)
        model: Any = WorldModel(agent.carl.init(key=jax.random.key(0)), source, len(source))
    else:
        model = prior_template(first, domain.spaces).model

    def report(run: int, chunk: Chunk) -> None:
        del run
        # Until then nothing is learned, and the program that learns is not compiled.
        if int(chunk.state.step) > agent.learning_starts:
            clock.update(int(chunk.state.step))

    try:
        states = [deployment.start(run, model, log) for run in range(len(configs))]
        deployment.advance(states, report)
    finally:
        deployment.close()
