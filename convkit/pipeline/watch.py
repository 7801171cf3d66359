"""The watch over a worker while the runner waits for its answer: how much memory is held, and for how long it runs.

RLIMIT_AS would count address space, of which frameworks reserve many times what they use; what counts here is memory
that the system cannot take back: neither files that are mapped nor the file cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from convkit.errors import ConvkitError, MissingError, StepError
from convkit.pipeline.allowance import memory
from convkit.pipeline.patience import RUN_SECONDS
from convkit.pipeline.processes import exact_memory_of, memory_of
from convkit.pipeline.step import Step
from convkit.spec.options import LimitOptions
from convkit.spec.size import size_text

_RUNNER = 256 * 2**20
_RUNNERS_SHARE = 8
_PAUSE_S, _SHORT_PAUSE_S = 0.2, 0.05


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers of one run may take."""

    memory_bytes: int
    """All of them together."""
    memory_from: str
    """Where that comes from, as a clause: ``--memory-limit``, or whose memory it is."""
    seconds: float | None = None
    """How long one step may run."""
    run_seconds: float | None = RUN_SECONDS
    """How long one run of a model may take; None: as long as its step."""


def limits_from(options: LimitOptions, *, share: int = 1) -> Limits:
    """Return what was asked for; where memory was left open, what there is of it, less what convkit itself needs.

    Args:
        options: the recipe's table.
        share: how many runs share the memory.

    Raises:
        UsageError: an option is malformed.
    """
    asked, seconds = options.memory_bytes, options.seconds
    run_seconds = RUN_SECONDS if seconds is None else None
    if asked is not None:
        return Limits(
            memory_bytes=asked, memory_from="as --memory-limit says", seconds=seconds, run_seconds=run_seconds
        )
    there = memory()
    kept = min(_RUNNER, there.bytes // _RUNNERS_SHARE)
    origin = f"{there.owner} has {size_text(there.bytes)}, of which {size_text(kept)} are kept for convkit itself"
    if share > 1:
        origin += f", and {share} conversions at a time share the rest (--jobs)"
    return Limits(
        memory_bytes=(there.bytes - kept) // share, memory_from=origin, seconds=seconds, run_seconds=run_seconds
    )


class Watch:
    """Looks after one call of a step.

    Args:
        limits: what may be taken.
        step: which step runs.
        workers: process numbers of the run's workers by environment, the one that is called among them.
    """

    def __init__(self, limits: Limits, step: Step[..., object], workers: Mapping[str, int]) -> None:
        self.limits = limits
        self._step = step
        self._workers = workers
        self._started = time.monotonic()
        self._next_look = self._started
        self.pause_s = _PAUSE_S
        """How long to wait for an answer before the next `look`."""

    def look(self, log_tail: Callable[[], str]) -> ConvkitError | None:
        """Return what is to be said where a limit is overrun; costs nothing when it is called before its time.

        Args:
            log_tail: gives the last lines of the worker's log.
        """
        now = time.monotonic()
        if now < self._next_look:
            return None
        overrun = self._overrun_of_time(now - self._started, log_tail) or self._overrun_of_memory()
        self._next_look = now + self.pause_s
        return overrun

    def _overrun_of_memory(self) -> ConvkitError | None:
        limit = self.limits.memory_bytes
        held = sum(map(memory_of, self._workers.values()))
        self.pause_s = _SHORT_PAUSE_S if 2 * held > limit else _PAUSE_S
        if held <= limit:
            return None
        exactly = {name: exact_memory_of(process) for name, process in self._workers.items()}
        if sum(exactly.values()) <= limit:
            self.pause_s = _PAUSE_S
            return None
        each = ", ".join(f"{name} {size_text(size)}" for name, size in exactly.items())
        return MissingError(
            f"{self._step.title}: the worker was ended because it ran out of memory: convkit's workers held "
            f"{size_text(sum(exactly.values()))} ({each}), and the limit is {size_text(limit)}: "
            f"{self.limits.memory_from}",
            hint="give the machine or the container more memory, or raise the limit with --memory-limit ([limits] "
            "memory in a recipe); finished steps are remembered",
            code="worker.memory-limit",
            stage=self._step.stage,
        )

    def _overrun_of_time(self, seconds: float, log_tail: Callable[[], str]) -> ConvkitError | None:
        limit = self.limits.seconds
        if limit is None or seconds <= limit:
            return None
        return StepError(
            f"{self._step.title}: the worker was ended after {limit:g} s, the limit for one step that "
            f"--time-limit sets. The end of its log:\n{log_tail()}",
            hint="raise the limit with --time-limit ([limits] time in a recipe), or leave it out; finished steps are "
            "remembered",
            code="worker.time-limit",
            stage=self._step.stage,
        )
