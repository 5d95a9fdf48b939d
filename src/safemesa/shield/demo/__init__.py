"""A ready shield of a simulated cart, with its prior and its risk model: nothing to train."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
PRIOR, RISK, SHIELD = MODEL / "prior", MODEL / "risk", MODEL / "shield"
"""What `meta-train`, `adapt` and `shield export` wrote; the shield lacks its copy of the runtime,
which `safemesa.shield.demo.comparison.copy_shield` adds."""
