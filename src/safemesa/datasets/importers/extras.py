"""Optional libraries: imported when they are needed, with an error that names the extra."""

import importlib
from types import ModuleType

from safemesa.core.errors import ConfigurationError


def import_extra(module: str, extra: str) -> ModuleType:
    """Imports a module of an extra of ours.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"this file needs {module}, which is not installed: pip install 'safemesa[{extra}]'."
        ) from error
