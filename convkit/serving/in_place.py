"""What publication needs of a file system: staging, flushing, swapping, linking, and a lock on a folder."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from convkit.pipeline.copying import copy_file
from convkit.pipeline.ownership import make_folder, owned_as, take_after

STAGING = ".convkit-staging-"
_LOCK_FILE = ".convkit.lock"
_RENAME_EXCHANGE = 2  # renameat2(2)
_AT_FDCWD = -100
_SYNC_FILE_RANGE_WRITE = 2  # sync_file_range(2)
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EXDEV)
"""What renameat2 answers on a file system that cannot swap, and on a layered one for what lies in a lower layer."""


_NO_FOLDER_LOCK = (errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""What flock(2) answers on network file systems, which lock only what is open for writing, as a folder cannot be."""


def lock_folder(repository: Path) -> int:
    """Wait for the lock on a folder, and return the descriptor that holds it until it is closed."""
    try:
        return _lock(os.open(repository, os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        if error.errno not in _NO_FOLDER_LOCK:
            raise
    return _lock(os.open(repository / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644))


def _lock(descriptor: int) -> int:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_file(path: Path, content: Path | bytes, *, flushed: bool = True) -> None:
    """Write a file, from bytes or as a copy, which shares its blocks where it can, and flush it to the disk.

    It is owned as its folder is, and so are the folders that are made for it. One that is not to be `flushed` here is
    on its way to the disk while others are written, for `flush_tree` to wait for.
    """
    make_folder(path.parent)
    with path.open("wb") as target:
        if isinstance(content, bytes):
            target.write(content)
        else:
            copy_file(content, target)
        target.flush()
        take_after(path, path.parent)
        if flushed:
            os.fsync(target.fileno())
        else:
            _begin_flushing(target.fileno())


def _begin_flushing(descriptor: int) -> None:
    """Have the system write a file to the disk, where it can without anybody's waiting. sync_file_range(2)."""
    begin = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if begin is not None:
        begin(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)


def link_tree(source: Path, target: Path, *, leave_out: set[Path]) -> None:
    """Make a folder of the same files, by links where the file system has them."""
    target.mkdir()
    for path in source.iterdir():
        if path in leave_out:
            continue
        if path.is_dir() and not path.is_symlink():
            link_tree(path, target / path.name, leave_out=leave_out)
        else:
            try:
                os.link(path, target / path.name, follow_symlinks=False)
            except OSError:
                shutil.copy2(path, target / path.name, follow_symlinks=False)
    shutil.copystat(source, target)
    owned_as(target, source)


def exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one step, so that a reader sees the old one or the new one and never none.

    Returns False where the file system cannot.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if renameat2(*arguments) == 0:
        return True
    if ctypes.get_errno() in _NO_EXCHANGE:
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def flush(path: Path) -> None:
    """Flush to the disk what a file, or which names a folder holds."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path, *, files: bool = False) -> None:
    """Flush a folder and every folder below it; with `files`, what lies in them before."""
    if files:
        for path in folder.rglob("*"):
            if path.is_file():
                flush(path)
    for directory in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        flush(directory)
    flush(folder)


@contextlib.contextmanager
def staging_folder(repository: Path, name: str) -> Iterator[Path]:
    """Make a folder from which renames into the repository work, and remove it in the end.

    Beside the repository where that can be written and is the same file system; else inside the model's folder,
    where a server ignores it. Never at the repository's root: a server takes every directory there for a model.
    It is owned as the model's folder is, else as the repository, and so is what is made in it.
    """
    resolved = repository.resolve()
    place, model = resolved.parent, resolved / name
    with contextlib.ExitStack() as removal:
        if not os.access(place, os.W_OK) or place.stat().st_dev != resolved.stat().st_dev:
            place = model
            if not model.exists():
                removal.callback(remove_empty, model)  # it stays once the version stands in it
                make_folder(model)
        folder = Path(tempfile.mkdtemp(prefix=f"{STAGING}{resolved.name}-", dir=place))
        removal.callback(_remove, folder)
        take_after(folder, model if model.is_dir() else resolved)
        yield folder


def remove_empty(folder: Path) -> None:
    """Remove a folder unless something is in it, or it cannot be removed."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove(folder: Path) -> None:
    """Remove a folder with everything in it, as far as that goes; the next publication removes the rest."""
    with contextlib.suppress(OSError):  # rmtree lets an error of fstat(2) pass even so
        shutil.rmtree(folder, ignore_errors=True)


def clear_staging(repository: Path) -> None:
    """Remove what dead runs left; the lock is held, so that no living one is at work."""
    repository = repository.resolve()
    left = re.compile(re.escape(f"{STAGING}{repository.name}-") + "[a-z0-9_]{8}")
    for place in (repository.parent, *(path for path in repository.iterdir() if path.is_dir())):
        with contextlib.suppress(PermissionError):
            for path in list(place.iterdir()):
                if left.fullmatch(path.name):
                    _remove(path)
