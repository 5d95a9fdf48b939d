"""Logs: of the training tasks and of the new robot, on any domain."""
