"""The table of all domains, and their Gymnasium ids. Imports no JAX: the command line reads it.

A new domain is one `_add` line here, and its class in a module of its own.
"""

from dataclasses import dataclass

from safemesa.core.registry import Registry

JAX_ENVIRONMENT = "safemesa.domains.gym:JaxDomainEnv"
"""Entry point of the Gymnasium environments of pure-JAX domains."""

HOST_ENVIRONMENT = "safemesa.domains.host:make_host_environment"
"""Entry point of the Gymnasium environments of domains that need a simulator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainEntry:
    """Where a domain is found.

    Attributes:
        location: `module:attribute` of the domain, imported when it is first asked for.
        gym_id: Its Gymnasium id.
        entry_point: `module:attribute` of its Gymnasium environment, called as
            `environment(domain=name, **keywords)`.
        is_probe: Whether it is a test instrument and not a domain of the paper.
    """

    location: str
    gym_id: str
    entry_point: str = JAX_ENVIRONMENT
    is_probe: bool = False


ENTRIES: Registry[DomainEntry] = Registry("domain")


def _add(
    name: str,
    location: str,
    gym_id: str,
    *,
    entry_point: str = JAX_ENVIRONMENT,
    is_probe: bool = False,
) -> None:
    entry = DomainEntry(
        location=f"safemesa.domains.{location}",
        gym_id=f"safemesa/{gym_id}",
        entry_point=entry_point,
        is_probe=is_probe,
    )
    ENTRIES.register(name)(entry)


_add("navigation1", "navigation:NAVIGATION1", "Navigation1-v0")
_add("navigation2", "navigation:NAVIGATION2", "Navigation2-v0")
_add("maze", "maze:MAZE", "Maze-v0")
_add("cartpole", "cartpole:CARTPOLE", "CartpoleLength-v0", entry_point=HOST_ENVIRONMENT)
_add("halfcheetah", "half_cheetah:DISABLED", "HalfCheetahDisabled-v0", entry_point=HOST_ENVIRONMENT)
_add(
    "halfcheetah_partial",
    "half_cheetah:PARTIAL",
    "HalfCheetahPartial-v0",
    entry_point=HOST_ENVIRONMENT,
)
_add("ant", "ant:ANT", "AntDisabled-v0", entry_point=HOST_ENVIRONMENT)

_add("probe_certain", "probes:CERTAIN", "ProbeCertain-v0", is_probe=True)
_add("probe_never", "probes:NEVER", "ProbeNever-v0", is_probe=True)
_add("probe_action", "probes:ACTION", "ProbeAction-v0", is_probe=True)
_add("probe_delayed", "probes:DELAYED", "ProbeDelayed-v0", is_probe=True)
_add("probe_task", "probes:TASK", "ProbeTask-v0", is_probe=True)
_add("probe_walk", "probes:WALK", "ProbeWalk-v0", is_probe=True)


def domain_names() -> tuple[str, ...]:
    """Names of the domains of the paper, in its order."""
    return tuple(name for name in ENTRIES if not ENTRIES[name].is_probe)


def probe_names() -> tuple[str, ...]:
    """Names of the probe environments, whose risk is known."""
    return tuple(name for name in ENTRIES if ENTRIES[name].is_probe)


def register_environments() -> None:
    """Registers all domains with Gymnasium; what is registered already is left as it is.

    No `max_episode_steps` is given: domains truncate their own episodes, so that compiled phases
    and Gymnasium agree.
    """
    import gymnasium

    for name in ENTRIES:
        entry = ENTRIES[name]
        if entry.gym_id not in gymnasium.registry:
            gymnasium.register(
                id=entry.gym_id, entry_point=entry.entry_point, kwargs={"domain": name}
            )
