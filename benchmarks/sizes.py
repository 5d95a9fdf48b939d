"""How large the measured problems are: the paper's, and tiny ones to try the benchmark out."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """One problem size; `FULL` is the one that numbers are reported for."""

    obs: int = 20
    action: int = 6
    hidden: tuple[int, ...] = (256, 256)
    batch: int = 256
    """Rows of a task, safety, support or query batch."""
    risk_critics: int = 2
    """Safety critics of the online step; meta-learning trains one, as the paper does."""
    tasks: int = 5
    """Tasks of one outer step."""
    replay_rows: int = 10_000
    online_steps: int = 40
    """Online or SAC steps of one timed run."""
    meta_iterations: int = 15
    """Outer steps of one timed run."""
    phase1_chunks: int = 3
    """Chunks of Phase 1 that are timed after the one that compiles."""
    phase1_chunk: int = 500
    """Outer steps of such a chunk."""
    navigation_steps: int = 100_000


FULL = Sizes()
QUICK = Sizes(
    obs=4,
    action=2,
    hidden=(16, 16),
    batch=16,
    tasks=2,
    replay_rows=200,
    online_steps=3,
    meta_iterations=2,
    phase1_chunks=1,
    phase1_chunk=4,
    navigation_steps=200,
)
