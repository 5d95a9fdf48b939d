"""The three phases, and the folder that a run leaves."""
