"""One builder for each model of a repository, however many containers start at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from convkit.serving.holding import told


@contextlib.contextmanager
def only_builder(repository: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the building of a model; wait for whoever holds it, after `waiting` was called.

    The lock is on a plain file at the repository's root, which a server passes over, and which goes away with it. The
    kernel gives it back however its holder ends; the file that a dead one has left is the next one's.

    Raises:
        InputError: the repository cannot be written.
        MissingError: its disk is full, or fails.
    """
    with told(repository):
        path = repository / f".convkit-build-{name}.lock"
        descriptor = _lock(path, waiting)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is given back: who waits for it sees that the file is gone
        os.close(descriptor)


def _lock(path: Path, waiting: Callable[[], None]) -> int:
    told_once = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told_once:
                    waiting()
                    told_once = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_file_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    """Tell whether what was opened still has its name: the holder before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
