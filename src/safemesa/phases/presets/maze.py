"""The maze of Figure 2, whose settings the paper does not give.

Risk settings and log sizes are Recovery RL's for its maze, from which this one descends; the number
of training mazes and of test transitions is that of the published code.
"""

from safemesa.learners.config import RiskConfig, SamplingConfig
from safemesa.phases.config import DataConfig, DeployConfig, RunConfig
from safemesa.phases.presets.plugin_values import Preset
from safemesa.phases.presets.sizes import reduced


def maze(preset: str) -> Preset:
    """Two walls with gaps: gamma_risk 0.5, risk limit 0.15 (Recovery RL)."""
    return reduced(
        Preset(
            config=RunConfig(
                domain="maze",
                preset=preset,
                data=DataConfig(train_tasks=100, train_transitions=10_000, test_transitions=1_000),
                sampling=SamplingConfig(violation_fraction=0.3),
                risk=RiskConfig(gamma_risk=0.5),
                deploy=DeployConfig(episodes=500),
            ),
            guard={
                "risk_limit": 0.15,
                "actor_multiplier": 100.0,
                "reward_multiplier": 50.0,
                "violation_penalty": 50.0,
            },
        )
    )
