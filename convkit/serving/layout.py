"""Which folders of a repository are models, and which Triton would only take for some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from convkit.serving.in_place import STAGING
from convkit.serving.publish import CONFIG, PENDING

_VERSION = re.compile(r"[1-9][0-9]*")
STRANGER = "{name}: Triton takes every folder here for a model, and this one is none: no config.pbtxt and no version"
STRANGER_HINT = "move it out of the repository: a server that loads every model refuses to start on it"


def is_model(folder: Path) -> bool:
    """Tell whether a folder is meant as a model."""
    return (folder / CONFIG).is_file() or (folder / PENDING).is_dir() or any(numbered(folder))


def numbered(folder: Path) -> Iterator[Path]:
    """Yield the version directories in a folder; Triton ignores numbers that begin with 0."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir())


def strangers(repository: Path) -> list[Path]:
    """Return the folders at a repository's root that are no models."""
    folders = sorted(child for child in repository.iterdir() if child.is_dir())
    return [folder for folder in folders if not folder.name.startswith(STAGING) and not is_model(folder)]
