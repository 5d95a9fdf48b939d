"""From CSV logs to a shield by the command line, with its defaults, as docs/import_csv.md says."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.own_logs.robot import Kind
from benchmarks.own_logs.write_logs import write_logs

SAFEMESA = Path(sys.executable).with_name("safemesa")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What the engineer gives beside the logs."""

    horizon: str = "none"
    """`stated`: passes the seconds that the kind of robot states; `none`: passes nothing."""
    preset: str | None = None

    @property
    def name(self) -> str:
        """For folders."""
        return "-".join(["horizon", self.horizon, self.preset or "default"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Workshop:
    """Where the logs, priors and shields of a kind of robot lie; each is made once."""

    folder: Path
    kind: Kind
    choice: Choice

    def dataset(self, log_seed: int) -> Path:
        """The imported logs of the fleet and one log of the new robot."""
        logs = self.folder / self.kind.name / f"logs-{log_seed}"
        dataset = logs / "dataset"
        if not dataset.exists():
            write_logs(self.kind, logs, log_seed)
            safemesa("data", "import", logs / "csv", "--map", logs / "map.toml", "--out", dataset)
        return dataset

    def prior(self, seed: int, log_seed: int) -> Path:
        """One per seed: the logs it learns from are the same whatever the new robot's log is."""
        prior = self._of_seed(seed) / "prior"
        if not prior.exists():
            options: list[str | Path] = ["--seed", str(seed)]
            if self.choice.horizon == "stated":
                options += ["--risk.horizon", str(self.kind.stated_horizon)]
            if self.choice.preset is not None:
                options += ["--preset", self.choice.preset]
            dataset = self.dataset(log_seed)
            began = time.perf_counter()
            safemesa("meta-train", dataset, "--out", prior, *options)
            seconds = {"wall_s": round(time.perf_counter() - began, 1)}
            self._seconds(seed).write_text(json.dumps(seconds))
        return prior

    def prior_seconds(self, seed: int) -> float | None:
        """How long the prior took; None if it was interrupted before that was written."""
        path = self._seconds(seed)
        return json.loads(path.read_text())["wall_s"] if path.exists() else None

    def shield(self, seed: int, log_seed: int) -> Path:
        """The prior, adapted to a log of the new robot and exported."""
        folder = self._of_seed(seed) / f"log-{log_seed}"
        if not (folder / "shield").exists():
            prior = self.prior(seed, log_seed)
            if not (folder / "risk").exists():
                safemesa("adapt", prior, self.dataset(log_seed), "--out", folder / "risk")
            safemesa("shield", "export", folder / "risk", "--out", folder / "shield")
        return folder / "shield"

    def _of_seed(self, seed: int) -> Path:
        folder = self.folder / self.kind.name / self.choice.name / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _seconds(self, seed: int) -> Path:
        return self._of_seed(seed) / "prior_seconds.json"


def safemesa(*arguments: str | Path) -> None:
    """Runs a verb of the command line."""
    command: Sequence[str] = [str(SAFEMESA), *map(str, arguments)]
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


def risk_facts(shield: Path) -> dict[str, Any]:
    """When an exported shield takes over, and what is known of the log it was adapted to."""
    manifest = json.loads((shield / "manifest.json").read_text())
    return {
        "risk_limit": manifest["shield"]["risk"]["limit"],
        "gamma_risk": manifest["provenance"]["gamma_risk"],
        "log_violations": manifest["log"]["violations"],
    }
