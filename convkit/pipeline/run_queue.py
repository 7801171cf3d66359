"""What became of a piece of time: how long this process ran, waited for a processor, and how long others had one.

Linux keeps account of it: ``/proc/PID/task/TID/schedstat`` has the time that a thread was on a processor, and the time
that it could have been and was not, in ns (https://docs.kernel.org/scheduler/sched-stats.html); ``/proc/stat`` has the
time that each processor was busy, in ticks (proc_stat(5)).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

_PROC = Path("/proc")
_IDLE = (3, 4, 7)  # of a processor's columns: idle, waiting for a disk, stolen by the host
_COLUMNS = 8  # what follows is counted in these


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a piece of time, in nanoseconds."""

    wall_ns: int
    ran_ns: int
    """Time on a processor of all threads of this process together."""
    waited_ns: int
    """Time in which they could have run, and had none; what threads did that ended meanwhile is not known."""
    others_ns: int
    """Time of the processors that this process may use, which others had: exact to a tick for each of them."""


class Look(NamedTuple):
    """The accounts at one moment, since processes and machine began."""

    at_ns: int
    ran_ns: int
    waited_ns: dict[str, int]
    """By thread."""
    busy_ns: int


def look(root: Path = _PROC) -> Look | None:
    """Read the accounts of this process; None where the system keeps none.

    Args:
        root: the folder that has ``self`` and ``stat``, another than ``/proc`` in tests.
    """
    waited = _waited(root / "self" / "task")
    busy = _busy(root / "stat")
    if waited is None or busy is None:
        return None
    return Look(at_ns=time.perf_counter_ns(), ran_ns=time.process_time_ns(), waited_ns=waited, busy_ns=busy)


def between(before: Look | None, after: Look | None) -> Turn | None:
    """Return what happened from one moment to another; None where one of them is not known."""
    if before is None or after is None:
        return None
    ran = after.ran_ns - before.ran_ns
    waited = sum(waited - before.waited_ns.get(thread, 0) for thread, waited in after.waited_ns.items())
    others = after.busy_ns - before.busy_ns - ran
    return Turn(wall_ns=after.at_ns - before.at_ns, ran_ns=ran, waited_ns=waited, others_ns=others)


def _waited(threads: Path) -> dict[str, int] | None:
    found, ran_at_all = {}, False
    with contextlib.suppress(OSError):
        for thread in threads.iterdir():
            with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
                ran, waited, *_ = (thread / "schedstat").read_text(encoding="ascii").split()
                found[thread.name] = int(waited)
                ran_at_all |= int(ran) > 0
    return found if ran_at_all else None  # a kernel that keeps no account says 0 of all


def _busy(stat: Path) -> int | None:
    """Return how long the processors that this process may use were busy, together."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
        allowed, tick_ns = os.sched_getaffinity(0), 10**9 // os.sysconf("SC_CLK_TCK")
        ticks = 0
        for name, *columns in (line.split() for line in lines):
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in allowed:
                ticks += sum(int(column) for place, column in enumerate(columns[:_COLUMNS]) if place not in _IDLE)
        return ticks * tick_ns
    except (OSError, ValueError, AttributeError):  # the latter: no such thing on this system
        return None
