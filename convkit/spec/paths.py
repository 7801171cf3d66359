"""Names and paths that nobody means, or no file system has: told before anything asks one for them."""

from __future__ import annotations

import os
from pathlib import PurePath, PurePosixPath

from convkit.errors import InputError
from convkit.spec.wording import printable

_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes: Linux's NAME_MAX, and PATH_MAX without the NUL at its end."""


def is_plain(name: str) -> bool:
    """Tell whether a name stays inside the folder that it is relative to, and can be a file's at all."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        return False
    return "\0" not in name and all(len(part.encode(errors="replace")) <= _LONGEST_NAME for part in path.parts)


def refuse_impossible_path(text: str, *, where: str) -> None:
    """Refuse a path that cannot be one; `where` is what named it.

    Raises:
        InputError: it holds a NUL or half a character, or is longer than any path may be.
    """
    try:
        parts = [len(os.fsencode(part)) for part in PurePath(text).parts]
        problem = "holds a NUL" if "\0" in text else ""
    except UnicodeEncodeError:
        parts, problem = [], "holds half a character"
    if sum(parts) + len(parts) > _LONGEST_PATH or max(parts, default=0) > _LONGEST_NAME:
        problem = "is longer than any path may be"
    if problem:
        raise InputError(
            f"{where}: the path '{printable(text)}' {problem}", hint="check the path", code="path.impossible"
        )
