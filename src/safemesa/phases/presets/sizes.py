"""Smaller sizes that domains of the plane share."""

from dataclasses import replace

from safemesa.learners.config import SACConfig
from safemesa.phases.config import AdaptConfig
from safemesa.phases.presets.plugin_values import Preset


def reduced(paper: Preset) -> Preset:
    """The sizes of the configuration's preset: `paper` as it is, `cpu` or `quick` smaller."""
    config = paper.config
    if config.preset == "cpu":
        small = replace(
            config,
            risk=replace(config.risk, hidden=(128, 128)),
            sac=replace(config.sac, hidden=(128, 128), batch=128),
            deploy=replace(config.deploy, episodes=100),
        )
        return replace(paper, config=small, meta={"support_batch": 128, "query_batch": 128})
    if config.preset == "quick":
        small = replace(
            config,
            data=replace(config.data, train_tasks=12, train_transitions=2_000),
            risk=replace(config.risk, hidden=(64, 64)),
            adapt=AdaptConfig(scratch_steps=500),
            sac=SACConfig(hidden=(64, 64), batch=64),
            deploy=replace(config.deploy, episodes=60, chunk_steps=250),
        )
        sizes = {"iterations": 3_000, "support_batch": 64, "query_batch": 64}
        return replace(paper, config=small, meta=sizes)
    return paper
