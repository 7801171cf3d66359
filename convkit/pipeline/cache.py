"""The content-addressed store: results of steps under their keys, artifacts under their digests.

CACHE/entries/ab/<key>.json      what a step returned, without paths
CACHE/objects/ab/<digest>/       the files of one artifact, never changed once they are there
CACHE/scratch/<run>/             what running steps write; removed with the run
CACHE/logs/                      the last workers' output
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import MissingError
from convkit.pipeline.events import Warned


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
        self.root = root
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
        """Return the entry under `key`, its artifacts in place; None where there is none or a part of it is gone."""
        path = self._entry(key)
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, OSError):
            path.unlink(missing_ok=True)
            return None
        complete = True

        def place(artifact: dict[str, Any]) -> dict[str, Any]:
            nonlocal complete
            folder = self._object(artifact["digest"])
            complete = complete and all((folder / name).is_file() for name in artifact["files"])
            return {**artifact, "path": str(folder)}

        result = _map_artifacts(entry.result, place)
        return msgspec.structs.replace(entry, result=result) if complete else None

    def store(self, key: str, entry: Entry) -> Entry:
        """Take the entry's artifacts into the store, remember it under `key`, and return it with their new paths."""

        def adopt(artifact: dict[str, Any]) -> dict[str, Any]:
            folder = self._object(artifact["digest"])
            if Path(artifact["path"]) != folder:
                self._adopt(Path(artifact["path"]), folder, artifact["files"])
            return {**artifact, "path": str(folder)}

        placed = msgspec.structs.replace(entry, result=_map_artifacts(entry.result, adopt))
        bare = msgspec.structs.replace(entry, result=without_paths(entry.result))
        path = self._entry(key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, msgspec.json.encode(bare))
        return placed

    def new_scratch(self) -> Path:
        """Make a folder for one run's working files, on the store's own file system."""
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.root / "scratch"))

    def _adopt(self, made: Path, folder: Path, files: list[str]) -> None:
        if all((folder / name).is_file() for name in files):
            shutil.rmtree(made, ignore_errors=True)
            return
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        if self.root / "scratch" not in made.parents:
            raise ValueError(f"{made} lies outside the scratch space: a step returns only what it made")
        try:
            made.rename(folder)
        except OSError:  # another convkit was quicker: its copy is as good
            if not folder.is_dir():
                raise

    def _entry(self, key: str) -> Path:
        return self.root / "entries" / key[:2] / f"{key}.json"

    def _object(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        return self.root / "objects" / value[:2] / value


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place, flush it to the disk, and rename it there."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def without_paths(value: Any) -> Any:
    """Return JSON builtins with every artifact's path blanked: what may enter a key or the store."""
    return _map_artifacts(value, lambda artifact: {**artifact, "path": ""})


def _map_artifacts(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if isinstance(value, dict):
        if value.get("is") == "artifact":
            return change(value)
        return {name: _map_artifacts(member, change) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_map_artifacts(member, change) for member in value]
    return value


def default_root() -> Path:
    """Return the cache's folder: CONVKIT_CACHE_DIR, else the XDG cache folder, else one in the temporary folder."""
    if named := os.environ.get("CONVKIT_CACHE_DIR"):
        return Path(named).absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg, "convkit")
    try:
        return Path.home() / ".cache" / "convkit"
    except RuntimeError:  # no HOME and no entry in the password file, as in some containers
        return Path(tempfile.gettempdir(), f"convkit-{os.getuid()}")
