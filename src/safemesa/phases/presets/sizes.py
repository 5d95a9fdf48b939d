"""Smaller sizes that domains of the plane share."""

from dataclasses import replace

from safemesa.learners.config import MetaConfig, SACConfig
from safemesa.phases.config import AdaptConfig, RunConfig


def reduced(paper: RunConfig) -> RunConfig:
    """The sizes of the configuration's preset: `paper` as it is, `cpu` or `quick` smaller."""
    if paper.preset == "cpu":
        return replace(
            paper,
            risk=replace(paper.risk, hidden=(128, 128)),
            meta=replace(paper.meta, support_batch=128, query_batch=128),
            sac=replace(paper.sac, hidden=(128, 128), batch=128),
            deploy=replace(paper.deploy, episodes=100),
        )
    if paper.preset == "quick":
        return replace(
            paper,
            data=replace(paper.data, train_tasks=12, train_transitions=2_000),
            risk=replace(paper.risk, hidden=(64, 64)),
            meta=MetaConfig(iterations=3_000, support_batch=64, query_batch=64),
            adapt=AdaptConfig(scratch_steps=500),
            sac=SACConfig(hidden=(64, 64), batch=64),
            deploy=replace(paper.deploy, episodes=60, chunk_steps=250),
        )
    return paper
