"""How the rows of a sample lie in time: their spacing, gaps, and turns back."""

from dataclasses import dataclass

import numpy as np

from safemesa.datasets.importers.assemble import LARGEST_JITTER

ROUNDING = 0.01
"""Part of a spacing by which it may be moved to a round one."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Spacing of rows within episodes, in units of the clock."""

    spacing: float
    """The typical one, rounded; NaN where nothing shows it."""
    pairs: int
    gaps: int
    early: int
    """Rows that come much too soon."""
    backwards: int
    repeated: int
    whole: bool
    """The clock shows whole numbers alone."""


def read_clock(times: np.ndarray, within: np.ndarray) -> Clock:
    """The clock of rows `[n]`; `within [n - 1]` says which pairs belong to one episode."""
    with np.errstate(invalid="ignore", over="ignore"):
        passed = (times[1:] - times[:-1])[within]
    passed = passed[np.isfinite(passed)]
    forward = passed[passed > 0]
    spacing = rounded(float(np.median(forward))) if len(forward) else float("nan")
    off = np.abs(forward - spacing) > LARGEST_JITTER * spacing
    known = times[np.isfinite(times)]
    return Clock(
        spacing=spacing,
        pairs=len(forward),
        gaps=int(np.count_nonzero(off & (forward > spacing))),
        early=int(np.count_nonzero(off & (forward < spacing))),
        backwards=int(np.count_nonzero(passed < 0)),
        repeated=int(np.count_nonzero(passed == 0)),
        whole=bool((known == np.floor(known)).all()),
    )


def rounded(spacing: float) -> float:
    """A round number nearby: of two digits, or one of rows per second; else four digits."""
    tries = [float(f"{spacing:.2g}")]
    if spacing < 1:
        tries.append(1.0 / round(1.0 / spacing))
    nearest = min(tries, key=lambda value: abs(value - spacing))
    return nearest if abs(nearest - spacing) <= ROUNDING * spacing else float(f"{spacing:.4g}")


def bound(value: float) -> float:
    """The next number of one digit, away from zero."""
    if value == 0 or not np.isfinite(value):
        return 0.0
    power = 10.0 ** np.floor(np.log10(abs(value)))
    digits = np.ceil(abs(value) / power - 1e-9)
    return float(f"{np.sign(value) * digits * power:.3g}")
