"""Finds defects of logs, says where they are, and whether the data suffice."""
