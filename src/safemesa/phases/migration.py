"""Configurations of earlier versions, whose settings stood elsewhere. Plain values in and out.

Up to 0.1 one record of settings served all guards and one all meta-learners, and the record `risk`
held what the guard, the optimiser, the sampler and the recovery policy read.
"""

import dataclasses
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.core.registry import PluginRegistry
from safemesa.guards.registry import guards
from safemesa.learners.meta.registry import meta_learners
from safemesa.learners.recovery.registry import recoveries

MOVED = (
    ("risk.violation_fraction", ("sampling.violation_fraction",)),
    ("data.safe_starts", ("sampling.safe_starts",)),
    ("data.next_action", ("sampling.next_action",)),
    ("risk.recovery_penalty", ("recovery.penalty",)),
    ("risk.learning_rate", ("adapt.learning_rate", "deploy.learning_rate")),
    ("risk.recovery_noise", ("guard_settings.recovery_noise",)),
    ("risk.risk_limit", ("guard_settings.risk_limit",)),
)
"""Where a setting stood, and where it stands."""

SHARED: dict[str, tuple[str, ...]] = {
    "guard_settings": (
        "risk_limit",
        "recovery_noise",
        "actor_multiplier",
        "reward_multiplier",
        "multiplier_rate",
        "violation_penalty",
        "samples",
        "conservatism",
    ),
    "meta": (
        "iterations",
        "tasks",
        "support_batch",
        "query_batch",
        "inner_steps",
        "inner_rate",
        "outer_rate",
        "step_size_rate",
        "recovery_rate",
        "recovery_logs",
        "first_order",
        "gradient_clip",
        "target_rate",
    ),
    "recovery": ("objective", "action", "penalty"),
}
"""Settings that every guard, meta-learner or recovery was given, whether it read them or not."""


def migrated(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration with every setting where this version reads it."""
    if "takeover" not in values and not any(_holds(values, place) for place, _ in MOVED):
        return values
    sections = {
        name: dict(value) if isinstance(value, dict) else value for name, value in values.items()
    }
    takeover = sections.pop("takeover", None)
    for place, homes in MOVED:
        if not _holds(sections, place):
            continue
        section, _, name = place.partition(".")
        value = sections[section].pop(name)
        for home in homes:
            section, _, name = home.partition(".")
            sections.setdefault(section, {}).setdefault(name, value)
    if sections.get("guard") == "takeover" and isinstance(takeover, dict):
        own = {"risk_limit" if name == "limit" else name: v for name, v in takeover.items()}
        noise = {
            name: value
            for name, value in sections.get("guard_settings", {}).items()
            if name == "recovery_noise"
        }
        sections["guard_settings"] = {"risk_limit": None, **noise, **own}
    for section in SHARED:
        for name in _stray(sections, section):
            del sections[section][name]
    return sections


def _holds(values: dict[str, Any], place: str) -> bool:
    section, _, name = place.partition(".")
    return isinstance(values.get(section), dict) and name in values[section]


def _stray(values: dict[str, Any], section: str) -> list[str]:
    """Settings that once were everybody's, and that the plug-in that is named does not read."""
    given = values.get(section)
    if not isinstance(given, dict):
        return []
    registries: dict[str, tuple[PluginRegistry[Any], Any]] = {
        "guard_settings": (guards, values.get("guard", "recovery_rl")),
        "meta": (meta_learners, values.get("meta_learner", "maml")),
        "recovery": (recoveries, given.get("kind", "network")),
    }
    registry, name = registries[section]
    try:
        read = {one.name for one in dataclasses.fields(registry.find(name).settings)}
    except (ConfigurationError, TypeError):
        return []
    return [one for one in given if one in SHARED[section] and one not in read]
