"""From a name to a domain."""

import importlib

from safemesa.core.errors import ConfigurationError
from safemesa.domains.base import AbstractDomain
from safemesa.domains.registration import ENTRIES, domain_names, probe_names

__all__ = ["domain", "domain_names", "probe_names"]


def domain(name: str) -> AbstractDomain:
    """The domain or probe of that name, with its default settings.

    Another setting is `dataclasses.replace(domain(name), ...)`. A domain of the user's own is
    named `module:attribute`, where the module can be imported.

    Raises:
        ConfigurationError: there is none; close matches and all names are listed.
    """
    location = name if ":" in name else ENTRIES[name].location
    module, _, attribute = location.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        if location != name:
            raise
        raise ConfigurationError(
            f"the domain {name!r} cannot be imported: {error}. Name it as `module:attribute` and "
            "run where Python finds the module (see PYTHONPATH)."
        ) from error
    if not isinstance(found, AbstractDomain):
        raise ConfigurationError(
            f"{name!r} is a {type(found).__name__}; expected a domain, such as PerturbedTasks(...)."
        )
    return found
