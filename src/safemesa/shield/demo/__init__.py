"""A ready shield of a simulated cart, its prior and its risk model: a shield in ten seconds."""
