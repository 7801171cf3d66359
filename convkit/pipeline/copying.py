"""A copy of a file that shares its blocks with the first one, where the file system can do that.

On btrfs, XFS and their like a gigabyte is copied in no time and takes no space until one of the two files is changed.
A hard link would do the same everywhere, and is not made: both names would be one file. Who edits, truncates or hands
over (chmod, chown) a published model would do it to the cache, and to every repository that was published from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import BinaryIO

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_CHUNK = 1 << 30


def copy_file(source: Path, target: BinaryIO) -> None:
    """Copy a file's bytes into an empty one that is open for writing.

    Shares blocks where that works; else lets the kernel copy (a file server does it without sending anything);
    else, or for what is left then, reads and writes.

    Raises:
        OSError: it cannot be read, or written.
    """
    with source.open("rb", buffering=0) as stream:
        with contextlib.suppress(OSError):  # what cannot be cloned is copied, and what stands in the way is said there
            fcntl.ioctl(target.fileno(), _FICLONE, stream.fileno())
            return
        with contextlib.suppress(OSError):
            while os.copy_file_range(stream.fileno(), target.fileno(), _CHUNK):
                pass
        shutil.copyfileobj(stream, target, 1 << 20)
