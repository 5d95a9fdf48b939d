"""Navigation 1 and 2. Sizes of `paper`: MESA Tables 1 and 2 and section 5.1."""

from safemesa.learners.config import RiskConfig
from safemesa.phases.config import DataConfig, RunConfig
from safemesa.phases.presets.plugin_values import Preset
from safemesa.phases.presets.sizes import reduced


def navigation1(preset: str) -> Preset:
    """A corridor: gamma_risk 0.8 (Table 1), risk limit 0.3 (Table 2)."""
    return reduced(
        Preset(
            config=RunConfig(
                domain="navigation1",
                preset=preset,
                # The paper says 20 to 25 data sets; the published code has 24.
                data=DataConfig(train_tasks=24, train_transitions=10_000, test_transitions=100),
                risk=RiskConfig(gamma_risk=0.8),
            ),
            # The published commands of Recovery RL's comparisons on this environment.
            guard={
                "risk_limit": 0.3,
                "actor_multiplier": 5_000.0,
                "reward_multiplier": 1_000.0,
                "violation_penalty": 1_000.0,
            },
        )
    )


def navigation2(preset: str) -> Preset:
    """A block in the way: gamma_risk 0.65 (Table 2), risk limit 0.1 (Table 1)."""
    return reduced(
        Preset(
            config=RunConfig(
                domain="navigation2",
                preset=preset,
                data=DataConfig(train_tasks=25, train_transitions=10_000, test_transitions=200),
                risk=RiskConfig(gamma_risk=0.65),
            ),
            guard={
                "risk_limit": 0.1,
                "actor_multiplier": 1_000.0,
                "reward_multiplier": 5_000.0,
                "violation_penalty": 3_000.0,
            },
        )
    )
