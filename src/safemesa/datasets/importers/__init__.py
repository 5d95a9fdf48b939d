"""Logs of other formats become datasets: one file per format, one map, one assembly of rows."""
