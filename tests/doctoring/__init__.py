"""Tests of `convkit doctor`."""
