"""The content-addressed store: results of steps under their keys, artifacts under their digests.

CACHE/entries/ab/<key>           what a step returned, without paths: JSON below the digest of it
CACHE/objects/ab/<digest>/       the files of one artifact, never changed once they are there
CACHE/scratch/<run>/             what running steps write; removed with the run, or by the next one
CACHE/logs/                      the last workers' output

What is damaged counts as not there: the step runs again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import MissingError
from convkit.pipeline.artifact import digest_bytes, gather, note_stored
from convkit.pipeline.events import Warned
from convkit.pipeline.lock import lock_folder, locked_file, try_lock, unlock
from convkit.pipeline.ownership import take_after
from convkit.pipeline.removal import remove_tree

_LOGS_KEPT = 60
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a step: its result as JSON builtins, what it told the user, and what it cost."""

    step: str
    result: Any
    warnings: tuple[Warned, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0


class Cache:
    """The store on this machine's disk. Safe for several processes: everything appears by rename."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # workers stand elsewhere
        self._intact: set[str] = set()
        try:
            for part in ("entries", "objects", "scratch", "logs"):
                (root / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"the cache folder {root} cannot be made: {error.strerror}",
                hint="name a writable folder in the environment variable CONVKIT_CACHE_DIR",
                code="cache.unwritable",
            ) from error

    def load(self, key: str) -> Entry | None:
        """Return the entry under `key`, its artifacts in place; None where there is none or a part of it is damaged."""
        path = self._entry(key)
        try:
            digest, _, body = path.read_bytes().partition(b"\n")
            entry = msgspec.json.decode(body, type=Entry) if digest.decode() == digest_bytes(body) else None
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, OSError):
            entry = None
        if entry is None:
            path.unlink(missing_ok=True)
            return None
        complete = True

        def place(artifact: dict[str, Any]) -> dict[str, Any]:
            nonlocal complete
            complete = complete and self._is_intact(artifact)
            return {**artifact, "path": str(self._object(artifact["digest"]))}

        result = _map_artifacts(entry.result, place)
        if not complete:
            return None
        with contextlib.suppress(OSError):  # a cache that is mounted read-only keeps no account of its use
            os.utime(path)
        return msgspec.structs.replace(entry, result=result)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep others from making room in the store meanwhile; any number of runs may use it together."""
        lock = lock_folder(self.root, shared=True)
        try:
            yield
        finally:
            if lock is not None:
                unlock(lock)

    def has_changed(self, artifact: dict[str, Any]) -> bool:
        """Tell whether an artifact outside the store, a user's file, is no longer what its digest says."""
        if self.root in Path(artifact["path"]).parents:
            return False
        try:
            return gather(Path(artifact["path"]), artifact["files"]).digest != str(artifact["digest"])
        except OSError:
            return True

    def store(self, key: str, entry: Entry) -> Entry:
        """Take the entry's artifacts into the store, remember it under `key`, and return it with their new paths.

        Raises:
            MissingError: the disk is full.
        """

        def adopt(artifact: dict[str, Any]) -> dict[str, Any]:
            folder = self._object(artifact["digest"])
            if Path(artifact["path"]) != folder:
                self._adopt(artifact, folder)
            return {**artifact, "path": str(folder)}

        with space_in(self.root):
            placed = msgspec.structs.replace(entry, result=_map_artifacts(entry.result, adopt))
            body = msgspec.json.encode(msgspec.structs.replace(entry, result=without_paths(entry.result)))
            path = self._entry(key)
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, f"{digest_bytes(body)}\n".encode() + body, flushed=False)
        return placed

    def new_scratch(self) -> tuple[Path, int]:
        """Make a folder for one run's working files, on the store's own file system; clear away what dead runs left.

        Returns:
            The folder, and the lock that says that its run is alive: `unlock` it when the folder is gone.
        """
        scratch = self.root / "scratch"
        with space_in(self.root), locked_file(scratch / ".lock"):
            for stale in scratch.iterdir():
                if stale.is_dir():
                    self._clear(stale)
            self._prune_logs()
            folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=scratch))
            lock = try_lock(folder / ".lock")
            assert lock is not None
            return folder, lock

    def _clear(self, folder: Path) -> None:
        """Remove the working files of a run that is no more."""
        with contextlib.suppress(FileNotFoundError):  # it removes them itself, just now
            lock = try_lock(folder / ".lock")
            if lock is not None:
                remove_tree(folder)
                unlock(lock)

    def _prune_logs(self) -> None:
        logs = [entry for entry in os.scandir(self.root / "logs") if entry.is_file()]
        for old in sorted(logs, key=lambda entry: entry.stat().st_mtime, reverse=True)[_LOGS_KEPT:]:
            Path(old).unlink(missing_ok=True)

    def _is_intact(self, artifact: dict[str, Any]) -> bool:
        """Tell whether the store's copy of an artifact is what it was; looked at once in a run."""
        digest = artifact["digest"]
        if digest not in self._intact:
            try:
                found = gather(self._object(digest), artifact["files"]).digest
            except OSError:
                return False
            if found != digest:
                return False
            self._note_intact(artifact)
        return True

    def _note_intact(self, artifact: dict[str, Any]) -> None:
        self._intact.add(artifact["digest"])
        note_stored(self._object(artifact["digest"]), artifact)

    def _adopt(self, artifact: dict[str, Any], folder: Path) -> None:
        made = Path(artifact["path"])
        if self.root / "scratch" not in made.parents:
            raise ValueError(f"{made} lies outside the scratch space: a step returns only what it made")
        if self._is_intact(artifact):
            shutil.rmtree(made, ignore_errors=True)
            return
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:  # another convkit was quicker: its copy is as good
            if not folder.is_dir():
                raise
        self._note_intact(artifact)

    def _entry(self, key: str) -> Path:
        return self.root / "entries" / key[:2] / key

    def _object(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        return self.root / "objects" / value[:2] / value


@contextlib.contextmanager
def space_in(folder: Path) -> Iterator[None]:
    """Turn a full disk into a letter to the user.

    Raises:
        MissingError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise MissingError(
            f"no space left in {folder}",
            hint="free some space, or name another folder in CONVKIT_CACHE_DIR; finished steps are remembered",
            code="cache.disk-full",
        ) from error


def write_atomically(path: Path, data: bytes, *, flushed: bool = True) -> None:
    """Write a file beside its place, flush it to the disk, and rename it there; it is owned as its folder is.

    What is not `flushed` may be found damaged after the machine itself has failed.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            if flushed:
                stream.flush()
                os.fsync(stream.fileno())
        take_after(Path(temporary), path.parent)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def without_paths(value: Any) -> Any:
    """Return JSON builtins with every artifact's path blanked: what may enter a key or the store."""
    return _map_artifacts(value, lambda artifact: {**artifact, "path": ""})


def artifacts_in(value: Any) -> list[dict[str, Any]]:
    """Return every artifact in JSON builtins."""
    found: list[dict[str, Any]] = []

    def note(artifact: dict[str, Any]) -> dict[str, Any]:
        found.append(artifact)
        return artifact

    _map_artifacts(value, note)
    return found


def _map_artifacts(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if isinstance(value, dict):
        if value.get("is") == "artifact":
            return change(value)
        return {name: _map_artifacts(member, change) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_map_artifacts(member, change) for member in value]
    return value
