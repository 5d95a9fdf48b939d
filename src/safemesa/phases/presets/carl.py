"""CARL's settings per domain and preset. `paper`: those of its published code, where it has them.

Navigation and Maze are not in CARL's paper; they have the networks of Recovery RL's model-based
planner. Their horizon decides what CARL can do on Navigation 2: in front of the block a detour pays
only when 12 steps or more are planned ahead, so 5 (that planner's) stalls there.
"""

from dataclasses import replace

from safemesa.learners.carl.config import CARLConfig

_PLANE = CARLConfig(horizon=15)
_CARTPOLE = CARLConfig(
    horizon=25,
    hidden=(500, 500, 500),
    weight_decay=(1e-4, 2.5e-4, 2.5e-4, 5e-4),
    source_episodes=50,
)
_LOCOMOTION = CARLConfig(
    horizon=10,
    hidden=(200, 200, 200, 200),
    weight_decay=(2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
    source_epochs=10.0,
    log_updates=30_000,
)
_DOMAINS = {
    "navigation1": _PLANE,
    "navigation2": _PLANE,
    "maze": _PLANE,
    "cartpole": _CARTPOLE,
}


def carl_settings(domain: str, preset: str) -> CARLConfig:
    """CARL on a domain; robots without settings of their own have those of HalfCheetah."""
    paper = _DOMAINS.get(domain, _LOCOMOTION)
    if preset == "cpu":
        simulated = domain not in ("navigation1", "navigation2", "maze")
        return replace(
            paper,
            budget="mini",
            hidden=(200,) * len(paper.hidden),
            batch=128,
            log_updates=10_000,
            source_episodes=20 if simulated else 50,
            source_epochs=5.0,
        )
    if preset == "quick":
        return replace(
            paper,
            budget="mini",
            horizon=8,
            hidden=(64, 64),
            weight_decay=paper.weight_decay[:3],
            batch=64,
            log_updates=2_000,
            source_episodes=10,
            source_epochs=5.0,
            test_log_updates=200,
        )
    return paper
