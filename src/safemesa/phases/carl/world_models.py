"""Phases 1 and 2 of CARL's arms, each skipped where its artefact is there already."""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.base import AbstractDomain
from safemesa.learners.carl.learner import ModelState
from safemesa.phases.carl.carl_agent import CARLAgent, WorldModel
from safemesa.phases.carl.fit import build_carl, fit_to_logs, fit_to_test_logs, fresh_model
from safemesa.phases.carl.sources import pretrain_in_tasks
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import pack_logs
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.storage.artefacts import load_world_model, read_manifest, save_artefact
from safemesa.phases.storage.run_folder import RunFolder


def build_carl_agent(config: RunConfig, spaces: Spaces) -> CARLAgent:
    """CARL's agent for Phase 3.

    Raises:
        ConfigurationError: the configuration gives CARL a meta-learner or a guard.
    """
    given = (config.meta_learner, config.guard)
    if given != ("scratch", "none"):
        raise ConfigurationError(
            f"CARL plans with a model of its own and has no safety critic, so it takes neither a "
            f"meta-learner nor a guard; given: meta-learner {given[0]!r}, guard {given[1]!r}. Run "
            "the arm carl, carl_offline or carl_offline_dtest, or give the guard a meta-learner, "
            f"such as maml+{given[1] if given[1] != 'none' else 'recovery_rl'}."
        )
    return CARLAgent(
        config=config.deploy,
        spaces=spaces,
        carl=build_carl(config, spaces),
        risk_discount=config.risk.gamma_risk,
    )


@dataclass(kw_only=True)
class WorldModels:
    """Makes what CARL is deployed with, for runs that differ in their seeds alone.

    `wall` is given the seconds of each phase.
    """

    configs: Sequence[RunConfig]
    runs: Sequence[RunFolder]
    domain: AbstractDomain
    load_train: Callable[[], OfflineTasks]
    make_loop: Callable[[str], ChunkLoop]
    wall: MutableMapping[str, float]

    def make(self, test_logs: Sequence[OfflineTasks]) -> list[WorldModel]:
        """Phase 1, and Phase 2 for an arm that may see the test log."""
        models, sources = self._pretrained()
        if self.configs[0].carl.use_test_log:
            models = self._adapted(models, sources, test_logs)
        spaces = self.domain.spaces
        rows = [pack_logs(source.train, spaces) for source in sources]
        gap = max(map(len, rows))
        return [WorldModel(*pair, gap) for pair in zip(models, rows, strict=True)]

    def _pretrained(self) -> tuple[list[ModelState], list[OfflineTasks]]:
        """Models, and the logs of the training tasks that each of them saw."""
        places = [run.path / "artefacts" / "pretrained_world_model" for run in self.runs]
        driven = [run.path / "artefacts" / "source_log" for run in self.runs]
        if self.configs[0].carl.source == "logs":
            train = self.load_train()
            models = self._kept("meta_train", places)
            if models is None:
                loop = self.make_loop("meta_train")
                models = fit_to_logs(self.configs, train, loop)
                self._keep("meta_train", models, loop, places)
            return models, [train] * len(models)
        models = self._kept("meta_train", places)
        if models is None:
            loop = self.make_loop("meta_train")
            pairs = pretrain_in_tasks(self.configs, self.domain, loop)
            models = [model for model, _ in pairs]
            for place, (_, log) in zip(driven, pairs, strict=True):
                if not place.exists():
                    log.save(place)
            self._keep("meta_train", models, loop, places)
        return models, [OfflineTasks.load(place) for place in driven]

    def _adapted(
        self,
        models: list[ModelState],
        sources: Sequence[OfflineTasks],
        test_logs: Sequence[OfflineTasks],
    ) -> list[ModelState]:
        """Models that have also seen the test log."""
        places = [run.path / "artefacts" / "world_model" for run in self.runs]
        kept = self._kept("adapt", places)
        if kept is not None:
            return kept
        loop = self.make_loop("adapt")
        adapted = fit_to_test_logs(self.configs, models, sources, test_logs, loop)
        self._keep("adapt", adapted, loop, places)
        return adapted

    def _kept(self, phase: str, places: Sequence[Path]) -> list[ModelState] | None:
        """What an earlier process made, if it is there for every run."""
        if not all((place / "manifest.json").is_file() for place in places):
            return None
        self.wall[phase] = read_manifest(places[0], "world_model")[2].get("wall_s", 0.0)
        spaces = self.domain.spaces
        return [
            load_world_model(place, fresh_model(config, spaces))
            for place, config in zip(places, self.configs, strict=True)
        ]

    def _keep(
        self, phase: str, models: Sequence[ModelState], loop: ChunkLoop, places: Sequence[Path]
    ) -> None:
        self.wall[phase] = loop.wall_seconds
        notes = {"wall_s": loop.wall_seconds}
        for model, config, place in zip(models, self.configs, places, strict=True):
            save_artefact(place, model, config, self.domain.spaces, notes)
        for saver in loop.checkpointers:
            saver.remove()
