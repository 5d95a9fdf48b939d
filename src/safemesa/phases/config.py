"""The configuration of a run: one frozen record that the CLI, the files and the code share.

Free of JAX, so that `--help` is quick. Defaults are the paper's sizes for Navigation 1 with the
settings that measurement decided (`docs/fidelity.md`).
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.core.registry import PluginRegistry
from safemesa.guards.registry import guards
from safemesa.learners.carl.config import CARLConfig
from safemesa.learners.config import (
    RehearsalConfig,
    RiskConfig,
    SACConfig,
    SamplingConfig,
    TargetConfig,
    require_at_least,
    require_rate,
    require_share,
)
from safemesa.learners.meta.registry import meta_learners
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.learners.recovery.registry import recoveries
from safemesa.learners.recovery.settings import NetworkSettings, RecoverySettings
from safemesa.phases.change_text import planned_changes
from safemesa.phases.migration import migrated

RESIDENT_GIB = 2.0
"""Training logs of up to this size are kept on the device; no part of a configuration, because it
changes no result."""

SEEDS = 2**32
"""Seeds are below: keys of JAX are made of 32 bits, so 2**32 would be 0 again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The logs that are collected."""

    train_tasks: int = 24
    """How many training robots there are."""
    train_transitions: int = 10_000
    """Transitions per training task."""
    test_transitions: int = 100
    """Transitions of the new robot's log."""
    train_policy: str = "random"
    """Who drives the training robots: `random` (the domain's random policies), `sac` (an
    unconstrained SAC, whose whole replay up to `train_transitions` is the log; for simulators), or
    `auto` (`sac` on a simulator, `random` on a compiled domain)."""

    def __post_init__(self) -> None:
        """Refuses unknown policies and empty logs."""
        if self.train_policy not in ("random", "sac", "auto"):
            raise ConfigurationError(
                f"data.train-policy is {self.train_policy!r}; expected 'random', 'sac' or 'auto'."
            )
        require_at_least(self, 1, "train_tasks", "train_transitions", "test_transitions")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptConfig:
    """Phase 2."""

    steps: int = 100
    """M: gradient steps on the test log, the meta-learner's own inner steps among them."""
    scratch_steps: int = 2_000
    """Steps of a meta-learner without training logs (RRL in Table 2)."""
    batch: int = 64
    """Rows of a batch."""
    learning_rate: float = 3e-4
    """Adam rate of critic and recovery policy."""
    target_rate: float = 1.0
    """Polyak rate of the target critic; 1 bootstraps from the online critic."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 0, "steps", "scratch_steps")
        require_at_least(self, 1, "batch")
        require_rate(self, "learning_rate")
        require_share(self, "target_rate")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployConfig:
    """Phase 3."""

    episodes: int = 300
    """Episodes after which the phase ends."""
    steps: int | None = None
    """Environment steps after which the phase ends even within an episode; `None`: no such end."""
    learning_rate: float = 3e-4
    """Adam rate of critic and recovery policy."""
    target_rate: float = 2e-4
    """Polyak rate of the target critic; 1 bootstraps from the online critic."""
    keep_test_log: bool = True
    """Keep the test log in the safety critic's replay."""
    learn_risk: bool = True
    """Go on training critic and recovery policy; without it they stay as Phase 2 left them."""
    chunk_steps: int = 500
    """Environment steps between checkpoints and progress reports."""
    change: tuple[str, ...] = ()
    """The robot changes in the run: STEP:PARAMETERS, such as '2000:{"length": 0.5}'; also
    2000..3000 (drawn per seed), 2000+500 (gradually), and `drawn` as parameters."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 1, "episodes", "chunk_steps")
        planned_changes(self.change)
        if self.steps is not None:
            require_at_least(self, 1, "steps")
        require_rate(self, "learning_rate")
        require_share(self, "target_rate")

    def maximum_steps(self, horizon: int) -> int:
        """The most environment steps that the phase can take."""
        longest = self.episodes * horizon
        return longest if self.steps is None else min(longest, self.steps)

    def finished(self, step: Any, episode: Any) -> Any:
        """Whether the phase ends after so many steps and episodes; for numbers and for arrays."""
        enough = episode >= self.episodes
        return enough if self.steps is None else enough | (step >= self.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One run: an arm on a domain with a seed. Two runs are the same when these are equal."""

    arm: str = "mesa"
    domain: str = "navigation1"
    preset: str = "paper"
    seed: int = 0
    """Decides the test task, the test log, the networks and all noise; paired across arms."""
    data_seed: int = 0
    """Decides the training tasks and logs, which all arms and seeds share."""
    agent: str = "sac"
    """Who learns the task in Phase 3: `sac`, behind the guard, or `carl`, which plans and has
    neither meta-learner nor guard."""
    meta_learner: str = "maml"
    guard: str = "recovery_rl"
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    risk: RiskConfig = field(default_factory=RiskConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    recovery: RecoverySettings = field(default_factory=NetworkSettings)
    """Of the type that its `kind` has."""
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    guard_settings: Any = None
    """Of the type that the guard has; None stands for its defaults."""
    meta: Any = None
    """Of the type that the meta-learner has; None stands for its defaults."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    sac: SACConfig = field(default_factory=SACConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    carl: CARLConfig = field(default_factory=CARLConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self) -> None:
        """Refuses seeds that are no random streams of their own, and settings of something else."""
        for name in ("seed", "data_seed"):
            value = getattr(self, name)
            if not 0 <= value < SEEDS:
                raise ConfigurationError(
                    f"{name} is {value}; expected a number from 0 to {SEEDS - 1}."
                )
        for section, (registry, name) in plugins_of(self).items():
            wanted, given = _settings_type(registry, name), getattr(self, section)
            if given is None:
                object.__setattr__(self, section, wanted())
            elif wanted is not UnreadSettings and type(given) is not wanted:
                raise ConfigurationError(
                    f"{section} is a {type(given).__name__}; the {registry.kind} {name!r} reads a "
                    f"{wanted.__name__}. Change both (`safemesa.phases.config.with_names`)."
                )

    @property
    def risk_limit(self) -> float | None:
        """The limit of the guard's settings; None where the data decide it, or none is asked."""
        return getattr(self.guard_settings, "risk_limit", None)


@dataclass(frozen=True, kw_only=True)
class UnreadSettings:
    """Settings of a guard, meta-learner or recovery that is not known here, as they were read."""

    text: str = "{}"
    """As JSON."""
    kind: str = ""


def plugins_of(config: Any) -> "dict[str, tuple[PluginRegistry[Any], str]]":
    """Sections whose type is a plug-in's: the registry, and the plug-in's name.

    `config` has the fields of `RunConfig` that name plug-ins.
    """
    return {
        "guard_settings": (guards, config.guard),
        "meta": (meta_learners, config.meta_learner),
        "recovery": (recoveries, config.recovery.kind),
    }


def _settings_type(registry: "PluginRegistry[Any]", name: str) -> type:
    """Of a plug-in; what cannot be found here may be found where the run is carried out."""
    try:
        return registry.find(name).settings
    except ConfigurationError:
        return UnreadSettings


def fitted(kind: type, /, *sources: Any, **values: Any) -> Any:
    """Settings of a type with those values that it has; later sources and `values` come first."""
    names = {one.name for one in dataclasses.fields(kind)}
    given: dict[str, Any] = {}
    for source in sources:
        if isinstance(source, Mapping):
            given |= {name: value for name, value in source.items() if name in names}
        else:
            shared = names & {one.name for one in dataclasses.fields(source)}
            given |= {name: getattr(source, name) for name in shared}
    return kind(**given | values)


def for_plugin(kind: type, source: Any) -> Any:
    """Settings of a plug-in with the values that others had under the same names.

    What is None by default is decided by the data, and not by what was meant for another plug-in.
    """
    settings = fitted(kind, source)
    open_ones = {one.name: None for one in dataclasses.fields(kind) if one.default is None}
    return dataclasses.replace(settings, **open_ones)


def with_names(
    config: RunConfig,
    *,
    guard: str | None = None,
    meta_learner: str | None = None,
    recovery: str | None = None,
) -> RunConfig:
    """A configuration with another guard, meta-learner or recovery.

    It keeps those of the settings that the new one has, too (`for_plugin`).

    Raises:
        ConfigurationError: unknown.
    """
    changes: dict[str, Any] = {}
    if guard is not None:
        settings = for_plugin(guards.find(guard).settings, config.guard_settings)
        changes |= {"guard": guard, "guard_settings": settings}
    if meta_learner is not None:
        settings = for_plugin(meta_learners.find(meta_learner).settings, config.meta)
        changes |= {"meta_learner": meta_learner, "meta": settings}
    if recovery is not None:
        kind = recoveries.find(recovery).settings
        changes["recovery"] = fitted(kind, config.recovery, kind=recovery)
    return dataclasses.replace(config, **changes)


PHASES: dict[str, tuple[str, ...]] = {
    "collect": ("data_seed", "data", "sac"),
    "meta_train": (
        "seed",
        "data_seed",
        "meta_learner",
        "meta",
        "sampling",
        "risk",
        "target",
        "recovery",
        "rehearsal.rows",
    ),
    "adapt": (
        "seed",
        "meta_learner",
        "meta",
        "guard",
        "guard_settings",
        "sampling",
        "risk",
        "target",
        "recovery",
        "rehearsal.adapt_share",
        "adapt",
    ),
    "deploy": (
        "seed",
        "agent",
        "guard",
        "guard_settings",
        "sampling",
        "risk",
        "target",
        "recovery",
        "rehearsal.rows",
        "rehearsal.worth",
        "sac",
        "deploy",
    ),
}
"""What each phase reads. A guard that adds to the safety loss is read by Phase 1, too."""


def read_by(config: RunConfig, names: Iterable[str]) -> dict[str, Any]:
    """The settings of those names, as plain values."""
    values = config_to_json(config)
    chosen: dict[str, Any] = {}
    for name in names:
        section, _, inner = name.partition(".")
        chosen[name] = values[section][inner] if inner else values[section]
    return chosen


def deployed_together(config: RunConfig) -> str:
    """Equal for runs whose Phase 3 is one program on arrays of equal shapes.

    So it is for seeds of an arm, and for arms that differ in Phases 1 and 2 alone.
    """
    names = [name for name in PHASES["deploy"] if name != "seed"]
    names += ["domain", "carl"] if config.agent == "carl" else ["domain"]
    # Whether a model carries rows of the fleet is a shape, and its meta-learner's.
    names += ["meta_learner"] if config.rehearsal.rows else []
    # The replay begins with the test log, so that its size is a shape.
    return json.dumps([read_by(config, names), config.data.test_transitions], sort_keys=True)


def config_to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    values = dataclasses.asdict(config)
    if isinstance(config, RunConfig):
        for section in plugins_of(config):
            settings = getattr(config, section)
            if isinstance(settings, UnreadSettings):
                values[section] = json.loads(settings.text)
    return values


def config_from_json(kind: type, values: dict[str, Any], place: str = "config") -> Any:
    """The inverse of `config_to_json`; refuses unknown, missing and ill-typed fields.

    A field that the file does not have, because it is older, takes its default; settings that have
    moved since are found (`phases.migration`).
    """
    hints = typing.get_type_hints(kind)
    if kind is RunConfig:
        values = migrated(values)
        hints |= _plugin_hints(values)
    optional = {
        one.name
        for one in dataclasses.fields(kind)
        if one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING
    }
    unknown, missing = set(values) - set(hints), set(hints) - optional - set(values)
    if unknown or missing:
        raise ConfigurationError(
            f"{place} does not fit this version: unknown fields {sorted(unknown)}, missing fields "
            f"{sorted(missing)}. It was written by another version, or edited."
        )
    return kind(
        **{name: _value(hints[name], value, f"{place}.{name}") for name, value in values.items()}
    )


def _plugin_hints(values: dict[str, Any]) -> dict[str, type]:
    """The types of the sections that belong to plug-ins, which the values name."""
    names = {
        "guard_settings": (guards, values.get("guard", "recovery_rl")),
        "meta": (meta_learners, values.get("meta_learner", "maml")),
        "recovery": (recoveries, (values.get("recovery") or {}).get("kind", "network")),
    }
    return {section: _settings_type(*named) for section, named in names.items()}


def _record(kind: type, values: dict[str, Any], place: str) -> Any:
    """A section; of a plug-in that is not known here, its text."""
    if kind is UnreadSettings:
        return UnreadSettings(text=json.dumps(values), kind=str(values.get("kind", "")))
    return config_from_json(kind, values, place)


def _value(hint: Any, value: Any, place: str) -> Any:
    """Checks one field against its annotation."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return _record(hint, value, place)
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            inner = typing.get_args(hint)[0]
            return tuple(_value(inner, item, place) for item in value)
    elif typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(typing.get_args(hint)[0], value, place)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value) is hint:
        return value
    raise ConfigurationError(f"{place} is {value!r}; expected a value of type {hint}.")
