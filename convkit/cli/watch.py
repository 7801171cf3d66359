"""Showing what happens while it happens: progress bars on a terminal, plain lines elsewhere. All on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from convkit.pipeline.events import Event, Observer, StepFinished, StepProgress, StepStarted, Warned

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextlib.contextmanager
def watcher(*, quiet: bool) -> Iterator[Observer]:
    """Give an observer that suits standard error."""
    if quiet:
        yield _only_warnings
    elif sys.stderr.isatty():
        with _Bars() as bars:
            yield bars.show
    else:
        yield Lines().show


def _only_warnings(event: Event) -> None:
    if isinstance(event, Warned):
        sys.stderr.write(f"warning: {event.message}\n")


class Lines:
    """One line for each step that ran, and now and then one for a long step."""

    _EVERY_S = 10.0

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._last = time.monotonic()

    def show(self, event: Event) -> None:
        match event:
            case StepFinished(cached=True):
                return
            case StepFinished():
                cost = ", ".join(filter(None, (f"{event.seconds:.1f} s", _megabytes(event.peak_bytes))))
                sys.stderr.write(f"{self._prefix}{event.title}: {cost}\n")
            case StepProgress() if event.total and time.monotonic() - self._last > self._EVERY_S:
                sys.stderr.write(f"{self._prefix}  {event.done} of {event.total} {event.text}\n")
            case Warned():
                sys.stderr.write(f"{self._prefix}warning: {event.message}\n")
            case _:
                return
        self._last = time.monotonic()
        sys.stderr.flush()


class _Bars:
    """A line for each step, the running one moving."""

    def __enter__(self) -> _Bars:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._progress: Progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=False,
        )
        self._task: TaskID | None = None
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._task is not None:
            self._progress.update(self._task, note="not finished")
        self._progress.stop()

    def show(self, event: Event) -> None:
        match event:
            case StepStarted():
                self._task = self._progress.add_task(event.title, total=None, note="")
            case StepProgress() if self._task is not None:
                self._progress.update(self._task, completed=event.done, total=event.total or None, note=event.text)
            case StepFinished() if self._task is not None:
                note = "remembered" if event.cached else _megabytes(event.peak_bytes)
                self._progress.update(self._task, completed=1, total=1, note=note)
                self._task = None
            case Warned():
                self._console.print(f"[yellow]warning:[/] {_escaped(event.message)}", highlight=False, soft_wrap=True)
            case _:
                pass


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size else ""
