"""A step whose first part can be asked for by itself, for tests; their worker imports nothing on its own."""

from __future__ import annotations

import os
import time

from convkit.errors import InputError
from convkit.pipeline import early, events
from convkit.pipeline.step import step

PART_S = 0.2
ENVIRONMENT = "tensorrt"


def _part(name: str) -> str:
    if name == "refused":
        raise InputError("the thing is refused", hint="bring another", code="test.refused")
    time.sleep(PART_S)
    events.warn("test.part", f"{name} is old")
    return f"{os.getpid()} at {time.monotonic()}"


@step(version=1, stage="source", title="Do the first part", needs=ENVIRONMENT)
def first_part(*, name: str) -> str:
    """Return what tells one doing of it from every other."""
    return early.keep(name, lambda: _part(name))


@step(version=1, stage="source", title="Do it all", needs=ENVIRONMENT)
def whole(*, name: str, rest: int = 0) -> tuple[str, int]:
    """Return what the first part gave, and the rest."""
    done: str | None = early.take_up(name)
    if done is None:
        done = _part(name)
    events.warn("test.rest", "the rest is old, too")
    return done, rest
