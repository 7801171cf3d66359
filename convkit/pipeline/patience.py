"""How long one run of a model may take: a graph may loop for ever, and by its own words be right to.

A step may take hours: an engine is built, a hundred thousand images are calibrated on. One run of the model on one
batch may not. A thread looks on, since what runs is machine code that asks nobody.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from convkit.errors import StepError

RUN_SECONDS = 600.0
"""How long one run may take where nothing was said."""
_GRACE_S = 30.0
"""How long a run may go on after it was told to end."""
_PAUSE_S = 1.0


class _Run:
    """One run of a model that is going on."""

    def __init__(self, what: str, seconds: float, end: Callable[[], None] | None) -> None:
        self.what = what
        self.began = time.monotonic()
        self.seconds = seconds
        self.end = end
        self.was_ended = False

    def error(self) -> StepError:
        return StepError(
            f"{self.what}: not done after {self.seconds:g} s, and ended: a graph with a loop may go on for ever",
            hint="see that each loop's count or condition ends it; where it does take that long, --time-limit 2h "
            "([limits] time in a recipe) says how long a step may take, and one run with it",
            code="worker.run-limit",
        )


class _Patience:
    """What this process keeps: the limit, the runs that are going on, and who ends the process."""

    def __init__(self) -> None:
        self.seconds: float | None = RUN_SECONDS
        self.give_up: Callable[[StepError], None] | None = None
        self.running: set[_Run] = set()
        self.watching: threading.Thread | None = None


_here = _Patience()


def allow(seconds: float | None) -> None:
    """Set how long each run from now on may take; None: any time."""
    _here.seconds = seconds


def on_overrun(give_up: Callable[[StepError], None]) -> None:
    """Say who is told of a run that nothing in this process can end."""
    _here.give_up = give_up


@contextlib.contextmanager
def one_run(what: str, *, end: Callable[[], None] | None = None, times: int = 1) -> Iterator[None]:
    """Hold what is done within to the limit.

    Args:
        what: says what runs, and on what, for the error.
        end: makes it stop and raise. Without it, or where it does not help, the worker is ended; outside of a worker
            nothing happens then.
        times: the limit, as a multiple of that for one run.

    Raises:
        StepError: `end` was called, and the run has stopped.
    """
    if _here.seconds is None:
        yield
        return
    run = _Run(what, times * _here.seconds, end)
    _here.running.add(run)
    if _here.watching is None or not _here.watching.is_alive():  # in a forked process it is not
        _here.watching = threading.Thread(target=_look_on, name="patience", daemon=True)
        _here.watching.start()
    try:
        yield
    except Exception as error:
        if run.was_ended:
            raise run.error() from error
        raise
    finally:
        _here.running.discard(run)


def _look_on() -> None:
    while True:
        time.sleep(_PAUSE_S)
        for run in tuple(_here.running):
            over = time.monotonic() - run.began - run.seconds
            if over > 0 and run.end is not None and not run.was_ended:
                run.was_ended = True
                run.end()
            elif over > (_GRACE_S if run.end else 0) and _here.give_up is not None:
                _here.give_up(run.error())
                return
