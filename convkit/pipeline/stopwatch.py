"""Timing a call: what every source and target shares when it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from convkit.pipeline.patience import one_run
from convkit.pipeline.run_queue import Turn, between, look


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The latencies of one round, in nanoseconds, one for each call, in order."""

    latencies_ns: tuple[int, ...]
    turn: Turn | None = None
    """How long this process ran and waited for a processor meanwhile; None where the system does not tell."""


def time_calls(call: Callable[[], object], seconds: float) -> Timing:
    """Call again and again for `seconds`, at least once; every call is kept but for one that warms up.

    What other models did to the caches meanwhile is paid by the first call: where it takes less than a quarter of the
    time, it does not count.
    """
    latencies: list[int] = []
    before = look()
    deadline = time.perf_counter_ns() + int(seconds * 1e9)
    while not latencies or time.perf_counter_ns() < deadline:
        with one_run("a call that is timed"):
            started = time.perf_counter_ns()
            call()
            latencies.append(time.perf_counter_ns() - started)
    turn = between(before, look())
    warmed_up = len(latencies) > 1 and latencies[0] < seconds * 1e9 / 4
    return Timing(latencies_ns=tuple(latencies[warmed_up:]), turn=turn)
