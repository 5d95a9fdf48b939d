"""Cartpole-Length, HalfCheetah-Disabled and Ant-Disabled. Sizes of `paper`: MESA Tables 1 to 5.

The target critic follows faster than on Navigation (5e-3 against 2e-4): a slow one keeps the risk
of the random policy while the task policy changes, and cost every arm three times as many
violations on HalfCheetah (docs/fidelity.md).
"""

from dataclasses import replace

from safemesa.learners.config import RiskConfig, SACConfig, SamplingConfig
from safemesa.phases.config import AdaptConfig, DataConfig, DeployConfig, RunConfig
from safemesa.phases.presets.plugin_values import Preset


def cartpole(preset: str) -> Preset:
    """Twenty pole lengths: gamma_risk 0.8, risk limit 0.1 (Table 1)."""
    paper = Preset(
        config=RunConfig(
            domain="cartpole",
            preset=preset,
            # 100 episodes of 200 steps: "about 20K steps" of section 5.1.
            data=DataConfig(
                train_tasks=20, train_transitions=20_000, test_transitions=1_000, train_policy="sac"
            ),
            risk=RiskConfig(gamma_risk=0.8),
            adapt=AdaptConfig(steps=500, scratch_steps=10_000, batch=256),
            deploy=DeployConfig(episodes=400, target_rate=5e-3, chunk_steps=2_000),
        ),
        guard={"risk_limit": 0.1},
        meta={"iterations": 10_000},
    )
    if preset == "cpu":
        return _cpu(paper, train=10_000, test=1_000, steps=20_000)
    return _quick(paper, tasks=6, train=1_000, episodes=12) if preset == "quick" else paper


def halfcheetah(preset: str) -> Preset:
    """Four disabled joints: gamma_risk 0.8, risk limit 0.1 (Tables 1 and 3)."""
    paper = Preset(
        config=RunConfig(
            domain="halfcheetah",
            preset=preset,
            data=DataConfig(
                train_tasks=4,
                train_transitions=400_000,
                test_transitions=40_000,
                train_policy="sac",
            ),
            # Three in ten rows violate, as in the published code: early violations end the episode
            # and are soon a hundredth of the replay.
            sampling=SamplingConfig(violation_fraction=0.3),
            risk=RiskConfig(gamma_risk=0.8),
            adapt=AdaptConfig(steps=500, scratch_steps=10_000, batch=256),
            sac=SACConfig(warmup_steps=10_000),
            deploy=DeployConfig(episodes=500, target_rate=5e-3, chunk_steps=5_000),
        ),
        guard={"risk_limit": 0.1},
        meta={"iterations": 15_000},
    )
    if preset == "cpu":
        return _cpu(paper, train=50_000, test=2_500, steps=40_000)
    return _quick(paper, tasks=4, train=2_500, episodes=3) if preset == "quick" else paper


def halfcheetah_partial(preset: str) -> Preset:
    """The same training robots; on the new one every joint is weaker (section 6.2)."""
    base = halfcheetah(preset)
    config = replace(base.config, domain="halfcheetah_partial")
    if preset == "cpu":
        # A random policy violates seldom: 2500 steps hold no violation for two seeds of three.
        config = replace(config, data=replace(config.data, test_transitions=10_000))
    return replace(base, config=config)


def ant(preset: str) -> Preset:
    """Three disabled legs: gamma_risk 0.8, risk limit 0.3 (Tables 1 and 4)."""
    base = halfcheetah(preset)
    config = replace(
        base.config,
        domain="ant",
        data=replace(base.config.data, train_tasks=3),
        # 1000 episodes in the published command, 500 of HalfCheetah.
        deploy=replace(base.config.deploy, episodes=2 * base.config.deploy.episodes),
    )
    return replace(base, config=config, guard={"risk_limit": 0.3})


def custom(domain: str, preset: str) -> Preset:
    """A domain of the user's (`module:attribute`): the settings of HalfCheetah.

    Whether SAC or random policies collect its logs depends on whether it is simulated or compiled.
    """
    base = halfcheetah(preset)
    data = replace(base.config.data, train_policy="auto")
    return replace(base, config=replace(base.config, domain=domain, data=data))


def _cpu(paper: Preset, train: int, test: int, steps: int) -> Preset:
    """The same protocol for two cores: smaller networks and batches, about 100 episodes.

    Phase 3 ends after a number of steps, because an arm that violates early in each episode has
    taken a tenth of the steps of one that does not by the time it has as many episodes. The test
    log, which stays in the safety replay, is as small a share of those steps as in `paper`: four
    times as many of its rows cost MESA and Multi-Task violations on a held-out joint
    (docs/results.md).
    """
    config = paper.config
    warmup = min(config.sac.warmup_steps, 2_000)
    small = replace(
        config,
        data=replace(config.data, train_transitions=train, test_transitions=test),
        risk=replace(config.risk, hidden=(128, 128)),
        adapt=replace(config.adapt, scratch_steps=5_000, batch=128),
        sac=replace(config.sac, hidden=(128, 128), batch=128, warmup_steps=warmup),
        deploy=replace(config.deploy, episodes=steps, steps=steps, chunk_steps=2_000),
    )
    sizes = {"iterations": 10_000, "support_batch": 128, "query_batch": 128}
    return replace(paper, config=small, meta=sizes)


def _quick(paper: Preset, tasks: int, train: int, episodes: int) -> Preset:
    """A minute: shows that everything works, and nothing about the method."""
    config = paper.config
    small = replace(
        config,
        data=replace(
            config.data, train_tasks=tasks, train_transitions=train, test_transitions=1_000
        ),
        risk=replace(config.risk, hidden=(64, 64)),
        adapt=replace(config.adapt, steps=100, scratch_steps=500, batch=64),
        sac=SACConfig(hidden=(64, 64), batch=64),
        deploy=replace(config.deploy, episodes=episodes, chunk_steps=500),
    )
    sizes = {"iterations": 1_000, "support_batch": 64, "query_batch": 64}
    return replace(paper, config=small, meta=sizes)
