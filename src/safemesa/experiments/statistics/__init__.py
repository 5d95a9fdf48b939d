"""Statistics of seeded runs. NumPy only."""
