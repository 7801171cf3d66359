"""Files that steps read and make, known by their content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

from convkit.pipeline.allowance import cores
from convkit.pipeline.hashing import hash_together
from convkit.pipeline.stat_index import LARGE, StatIndex

_CHUNK = 1 << 20
_FEW = 64


class Artifact(msgspec.Struct, frozen=True, kw_only=True, tag="artifact", tag_field="is"):
    """A folder of files with the digest of its content.

    `path` says where it lies on this machine; it is no part of any key and is never stored. `files` restricts the
    folder to those members (relative, sorted), for a source that shares its folder with other things.
    """

    digest: str
    bytes: int
    files: tuple[str, ...]
    path: str = ""
    digests: tuple[str, ...] = ()
    """Of the files, in their order; empty where they are many."""

    def file(self, name: str | None = None) -> Path:
        """Return the path of a member; of the only one when no name is given."""
        if name is None:
            (name,) = self.files
        return Path(self.path, name)


_index: ContextVar[StatIndex | None] = ContextVar("index", default=None)


def use_index(index: StatIndex | None) -> None:
    """Let `digest_file` spare the reading of large files that have not changed since they were last read."""
    _index.set(index)


def digest_file(path: Path) -> str:
    """Return ``sha256:`` and the hexadecimal digest of a file's bytes.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which may have no end.
    """
    with open_regular(path) as stream:
        state = os.fstat(stream.fileno())
        index = _index.get() if state.st_size >= LARGE else None
        known = index.get(path, state) if index is not None else None
        if known is not None:
            return known
        digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
        if index is not None and os.fstat(stream.fileno()).st_ctime_ns == state.st_ctime_ns:
            index.put(path, state, digest)
        return digest


def open_regular(path: Path) -> io.FileIO:
    """Open a file for reading without waiting for anybody.

    Raises:
        OSError: it cannot be read, or is a pipe or a device.
    """
    stream = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return stream


_MOST_RECORD = 64 << 20


def read_record(path: Path) -> bytes:
    """Return the bytes of a file that is kept beside models: a manifest, a configuration, a report.

    Raises:
        OSError: it cannot be read, is a pipe or a device, or has more than 64 MiB, which none of these has.
    """
    with open_regular(path) as stream:
        if os.fstat(stream.fileno()).st_size > _MOST_RECORD:
            raise OSError(errno.EFBIG, "has more than 64 MiB", str(path))
        return stream.readall()


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:`` and the hexadecimal digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_files(paths: Sequence[Path]) -> list[str]:
    """Return what `digest_file` returns for each of these files; large ones are read at once, by all processors.

    Raises:
        OSError: as `digest_file`.
    """
    large = [path for path in paths if path.stat().st_size >= LARGE]
    at_once = cores() if len(large) > 1 else 1
    if at_once == 1:
        return [digest_file(path) for path in paths]
    index = _index.get()
    digests: dict[Path, str] = {}
    with contextlib.ExitStack() as opened:
        unknown: list[tuple[Path, io.FileIO, os.stat_result]] = []
        for path in large:
            stream = opened.enter_context(open_regular(path))
            state = os.fstat(stream.fileno())
            if (known := index.get(path, state) if index is not None else None) is not None:
                digests[path] = known
            else:
                unknown.append((path, stream, state))
        found = hash_together([stream for _, stream, _ in unknown], at_once=at_once)
        for (path, stream, state), digest in zip(unknown, found, strict=True):
            digests[path] = digest
            if index is not None and os.fstat(stream.fileno()).st_ctime_ns == state.st_ctime_ns:
                index.put(path, state, digest)
    return [digests.get(path) or digest_file(path) for path in paths]


def gather(folder: Path, files: Iterable[str] | None = None, *, known: Mapping[str, str] | None = None) -> Artifact:
    """Describe a folder, or the named members of it, as an artifact.

    The digest is over the sorted relative names and each file's own digest; nothing else of the file system
    (times, owners, the folder's path) enters. Members whose digests are `known`, since they were just written, are not
    read.

    Raises:
        FileNotFoundError: a named member is missing.
    """
    if files is None:
        files = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = tuple(sorted(files))
    size = 0
    digests = []
    for name in names:
        path = folder / name
        size += path.stat().st_size
        digests.append((known or {}).get(name) or digest_file(path))
    return Artifact(
        digest=_digest_of_all(names, digests),
        bytes=size,
        files=names,
        path=str(folder),
        digests=tuple(digests) if len(digests) <= _FEW else (),
    )


def _digest_of_all(names: Sequence[str], digests: Sequence[str]) -> str:
    lines = (f"{digest} {name}\n" for name, digest in zip(names, digests, strict=True))
    return digest_bytes("".join(lines).encode())


_stored: dict[str, str] = {}


def note_stored(folder: Path, artifact: Mapping[str, Any]) -> None:
    """Note the digests of files that have come into the cache's store, or were found intact there.

    Args:
        folder: where they lie now.
        artifact: JSON builtins of what they are.
    """
    names, digests = artifact["files"], artifact.get("digests", ())
    if len(digests) == len(names) and _digest_of_all(names, digests) == artifact["digest"]:
        _stored.update((str(folder / name), digest) for name, digest in zip(names, digests, strict=True))


def digest_of_stored(path: Path) -> str:
    """Return the digest of a file: of one in the cache's store what it was when it came there, or was last read.

    For what is published, and read again there: damage done meanwhile is found then.

    Raises:
        OSError: as `digest_file`.
    """
    return _stored.get(str(path)) or digest_file(path)


_scratch: ContextVar[Path | None] = ContextVar("scratch", default=None)


def use_scratch(folder: Path) -> None:
    """Let `new_folder` make its folders here; a worker calls it before each step."""
    folder.mkdir(parents=True, exist_ok=True)
    _scratch.set(folder)


def new_folder(purpose: str) -> Path:
    """Make an empty folder for a step's files; in the runner's scratch space, else in the system's temporary one."""
    return Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=_scratch.get()))
