"""The exported critic and recovery policy that run on a robot."""
