"""Finished runs as they are found on disk."""
