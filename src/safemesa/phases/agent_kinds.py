"""Who acts and learns in Phase 3, by name: how each is built, and what it is deployed with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from safemesa.core.registry import Registry
from safemesa.core.spaces import Spaces
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.base import AbstractDomain
from safemesa.guards.registry import asks_a_critic
from safemesa.phases.carl.world_models import WorldModels, build_carl_agent
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import AbstractAgent
from safemesa.phases.deployment.guarded_sac import build_agent
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.storage.artefacts import RiskModel, prior_template
from safemesa.phases.storage.run_folder import RunFolder


@runtime_checkable
class Preparing(Protocol):
    """Runs that differ in their seeds alone, and what Phases 1 and 2 of them may ask for."""

    configs: list[RunConfig]
    runs: list[RunFolder]
    domain: AbstractDomain
    wall: dict[str, float]

    def train_logs(self) -> OfflineTasks:
        """The training logs, collected or read."""
        ...

    def loop(self, phase: str) -> ChunkLoop:
        """A chunk loop that saves into the run folders."""
        ...

    def risk_models(self, test_logs: list[OfflineTasks]) -> list[RiskModel]:
        """Phases 1 and 2 of risk."""
        ...


@dataclass(frozen=True, kw_only=True)
class AgentKind:
    """A way to learn a task.

    Attributes:
        build: The agent of a configuration.
        prepare: Phases 1 and 2: what the agents of some runs start Phase 3 from.
    """

    build: Callable[[RunConfig, Spaces], AbstractAgent]
    prepare: Callable[[Preparing, list[OfflineTasks]], Sequence[Any]]


def _risk_models(runs: Preparing, test_logs: list[OfflineTasks]) -> Sequence[Any]:
    """Risk models, or fresh networks where the guard asks none."""
    if asks_a_critic(runs.configs[0].guard):
        return runs.risk_models(test_logs)
    return [prior_template(config, runs.domain.spaces).model for config in runs.configs]


def _world_models(runs: Preparing, test_logs: list[OfflineTasks]) -> Sequence[Any]:
    """Models of the dynamics."""
    return WorldModels(
        configs=runs.configs,
        runs=runs.runs,
        domain=runs.domain,
        load_train=runs.train_logs,
        make_loop=runs.loop,
        wall=runs.wall,
    ).make(test_logs)


AGENTS: Registry[AgentKind] = Registry("agent")
AGENTS.register("sac")(AgentKind(build=build_agent, prepare=_risk_models))
AGENTS.register("carl")(AgentKind(build=build_carl_agent, prepare=_world_models))


def make_agent(config: RunConfig, spaces: Spaces) -> AbstractAgent:
    """The agent of a configuration, of whatever kind.

    Raises:
        ConfigurationError: an unknown name, or parts that do not fit together.
    """
    return AGENTS[config.agent].build(config, spaces)
