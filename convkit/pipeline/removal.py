"""Taking a folder away, whatever was done to it: a user's code may have closed folders that it made."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, as far as this process may; what it owns is opened first."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    _open(folder)
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            _open(Path(parent, name))
    shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(stat.S_IRWXU)
