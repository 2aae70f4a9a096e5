"""Searches for the layers that may be int8: plans, ranges from calibration, rounding, and the search itself."""
