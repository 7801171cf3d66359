"""Fixtures of the tests of targets."""

from targets.tensorrt_networks import happened

__all__ = ["happened"]
