"""Errors that a user can act on.

Each message says what was given, what was expected and what to do next. The command line
prints the message alone and exits with code 2; a traceback means a defect of ours.
"""


class SafemesaError(ValueError):
    """Base of every error that is caused by input and can be mended by the user."""


class ConfigurationError(SafemesaError):
    """An unknown name, an impossible value, or options that contradict each other."""


class DatasetError(SafemesaError):
    """A dataset is missing, damaged, not finite, or does not fit the domain."""


class CheckpointError(SafemesaError):
    """A checkpoint or artefact is damaged or belongs to other networks."""


class OutputFolderError(SafemesaError):
    """The output folder holds something that must not be overwritten."""
