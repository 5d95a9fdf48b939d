"""Phase 3 on any domain: compiled chunks where the domain compiles, a host loop elsewhere."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import PyTree
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.domains.host import AbstractHostDomain
from safemesa.phases.build import task_learner_key
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import AbstractAgent
from safemesa.phases.deployment.compiled import deploy
from safemesa.phases.deployment.deploy_state import (
    DeployState,
    OnChunk,
    Roots,
    deploy_roots,
    initial_state,
    reset_key,
)
from safemesa.phases.deployment.host import (
    LocalSimulators,
    Simulators,
    deploy_host,
    pending_act,
    run_environment,
)
from safemesa.phases.deployment.simulator_processes import SimulatorProcesses
from safemesa.phases.deployment.timeline import Timeline, timeline
from safemesa.phases.deployment.upkeep import Upkeep
from safemesa.phases.seeds import SeedAxis


@dataclass(kw_only=True)
class AbstractDeployment(abc.ABC):
    """Phase 3 of runs that do the same in it (`deployed_together`), one timeline of tasks each."""

    agent: AbstractAgent
    configs: Sequence[RunConfig]
    timelines: Sequence[Timeline]
    upkeeps: Sequence[Upkeep] = ()
    """Of the monitors of the runs; none where nothing is monitored."""
    in_step: ClassVar[bool]
    """Whether all runs must start at the same step."""

    def roots(self, index: int) -> Roots:
        """Root keys of one run."""
        return deploy_roots(self.configs[index].seed)

    @abc.abstractmethod
    def start(self, index: int, model: Any, test_log: OfflineTasks | None) -> DeployState:
        """The state before the first step of one run; `model` is what the agent starts from."""

    @abc.abstractmethod
    def advance(self, states: Sequence[DeployState], on_chunk: OnChunk) -> list[DeployState]:
        """All runs, from wherever `states` are to their ends."""

    @abc.abstractmethod
    def close(self) -> None:
        """Frees what the environments hold."""

    def _initial(
        self,
        index: int,
        model: Any,
        test_log: OfflineTasks | None,
        env: PyTree,
        obs: jax.Array,
    ) -> DeployState:
        key = task_learner_key(self.configs[index])
        state = initial_state(self.agent, model, test_log, env, obs, key)
        return replace(state, monitor=self.upkeeps[index].begun) if self.upkeeps else state


@final
@dataclass(kw_only=True)
class CompiledDeployment(AbstractDeployment):
    """On a pure-JAX domain."""

    domain: AbstractJaxDomain
    in_step: ClassVar[bool] = True

    def start(self, index: int, model: Any, test_log: OfflineTasks | None) -> DeployState:
        env, obs = self.domain.reset(
            self.timelines[index].tasks[0], key=reset_key(self.roots(index), 0)
        )
        return self._initial(index, model, test_log, env, obs)

    def advance(self, states: Sequence[DeployState], on_chunk: OnChunk) -> list[DeployState]:
        roots = [self.roots(index) for index in range(len(states))]
        axis = SeedAxis(len(states))
        tasks = [one.arrays for one in self.timelines]
        given = (tasks, roots, states, on_chunk, self.upkeeps)
        return deploy(axis, self.agent, self.domain, *given)

    def close(self) -> None:
        """Nothing is held."""


@final
@dataclass(kw_only=True)
class HostDeployment(AbstractDeployment):
    """On Gymnasium environments; `terminate_on_violation` is false for data collection."""

    domain: AbstractHostDomain
    terminate_on_violation: bool = True
    processes: int = 0
    """That step the environments, each on the timeline of its configuration; 0: this one."""
    in_step: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Makes the environments."""
        self.simulators: Simulators
        if self.processes:
            self.simulators = SimulatorProcesses(self.configs, self.processes)
            return
        runs = zip(self.configs, self.timelines, strict=True)
        self.simulators = LocalSimulators(
            [
                run_environment(self.domain, config, one, self.terminate_on_violation)
                for config, one in runs
            ]
        )

    def start(self, index: int, model: Any, test_log: OfflineTasks | None) -> DeployState:
        obs = jnp.asarray(self.simulators.reset(index, 0, 0))
        state = self._initial(index, model, test_log, (), obs)
        return pending_act(self.agent, self.roots(index), state)

    def advance(self, states: Sequence[DeployState], on_chunk: OnChunk) -> list[DeployState]:
        roots = [self.roots(index) for index in range(len(states))]
        axis = SeedAxis(len(states))
        given = (self.simulators, roots, states, on_chunk, self.upkeeps)
        return deploy_host(axis, self.agent, *given)

    def close(self) -> None:
        self.simulators.close()


def make_deployment(
    domain: AbstractDomain,
    agent: AbstractAgent,
    configs: Sequence[RunConfig],
    processes: int = 0,
    upkeeps: Sequence[Upkeep] = (),
) -> AbstractDeployment:
    """Phase 3 on the test tasks of the runs, with a monitor where there are `upkeeps`.

    `processes` step simulators, 0: this one does.

    Raises:
        ConfigurationError: the domain is of neither kind, or its simulator is not installed.
    """
    timelines = [timeline(domain, config) for config in configs]
    given: dict[str, Any] = {
        "agent": agent, "configs": configs, "timelines": timelines, "upkeeps": upkeeps
    }  # fmt: skip
    if isinstance(domain, AbstractJaxDomain):
        return CompiledDeployment(**given, domain=domain)
    if isinstance(domain, AbstractHostDomain):
        return HostDeployment(**given, domain=domain, processes=min(processes, len(configs)))
    raise ConfigurationError(
        f"{domain.name} is neither a compiled nor a host domain; subclass AbstractJaxDomain or "
        "AbstractHostDomain."
    )
