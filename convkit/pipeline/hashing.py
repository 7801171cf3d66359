"""SHA-256 beside other work: of a file while it is written, and of several files at once.

hashlib lets other threads run while it is given more than a few bytes, and so do reading and writing.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_PIECE = 1 << 20
"""Bytes that are gathered before they are worth another thread's while."""
_LARGE = 64 << 20
"""Bytes beyond which what was written is let go before more comes: no more of it is in memory than without a digest."""


class HashedFile:
    """A new file that is hashed as it is written. Use it as a context manager; then `digest` is there.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb", buffering=0)
        self._small = bytearray()
        self._hash = hashlib.sha256()
        self._waiting: memoryview | None = None
        self._ends = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_small()
        finally:
            with self._changed:
                self._ends = True
                self._changed.notify_all()
            self._thread.join()
            self._stream.close()

    @property
    def digest(self) -> str:
        """Return ``sha256:`` and the hexadecimal digest of all that was written."""
        return "sha256:" + self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Write bytes, which stay what they are until the next call or the end."""
        if len(data) < _PIECE:
            self._small += data
        if len(self._small) >= _PIECE or len(data) >= _PIECE:
            self._write_small()
        if len(data) >= _PIECE:
            self._write(memoryview(data).cast("B"))

    def _write_small(self) -> None:
        gathered, self._small = self._small, bytearray()
        if gathered:
            self._write(memoryview(gathered))

    def _write(self, data: memoryview) -> None:
        self._hand_over(data)
        at = 0
        while at < len(data):
            at += self._stream.write(data[at:])
        if len(data) > _LARGE:
            self._hand_over(None)

    def _hand_over(self, data: memoryview | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None)
            self._waiting = data
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ends)
                data = self._waiting
            if data is None:
                return
            self._hash.update(data)
            with self._changed:
                self._waiting = None
                self._changed.notify_all()


def hash_together(streams: Sequence[io.FileIO], *, at_once: int) -> list[str]:
    """Return ``sha256:`` and the hexadecimal digest of what is left in each of several open files, in their order.

    Args:
        streams: the files.
        at_once: how many threads may read, this one among them.

    Raises:
        OSError: one of them cannot be read.
    """
    found: dict[int, str | OSError] = {}
    left = list(enumerate(streams))

    def work() -> None:
        while left:
            try:
                number, stream = left.pop(0)
            except IndexError:  # another thread was quicker
                return
            try:
                found[number] = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                found[number] = error

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(streams)) - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    digests = []
    for number in range(len(streams)):
        digest = found[number]
        if isinstance(digest, OSError):
            raise digest
        digests.append(digest)
    return digests
