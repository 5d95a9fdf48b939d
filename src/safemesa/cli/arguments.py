"""What verbs share: parsing with tyro, presets as defaults, the compilation cache."""

import ast
import contextlib
import importlib
import inspect
import io
import itertools
import math
import re
import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from typing import Annotated, Any, TypeVar, cast, get_origin, get_type_hints

import tyro

from safemesa.core.errors import ConfigurationError
from safemesa.core.registry import PluginRegistry
from safemesa.experiments.arms import ARMS, configure
from safemesa.guards.registry import guards
from safemesa.learners.meta.registry import meta_learners
from safemesa.phases.compilation import use_compilation_cache
from safemesa.phases.config import PHASES, RunConfig, fitted, plugins_of, with_names
from safemesa.phases.presets import DOMAIN_PRESETS
from safemesa.phases.presets.own_method import gamma_of_horizon
from safemesa.phases.workers import cores

T = TypeVar("T")


SECTIONS = (
    "data",
    "sampling",
    "risk",
    "target",
    "recovery",
    "rehearsal",
    "guard_settings",
    "meta",
    "adapt",
    "sac",
    "deploy",
    "carl",
    "monitor",
)
"""Parts of a run's configuration that flags may change, in the order of `--help`."""

READ_WITH = {
    "sac": tuple(name for name in SECTIONS if name != "carl"),
    "carl": ("data", "carl", "deploy"),
}
"""What the phases of a run read, by its agent."""


def sections_of(phase: str) -> tuple[str, ...]:
    """The sections that a phase reads (`phases.config.PHASES`)."""
    read = {name.partition(".")[0] for name in PHASES[phase]}
    return tuple(name for name in SECTIONS if name in read)


ARM_HELP = (
    f"{', '.join(ARMS)}, or <meta-learner>+<guard>: one of {', '.join(meta_learners)} with one of "
    f"{', '.join(guards)}. Either may be one of your own, as module:attribute."
)
DOMAIN_HELP = f"{', '.join(DOMAIN_PRESETS)}, or a domain of your own as module:attribute."


@dataclass(frozen=True, kw_only=True)
class Common:
    """Flags of verbs that begin with a preset; its sections are added as they are read."""

    preset: str = "paper"
    """`paper` (the paper's sizes), `cpu` (smaller, for a laptop) or `quick` (a minute)."""
    seed: int = 0
    """Test task, test log, networks and noise."""
    data_seed: int = 0
    """Training tasks and logs."""


C = TypeVar("C", bound=Common)

MOVED_FLAGS = {
    "--risk.risk-limit": "--guard-settings.risk-limit",
    "--risk.recovery-noise": "--guard-settings.recovery-noise",
    "--risk.recovery-penalty": "--recovery.penalty",
    "--risk.learning-rate": "--adapt.learning-rate --deploy.learning-rate",
    "--risk.violation-fraction": "--sampling.violation-fraction",
    "--data.safe-starts": "--sampling.safe-starts",
    "--data.no-safe-starts": "--sampling.no-safe-starts",
    "--data.next-action": "--sampling.next-action",
    "--takeover.limit": "--guard-settings.risk-limit",
    "--takeover.": "--guard-settings.",
}
"""Flags of earlier versions, or their beginnings, by what they are called now."""

MOVED_FLAGS_OF = {
    "meta-train": {"--horizon": "--risk.horizon"},
    "adapt": {"--steps": "--adapt.steps", "--risk-limit": "--guard-settings.risk-limit"},
    "deploy": {"--episodes": "--deploy.episodes"},
}
"""The same, of single verbs."""


