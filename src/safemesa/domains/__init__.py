"""Task distributions: families of environments that differ in their dynamics only."""
