"""Networks: one example in, callers `vmap`."""