def current_spelling(verb: str, arguments: Sequence[str]) -> list[str]:
    """The flags as they are called now; says what has moved."""
    moved = MOVED_FLAGS_OF.get(verb, {}) | MOVED_FLAGS
    found: list[str] = []
    for place, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        plain = flag.replace("_", "-") if flag.startswith("--") else flag
        for old, new in moved.items():
            if plain != old and not (old.endswith(".") and plain.startswith(old)):
                continue
            names = [one + plain.removeprefix(old) for one in new.split()]
            print(f"safemesa: {flag} is called {' and '.join(names)} now.", file=sys.stderr)
            # What stood in one place and stands in two now is given twice.
            for name in names[:-1]:
                found += [name + equals + value] if equals else [name, *arguments[place + 1 :][:1]]
            word = names[-1] + equals + value
            break
        found.append(word)
    return found


def parse(kind: type[T], verb: str, arguments: Sequence[str], default: T | None = None) -> T:
    """Parses flags into a dataclass; `--help` and wrong flags exit as tyro does (0 and 2)."""
    prog = f"safemesa {verb}"
    if default is None:
        flags = tyro.cli(kind, prog=prog, args=list(arguments))
    else:
        flags = tyro.cli(kind, prog=prog, args=list(arguments), default=default)
    check_numbers(flags)
    return flags


MOST = 10**9
"""Numbers of anything beyond it are slips of the keyboard; seeds may be larger."""


MOST_JOBS = 4096
"""Processes on one machine."""


def check_numbers(flags: Any, section: str = "") -> None:
    """Refuses numbers that no setting can have.

    Raises:
        ConfigurationError: one is NaN, infinite, or a count beyond 10^9; its flag is named.
    """
    for one in fields(flags):
        value, name = getattr(flags, one.name), section + one.name.replace("_", "-")
        if is_dataclass(value) and not isinstance(value, type):
            check_numbers(value, f"{name}.")
            continue
        numbers: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigurationError(f"--{name} is {number}; expected a finite number.")
            if type(number) is int and abs(number) > MOST and "seed" not in one.name:
                raise ConfigurationError(
                    f"--{name} is {str(number)[:40]}; expected a number of at most {MOST}."
                )


def with_sections(kind: type[T], sections: Mapping[str, Any]) -> type[T]:
    """The flags of a verb with those of sections, whose values are the defaults."""
    made = [(name, type(one), field(default=one)) for name, one in sections.items()]
    return make_dataclass(
        kind.__name__,
        made,
        bases=(kind,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": kind.__doc__},
    )


def parse_before_presets(
    kind: type[T], verb: str, arguments: Sequence[str], sections: Sequence[str] = ()
) -> T:
    """The flags, read for what decides the defaults of others: arm, domain and preset.

    Any settings of any plug-in may be given; what they say is left for the second reading, and so
    is `--help`, so that it shows the right defaults. Where the words do not decide them, it is
    given here, and ends the program.
    """
    import_named(arguments)
    default = RunConfig()
    shown = {name: getattr(default, name) for name in sections}
    loose = shown | {
        name: _any_settings(registry, arguments)
        for name, (registry, _) in plugins_of(default).items()
        if name in sections
    }
    loosely = with_sections(kind, loose)
    words = [word for word in arguments if word not in ("-h", "--help")]
    if len(words) < len(arguments):
        unheard = io.StringIO()
        try:
            with contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard):
                return parse(loosely, verb, words)
        except SystemExit:
            pass
        return parse(with_sections(kind, shown), verb, arguments)
    return parse(loosely, verb, words)


_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def import_named(arguments: Sequence[str]) -> None:
    """Imports the modules that are named as `module:attribute`: they may register plug-ins."""
    for place in dict.fromkeys(found for word in arguments for found in _NAMED.findall(word)):
        # What cannot be imported is refused where it is used, with what it was used for.
        with contextlib.suppress(ImportError, ValueError):
            importlib.import_module(place.partition(":")[0])


def _any_settings(registry: "PluginRegistry[Any]", arguments: Sequence[str]) -> Any:
    """A value for each setting that any plug-in of a kind may have; only their number matters."""
    names = [*registry, *(found for word in arguments for found in _NAMED.findall(word))]
    hints: dict[str, Any] = {}
    for name in names:
        try:
            settings = registry.find(name).settings
        except ConfigurationError:
            continue
        known = get_type_hints(settings)
        for one in fields(settings):
            hints.setdefault(one.name, _loose(known[one.name]))
    made = make_dataclass(
        "AnySettings", [(n, hint, None) for n, hint in hints.items()], frozen=True
    )
    return made()


