"""Fingerprints of episodes: equal episodes have equal numbers, whatever file they are in."""

from dataclasses import dataclass, field, replace

import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.doctor.cells import Places, Report
from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.assemble import Steps

SHORTEST = 5
"""Steps of an episode that can be recognised as a copy; shorter ones may be equal by chance."""


@dataclass
class Fingerprints:
    """Takes the steps of a task in order; counts episodes and remembers a hash of each."""

    spaces: Spaces
    episodes: int = 0
    violating: int = 0
    """Episodes with a violation."""
    seen: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    """Hash to (file, episode, row): there can be millions."""
    _hash: int = 0
    _rows: int = 0
    _violated: bool = False
    _place: Finding | None = None

    def __post_init__(self) -> None:
        """Draws the factors of the hash, always the same."""
        count = self.spaces.obs_size + self.spaces.action_size + 1
        numbers = np.random.default_rng(0).integers(0, 2**63, count, np.uint64)
        # Odd numbers: multiplying by them modulo 2^64 loses nothing.
        self._factors = numbers * np.uint64(2) + np.uint64(1)

    def add(self, steps: Steps, report: Report, files: list[str]) -> None:
        """Takes the next steps; reports an episode that was seen before in this task."""
        mixed = self._row_numbers(steps)
        begins = np.flatnonzero(np.concatenate([[True], steps.last[:-1]]))
        totals = np.add.reduceat(mixed, begins).tolist()
        violated = np.logical_or.reduceat(steps.cost == 1, begins).tolist()
        ends = [*(begins[1:] - 1).tolist(), len(steps) - 1]
        for begin, end, total, bad in zip(begins.tolist(), ends, totals, violated, strict=True):
            self._hash = (self._hash + total) % 2**64
            if self._place is None:
                self._place = Places(steps, files, report).finding("duplicate-episode", begin)
            self._rows += end - begin + 1
            self._violated |= bad
            if steps.last[end]:
                self._close(self._place, report)

    def _row_numbers(self, steps: Steps) -> np.ndarray:
        """A number per row that depends on every bit of obs and action and on the step."""
        exact = np.concatenate([steps.obs, steps.action], axis=1).astype(np.float32)
        bits = np.concatenate([exact.view(np.uint32), steps.step[:, None].astype(np.uint32)], 1)
        mixed = (bits.astype(np.uint64) * self._factors).sum(axis=1, dtype=np.uint64)
        mixed ^= mixed >> np.uint64(29)
        return mixed * self._factors[0]

    def _close(self, place: Finding, report: Report) -> None:
        self.episodes += 1
        self.violating += self._violated
        if self._rows >= SHORTEST:
            here = (place.file, place.episode, place.row or 0)
            known = self.seen.setdefault(self._hash, here)
            if known is not here:
                report(replace(place, detail=f"equals episode {known[1]}"))
        self._hash, self._rows, self._violated, self._place = 0, 0, False, None
