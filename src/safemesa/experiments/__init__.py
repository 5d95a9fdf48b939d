"""Arms, statistics, figures and reports: what compares runs."""
