"""What `convkit check` says about one thing in a repository."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import msgspec


class Severity(Enum):
    """How much a remark weighs: only an error makes the check fail."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """One finding: what, where, and how to mend it."""

    code: str
    severity: Severity = Severity.ERROR
    message: str
    hint: str
    path: str
    """The file or folder, relative to the repository; ``.`` for the repository itself."""


def place_in(repository: Path, path: Path) -> str:
    """Return a path as remarks give it."""
    return path.relative_to(repository).as_posix() if path.is_relative_to(repository) else str(path)
