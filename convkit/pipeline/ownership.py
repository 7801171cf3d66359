"""What is written for a user is that user's: owner, group and permissions as its folder has them.

A container runs as root, or as a number, and writes into a folder of somebody else, who must be able to read it, to
replace it and to throw it away. Where this process may not hand over what it has written, it stays its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_NEVER = stat.S_IWOTH | stat.S_ISUID | stat.S_ISVTX
"""Permissions that are not taken over: what everybody may change is no model repository."""


_NOT_ALLOWED = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What is answered where this process may not, the file system knows no owners, or the user namespace not this one."""


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing, and those above it; each is as the one that it is in.

    Raises:
        OSError: it cannot be made.
    """
    _make(folder, permissions=True)


def make_top_folder(folder: Path) -> None:
    """Make a folder as `make_folder` does, with the permissions that this process gives what it makes anywhere.

    Raises:
        OSError: it cannot be made.
    """
    _make(folder, permissions=False)
    folder.mkdir(exist_ok=True)  # a file in its place is refused


def _make(folder: Path, *, permissions: bool) -> None:
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(exist_ok=True)
        _hand_over(missing, missing.parent, permissions=permissions)


def take_after(path: Path, folder: Path) -> None:
    """Give a file or a folder the owner, the group and the permissions of a folder; a file is not executable.

    Raises:
        OSError: `path` is a symbolic link, or cannot be read.
    """
    _hand_over(path, folder, permissions=True)


def owned_as(path: Path, other: Path) -> None:
    """Give a file or a folder the owner and the group of another, and leave its permissions.

    Raises:
        OSError: `path` is a symbolic link, or cannot be read.
    """
    _hand_over(path, other, permissions=False)


def _hand_over(path: Path, folder: Path, *, permissions: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        now, wanted = os.fstat(descriptor), folder.stat()
        if (now.st_uid, now.st_gid) != (wanted.st_uid, wanted.st_gid):
            with _where_allowed():
                os.fchown(descriptor, wanted.st_uid if os.geteuid() == 0 else -1, wanted.st_gid)
        if not permissions:
            return
        mode = (stat.S_IMODE(wanted.st_mode) & ~_NEVER) | stat.S_IRUSR | stat.S_IWUSR | stat.S_IXUSR
        if not stat.S_ISDIR(now.st_mode):
            mode &= 0o666
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            with _where_allowed():
                os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _where_allowed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise
