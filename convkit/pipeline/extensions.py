"""Code of the user's that every worker of a run loads beside its libraries, such as operators of their own.

It is no argument of any step: as the versions of those libraries do, it enters the key of each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

import msgspec

from convkit.pipeline.artifact import Artifact

PYTHON = ".py"


class Extension(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is loaded, with the files that it imports from its folder."""

    files: Artifact
    name: str
    """The file that is loaded, one of `files`."""

    @property
    def path(self) -> Path:
        """Return where it lies."""
        return self.files.file(self.name)

    @property
    def is_python(self) -> bool:
        """Tell whether it is Python rather than a shared library."""
        return self.name.endswith(PYTHON)


_extensions: ContextVar[tuple[Extension, ...]] = ContextVar("extensions", default=())


def use_extensions(extensions: Sequence[Extension]) -> None:
    """Let `libraries` and `python_files` return these; a worker calls it before each step."""
    _extensions.set(tuple(extensions))


def libraries() -> tuple[Path, ...]:
    """Return the shared libraries that sessions are to load."""
    return tuple(each.path for each in _extensions.get() if not each.is_python)


def python_files() -> tuple[Path, ...]:
    """Return the Python files that are to be imported."""
    return tuple(each.path for each in _extensions.get() if each.is_python)
