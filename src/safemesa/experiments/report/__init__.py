"""Runs compared: rows, tables, figures, and the page that shows them."""
