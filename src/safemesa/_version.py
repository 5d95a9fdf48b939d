"""The version: its single source, read by the build and by `safemesa --version`."""

__version__ = "0.1.0"
