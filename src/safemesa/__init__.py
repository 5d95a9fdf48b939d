"""Learn a risk measure from logs of many robots, adapt it to a new one, keep that robot safe.

Public names are imported when they are first used, so `import safemesa` is cheap: it imports no
JAX. It registers the domains, so that `gymnasium.make("safemesa/Navigation1-v0")` works.
"""

import importlib
from typing import TYPE_CHECKING, Any

from safemesa._version import __version__
from safemesa.domains.registration import register_environments

if TYPE_CHECKING:
    from safemesa.core.errors import SafemesaError
    from safemesa.core.types import Transition

__all__ = ["SafemesaError", "Transition", "__version__"]

_HOME_OF = {
    "SafemesaError": "safemesa.core.errors",
    "Transition": "safemesa.core.types",
}

register_environments()


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
