"""Grids: arms x domains x seeds, and the folder that holds their runs.

`DIR/<domain>/<arm>-<seed>` is a run folder like any other. `DIR/grid.json` keeps the settings of
each domain and arm, so that all seeds of a grid, also those that are added later, are of one kind.
Free of JAX.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safemesa.core.errors import ConfigurationError, OutputFolderError
from safemesa.core.files import file_name, read_json, write_json
from safemesa.core.locks import sole_owner
from safemesa.phases.config import RunConfig, config_to_json, deployed_together
from safemesa.phases.storage.run_folder import RunFolder, first_difference

FORMAT = 1
"""Version of `grid.json`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRun:
    """One run of a grid.

    Attributes:
        config: The whole configuration.
        variant: Tells runs of one arm, domain and seed apart that differ in another setting, such
            as `test-quarter`; empty where there is no such difference.
    """

    config: RunConfig
    variant: str = ""

    @property
    def condition(self) -> str:
        """The run without its seed: its folder's name up to that."""
        # `module:attribute` names a domain of the user's; not all systems allow colons in paths.
        domain = file_name(self.config.domain)
        return f"{domain}/{self.config.arm}" + (f"-{self.variant}" if self.variant else "")

    @property
    def name(self) -> str:
        """Its folder below that of the grid."""
        return f"{self.condition}-{self.config.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Runs that belong together.

    Attributes:
        runs: In the order in which they are begun.
        seeds_per_process: Seeds of one condition that share a process and its compiled functions
            (by `vmap`). Their rounding differs from that of single runs, so a folder holds grids
            of one such number only.
        arms_together: Whether arms that do the same in Phase 3 share the process, too.
    """

    runs: tuple[GridRun, ...]
    seeds_per_process: int = 1
    arms_together: bool = False

    def __post_init__(self) -> None:
        """Refuses an empty grid and two runs in one folder."""
        if self.seeds_per_process < 1:
            raise ConfigurationError(
                f"--seeds-per-process is {self.seeds_per_process}; expected at least 1."
            )
        if not self.runs:
            raise ConfigurationError("a grid without runs: give arms, domains and seeds.")
        counts = Counter(run.name for run in self.runs)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ConfigurationError(f"the grid has {', '.join(twice)} twice; give it once.")

    def settings(self) -> dict[str, dict[str, Any]]:
        """Configurations by condition, seeds aside, as `grid.json` has them.

        Raises:
            ConfigurationError: seeds of one condition have different settings.
        """
        found: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            values = _plain(config_to_json(replace(run.config, seed=0)))
            if found.setdefault(run.condition, values) != values:
                difference = first_difference(found[run.condition], values)
                raise ConfigurationError(
                    f"seeds of {run.condition} differ in more than the seed: {difference}. Name "
                    "the variants."
                )
        return found

    def groups(self) -> list[tuple[GridRun, ...]]:
        """Runs that share a process: blocks of seeds of one condition, in the grid's order.

        Seed s is in block s // seeds_per_process, whatever other seeds there are. Conditions whose
        Phase 3 is one program are in one block where arms are together.
        """
        blocks: dict[tuple[str, int], list[GridRun]] = {}
        for run in self.runs:
            kind = deployed_together(run.config) if self.arms_together else run.condition
            key = (kind, run.config.seed // self.seeds_per_process)
            blocks.setdefault(key, []).append(run)
        order = {condition: place for place, condition in enumerate(self.settings())}
        return [
            tuple(sorted(block, key=lambda one: (order[one.condition], one.config.seed)))
            for block in blocks.values()
        ]


def paired_runs(configs: Sequence[RunConfig], seeds: Sequence[int]) -> tuple[GridRun, ...]:
    """Every configuration with every seed, seed by seed: a grid that is stopped has whole pairs."""
    pairs = itertools.product(seeds, configs)
    return tuple(GridRun(config=replace(config, seed=seed)) for seed, config in pairs)


class GridFolder:
    """A grid on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "grid.json"
        self.logs = path / "logs"
        self.priors = path / "priors"

    def run(self, run: GridRun) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.path / run.name)

    def check(self, grid: Grid) -> None:
        """Refuses a folder with runs of other settings; writes nothing.

        Raises:
            OutputFolderError: another grid's settings are there, or a run of other settings.
        """
        wanted = grid.settings()
        if self.file.is_file():
            record = self._read()
            there = record["seeds_per_process"]
            if there != grid.seeds_per_process:
                raise OutputFolderError(
                    f"{self.path} holds a grid with {there} seeds per process; this one has "
                    f"{grid.seeds_per_process}. Both in one table would not be one experiment: "
                    "choose another --out."
                )
            if record.get("arms_together", False) != grid.arms_together:
                raise OutputFolderError(
                    f"{self.path} holds a grid of another kind: of `paper gpu`, where arms share a "
                    "process, and of other commands, where they do not, only one. Choose another "
                    "--out."
                )
            for condition, values in wanted.items():
                given = record["conditions"].get(condition, values)
                if given != values:
                    raise OutputFolderError(
                        f"{self.path} holds a grid in which {condition} has other settings "
                        f"({first_difference(given, values)}). Choose another --out."
                    )
        for run in grid.runs:
            self.run(run).check(run.config)

    def open(self, grid: Grid, command: str) -> None:
        """Claims the folder, or adds what the grid has beyond the one there; call `check` first."""
        wanted = {
            "format": FORMAT,
            "command": command,
            "seeds_per_process": grid.seeds_per_process,
            "conditions": grid.settings(),
        }
        if grid.arms_together:
            wanted["arms_together"] = True
        if self.file.is_file():
            record = self._read()
            wanted["command"] = record["command"]
            wanted["conditions"] = record["conditions"] | wanted["conditions"]
            if wanted == record:
                return
        write_json(self.file, wanted)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder against a second grid.

        Raises:
            OutputFolderError: another process is working on this grid.
        """
        with sole_owner(self.path):
            yield

    def _read(self) -> dict[str, Any]:
        record = read_json(self.file, error=OutputFolderError)
        kinds = {"format": int, "command": str, "seeds_per_process": int, "conditions": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]
        if wrong or record["format"] != FORMAT:
            raise OutputFolderError(
                f"{self.file} is no grid of this version (look at {', '.join(wrong) or 'format'}). "
                "Choose another --out."
            )
        return record


def _plain(values: Any) -> Any:
    """As it comes back from a file: tuples are lists."""
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, list | tuple) else values
