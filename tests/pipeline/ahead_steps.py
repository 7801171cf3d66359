"""Steps of two environments, whose workers import nothing on their own, for tests of what begins ahead."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from convkit.errors import InputError
from convkit.pipeline import events
from convkit.pipeline.step import observation, step

LONG, SHORT = "tensorrt-rtx", "tensorrt"
_PATIENCE_S = 60.0


@step(version=1, stage="check", title="Wait for a file", needs=SHORT)
def wait_for(*, file: str) -> int:
    """Wait until somebody else makes the file; return this worker's number."""
    deadline = time.monotonic() + _PATIENCE_S
    while not Path(file).exists():
        if time.monotonic() > deadline:
            raise InputError("nobody came", hint="begin both", code="test.alone")
        time.sleep(0.005)
    return os.getpid()


@step(version=1, stage="compile", title="Make a file", needs=LONG)
def make(*, file: str) -> int:
    """Make a file; return this worker's number."""
    events.warn("test.made", f"made {Path(file).name}")
    events.progress(1, 1, "files")
    Path(file).write_text("", encoding="utf-8")
    return os.getpid()


@step(version=1, stage="compile", title="Tell the time", needs=LONG)
def tell_time(*, name: str, seconds: float = 0.0) -> tuple[float, float]:
    """Return when it began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    events.warn("test.told", name)
    return began, time.monotonic()


@observation(version=1, stage="measure", title="Time it", needs=SHORT)
def measure_alone(*, name: str) -> tuple[float, float]:
    """Return when it began and ended, as a measurement does."""
    return time.monotonic(), time.monotonic()


@step(version=1, stage="compile", title="Refuse late", needs=LONG)
def refuse_late() -> int:
    """Raise what a step raises, and warn before."""
    events.warn("test.late", "it will be refused")
    raise InputError("the thing is refused", hint="bring another", code="test.refused")


@step(version=1, stage="compile", title="Die early", needs=LONG)
def die_early() -> int:
    """End this worker."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0
