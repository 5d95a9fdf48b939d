"""Makes the ready shield that the package ships, and counts what it prevents.

    python -m benchmarks.demo_shield --work runs/demo_shield --install
    python -m benchmarks.demo_shield --work runs/demo_shield --seeds 0-3

It follows the documented path (docs/import_csv.md) on the logs of `safemesa.shield.demo.cart`, with
defaults but for the size: networks of 32 x 32, and 200 rows of the fleet to rehearse. `--install`
puts prior, risk model and shield of the first seed into the package; each seed is measured. Given
again, it goes on with what is missing.
"""

import argparse
import shutil
from pathlib import Path

from benchmarks.own_logs.documented_path import safemesa
from safemesa.cli.grid import parse_seeds
from safemesa.shield.demo import MODEL
from safemesa.shield.demo.cart import NEW, TEST_SEED, demo_logs
from safemesa.shield.demo.comparison import Counts, counts_of, drive_both
from safemesa.shield.runtime import RUNTIME, Shield

EPISODES = 200
LEAD = 1.0
"""Seconds that these carts need to do something."""
SMALL = ("--risk.hidden", "32", "32", "--rehearsal.rows", "200")


def make(work: Path, seed: int) -> Path:
    """Prior, evaluation, risk model and shield of a seed, each made once; their folder."""
    logs, folder = work / "logs", work / f"seed-{seed}"
    if not logs.exists():
        demo_logs().save(logs)
    folder.mkdir(parents=True, exist_ok=True)
    prior, risk, shield = folder / "prior", folder / "risk", folder / "shield"
    evaluation = folder / "evaluation.json"
    if not prior.exists():
        safemesa("meta-train", logs, "--seed", str(seed), *SMALL, "--out", prior)
    if not evaluation.exists():
        safemesa("evaluate", prior, logs, "--lead", str(LEAD), "--out", evaluation)
    if not risk.exists():
        safemesa("adapt", prior, logs, "--out", risk)
    if not shield.exists():
        safemesa(
            *("shield", "export", risk, "--calibration", evaluation, "--safe-action", "0"),
            *("--out", shield),
        )
    return folder


def install(made: Path) -> None:
    """Replaces what the package ships. The runtime is in the package already."""
    shutil.rmtree(MODEL, ignore_errors=True)
    shutil.copytree(made, MODEL, ignore=shutil.ignore_patterns(RUNTIME, "evaluation.json"))
    size = sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file())
    print(f"{MODEL}: {size / 1000:.0f} kB")


def measure(shield: Path) -> tuple[Counts, Counts]:
    """What happens in `EPISODES` paired episodes without and with the shield."""
    both = drive_both(Shield.load(shield, force=True), NEW, TEST_SEED, EPISODES)
    return counts_of(both.without), counts_of(both.guarded)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/demo_shield"))
    parser.add_argument("--seeds", default="0", help="of meta-training: 0-2 or 0,1,2")
    parser.add_argument("--install", action="store_true", help="into the package")
    flags = parser.parse_args()
    for number, seed in enumerate(parse_seeds(flags.seeds)):
        made = make(flags.work, seed)
        without, guarded = measure(made / "shield")
        print(f"seed {seed}, without: {without}")
        print(f"seed {seed}, guarded: {guarded}", flush=True)
        if flags.install and number == 0:
            install(made)


if __name__ == "__main__":
    main()
