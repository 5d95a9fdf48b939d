"""Settings for logs of the user's own robots."""

from dataclasses import replace

from safemesa.guards.settings import TakeoverSettings
from safemesa.learners.meta.settings import MetaSettings
from safemesa.phases.config import RunConfig

RARE = 0.05
"""Share of violating rows below which batches are balanced: a batch of 64 rows that are drawn
uniformly would hold three of them, and with a tenth of that most batches hold none."""
BALANCED = 0.3
"""As on the simulated robots."""


def for_own_logs(config: RunConfig, violating_share: float) -> RunConfig:
    """The risk of the policy that drove these robots, which nobody has drawn at random.

    Args:
        config: a preset's.
        violating_share: of the rows of the training logs.
    """
    own = config.guard == "takeover"
    # A mixture's risk has a level of its own, which balanced batches would raise.
    fraction = BALANCED if violating_share < RARE and not own else None
    if own:
        # People drive better than chance, and most of what they do is worth recovering to.
        # At most 128 units learn a fleet's logs as well as larger ones, in a quarter of the time.
        config = replace(
            config,
            target=replace(config.target, recovers=0.75),
            # Fifty times the slow copy bootstraps; a half to begin with would still be .1 to .2.
            risk=replace(
                config.risk,
                initial=0.0067,
                hidden=tuple(min(n, 128) for n in config.risk.hidden),
            ),
            # Drivers do much the same in the same place, and what else would do no log shows. At 0
            # a crane fled where no log has been; at 5 an oven was not saved any more.
            recovery=replace(config.recovery, behaviour=2.0),
        )
        if isinstance(config.meta, MetaSettings):
            # At 3e-4 Phase 1 ended too early for cranes: 3 cm before the stop the critic still
            # called it safe to drive on, as those who crash are those who brake there.
            config = replace(config, meta=replace(config.meta, outer_rate=1e-3))
        if isinstance(config.guard_settings, TakeoverSettings):
            # "Calm" drivers have near misses, and what a higher quantile says is theirs: with .95 a
            # cart with weak brakes had 10 violations in 80 episodes, with this none.
            settings = replace(config.guard_settings, calm_share=0.75)
            config = replace(config, guard_settings=settings)
    return replace(
        config,
        sampling=replace(config.sampling, next_action="logged", violation_fraction=fraction),
    )