def _loose(hint: Any) -> Any:
    """A type that takes as many words as another one does, and may be left out."""
    if hint is bool:
        return bool | None
    return (tuple[str, ...] if get_origin(hint) is tuple else str) | None


def parse_with_preset(
    kind: type[C],
    verb: str,
    arguments: Sequence[str],
    sections: Sequence[str] = SECTIONS,
    *,
    arm: str = "mesa",
    domain: str = "navigation1",
    change: Callable[[RunConfig], RunConfig] = lambda config: config,
) -> tuple[C, RunConfig]:
    """Parses twice: once to learn arm, domain and preset, once with their defaults.

    `sections` are those that the verb reads; of them `--help` shows those that the arm's agent
    reads. Settings of others are accepted, and kept for the phases that read them.
    `arm` and `domain` are used where `kind` has no such field or it is left out; `change` gives
    other defaults than the preset's.

    Raises:
        ConfigurationError: unknown arm, domain or preset, or an impossible value.
    """
    words = current_spelling(verb, arguments)
    first = parse_before_presets(kind, verb, words, SECTIONS)
    named = getattr(first, "arm", None) or arm
    config = change(configure(named, getattr(first, "domain", domain), first.preset))
    return parse_onto(kind, verb, words, config, first, SECTIONS, shown=sections)


def parse_onto(
    kind: type[T],
    verb: str,
    arguments: Sequence[str],
    config: RunConfig,
    first: T,
    sections: Sequence[str],
    *,
    shown: Sequence[str] | None = None,
) -> tuple[T, RunConfig]:
    """Parses with the values of a configuration as defaults, and gives it those of the flags.

    `first` are the flags as they were read before; what they say beside settings counts. `sections`
    may be given, and those that are `shown` (by default all) are in `--help`.
    """
    flags, (config,) = parse_onto_all(
        kind, verb, arguments, [config], first, sections, sections if shown is None else shown
    )
    return flags, apply(config, flags)


def parse_onto_all(
    kind: type[T],
    verb: str,
    arguments: Sequence[str],
    configs: Sequence[RunConfig],
    first: T,
    sections: Sequence[str],
    shown: Sequence[str],
) -> tuple[T, list[RunConfig]]:
    """Parses for several configurations, each with its own values as defaults.

    A setting that only some of their plug-ins have may be given, and changes only those. The flags
    that are returned are those of the first.
    """
    recovery = getattr(getattr(first, "recovery", None), "kind", None)
    if recovery is not None:
        configs = [with_names(config, recovery=recovery) for config in configs]
    known = {
        name: {one.name for config in configs for one in fields(getattr(config, name))}
        for name in plugins_of(configs[0])
    }
    _say_what_nobody_reads(arguments, known)
    read = {name for one in configs for name in READ_WITH[one.agent]}
    # One line of flags may serve all verbs and arms, but help is of what is read.
    asked = bool({"-h", "--help"} & set(arguments))
    settings = {
        name: union_of(
            [type(getattr(one, name)) for one in configs],
            () if asked else _others(configs[0], name),
        )
        for name in sections
        if not asked or (name in shown and name in read)
    }
    settings = {name: union for name, union in settings.items() if fields(union)}
    everyones = {
        name: fitted(union, *(getattr(one, name) for one in reversed(configs)))
        for name, union in settings.items()
    }
    exact = with_sections(kind, everyones)
    own = {one.name: getattr(first, one.name) for one in fields(cast(Any, kind))}
    parsed: dict[Any, T] = {}
    changed = []
    for config in configs:
        values = {
            name: fitted(settings[name], old, getattr(config, name))
            for name, old in everyones.items()
        }
        default = exact(**own, **values)
        # Parsing takes a while, and most arms of a domain have equal presets.
        if default not in parsed:
            parsed[default] = parse(exact, verb, arguments, default)
        flags = parsed[default]
        given = {
            name: fitted(type(getattr(config, name)), getattr(flags, name)) for name in settings
        }
        changed.append(replace(config, **given))
    return next(iter(parsed.values())), changed


