"""Measurements: ratios of two things run in one process tree, one JSON line at the end."""
