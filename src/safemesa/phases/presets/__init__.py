"""Named settings per domain.

`paper`: the sizes of Tables 1 to 5. `cpu`: the same protocol for two cores (128x128 networks,
batches of 128, about 100 episodes). `quick`: a minute, for demos and tests.
"""

import difflib

from safemesa.core.errors import ConfigurationError
from safemesa.phases.config import RunConfig
from safemesa.phases.presets.locomotion import (
    ant,
    cartpole,
    custom,
    halfcheetah,
    halfcheetah_partial,
)
from safemesa.phases.presets.maze import maze
from safemesa.phases.presets.navigation import navigation1, navigation2

DOMAIN_PRESETS = {
    "navigation1": navigation1,
    "navigation2": navigation2,
    "maze": maze,
    "cartpole": cartpole,
    "halfcheetah": halfcheetah,
    "halfcheetah_partial": halfcheetah_partial,
    "ant": ant,
}
PRESETS = ("paper", "cpu", "quick")


def preset_config(
    domain: str, preset: str, meta_learner: str = "maml", guard: str = "recovery_rl"
) -> RunConfig:
    """The configuration of a domain before an arm changes it.

    A domain of the user's, given as `module:attribute`, has the settings of HalfCheetah.

    Raises:
        ConfigurationError: unknown domain, preset, meta-learner or guard.
    """
    named = domain if ":" not in domain else "halfcheetah"
    for kind, name, known in (
        ("domain", named, tuple(DOMAIN_PRESETS)),
        ("preset", preset, PRESETS),
    ):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")
    found = custom(domain, preset) if ":" in domain else DOMAIN_PRESETS[domain](preset)
    return found.with_plugins(meta_learner, guard)
