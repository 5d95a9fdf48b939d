"""The loop around compiled chunks: resume, checkpoint, report. No maths here."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from safemesa.core.types import Metrics, PyTree
from safemesa.phases.progress import NoProgress, Progress
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.storage.checkpoint import Checkpointer

Advance = Callable[[PyTree, int, int], tuple[PyTree, Metrics]]
"""`(state, start, stop) -> (state, metrics)`, with a leading seed axis where there are several."""


@dataclass
class ChunkLoop:
    """Runs a phase in chunks. `checkpointers` has one entry per seed, or is empty."""

    phase: str
    checkpointers: Sequence[Checkpointer] = ()
    progress: Progress = field(default_factory=NoProgress)
    on_metrics: Callable[[int, int, dict[str, float]], Any] = lambda seed, step, metrics: None
    """Called per seed with (seed index, steps done, mean metrics of the chunk)."""
    chunk: int | None = None
    """Steps between checkpoints and reports; None: what the phase asks for."""
    wall_seconds: float = 0.0
    """Time spent so far, that of interrupted processes included."""

    def run(
        self, axis: SeedAxis, state: PyTree, total: int, chunk: int, advance: Advance
    ) -> PyTree:
        """Advances `state` from the last checkpoint to `total` steps."""
        state, done = self._restore(axis, state)
        chunk = self.chunk or chunk
        self.progress.start(self.phase, total, done)
        began = time.perf_counter() - self.wall_seconds
        while done < total:
            stop = min(done + chunk, total)
            state, metrics = advance(state, done, stop)
            per_seed = [
                {name: float(np.asarray(value)) for name, value in one.items()}
                for one in axis.unstack(metrics)
            ]
            done = stop
            self.wall_seconds = time.perf_counter() - began
            for seed, values in enumerate(per_seed):
                self.on_metrics(seed, done, values)
            self._save(axis, state, done)
            self.progress.update(done, next(iter(per_seed[0].items()), None))
        self.progress.finish()
        return jax.block_until_ready(state)

    def _restore(self, axis: SeedAxis, state: PyTree) -> tuple[PyTree, int]:
        """Goes back to the last step that all seeds have saved; without one, to the start."""
        pairs = list(zip(self.checkpointers, axis.unstack(state), strict=False))
        newest = [saver.restore(template) for saver, template in pairs]
        common = min((0 if one is None else one.step for one in newest), default=0)
        sound = [saver.restore(template, at=common) for saver, template in pairs]
        restored = [one for one in sound if one is not None]
        if common == 0 or len(restored) < axis.count:
            return state, 0
        self.wall_seconds = restored[0].notes.get("wall_s", 0.0)
        return axis.stack([one.state for one in restored]), common

    def _save(self, axis: SeedAxis, state: PyTree, done: int) -> None:
        for saver, one in zip(self.checkpointers, axis.unstack(state), strict=False):
            saver.save(done, one, {"wall_s": self.wall_seconds})
