"""Tests of `convkit inspect`."""
