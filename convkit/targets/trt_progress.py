"""The builder's nested phases as one growing number, and the way to stop it: a monitor that answers no."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import threading
from collections.abc import Callable, Iterator

from convkit.pipeline import events
from convkit.targets.trt_api import Module

PERMILLE = 1000


class Phases:
    """Phases that contain phases: how much of the whole is done, from what the builder tells.

    A phase that hangs below another fills one step of it. A phase may end before it has taken all its steps.
    """

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._parent: dict[str, str | None] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Enter a phase of so many steps."""
        self._steps[name] = max(steps, 1)
        self._done[name] = 0
        self._parent[name] = parent

    def advance(self, name: str, step: int) -> None:
        """Finish a phase's step; they count from 0."""
        if name in self._done:
            self._done[name] = min(step + 1, self._steps[name])

    def finish(self, name: str) -> None:
        """Leave a phase."""
        for known in (self._steps, self._done, self._parent):
            known.pop(name, None)

    def done_permille(self) -> int:
        """Return how much of the outermost phase is done."""
        filled = sum(self._filled(name) for name, parent in self._parent.items() if parent is None)
        return int(PERMILLE * min(filled, 1.0))

    def _filled(self, name: str) -> float:
        inner = sum(self._filled(child) for child, parent in self._parent.items() if parent == name)
        return min((self._done[name] + inner) / self._steps[name], 1.0)


_STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C and SIGTERM meanwhile instead of acting on them, and act at the end; gives what tells of them.

    Python's own handlers run in the main thread alone, which is inside the builder for minutes: what the C handler
    writes into a pipe is seen from every thread. In other threads than the main one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    noted: list[int] = []

    def told_to_stop() -> bool:
        with contextlib.suppress(BlockingIOError):
            noted.extend(number for number in os.read(reading, 64) if number in before)
        return bool(noted)

    heeded = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in heeded}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield told_to_stop
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        stop = told_to_stop()
        os.close(reading)
        os.close(writing)
        if stop:
            signal.raise_signal(noted[0])


def progress_monitor(module: Module, told_to_stop: Callable[[], bool] = lambda: False) -> object:
    """Make an `IProgressMonitor` that tells `events` how far the build is, and ends it where it is told to stop.

    TensorRT may call it from threads of its own, which do not have this thread's context: it is carried along.
    """
    context = contextvars.copy_context()
    lock = threading.Lock()
    phases = Phases()
    reported = -1

    base = module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # not super(): the API's classes want their own

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with lock:
                phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            with lock:
                phases.advance(name, step)
                report(name)
                return not told_to_stop()  # False ends the build

        def phase_finish(self, name: str) -> None:
            with lock:
                phases.finish(name)

    def report(name: str) -> None:
        nonlocal reported
        done = phases.done_permille()
        if done > reported:  # a phase's name can come again: the number never falls
            reported = done
            context.run(events.progress, done, PERMILLE, name)

    return Monitor()
