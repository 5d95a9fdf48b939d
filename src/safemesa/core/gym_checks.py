"""What environments of others must be like to be recorded or shielded."""

import re
from typing import Any

import gymnasium

from safemesa.core.errors import ConfigurationError

_NORMALISES = re.compile(r"normali[sz]\w*obs|obs\w*normali[sz]", re.IGNORECASE)


def require_physical_observations(env: Any, what: str) -> None:
    """Refuses observations whose scale moves while they are seen.

    Raises:
        ConfigurationError: a wrapper below normalises them; it is named.
    """
    while isinstance(env, gymnasium.Wrapper | gymnasium.vector.VectorWrapper):
        name = type(env).__name__
        if _NORMALISES.search(name) or hasattr(env, "obs_rms"):
            raise ConfigurationError(
                f"{name} lies below {what}, so that observations are in the units of a moving "
                f"average and not of the robot. Put {what} below it: {name}({what}(env, ...))."
            )
        env = env.env
