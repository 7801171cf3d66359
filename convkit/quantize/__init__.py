"""Calibration data, and INT8 with and without them."""
