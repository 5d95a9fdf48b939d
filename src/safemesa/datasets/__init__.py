"""Logs of many tasks: the native format, sampling, and the online store."""
