"""From a configuration to who acts and learns in Phase 3."""

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.phases.agents.base import AbstractAgent
from safemesa.phases.carl.run import build_carl_agent
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.state import build_agent


def make_agent(config: RunConfig, spaces: Spaces) -> AbstractAgent:
    """The agent of a configuration, of whatever kind.

    Raises:
        ConfigurationError: an unknown name, or parts that do not fit together.
    """
    if config.agent == "carl":
        return build_carl_agent(config, spaces)
    if config.agent == "sac":
        return build_agent(config, spaces)
    raise ConfigurationError(f"unknown agent {config.agent!r}. Known: sac, carl.")
