"""Run a command and watch its whole process tree: wall time, CPU time, peak memory. Linux only, through /proc.

Memory is proportional set size (PSS, /proc/PID/smaps_rollup): a page that n processes map counts 1/n in each, so that
the sum over the tree counts every page once, however many workers share it. It is sampled, so a spike shorter than
the interval can be missed; `largest_rss_mb`, which the kernel keeps for each process, has no such gap but counts one
process only. The watching process is the parent of the tree and not part of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_MARGIN_KIB = 4096
"""Changes below this are none: the kernel's resident counters lag by a few pages for each core."""


@dataclass(frozen=True)
class Usage:
    """What one run of a command took; MB are 10^6 bytes."""

    exit_status: int
    """The command's own; minus the signal's number where one ended it."""
    wall_s: float
    cpu_s: float
    """User and system time of the command and of every child that was waited for."""
    peak_pss_mb: float | None
    """The largest sum over the tree at one moment; None when memory was not sampled."""
    processes_at_peak: int | None
    largest_rss_mb: float
    """The largest resident set of any one process of the tree."""
    samples: int
    pss_samples: int
    """Those that had to read PSS as well as resident memory."""
    sampling_s: float
    """The time the watcher spent reading /proc: what the watching costs on a core of its own."""


def run(
    command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], output: Path, log: Path, interval_s: float
) -> Usage:
    """Run `command` to its end, with standard output in the file `output` and standard error in `log`.

    Args:
        interval_s: from one memory sample to the next; 0 takes none.
    """
    with output.open("wb") as stdout, log.open("wb") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(  # its own session: one signal ends the tree when this run is interrupted
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        sampler = _Sampler(process.pid, interval_s)
        try:
            if interval_s:
                sampler.start()
            _, status, rusage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            wall_s = time.perf_counter() - start
            sampler.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if sampler.error is not None:
        raise sampler.error
    return Usage(
        exit_status=process.returncode,
        wall_s=wall_s,
        cpu_s=rusage.ru_utime + rusage.ru_stime,
        peak_pss_mb=sampler.peak_kib * 1024 / 1e6 if interval_s else None,
        processes_at_peak=sampler.processes_at_peak if interval_s else None,
        largest_rss_mb=rusage.ru_maxrss * 1024 / 1e6,
        samples=sampler.samples,
        pss_samples=sampler.pss_samples,
        sampling_s=sampler.spent_s,
    )


@dataclass
class _Sampler:
    """A thread that adds up the tree's PSS every `interval_s` and keeps the largest sum."""

    root: int
    interval_s: float
    peak_kib: int = 0
    processes_at_peak: int = 0
    samples: int = 0
    pss_samples: int = 0
    spent_s: float = 0.0
    error: BaseException | None = None
    _resident_kib: int = 0
    _members: set[int] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        for file in ("smaps_rollup", f"task/{threading.get_native_id()}/children"):
            if _read(os.getpid(), file) is None:
                raise OSError(
                    f"this kernel has no /proc/PID/{file}: memory cannot be sampled (interval 0 does without)"
                )
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        try:
            while not self._ended.is_set():
                start = time.perf_counter()
                self._sample()
                taken = time.perf_counter() - start
                self.spent_s += taken
                self.samples += 1
                self._ended.wait(max(self.interval_s - taken, 0.01))
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            self.error = error

    def _sample(self) -> None:
        self._members = tree(self.root, self._members)
        # PSS costs milliseconds to read. Resident memory costs next to nothing and is never smaller, so it can rule a
        # new peak out; and while it stands still, PSS is read at every tenth sample only.
        resident = sum(map(rss_kib, self._members))
        stands_still = abs(resident - self._resident_kib) < _MARGIN_KIB and self.samples % 10
        if stands_still or resident + _MARGIN_KIB <= self.peak_kib:
            return
        self._resident_kib = resident
        sizes = [size for pid in self._members if (size := pss_kib(pid))]
        self.pss_samples += 1
        if sum(sizes) > self.peak_kib:
            self.peak_kib = sum(sizes)
            self.processes_at_peak = len(sizes)


def tree(root: int, known: set[int] | frozenset[int] = frozenset()) -> set[int]:
    """Return `root`, what of `known` still lives, and all their descendants.

    `known` is what an earlier call returned, so that a process whose parent has ended is still counted.
    """
    found: set[int] = set()
    waiting = [root, *known]
    while waiting:
        pid = waiting.pop()
        if pid not in found and (children := _children(pid)) is not None:
            found.add(pid)
            waiting.extend(children)
    return found


def rss_kib(pid: int) -> int:
    """Return a process's resident set in KiB; 0 when it has ended meanwhile."""
    text = _read(pid, "statm")
    return int(text.split()[1]) * _PAGE_KIB if text else 0


def pss_kib(pid: int) -> int:
    """Return a process's proportional set size in KiB; 0 when it has ended meanwhile."""
    text = _read(pid, "smaps_rollup") or b""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(b"Pss:")), 0)


def _children(pid: int) -> list[int] | None:
    """Return the children of all of a process's threads; None when it has ended."""
    try:
        threads = [thread.name for thread in (PROC / str(pid) / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return [int(child) for thread in threads for child in (_read(pid, f"task/{thread}/children") or b"").split()]


def _read(pid: int, file: str) -> bytes | None:
    """Return the bytes of a file in a process's folder of /proc; None when the process has ended."""
    try:
        return (PROC / str(pid) / file).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
