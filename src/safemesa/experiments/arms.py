"""Arms: rows of a results table. A record of meta-learner, guard and what differs otherwise.

Free of JAX, so that `--help` is quick.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from safemesa.core.errors import ConfigurationError
from safemesa.core.registry import PluginRegistry
from safemesa.guards.registry import guards
from safemesa.learners.meta.registry import meta_learners
from safemesa.phases.config import RunConfig
from safemesa.phases.presets import preset_config
from safemesa.phases.presets.carl import carl_settings
from safemesa.phases.presets.own_method import own_method


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One compared algorithm."""

    name: str
    title: str
    meta_learner: str
    guard: str
    summary: str
    change: Callable[[RunConfig], RunConfig] = lambda config: config
    agent: str = "sac"


def _as_printed(config: RunConfig) -> RunConfig:
    """The rates of Table 1 and the recovery policy of Algorithm 1."""
    return replace(
        config,
        meta=replace(config.meta, inner_rate=1e-3, outer_rate=1e-5, recovery_logs="test"),
        adapt=replace(config.adapt, learning_rate=1e-3),
        deploy=replace(config.deploy, learning_rate=1e-3),
    )


def _learned_rates(config: RunConfig) -> RunConfig:
    """Meta-SGD's rates start at 0.1 (docs/fidelity.md)."""
    return replace(config, meta=replace(config.meta, inner_rate=0.1))


def _without_adaptation(config: RunConfig) -> RunConfig:
    """The prior itself goes to Phase 3."""
    return replace(config, adapt=replace(config.adapt, steps=0))


def _frozen(config: RunConfig) -> RunConfig:
    """Phase 3 asks the risk model and does not train it."""
    return replace(config, deploy=replace(config.deploy, learn_risk=False))


def _long_test_log(config: RunConfig) -> RunConfig:
    """As many rows of the new robot as of a training robot, and steps enough to use them."""
    return replace(
        config,
        data=replace(config.data, test_transitions=config.data.train_transitions),
        adapt=replace(config.adapt, steps=config.adapt.scratch_steps),
    )


def _carl(source: str, use_test_log: bool) -> Callable[[RunConfig], RunConfig]:
    """What CARL may learn from."""

    def change(config: RunConfig) -> RunConfig:
        settings = carl_settings(config.domain, config.preset)
        return replace(config, carl=replace(settings, source=source, use_test_log=use_test_log))

    return change


_ARMS = (
    Arm(
        name="safemesa",
        title="safemesa",
        meta_learner="multitask",
        guard="takeover",
        summary="this software's own method: the risk of a robot that recovers but stumbles, from "
        "all logs, with a limit that the data decide",
        change=own_method,
    ),
    Arm(
        name="mesa",
        title="MESA",
        meta_learner="maml",
        guard="recovery_rl",
        summary="MAML critic with an inner rate that adapts, Recovery RL",
    ),
    Arm(
        name="mesa_as_printed",
        title="MESA (as printed)",
        meta_learner="maml",
        guard="recovery_rl",
        summary="MESA with the rates of Table 1, which hardly adapt",
        change=_as_printed,
    ),
    Arm(
        name="mesa_metasgd",
        title="MESA (Meta-SGD)",
        meta_learner="meta_sgd",
        guard="recovery_rl",
        summary="MESA with learned inner rates, one per tensor",
        change=_learned_rates,
    ),
    Arm(
        name="multitask",
        title="Multi-Task",
        meta_learner="multitask",
        guard="recovery_rl",
        summary="one critic on all training logs, then adapted like MESA's",
    ),
    Arm(
        name="rrl",
        title="RRL",
        meta_learner="scratch",
        guard="recovery_rl",
        summary="Recovery RL from the test log alone",
    ),
    Arm(
        name="unconstrained",
        title="Unconstrained",
        meta_learner="scratch",
        guard="none",
        summary="SAC that ignores constraints",
    ),
    Arm(
        name="carl",
        title="CARL",
        agent="carl",
        meta_learner="scratch",
        guard="none",
        summary="plans through a learned model, pretrained by driving in the training tasks",
        change=_carl("tasks", use_test_log=False),
    ),
    Arm(
        name="carl_offline",
        title="CARL-Offline",
        agent="carl",
        meta_learner="scratch",
        guard="none",
        summary="CARL, pretrained on the training logs alone",
        change=_carl("logs", use_test_log=False),
    ),
    Arm(
        name="carl_offline_dtest",
        title="CARL-Offline + test log",
        agent="carl",
        meta_learner="scratch",
        guard="none",
        summary="CARL-Offline whose model has also seen the test log, as MESA's critic has",
        change=_carl("logs", use_test_log=True),
    ),
    Arm(
        name="reward_penalty",
        title="Reward Penalty",
        meta_learner="scratch",
        guard="penalty",
        summary="SAC whose reward pays for violations; no critic",
    ),
    Arm(
        name="mesa_no_adapt",
        title="MESA (no adaptation)",
        meta_learner="maml",
        guard="recovery_rl",
        summary="MESA whose prior goes to Phase 3 as it is; it learns on there",
        change=_without_adaptation,
    ),
    Arm(
        name="mesa_frozen",
        title="MESA (frozen)",
        meta_learner="maml",
        guard="recovery_rl",
        summary="MESA whose risk model learns nothing in Phase 3",
        change=_frozen,
    ),
    Arm(
        name="oracle",
        title="Oracle log",
        meta_learner="maml",
        guard="recovery_rl",
        summary="MESA with a test log as large as a training log: what more data could give",
        change=_long_test_log,
    ),
)

ARMS: dict[str, Arm] = {arm.name: arm for arm in _ARMS}


def find_arm(name: str) -> Arm:
    """A named arm, or `<meta-learner>+<guard>`.

    Raises:
        ConfigurationError: unknown.
    """
    if name in ARMS:
        return ARMS[name]
    meta_learner, plus, guard = name.partition("+")
    carl = [arm for arm, record in ARMS.items() if record.agent == "carl"]
    if plus and (meta_learner in carl or guard in carl):
        raise ConfigurationError(
            f"{name!r} is no arm: CARL plans with a model of its own and has no safety critic, so "
            f"it takes neither a meta-learner nor a guard. Give {', '.join(carl)} alone."
        )
    if plus:
        return Arm(
            name=name,
            title=f"{_title(meta_learners, meta_learner)} + {_title(guards, guard)}",
            meta_learner=meta_learner,
            guard=guard,
            summary=f"the meta-learner {meta_learner} behind the guard {guard}",
        )
    close = difflib.get_close_matches(name, ARMS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigurationError(
        f"unknown arm {name!r}.{hint} Known: {', '.join(ARMS)}, or <meta-learner>+<guard>."
    )


def _title(registry: "PluginRegistry[Any]", name: str) -> str:
    """What tables call a plug-in; its name where it is not known here, such as in a report."""
    return registry.find(name).title if name in registry else name


def configure(arm: str, domain: str, preset: str) -> RunConfig:
    """The configuration of an arm on a domain at a preset; flags may change it further.

    Raises:
        ConfigurationError: an unknown name.
    """
    record = find_arm(arm)
    names = (meta_learners, record.meta_learner), (guards, record.guard)
    if ":" in domain and any(":" not in name and name not in known for known, name in names):
        from safemesa.domains.registry import domain as find_domain

        # A user's module may register more than its domain.
        find_domain(domain)
    config = preset_config(domain, preset, record.meta_learner, record.guard)
    return replace(record.change(config), arm=arm, agent=record.agent)
