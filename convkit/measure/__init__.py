"""Numerical difference and latency, on anything that can be run."""
