"""Named settings per domain: `paper` (sizes of Tables 1-5) and `quick` (demos and tests)."""

import difflib

from safemesa.core.errors import ConfigurationError
from safemesa.phases.config import RunConfig
from safemesa.phases.presets.navigation import navigation1, navigation2

DOMAIN_PRESETS = {"navigation1": navigation1, "navigation2": navigation2}
PRESETS = ("paper", "quick")


def preset_config(domain: str, preset: str) -> RunConfig:
    """The configuration of a domain before an arm changes it.

    Raises:
        ConfigurationError: unknown domain or preset.
    """
    for kind, name, known in (
        ("domain", domain, tuple(DOMAIN_PRESETS)),
        ("preset", preset, PRESETS),
    ):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")
    return DOMAIN_PRESETS[domain](preset)
