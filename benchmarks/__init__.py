"""Speed, as ratios measured in one run: against the arithmetic floor and against peers."""
