"""From a name to a domain."""

import importlib

from safemesa.domains.base import AbstractDomain
from safemesa.domains.registration import ENTRIES, domain_names, probe_names

__all__ = ["domain", "domain_names", "probe_names"]


def domain(name: str) -> AbstractDomain:
    """The domain or probe of that name, with its default settings.

    Another setting is `dataclasses.replace(domain(name), ...)`.

    Raises:
        ConfigurationError: there is none; close matches and all names are listed.
    """
    module, attribute = ENTRIES[name].location.split(":")
    return getattr(importlib.import_module(module), attribute)
