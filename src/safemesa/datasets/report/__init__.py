"""A dataset as a page: who drove how much, what led to violations, and how robots compare."""
