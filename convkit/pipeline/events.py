"""What happened, for whoever watches. Steps and the runner emit; the command line renders."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import msgspec


class StepStarted(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="started"):
    """A step begins; `title` says what it does in a few words."""

    stage: str
    title: str


class StepProgress(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="progress"):
    """`done` of `total` units of the running step are through; `total` 0 means unknown."""

    done: int
    total: int
    text: str = ""


class StepFinished(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="finished"):
    """A step ended well."""

    stage: str
    title: str
    seconds: float
    peak_bytes: int
    cached: bool


class Warned(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="warning"):
    """Something the user should know, with a stable code."""

    code: str
    message: str


Event = StepStarted | StepProgress | StepFinished | Warned
Observer = Callable[[Event], None]


def nobody(_: Event) -> None:
    """Observe nothing."""


_observer: ContextVar[Observer] = ContextVar("observer", default=nobody)


def observe(observer: Observer) -> None:
    """Send what `warn` and `progress` report, in this process, to `observer`."""
    _observer.set(observer)


@contextlib.contextmanager
def also_told(observer: Observer) -> Iterator[None]:
    """Let another observer hear, too, what `warn` and `progress` report meanwhile."""
    present = _observer.get()

    def both(event: Event) -> None:
        present(event)
        observer(event)

    token = _observer.set(both)
    try:
        yield
    finally:
        _observer.reset(token)


def tell(event: Event) -> None:
    """Report an event as it is."""
    _observer.get()(event)


def warn(code: str, message: str) -> None:
    """Tell the user something from within a step; it is remembered with the step's result."""
    _observer.get()(Warned(code=code, message=message))


def progress(done: int, total: int, text: str = "") -> None:
    """Tell how far the running step is."""
    _observer.get()(StepProgress(done=done, total=total, text=text))
