"""The first part of a step that is asked for by itself, so that others can use it while the rest is still to be done.

The part is a step of its own, and keeps what it has done for the whole: in the same worker that one takes it up, as if
it had done it just then. Its warnings, its seconds and its memory count there; in another worker it does it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from convkit.pipeline import events

R = TypeVar("R")


class _Kept(NamedTuple):
    done: Any
    told: tuple[events.Event, ...]


class _Cost:
    """What kept work has cost, and how much of it the step that runs now has taken up."""

    def __init__(self) -> None:
        self.kept: dict[str, _Kept] = {}
        self.paid: dict[str, tuple[float, int]] = {}
        self.new: list[str] = []
        self.run = ""
        self.seconds, self.peak_bytes = 0.0, 0


_here = _Cost()


def keep(key: str, work: Callable[[], R]) -> R:
    """Do the first part of a step, and keep what comes of it for the whole one.

    Args:
        key: says what is done, with all that it depends on.
        work: does it; what it returns is small.
    """
    told: list[events.Event] = []
    with events.also_told(told.append):
        done = work()
    _here.kept[key] = _Kept(done, tuple(told))
    _here.new.append(key)
    return done


def take_up(key: str) -> Any | None:
    """Return, once, what was kept under a key; None where nothing was. What it told the user is told again."""
    if key not in _here.kept:
        return None
    kept = _here.kept.pop(key)
    for event in kept.told:
        events.tell(event)
    seconds, peak_bytes = _here.paid.pop(key, (0.0, 0))
    _here.seconds += seconds
    _here.peak_bytes = max(_here.peak_bytes, peak_bytes)
    return kept.done


def begin_step(run: str) -> None:
    """Say, in a worker, that a step begins; `run` is the scratch space, with which all that was kept goes."""
    if run != _here.run:
        _here.kept.clear()
        _here.paid.clear()
        _here.run = run
    _here.new.clear()
    _here.seconds, _here.peak_bytes = 0.0, 0


def end_step(seconds: float, peak_bytes: int) -> tuple[float, int]:
    """Say what the step has cost; returns that with what it has taken up."""
    _here.paid.update(dict.fromkeys(_here.new, (seconds, peak_bytes)))
    return seconds + _here.seconds, max(peak_bytes, _here.peak_bytes)
