"""A stand-in for TensorRT's timing cache, which wants a GPU: a set of names, and a builder that adds some.

Run as a program it is one build: ``fake_timings.py FOLDER NAME…``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from convkit.targets.trt_timings import kept_timings

HEAD = b"timings of "


class FakeTimingCache:
    """What a builder has measured; of one GPU."""

    def __init__(self, names: set[str], gpu: str) -> None:
        self.names = names
        self.gpu = gpu

    def combine(self, other: FakeTimingCache, ignore_mismatch: bool) -> bool:
        if other.gpu != self.gpu and not ignore_mismatch:
            return False
        self.names |= other.names
        return True

    def serialize(self) -> bytes:
        return HEAD + self.gpu.encode() + b"\n" + "\n".join(sorted(self.names)).encode()


class FakeConfig:
    """The timing half of IBuilderConfig."""

    def __init__(self, gpu: str = "this", *, takes: bool = True) -> None:
        self.gpu = gpu
        self.takes = takes
        self.cache: FakeTimingCache | None = None

    def create_timing_cache(self, serialized: bytes) -> FakeTimingCache | None:
        if not serialized:
            return FakeTimingCache(set(), self.gpu)
        head, *names = serialized.decode().splitlines()
        if not serialized.startswith(HEAD):
            return None
        return FakeTimingCache(set(names), head.removeprefix(HEAD.decode()))

    def set_timing_cache(self, cache: FakeTimingCache, ignore_mismatch: bool) -> bool:
        if not self.takes or (cache.gpu != self.gpu and not ignore_mismatch):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> FakeTimingCache | None:
        return self.cache


def build(folder: Path, *names: str, seconds: float = 0) -> set[str]:
    """Build once: return what was known before, and add these names."""
    config = FakeConfig()
    with kept_timings(config, folder):  # type: ignore[arg-type]
        assert config.cache is not None
        known = set(config.cache.names)
        time.sleep(seconds)
        config.cache.names.update(names)
    return known


if __name__ == "__main__":
    for name in sys.argv[2:]:
        build(Path(sys.argv[1]), name, seconds=0.01)
