"""Has the robot changed? Residuals of a model of its dynamics, and tests that sum them up.

NumPy alone, so that what is decided here can be decided on a robot.
"""
