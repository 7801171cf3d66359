"""Timing a call: what every source and target shares when it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from convkit.pipeline.patience import one_run


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The latencies of one round, in nanoseconds, one for each call, in order."""

    latencies_ns: tuple[int, ...]


def time_calls(call: Callable[[], object], seconds: float, *, at_least: int = 3) -> Timing:
    """Call again and again for `seconds`, and `at_least` so many times; every call is kept."""
    latencies: list[int] = []
    deadline = time.perf_counter_ns() + int(seconds * 1e9)
    while len(latencies) < at_least or time.perf_counter_ns() < deadline:
        with one_run("a call that is timed"):
            started = time.perf_counter_ns()
            call()
            latencies.append(time.perf_counter_ns() - started)
    return Timing(latencies_ns=tuple(latencies))
