"""Where the runs of a grid are carried out: on this machine, or on a cluster."""
