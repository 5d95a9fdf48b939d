"""What verbs share: parsing with tyro, presets as defaults, the compilation cache."""

import contextlib
import io
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

import tyro

from safemesa.core.errors import ConfigurationError
from safemesa.experiments.arms import configure
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
)
from safemesa.phases.compilation import use_compilation_cache
from safemesa.phases.config import AdaptConfig, DataConfig, DeployConfig, RunConfig
from safemesa.phases.presets import DOMAIN_PRESETS
from safemesa.phases.presets.own_method import gamma_of_horizon
from safemesa.phases.workers import cores

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parts of a run's configuration that flags may change; defaults are the preset's."""

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


@dataclass(frozen=True, kw_only=True)
class Common(Settings):
    """Flags that every verb with a configuration has."""

    preset: str = "paper"
    """`paper` (the paper's sizes), `cpu` (smaller, for a laptop) or `quick` (a minute)."""
    seed: int = 0
    """Test task, test log, networks and noise."""
    data_seed: int = 0
    """Training tasks and logs."""


C = TypeVar("C", bound=Common)


def parse(kind: type[T], verb: str, arguments: Sequence[str], default: T | None = None) -> T:
    """Parses flags into a dataclass; `--help` and wrong flags exit as tyro does (0 and 2)."""
    prog = f"safemesa {verb}"
    if default is None:
        return tyro.cli(kind, prog=prog, args=list(arguments))
    return tyro.cli(kind, prog=prog, args=list(arguments), default=default)


def parse_before_presets(kind: type[T], verb: str, arguments: Sequence[str]) -> T:
    """The flags, read for what decides the defaults of others: arm, domain and preset.

    `--help` is left for the second reading, so that it shows these defaults; where the words do not
    decide them, it is given here, and ends the program.
    """
    words = [word for word in arguments if word not in ("-h", "--help")]
    if len(words) < len(arguments):
        unheard = io.StringIO()
        try:
            with contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard):
                return parse(kind, verb, words)
        except SystemExit:
            pass
    return parse(kind, verb, arguments)


def parse_with_preset(
    kind: type[C],
    verb: str,
    arguments: Sequence[str],
    *,
    arm: str = "mesa",
    domain: str = "navigation1",
    change: Callable[[RunConfig], RunConfig] = lambda config: config,
) -> tuple[C, RunConfig]:
    """Parses twice: once to learn arm, domain and preset, once with their defaults.

    `arm` and `domain` are used where `kind` has no such field or it is left out; `change` gives
    other defaults than the preset's.

    Raises:
        ConfigurationError: unknown arm, domain or preset, or an impossible value.
    """
    first = parse_before_presets(kind, verb, arguments)
    named = getattr(first, "arm", None) or arm
    config = configure(named, getattr(first, "domain", domain), first.preset)
    config = change(config)
    second = parse(kind, verb, arguments, replace(first, **settings_of(config)))
    return second, apply(config, second)


def apply(config: RunConfig, flags: Common) -> RunConfig:
    """A configuration with the values of the flags."""
    config = replace(config, seed=flags.seed, data_seed=flags.data_seed, **settings_of(flags))
    if config.risk.horizon is None or config.domain not in DOMAIN_PRESETS:
        return config
    from safemesa.domains.registry import domain

    return with_horizon(config, domain(config.domain).spaces.dt)


def with_horizon(config: RunConfig, dt: float) -> RunConfig:
    """A configuration whose discount fits its horizon in seconds, where it has one.

    Raises:
        ConfigurationError: the horizon is shorter than two steps.
    """
    if config.risk.horizon is None:
        return config
    gamma = gamma_of_horizon(config.risk.horizon, dt)
    return replace(config, risk=replace(config.risk, gamma_risk=gamma))


def settings_of(source: Settings | RunConfig) -> dict[str, Any]:
    """The values that `Settings` names, of flags or of a configuration."""
    return {name: getattr(source, name) for name in Settings.__dataclass_fields__}


def worker_count(jobs: int | None) -> int | None:
    """Processes for slow collections: as many as asked for, or as there are cores.

    None on an accelerator, where one process steps all tasks together.

    Raises:
        ConfigurationError: fewer than one.
    """
    if jobs is not None and jobs < 1:
        raise ConfigurationError(f"--jobs is {jobs}; expected at least 1.")
    import jax

    if jobs is None and jax.default_backend() != "cpu":
        return None
    return jobs or cores()


def command_line(verb: str, arguments: Sequence[str]) -> str:
    """The command as it can be typed again."""
    return shlex.join(["safemesa", verb, *arguments])


def prepare_jax() -> None:
    """Turns on the persistent compilation cache; call before the first compilation."""
    use_compilation_cache()
    warnings.showwarning = _show_warning


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings as one line for people."""
    del filename, lineno, file, line
    print(f"safemesa: WARNING ({category.__name__}): {message}", file=sys.stderr)


Positional = Annotated[T, tyro.conf.Positional]
