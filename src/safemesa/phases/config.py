"""The configuration of a run: one frozen record that the CLI, the files and the code share.

Free of JAX, so that `--help` is quick. Defaults are the paper's sizes for Navigation 1 with the
settings that measurement decided (`docs/fidelity.md`).
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.learners.carl.config import CARLConfig
from safemesa.learners.config import (
    GuardConfig,
    MetaConfig,
    RecoveryConfig,
    RehearsalConfig,
    RiskConfig,
    SACConfig,
    TakeoverConfig,
    TargetConfig,
    require_at_least,
    require_share,
)

RESIDENT_GIB = 2.0
"""Training logs of up to this size are kept on the device; no part of a configuration, because it
changes no result."""

SEEDS = 2**32
"""Seeds are below: keys of JAX are made of 32 bits, so 2**32 would be 0 again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The logs: sizes, and whose next action the risk is learned for."""

    train_tasks: int = 24
    train_transitions: int = 10_000
    """Transitions per training task."""
    test_transitions: int = 100
    """Transitions of the new robot's log."""
    train_policy: str = "random"
    """Who drives the training robots: `random` (the domain's random policies), or `sac` (an
    unconstrained SAC, whose whole replay up to `train_transitions` is the log)."""
    safe_starts: bool = False
    """Leave out rows that begin in a violation: nothing can be saved there, and where a collection
    goes on after violations they are half of the rows."""
    next_action: str = "uniform"
    """Policy whose risk Phases 1-2 learn: `uniform` over the action space, or `logged` (the next
    action of the log; where an episode ends there, a uniform one)."""

    def __post_init__(self) -> None:
        """Refuses unknown policies and empty logs."""
        if self.train_policy not in ("random", "sac"):
            raise ConfigurationError(
                f"data.train-policy is {self.train_policy!r}; expected 'random' or 'sac'."
            )
        if self.next_action not in ("uniform", "logged"):
            raise ConfigurationError(
                f"data.next-action is {self.next_action!r}; expected 'uniform' or 'logged'."
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
    target_rate: float = 1.0
    """Polyak rate of the target critic; 1 bootstraps from the online critic."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 0, "steps", "scratch_steps")
        require_at_least(self, 1, "batch")
        require_share(self, "target_rate")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployConfig:
    """Phase 3."""

    episodes: int = 300
    steps: int | None = None
    """Environment steps after which the phase ends even within an episode; `None`: no such end."""
    target_rate: float = 2e-4
    """Polyak rate of the target critic; 1 bootstraps from the online critic."""
    keep_test_log: bool = True
    """Keep the test log in the safety critic's replay."""
    learn_risk: bool = True
    """Go on training critic and recovery policy; without it they stay as Phase 2 left them."""
    chunk_steps: int = 500
    """Environment steps between checkpoints and progress reports."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        require_at_least(self, 1, "episodes", "chunk_steps")
        if self.steps is not None:
            require_at_least(self, 1, "steps")
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
    risk: RiskConfig = field(default_factory=RiskConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    guard_settings: GuardConfig = field(default_factory=GuardConfig)
    takeover: TakeoverConfig = field(default_factory=TakeoverConfig)
    meta: MetaConfig = field(default_factory=MetaConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    sac: SACConfig = field(default_factory=SACConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    carl: CARLConfig = field(default_factory=CARLConfig)

    def __post_init__(self) -> None:
        """Refuses seeds that are no random streams of their own."""
        for name in ("seed", "data_seed"):
            value = getattr(self, name)
            if not 0 <= value < SEEDS:
                raise ConfigurationError(
                    f"{name} is {value}; expected a number from 0 to {SEEDS - 1}."
                )


def config_to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


def config_from_json(kind: type, values: dict[str, Any], place: str = "config") -> Any:
    """The inverse of `config_to_json`; refuses unknown, missing and ill-typed fields.

    A field that the file does not have, because it is older, takes its default.
    """
    hints = typing.get_type_hints(kind)
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


def _value(hint: Any, value: Any, place: str) -> Any:
    """Checks one field against its annotation."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return config_from_json(hint, value, place)
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
