"""Shields without training, for the tests of `safemesa.shield`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from tiny import tiny_config

from safemesa.core.spaces import Spaces
from safemesa.learners.recovery import RecoveryNetwork
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.storage.artefacts import RiskModel
from safemesa.shield.export import ShieldOptions, Source, export_shield

SPACES = Spaces(
    obs_names=("position", "velocity", "angle"),
    action_names=("push", "turn"),
    action_low=(-2.0, 0.0),
    action_high=(2.0, 1.0),
    horizon=50,
    dt=0.05,
)
SAFE_ACTION = (0.25, 0.5)


def make_source(
    hidden: tuple[int, ...] = (8, 8),
    *,
    critics: int = 1,
    violations: int | None = 20,
    spaces: Spaces = SPACES,
    seed: int = 0,
) -> Source:
    """A risk model of random weights whose risks fill (0, 1)."""
    key_critic, key_recovery = jax.random.split(jax.random.key(seed))
    sizes = (spaces.obs_size, spaces.action_size, hidden)
    critic = RiskCritic(*sizes, critics=critics, key=key_critic)
    critic = eqx.tree_at(
        lambda c: c.ensemble.members.weights[-1], critic, replace_fn=lambda w: 6 * w
    )
    normaliser = Normaliser(
        jnp.linspace(-1.0, 2.0, spaces.obs_size), jnp.linspace(0.5, 3.0, spaces.obs_size)
    )
    model = RiskModel(critic, RecoveryNetwork(*sizes, key=key_recovery), normaliser)
    log: dict[str, Any] | None = None
    if violations is not None:
        log = {"dataset": "made up", "task": "none", "transitions": 100, "episodes": 5}
        log |= {"violations": violations, "provenance": {"units": {"angle": "rad"}}}
    config = tiny_config()
    config = replace(
        config,
        risk=replace(config.risk, hidden=hidden),
        guard_settings=replace(config.guard_settings, risk_limit=0.5),
    )
    return Source(model=model, config=config, spaces=spaces, log=log)


def make_shield_folder(folder: Path, source: Source | None = None, **options: Any) -> Path:
    """Exports a shield whose safe action is `SAFE_ACTION`."""
    chosen = ShieldOptions(**{"safe_action": SAFE_ACTION, **options})
    export_shield(source or make_source(), folder, chosen)
    return folder


def edit_manifest(folder: Path, change: Any) -> None:
    """Applies `change` to the manifest as JSON, as a user's editor would."""

    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
