"""The paper as data: its claims, and what they are measured by."""
