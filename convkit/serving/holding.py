"""Holding a repository while something is published, and what its file system refuses, said to the user."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from convkit.errors import InputError, MissingError
from convkit.pipeline.ownership import make_top_folder
from convkit.serving.in_place import clear_staging, lock_folder

_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_WHOLE = "finished steps are remembered, and nothing in the repository is half done"


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Hold the repository against other publications; readers are not held up. Made if it is not there.

    What an interrupted publication has left is cleared away.

    Raises:
        InputError: the path is a file, or cannot be written.
        MissingError: the disk is full, or fails, here or in what is done meanwhile.
    """
    with told(repository):
        make_top_folder(repository)
        descriptor = lock_folder(repository)
        try:
            clear_staging(repository)
            yield
        finally:
            os.close(descriptor)


def require_usable(folder: Path, option: str) -> None:
    """Make sure, before anything runs, that a folder can be written, or can be made.

    Raises:
        InputError: the path is a file, or cannot be written; `option` is what named it.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    number = errno.EACCES if there.is_dir() else errno.ENOTDIR
    if number == errno.ENOTDIR or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {folder} cannot be used: {os.strerror(number)}: {there}",
            hint=f"name a folder that can be written with {option}",
            code="repository.unusable",
        )


@contextlib.contextmanager
def told(repository: Path) -> Iterator[None]:
    """Turn what the file system refuses into a letter to the user.

    Raises:
        InputError: the path is a file, or cannot be written.
        MissingError: the disk is full, or fails.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise MissingError(
                f"no space left in {repository}",
                hint=f"free some space and run the same command again: {_WHOLE}",
                code="repository.disk-full",
            ) from error
        where = error.filename or repository
        if error.errno in _NO_ACCESS:
            raise InputError(
                f"the repository {repository} cannot be used: {error.strerror}: {where}",
                hint="see to its permissions, or name a folder that can be written (--output; build: --into)",
                code="repository.unusable",
            ) from error
        raise MissingError(
            f"the file system of {repository} failed: {error.strerror or error}: {where}",
            hint=f"see to the disk or the mount, and run the same command again: {_WHOLE}",
            code="repository.failed",
        ) from error
