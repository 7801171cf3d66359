"""Tests of calibration, evaluation and sample data: every kind, every mistake, and what streaming them costs."""
