"""Digests of files that have not changed since they were read: spares hashing what the file system vouches for.

An entry holds for the very file (device, inode), size, and times of modification and of change; the system sets the
latter and no program can set it back. It is only a memory of this machine, and no part of any key.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

LARGE = 1 << 20
"""Bytes from which a file is worth remembering: a smaller one is read faster than it is looked up."""
_SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was read may change again within one tick of the clock."""
_SCHEMA = "CREATE TABLE IF NOT EXISTS digests (file TEXT PRIMARY KEY, state TEXT, digest TEXT) WITHOUT ROWID"


class StatIndex:
    """Digests by path and state, in one small database that several processes may share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None

    def get(self, path: Path, stat: os.stat_result) -> str | None:
        """Return the digest of a file that is in the state in which it was read; None where that is not known."""
        try:
            row = self._open().execute("SELECT state, digest FROM digests WHERE file = ?", (_name(path),)).fetchone()
        except sqlite3.Error:
            return None
        return str(row[1]) if row and row[0] == _state(stat) else None

    def put(self, path: Path, stat: os.stat_result, digest: str) -> None:
        """Remember a digest; not that of a file so young that it may still be in the making."""
        if time.time_ns() - stat.st_ctime_ns < _SETTLED_NS:
            return
        try:
            with self._open() as database:
                database.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (_name(path), _state(stat), digest))
        except sqlite3.Error:  # a memory that cannot be kept spares nothing and harms nothing
            return

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = sqlite3.connect(self._path, timeout=2.0)
            self._database.execute(_SCHEMA)
        return self._database


def _name(path: Path) -> str:
    return str(path.absolute())


def _state(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
