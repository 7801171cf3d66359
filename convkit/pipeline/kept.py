"""Folders that outlive a run, for libraries that learn from one run for the next: TensorRT's timings of its kernels.

Such a folder lies in the cache, or where an environment variable says, which may be a volume that several containers
share. It holds nothing that a result depends on, so it enters no key.
"""

from __future__ import annotations

import os
from pathlib import Path

from convkit.errors import MissingError

TIMINGS = "CONVKIT_TIMING_CACHE"
"""An environment variable: where TensorRT's timings are kept instead of in the cache."""
_HANDED = "CONVKIT_KEPT"
_FOLDERS = {"tensorrt": ("timings", TIMINGS)}
"""By worker environment: the folder in the cache, and the variable that names another."""


def kept_folder(environment: str, root: Path) -> Path | None:
    """Return what a worker of this environment may write besides its scratch space; None for most.

    Args:
        environment: the worker's.
        root: the cache's folder.

    Raises:
        MissingError: the folder that the environment variable names cannot be made.
    """
    if environment not in _FOLDERS:
        return None
    name, variable = _FOLDERS[environment]
    named = os.environ.get(variable)
    folder = Path(named).absolute() if named else root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if not named:
            return None  # a cache that is mounted read-only
        raise MissingError(
            f"{variable}: the folder {folder} cannot be made: {error.strerror}",
            hint="name a folder that this user may write, such as a volume's",
            code="cache.unwritable",
        ) from error
    return folder


def handed_on(folder: Path | None) -> dict[str, str]:
    """Return what tells a worker of its folder, as environment variables."""
    return {_HANDED: str(folder)} if folder is not None else {}


def kept() -> Path | None:
    """Return, in a worker, the folder that it was given; None where it has none, and outside of workers."""
    folder = os.environ.get(_HANDED)
    return Path(folder) if folder else None
