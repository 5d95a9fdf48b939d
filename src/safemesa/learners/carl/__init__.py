"""CARL (Zhang et al. 2020): plans through a learned ensemble of models; no policy, no critic."""
