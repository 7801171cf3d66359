"""What can go wrong, said to the person at the terminal.

One class for each exit status. An error carries what failed and why (its message), how to mend it (`hint`),
a stable `code` for scripts, and, once the runner has seen it, the pipeline's `stage`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """The exit status of every convkit command; scripts rely on these numbers."""

    DONE = 0
    BUG = 1
    USAGE = 2
    INPUT_REFUSED = 3
    STEP_FAILED = 4
    CHECK_FAILED = 5
    MISSING = 6
    INTERRUPTED = 130
    TERMINATED = 143


class ConvkitError(Exception):
    """The root of every error that convkit raises on purpose.

    Args:
        message: what failed, where and why, as a sentence.
        hint: what to do about it.
        code: a stable, dotted name such as ``metadata.unknown-type``.
        stage: the pipeline's stage, filled in by the runner when the raiser leaves it out.
    """

    exit_status: ClassVar[ExitStatus] = ExitStatus.BUG

    def __init__(self, message: str, *, hint: str, code: str, stage: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.stage = stage
        self.report: str | None = None
        """Path of the failed run's report, where one was written."""
        self.document: object | None = None
        """That report itself (a `convkit.report.document.Report`)."""


class UsageError(ConvkitError):
    """An option is missing, malformed, or impossible together with another."""

    exit_status = ExitStatus.USAGE


class InputError(ConvkitError):
    """A file, name, path or piece of metadata that convkit was given is refused."""

    exit_status = ExitStatus.INPUT_REFUSED


class MetadataError(InputError):
    """config.txt says something that convkit cannot take."""


class TrustError(InputError):
    """Code that merely lies beside a model would have to run, and nobody said that it may."""

    files: tuple[object, ...] = ()
    """The files that would run it (each a `convkit.sources.trust.Untrusted`)."""


class StepError(ConvkitError):
    """A step of the pipeline failed: an operator without a counterpart, a library's error, a dead worker."""

    exit_status = ExitStatus.STEP_FAILED


class CheckError(ConvkitError):
    """A numerical check, a budget or a gate failed."""

    exit_status = ExitStatus.CHECK_FAILED


class MissingError(ConvkitError):
    """Something this machine lacks: an extra, a GPU, a server, disk space."""

    exit_status = ExitStatus.MISSING


class InterruptedRunError(ConvkitError):
    """Ctrl-C, or SIGINT from elsewhere, has ended the command."""

    exit_status = ExitStatus.INTERRUPTED


class TerminatedRunError(ConvkitError):
    """SIGTERM has ended the command."""

    exit_status = ExitStatus.TERMINATED


def _subclasses(root: type[ConvkitError]) -> dict[str, type[ConvkitError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_subclasses(child))
    return found


def error_class(name: str) -> type[ConvkitError]:
    """Find an error class by name, as when a worker's error crosses the pipe; `ConvkitError` when unknown."""
    return _subclasses(ConvkitError).get(name, ConvkitError)
