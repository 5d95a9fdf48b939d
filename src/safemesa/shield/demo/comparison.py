"""The ready cart with and without its shield, in paired episodes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from safemesa.core.files import atomic_folder, sha256
from safemesa.shield import runtime
from safemesa.shield.demo import SHIELD
from safemesa.shield.demo.cart import CartParameters, Episode, drive
from safemesa.shield.runtime import Shield


class Both(NamedTuple):
    """Episodes of the same seeds without a shield, and behind it."""

    without: list[Episode]
    guarded: list[Episode]


class Counts(NamedTuple):
    """What happened in some episodes; the last is the share of all steps."""

    violations: int
    successes: int
    episodes: int
    overridden_share: float


def drive_both(shield: Shield, parameters: CartParameters, seed: int, episodes: int) -> Both:
    """Drives pairs of episodes with numbers from 0; the shield acts, even if it may only watch."""
    shield.set_mode("enforce", force=True)
    seeds = [(seed, number) for number in range(episodes)]
    without = [drive(parameters, one) for one in seeds]
    return Both(without, [drive(parameters, one, shield=shield) for one in seeds])


def counts_of(episodes: Sequence[Episode]) -> Counts:
    """Sums over episodes."""
    return Counts(
        sum(episode.violated for episode in episodes),
        sum(episode.succeeded for episode in episodes),
        len(episodes),
        float(np.mean(np.concatenate([episode.overridden for episode in episodes]))),
    )


def copy_shield(out: Path) -> None:
    """Writes the ready shield as `safemesa shield export` would, with the runtime of this version.

    Raises:
        OutputFolderError: `out` exists or cannot be written.
    """
    with atomic_folder(out) as folder:
        shutil.copytree(SHIELD, folder, dirs_exist_ok=True)
        shutil.copyfile(runtime.__file__, folder / runtime.RUNTIME)
        manifest = runtime.read_manifest(folder)
        manifest["files"][runtime.RUNTIME] = sha256(folder / runtime.RUNTIME)
        manifest["seal"] = runtime.seal_of(manifest, manifest["seal"]["exported"])
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (folder / runtime.MANIFEST).write_text(text, encoding="utf-8")
