"""Priors that the runs of a grid share.

Phase 1 does not depend on what Phases 2 and 3 do with its result. Runs for which it is the same
computation, bit for bit, do it once.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax

from safemesa.core.errors import CheckpointError, OutputFolderError
from safemesa.core.files import atomic_folder, sha256
from safemesa.core.spaces import Spaces
from safemesa.guards.registry import guards
from safemesa.learners.meta.registry import meta_learners
from safemesa.learners.recovery.registry import recoveries
from safemesa.learners.targets import targets
from safemesa.phases.build import adds_to_safety_loss
from safemesa.phases.config import PHASES, RunConfig, read_by
from safemesa.phases.storage.artefacts import Prior, load_prior, read_manifest, save_artefact


@dataclass(frozen=True, kw_only=True)
class SharedPriors:
    """A folder of finished priors, found by everything that decides them.

    Attributes:
        folder: Where they are kept.
        configs: Runs that do Phase 1 together; they differ in their seeds alone.
        spaces: Of their domain.
        train: The folder of their training logs.
    """

    folder: Path
    configs: Sequence[RunConfig]
    spaces: Spaces
    train: Path

    @property
    def possible(self) -> bool:
        """Whether the hash covers everything: no test log, and no classes of the user's own."""
        config = self.configs[0]
        classes = (
            meta_learners[config.meta_learner],
            guards[config.guard],
            recoveries[config.recovery.kind],
            targets[config.target.kind],
        )
        ours = all(one.__module__.split(".")[0] == "safemesa" for one in classes)
        return ours and config.meta.recovery_logs != "test"

    def find(self) -> tuple[list[Prior], float] | None:
        """All priors and the seconds that their making took; None where one is missing.

        Raises:
            CheckpointError: one of them is damaged.
        """
        places = [self.place(one) for one in self.configs]
        if not all((place / "manifest.json").is_file() for place in places):
            return None
        try:
            wall = float(read_manifest(places[0], "prior")[2].get("wall_s", 0.0))
            return [load_prior(place)[0] for place in places], wall
        except CheckpointError as error:
            raise CheckpointError(
                f"a prior that runs share is damaged: {error} Remove its folder, and the next run "
                "makes it."
            ) from error

    def add(self, priors: Sequence[Prior], wall: float) -> None:
        """Keeps priors for others; those that another run has added meanwhile stay."""
        for prior, config in zip(priors, self.configs, strict=True):
            place = self.place(config)
            try:
                with atomic_folder(place) as temporary:
                    save_artefact(temporary, prior, config, self.spaces, {"wall_s": wall})
            except OutputFolderError:
                if not place.exists():
                    raise

    def place(self, config: RunConfig) -> Path:
        """Its folder: a hash of settings, logs, code and machinery."""
        guard = ("guard", "guard_settings") if adds_to_safety_loss(config) else ()
        decides = {
            "settings": read_by(config, (*PHASES["meta_train"], *guard)),
            # Sharing a process changes the rounding.
            "together": len(self.configs),
            "logs": sha256(self.train / "manifest.json"),
            "code": _code(),
            "jax": [jax.__version__, jax.devices()[0].device_kind, os.environ.get("XLA_FLAGS")],
        }
        text = json.dumps(decides, sort_keys=True)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _code() -> str:
    """A hash of this package's source: no prior outlives the code that made it."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
