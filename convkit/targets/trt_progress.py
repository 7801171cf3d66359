"""The builder's nested phases as one growing number."""

from __future__ import annotations

import contextvars
import threading

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


def progress_monitor(module: Module) -> object:
    """Make an `IProgressMonitor` that tells `events` how far the build is.

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
            return True

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
