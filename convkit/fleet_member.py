"""The process that converts one model of a fleet: ``python -m convkit.fleet_member PARENT``.

It reads its `Assignment` from standard input, and writes lines of JSON (`Said`) to standard output.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from convkit.conversion import convert
from convkit.errors import ConvkitError, ExitStatus
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, Observer, StepFinished, StepStarted
from convkit.pipeline.watch import limits_from
from convkit.pipeline.worker import die_with
from convkit.report.document import Report, Result, failed
from convkit.request import restored


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert, and what is shared with the others."""

    request: dict[str, Any]
    """A `Request` as JSON builtins."""
    cache: str
    turns: str
    """A file whose lock says who may work: all who do not measure together, or one who measures alone."""
    share: int
    """How many members there are at a time: each may use its share of the memory, where its recipe does not say."""
    command: tuple[str, ...]


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="happened"):
    """An event."""

    event: Event


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="ended"):
    """What became of the conversion; the last line."""

    result: Report | Result


Said = Happened | Ended


def main() -> None:
    """Convert."""
    said = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing else is to write there
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitStatus.TERMINATED))
    assignment = msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)
    request = restored(assignment.request)

    def say(message: Said) -> None:
        said.write(msgspec.json.encode(message) + b"\n")

    with Path(assignment.turns).open("rb") as turns:
        observer = taking_turns(turns.fileno(), lambda event: say(Happened(event=event)))
        try:
            result: Report | Result = convert(
                request,
                observer=observer,
                cache=Cache(Path(assignment.cache)),
                command=assignment.command,
                limits=limits_from(request.limits, share=assignment.share),
            )
        except ConvkitError as error:
            result = error.document if isinstance(error.document, Report) else failed(error)
    say(Ended(result=result))


def taking_turns(lock: int, observer: Observer) -> Observer:
    """Return an observer that holds the file's lock during each step: alone while it is measured, else with others."""

    def observe(event: Event) -> None:
        if isinstance(event, StepStarted):
            fcntl.flock(lock, fcntl.LOCK_EX if event.stage == "measure" else fcntl.LOCK_SH)
        if isinstance(event, StepFinished):
            fcntl.flock(lock, fcntl.LOCK_UN)
        observer(event)

    return observe


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    main()
