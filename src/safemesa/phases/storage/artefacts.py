"""What the phases hand on: the prior (Phase 1), the risk model (Phases 2 and 3), a world model.

An artefact is a folder with `model.safetensors` and `manifest.json`; the manifest names what made
it and what it fits, so that a wrong one is refused.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from safemesa._version import __version__
from safemesa.core.errors import CheckpointError, ConfigurationError
from safemesa.core.files import read_checked_json, sha256, with_checksum, write_json
from safemesa.core.pytree import tree_from_tensors, tree_to_tensors
from safemesa.core.spaces import Spaces
from safemesa.core.tensors import load_tensors, save_tensors
from safemesa.core.types import PyTree
from safemesa.learners.carl.learner import ModelState
from safemesa.learners.meta.base import constant_step_sizes
from safemesa.learners.monitor.tracker import FleetMonitor, Tracker
from safemesa.learners.recovery import AbstractRecovery
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import Normaliser, identity_normaliser
from safemesa.phases.build import fresh_risk_networks
from safemesa.phases.config import RunConfig, config_from_json, config_to_json

FORMAT = 1
REHEARSAL_FILE = "rehearsal.safetensors"


class RiskModel(eqx.Module):
    """A safety critic and a recovery policy with the normalisation they were trained under.

    `limit` is the risk above which the guard takes over, where the data decided it; None: it is
    that of the configuration. `rehearsal` are rows of the training logs (`phases.rehearsal`).
    """

    critic: RiskCritic
    recovery: AbstractRecovery
    normaliser: Normaliser
    limit: Float[Array, ""] | None = None
    rehearsal: Float[Array, "rows width"] | None = None

    def risk(
        self, obs: Float[Array, "batch obs"], action: Float[Array, "batch act"]
    ) -> Float[Array, " batch"]:
        """Risk of raw observations and actions scaled to [-1, 1]."""
        return jax.vmap(self.critic)(self.normaliser(obs), action)

    def recover(self, obs: Float[Array, "batch obs"]) -> Float[Array, "batch act"]:
        """Recovery actions in [-1, 1] at raw observations, as at the start of an episode."""
        return jax.vmap(lambda one: self.recovery.act(self.critic, one, self.recovery.begin())[0])(
            self.normaliser(obs)
        )


class Prior(eqx.Module):
    """What Phase 1 leaves: a risk model to start from, and the inner rates to specialise it."""

    model: RiskModel
    log_step_sizes: PyTree


Artefact = Prior | RiskModel | ModelState | FleetMonitor | Tracker

FLEET_MONITOR, MONITOR = "fleet_monitor", "monitor"
"""Folders beside a prior and beside a risk model, which hold the monitor that goes with them."""


def prior_template(config: RunConfig, spaces: Spaces) -> Prior:
    """A prior of fresh networks; also the shape that a file must have."""
    critic, recovery = fresh_risk_networks(config, spaces)
    model = RiskModel(critic, recovery, identity_normaliser(spaces.obs_size))
    return Prior(model, constant_step_sizes(critic, 1.0))


def save_artefact(
    folder: Path, tree: Artefact, config: RunConfig, spaces: Spaces, notes: dict[str, Any]
) -> None:
    """Writes `model.safetensors`, then the manifest that vouches for it."""
    tensors = folder / "model.safetensors"
    rehearsal = _rehearsal(tree)
    files = {"sha256": tensors}
    if rehearsal is not None:
        tree = _with_rehearsal(tree, None)
        files["rehearsal_sha256"] = folder / REHEARSAL_FILE
        save_tensors(folder / REHEARSAL_FILE, {"rows": np.asarray(rehearsal)})
    save_tensors(tensors, tree_to_tensors(tree))
    manifest = {
        "format": FORMAT,
        "kind": artefact_kind(tree),
        "software": f"safemesa {__version__}",
        "config": config_to_json(config),
        "spaces": asdict(spaces),
        **{name: sha256(path) for name, path in files.items()},
        "notes": notes,
    }
    write_json(folder / "manifest.json", with_checksum(manifest))


def _rehearsal(tree: Artefact) -> Array | None:
    model = tree.model if isinstance(tree, Prior) else tree
    return model.rehearsal if isinstance(model, RiskModel) else None


def _with_rehearsal(tree: Any, rows: Array | None) -> Any:
    """The artefact with other rows to rehearse."""
    if isinstance(tree, Prior):
        return replace(tree, model=replace(tree.model, rehearsal=rows))
    return replace(tree, rehearsal=rows)


def artefact_kind(tree: Artefact) -> str:
    """The word for it in manifests."""
    if isinstance(tree, ModelState):
        return "world_model"
    if isinstance(tree, FleetMonitor):
        return "fleet_monitor"
    if isinstance(tree, Tracker):
        return "monitor"
    return "prior" if isinstance(tree, Prior) else "risk_model"


def read_manifest(folder: Path, kind: str) -> tuple[RunConfig, Spaces, dict[str, Any]]:
    """The configuration, spaces and notes of an artefact.

    Raises:
        CheckpointError: no artefact of that kind there, or of another format.
    """
    manifest = read_checked_json(folder / "manifest.json", error=CheckpointError)
    given = (manifest.get("format"), manifest.get("kind"))
    if given != (FORMAT, kind):
        raise CheckpointError(
            f"{folder} holds {given[1]!r} of format {given[0]}; expected {kind!r} of format "
            f"{FORMAT}. A prior comes from `safemesa meta-train`, a risk model from `adapt`, a "
            "world model from a run of CARL."
        )
    try:
        config = config_from_json(RunConfig, manifest["config"])
        spaces = config_from_json(Spaces, manifest["spaces"])
    except (KeyError, ConfigurationError) as error:
        raise CheckpointError(f"{folder}/manifest.json is damaged: {error}") from error
    return config, spaces, dict(manifest.get("notes", {}))


def _load(folder: Path, template: PyTree) -> PyTree:
    manifest = read_checked_json(folder / "manifest.json", error=CheckpointError)
    tensors = _verified(folder / "model.safetensors", manifest.get("sha256"))
    loaded = load_tensors(tensors)
    if isinstance(template, RiskModel) and "limit" in loaded:
        template = replace(template, limit=jnp.zeros(()))
    if isinstance(template, Prior) and "model.limit" in loaded:
        template = replace(template, model=replace(template.model, limit=jnp.zeros(())))
    tree = tree_from_tensors(template, loaded, source=str(tensors))
    if "rehearsal_sha256" not in manifest:
        return tree
    rows = _verified(folder / REHEARSAL_FILE, manifest["rehearsal_sha256"])
    return _with_rehearsal(tree, jnp.asarray(np.array(load_tensors(rows)["rows"])))


def _verified(path: Path, digest: Any) -> Path:
    if not path.is_file() or sha256(path) != digest:
        raise CheckpointError(
            f"{path} is missing or does not match the hash in its manifest. Make it again."
        )
    return path


def load_prior(folder: Path) -> tuple[Prior, RunConfig, Spaces]:
    """Reads a prior with the configuration that made it."""
    config, spaces, _ = read_manifest(folder, "prior")
    return _load(folder, prior_template(config, spaces)), config, spaces


def load_risk_model(folder: Path) -> tuple[RiskModel, RunConfig, Spaces]:
    """Reads a risk model with the configuration that made it."""
    config, spaces, _ = read_manifest(folder, "risk_model")
    return _load(folder, prior_template(config, spaces).model), config, spaces


def load_fleet_monitor(folder: Path, template: FleetMonitor) -> FleetMonitor:
    """Reads the fleet's monitor; `template` has its shapes."""
    read_manifest(folder, "fleet_monitor")
    return _load(folder, template)


def load_monitor(folder: Path, template: Tracker) -> Tracker:
    """Reads a robot's monitor; `template` has its shapes."""
    read_manifest(folder, "monitor")
    return _load(folder, template)


def load_world_model(folder: Path, template: ModelState) -> ModelState:
    """Reads CARL's model; `template` is a fresh one (`CARL.init`)."""
    read_manifest(folder, "world_model")
    return _load(folder, template)
