"""How risk, task policies and priors are learned; pure functions and small states."""
