"""Becoming another program, once the work is done: what a container runs stays its first process."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from convkit.errors import MissingError, UsageError

_CALMED = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores from its start; a program that is executed would go on ignoring it."""


def find_program(text: str | None, words: Sequence[str]) -> list[str]:
    """Return the program and its arguments; nothing where none is asked for.

    Args:
        text: a command as a shell would read it; nothing in it is expanded.
        words: further arguments, or the whole command.

    Raises:
        UsageError: the text has an open quote.
        MissingError: there is no such program here.
    """
    try:
        command = [*(shlex.split(text) if text else []), *words]
    except ValueError as error:
        raise UsageError(f"--exec {text}: {error}", hint="close the quote", code="usage.exec") from error
    if not command:
        return []
    found = shutil.which(command[0])
    if found is None:
        raise MissingError(
            f"there is no program '{command[0]}' here to go on with",
            hint="name one that is on the PATH, or its path",
            code="build.no-program",
        )
    return [found, *command[1:]]


def hand_over(command: Sequence[str]) -> NoReturn:
    """Replace this process, under its number, by a program: signals reach that one from now on.

    Raises:
        MissingError: the system refuses it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for number in _CALMED:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(command[0], list(command))  # noqa: S606 - that is what was asked for
    except OSError as error:
        raise MissingError(
            f"{command[0]} cannot be run: {error.strerror}",
            hint="the engines stand; see to the program's permissions and format",
            code="build.no-program",
        ) from error
