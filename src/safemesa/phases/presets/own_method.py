"""Settings of the arm `safemesa`: one critic, of a robot that recovers but stumbles.

They were chosen on held-out robots (docs/protection.md, results/tuning).
"""

from dataclasses import replace

from safemesa.core.errors import ConfigurationError
from safemesa.learners.config import RehearsalConfig, TargetConfig
from safemesa.learners.recovery.settings import NetworkSettings
from safemesa.phases.config import RunConfig

HORIZON_STEPS = 20
"""Steps of the effective horizon, 1 / (1 - gamma), where nobody says how many seconds a robot needs
to get out of trouble."""

ANT_HORIZON_STEPS = 50
"""An ant tips over slowly: 24 steps before its torso touches the floor half of the states are lost
to no torque and to what is learned alike, 48 steps before hardly any."""
ANT_CALM_SHARE = 0.75
"""Its risk rises within eight steps from that of calm states to where nothing helps, so the limit
is as low as on own logs: on a held-out leg .95 took over at the last moment and saved nothing."""


def gamma_of_horizon(seconds: float, dt: float) -> float:
    """The discount whose effective horizon, dt / (1 - gamma), is so many seconds.

    Raises:
        ConfigurationError: the horizon is shorter than two steps, in which nothing can be done.
    """
    if not seconds >= 2.0 * dt:
        raise ConfigurationError(
            f"a horizon of {seconds:g} s is less than two steps of {dt:g} s: a risk that looks no "
            "further cannot warn in time. Give the seconds that the robot needs to get out of "
            "trouble, or log faster."
        )
    return 1.0 - dt / seconds


def own_method(config: RunConfig) -> RunConfig:
    """The settings of a preset with those of `safemesa` instead of the paper's."""
    ant = config.domain == "ant"
    takeover = {"recovery_noise": 0.0, **({"calm_share": ANT_CALM_SHARE} if ant else {})}
    return replace(
        config,
        sampling=replace(config.sampling, safe_starts=True, violation_fraction=None),
        risk=replace(
            config.risk,
            gamma_risk=1.0 - 1.0 / (ANT_HORIZON_STEPS if ant else HORIZON_STEPS),
            critics=2,
            # A squared error through a sigmoid neither resolves small risks nor recovers where the
            # sigmoid has saturated; the cross-entropy has the same minimum and does both.
            loss="bce",
        ),
        guard_settings=replace(config.guard_settings, **takeover),
        target=TargetConfig(kind="mixture", recovers=0.5),
        recovery=NetworkSettings(objective="logit"),
        rehearsal=RehearsalConfig(rows=50_000),
        # Both the critic and whom it follows are learned, so what bootstraps must be slow.
        meta=replace(config.meta, query_batch=512, target_rate=5e-3),
        adapt=replace(config.adapt, batch=256, target_rate=5e-3),
        deploy=replace(config.deploy, target_rate=5e-3),
    )
