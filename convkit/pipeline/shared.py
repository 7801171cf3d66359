"""A second cache, by URL, that the machines of a team read and fill. It is laid out as the local one.

Results are taken from it only whole: an entry with its digest, and every artifact with its own. Whoever may write
there may give every reader wrong results: keep it as you keep the place from which you install packages.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from convkit.errors import ConvkitError
from convkit.pipeline.artifact import digest_bytes, gather
from convkit.pipeline.cache import Cache, Entry, artifacts_in, write_atomically
from convkit.pipeline.events import Observer, Warned
from convkit.pipeline.home import default_root
from convkit.pipeline.lock import unlock
from convkit.pipeline.remote import RemoteFolder

VARIABLE = "CONVKIT_SHARED_CACHE"


def open_cache(observer: Observer) -> Cache:
    """Return this user's cache, with the shared one behind it that CONVKIT_SHARED_CACHE names."""
    url = os.environ.get(VARIABLE)
    return SharedCache(default_root(), url, observer) if url else Cache(default_root())


class SharedCache(Cache):
    """The local cache with a shared one behind it. One that cannot be reached is a warning, said once."""

    def __init__(self, root: Path, url: str, observer: Observer) -> None:
        super().__init__(root)
        self._url = url
        self._observer = observer
        self._remote: RemoteFolder | None = None
        self._gone = False

    def load(self, key: str) -> Entry | None:
        """Return the local entry, else the shared one after bringing it here."""
        entry = super().load(key)
        if entry is not None or not self._reach():
            return entry
        try:
            return super().load(key) if self._bring(key) else None
        except ConvkitError as error:
            self._give_up(error)
            return None

    def store(self, key: str, entry: Entry) -> Entry:
        """Remember here, and there."""
        placed = super().store(key, entry)
        if self._reach():
            try:
                self._share(key, placed)
            except ConvkitError as error:
                self._give_up(error)
        return placed

    def _reach(self) -> bool:
        if self._remote is None and not self._gone:
            try:
                self._remote = RemoteFolder(self._url, attempts=2, pause_s=0.2)
            except ConvkitError as error:
                self._give_up(error)
        return self._remote is not None

    def _give_up(self, error: ConvkitError) -> None:
        self._remote, self._gone = None, True
        self._observer(
            Warned(code="cache.shared-unreachable", message=f"the shared cache is left out: {error.message}")
        )

    def _bring(self, key: str) -> bool:
        """Copy an entry and its artifacts from the shared cache; tell whether it was there, whole."""
        assert self._remote is not None
        data = self._remote.read_bytes(_entry_name(key))
        if data is None:
            return False
        digest, _, body = data.partition(b"\n")
        if digest.decode(errors="replace") != digest_bytes(body):
            return False
        entry = msgspec.json.decode(body, type=Entry)
        for artifact in artifacts_in(entry.result):
            if not self._is_intact(artifact) and not self._bring_artifact(artifact):
                return False
        path = self._entry(key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, data)
        return True

    def _bring_artifact(self, artifact: dict[str, Any]) -> bool:
        assert self._remote is not None
        scratch, lock = self.new_scratch()
        try:
            folder = scratch / "shared"
            for name in artifact["files"]:
                self._remote.read(f"{_object_name(artifact['digest'])}/{name}", folder / name)
            if gather(folder, artifact["files"]).digest != artifact["digest"]:
                return False
            self._adopt({**artifact, "path": str(folder)}, self._object(artifact["digest"]))
            return True
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            unlock(lock)

    def _share(self, key: str, entry: Entry) -> None:
        """Copy an entry there, its artifacts first, so that no reader finds it without them."""
        assert self._remote is not None
        for artifact in artifacts_in(entry.result):
            for name in artifact["files"]:
                place = f"{_object_name(artifact['digest'])}/{name}"
                if not self._remote.has(place):
                    self._remote.write(Path(artifact["path"], name), place)
        self._remote.write_bytes(self._entry(key).read_bytes(), _entry_name(key))


def _entry_name(key: str) -> str:
    return f"entries/{key[:2]}/{key}"


def _object_name(digest: str) -> str:
    value = digest.removeprefix("sha256:")
    return f"objects/{value[:2]}/{value}"