def union_of(kinds: Sequence[type], others: Sequence[type] = ()) -> type:
    """One record of settings with the fields of several.

    Those that only `others` have may be given, too.
    """
    different = list(dict.fromkeys((*kinds, *others)))
    if len(different) == 1:
        return different[0]
    read = {one.name for kind in kinds for one in fields(kind)}
    hints: dict[str, Any] = {}
    docs: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    for kind in different:
        known, texts = get_type_hints(kind), field_docs(kind)
        for one in fields(kind):
            if one.name in read and kind not in kinds:
                continue
            hint = known[one.name]
            hints[one.name] = hints[one.name] | hint if one.name in hints else hint
            docs.setdefault(one.name, texts.get(one.name, ""))
            defaults.setdefault(one.name, getattr(kind(), one.name))
    made = []
    for name, hint in hints.items():
        described = Annotated[hint, tyro.conf.arg(help=docs[name])]
        made.append((name, described, field(default=defaults[name])))

    def check(self: Any) -> None:
        """Refuses what the records themselves refuse, where tyro can say of which flag it is."""
        for kind in dict.fromkeys(kinds):
            fitted(kind, self)

    namespace = {"__doc__": different[0].__doc__, "__post_init__": check}
    return make_dataclass("Settings", made, frozen=True, kw_only=True, namespace=namespace)


def _others(config: RunConfig, section: str) -> list[type]:
    """Settings of the other plug-ins that could stand in a section."""
    if section not in plugins_of(config):
        return []
    registry = plugins_of(config)[section][0]
    return [registry.find(name).settings for name in registry]


def _say_what_nobody_reads(arguments: Sequence[str], settings: Mapping[str, set[str]]) -> None:
    """Of a flag that is no setting of the plug-in that was chosen."""
    for word in arguments:
        section, _, name = word.partition("=")[0].removeprefix("--").partition(".")
        section, name = section.replace("-", "_"), name.replace("-", "_").removeprefix("no_")
        if word.startswith("--") and name and section in settings and name not in settings[section]:
            print(f"safemesa: {word} is read by nothing here, and left out.", file=sys.stderr)


def field_docs(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass, also of those that it inherits."""
    docs: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not is_dataclass(one):
            continue
        try:
            (defined,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        lines = defined.body if isinstance(defined, ast.ClassDef) else []
        for line, text in itertools.pairwise(lines):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                docs[line.target.id] = inspect.cleandoc(text.value.value)
    return docs


def apply(config: RunConfig, flags: Any) -> RunConfig:
    """A configuration with the seeds of the flags, and the discount of its horizon."""
    seeds = {name: getattr(flags, name, None) for name in ("seed", "data_seed")}
    config = replace(config, **{name: seed for name, seed in seeds.items() if seed is not None})
    named = ":" in config.domain or config.domain in DOMAIN_PRESETS
    if config.risk.horizon is None or not named:
        return config  # of logs of one's own, whose steps their reader knows
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


def check_jobs(jobs: int | None) -> None:
    """Refuses numbers of processes that no machine has.

    Raises:
        ConfigurationError: it is below 1 or above `MOST_JOBS`.
    """
    if jobs is not None and not 1 <= jobs <= MOST_JOBS:
        raise ConfigurationError(f"--jobs is {jobs}; expected at least 1, at most {MOST_JOBS}.")


def worker_count(jobs: int | None) -> int | None:
    """Processes for slow collections: as many as asked for, or as there are cores.

    None on an accelerator, where one process steps all tasks together.

    Raises:
        ConfigurationError: fewer than one.
    """
    check_jobs(jobs)
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
