"""Looking after the cache: what is in it, and making room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import MissingError
from convkit.pipeline.cache import Cache, Entry, artifacts_in
from convkit.pipeline.lock import lock_folder, unlock


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """One remembered step."""

    key: str
    step: str
    """``module:function``."""
    seconds: float
    """What it took when it ran."""
    bytes: int
    """Size of its artifacts; several steps may share them."""
    used: float
    """When it was last used, in seconds since 1970."""


class CacheInfo(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.cache/1"):
    """What the cache holds."""

    root: str
    steps: int
    artifacts: int
    bytes: int
    """Size of everything in the cache's folder."""


def cache_info(cache: Cache) -> CacheInfo:
    """Count what the cache holds."""
    return CacheInfo(
        root=str(cache.root),
        steps=sum(1 for _ in _entry_files(cache)),
        artifacts=sum(1 for _ in (cache.root / "objects").glob("*/*")),
        bytes=_size(cache.root),
    )


def cache_list(cache: Cache) -> tuple[Remembered, ...]:
    """List what is remembered, the last used first. Damaged entries are left out; the next run removes them."""
    found = []
    for path in _entry_files(cache):
        entry = _read(path)
        if entry is not None:
            size = sum(artifact["bytes"] for artifact in artifacts_in(entry.result))
            found.append(
                Remembered(key=path.name, step=entry.step, seconds=entry.seconds, bytes=size, used=path.stat().st_mtime)
            )
    return tuple(sorted(found, key=lambda remembered: remembered.used, reverse=True))


def cache_clear(cache: Cache) -> int:
    """Forget everything; return the bytes that were freed.

    Raises:
        MissingError: another convkit is at work with this cache.
    """
    before = _size(cache.root)
    lock = _alone(cache)
    try:
        for part in ("entries", "objects", "logs", "reports", "timings"):
            shutil.rmtree(cache.root / part, ignore_errors=True)
        for file in cache.root.glob("digests.sqlite*"):
            file.unlink(missing_ok=True)
    finally:
        unlock(lock)
    return before - _size(cache.root)


def cache_prune(cache: Cache, max_bytes: int) -> int:
    """Forget what was used longest ago until the cache's artifacts are no larger than `max_bytes`.

    Returns the bytes that were freed; artifacts that no remembered step names go in any case.

    Raises:
        MissingError: another convkit is at work with this cache.
    """
    before = _size(cache.root)
    lock = _alone(cache)
    try:
        kept: set[str] = set()
        room = max_bytes
        for path in sorted(_entry_files(cache), key=lambda path: path.stat().st_mtime, reverse=True):
            entry = _read(path)
            artifacts = [] if entry is None else artifacts_in(entry.result)
            new = [artifact for artifact in artifacts if artifact["digest"] not in kept]
            needed = sum(artifact["bytes"] for artifact in new)
            if entry is None or needed > room:
                path.unlink()
                continue
            room -= needed
            kept |= {artifact["digest"] for artifact in new}
        for folder in (cache.root / "objects").glob("*/*"):
            if f"sha256:{folder.name}" not in kept:
                shutil.rmtree(folder)
    finally:
        unlock(lock)
    return before - _size(cache.root)


def _alone(cache: Cache) -> int:
    lock = lock_folder(cache.root, shared=False)
    if lock is None:
        raise MissingError(
            f"another convkit is at work with the cache {cache.root}",
            hint="wait until it has ended, and run the command again",
            code="cache.busy",
        )
    return lock


def _entry_files(cache: Cache) -> Iterator[Path]:
    return (path for path in (cache.root / "entries").glob("*/*") if path.is_file() and not path.name.startswith("."))


def _read(path: Path) -> Entry | None:
    body: Any = path.read_bytes().partition(b"\n")[2]
    try:
        return msgspec.json.decode(body, type=Entry)
    except msgspec.DecodeError:
        return None


def _size(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += Path(parent, file).stat().st_size
            except FileNotFoundError:  # another run cleans up
                continue
    return total
