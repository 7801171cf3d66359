"""A process and all that it has started: finding them, weighing them, ending them. proc(5)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_KILLS = 200
_PAUSE_S = 0.005


def tree(process: int) -> list[int]:
    """Return a process and everything below it; those that have ended, too, until they are waited for."""
    found = [process]
    for number in found:  # grows on the way
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for thread in Path(f"/proc/{number}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text(encoding="ascii").split()]
    return found


def memory_of(process: int) -> int:
    """Return the memory that a process and all below it hold and that cannot be read again from a file, in bytes.

    Quick, and never too little: what several of them share is counted for each. `exact_memory_of` tells it once.
    """
    return sum(_sum_of(f"/proc/{number}/status", ("RssAnon:", "RssShmem:")) for number in tree(process))


def exact_memory_of(process: int) -> int:
    """Return the same with every shared page counted once; takes milliseconds for each GB."""
    return sum(
        _sum_of(f"/proc/{number}/smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))
        or _sum_of(f"/proc/{number}/status", ("RssAnon:", "RssShmem:"))
        for number in tree(process)
    )


def _sum_of(path: str, names: tuple[str, ...]) -> int:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))


def adopt_orphans() -> None:
    """Have what this process's children leave behind given to it, so that `tree` of it has everything."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_tree(process: int) -> None:
    """End what a process has started, whatever session it has moved to, and then the process itself.

    It has to be the one to whom orphans are given (`adopt_orphans`), or those are missed.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)  # it starts no more
        for _ in range(_KILLS):
            below = [number for number in tree(process)[1:] if _runs(number)]
            if not below:
                break
            for number in below:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(_PAUSE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False
