"""What presets say to guards and meta-learners, whichever an arm has: each takes what it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from safemesa.guards.registry import guards
from safemesa.learners.meta.registry import meta_learners
from safemesa.phases.config import RunConfig, for_plugin


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A domain's settings at one size, before an arm says who learns and who guards.

    Attributes:
        config: All other settings.
        guard: By the names of guards' settings, such as `risk_limit`.
        meta: By the names of meta-learners' settings, such as `iterations`.
    """

    config: RunConfig
    guard: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def with_plugins(self, meta_learner: str, guard: str) -> RunConfig:
        """The configuration of a meta-learner behind a guard.

        Raises:
            ConfigurationError: unknown.
        """
        return replace(
            self.config,
            meta_learner=meta_learner,
            meta=for_plugin(meta_learners.find(meta_learner).settings, self.meta),
            guard=guard,
            guard_settings=for_plugin(guards.find(guard).settings, self.guard),
        )
