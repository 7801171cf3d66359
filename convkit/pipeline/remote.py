"""Files by URL, through fsspec: asked for again after a pause where the network fails."""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from convkit.errors import ConvkitError, InputError, MissingError
from convkit.pipeline.artifact import digest_bytes, gather
from convkit.pipeline.cache import Cache, Entry
from convkit.pipeline.events import Observer, StepFinished, StepProgress, StepStarted
from convkit.pipeline.lock import unlock

T = TypeVar("T")

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]+://")
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
_STATE = ("ETag", "etag", "checksum", "md5", "mtime", "LastModified", "last_modified", "updated", "version_id")
"""What file systems tell of a file's content besides its size."""


def is_url(text: str) -> bool:
    """Tell whether a model or a data file is named by URL."""
    return _URL.match(text) is not None


def name_in(url: str) -> str:
    """Return the last part of a URL's path."""
    return PurePosixPath(_URL.sub("", url).rstrip("/")).name


class RemoteFolder:
    """A folder on any file system that fsspec reads. Every call is repeated, with growing pauses, where it fails.

    Raises:
        MissingError: fsspec or the file system's own package is missing, or the other side cannot be reached.
    """

    def __init__(self, url: str, *, attempts: int = _ATTEMPTS, pause_s: float = _FIRST_PAUSE_S) -> None:
        self.url = url
        self._attempts = attempts
        self._pause_s = pause_s
        if importlib.util.find_spec("fsspec") is None:
            raise _not_installed(url, "fsspec is not installed here")
        import fsspec

        try:
            self._files, self.path = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise _not_installed(url, str(error)) from error

    def is_folder(self) -> bool:
        """Tell whether the URL itself is a folder."""
        return bool(self._asked(lambda: self._files.isdir(self.path)))

    def listing(self) -> dict[str, Mapping[str, Any]]:
        """Return what is known of every file below the URL, by its relative name; of the file itself where it is one.

        Raises:
            InputError: there is nothing.
        """
        if not self.is_folder():
            return {PurePosixPath(self.path).name: self._asked(lambda: self._files.info(self.path))}
        found: dict[str, Mapping[str, Any]] = self._asked(lambda: self._files.find(self.path, detail=True))
        root = self.path.rstrip("/")
        listed = {path.removeprefix(root).lstrip("/"): about for path, about in found.items()}
        if not listed:
            raise InputError(f"there is nothing at {self.url}", hint="check the address", code="remote.missing")
        return dict(sorted(listed.items()))

    def read(self, name: str, target: Path) -> None:
        """Copy one file to this machine."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._asked(lambda: self._files.get_file(self._of(name), str(target)))

    def read_bytes(self, name: str) -> bytes | None:
        """Return a small file's content; None where it is not there."""
        try:
            return bytes(self._asked(lambda: self._files.cat_file(self._of(name))))
        except InputError:
            return None

    def write(self, source: Path, name: str) -> None:
        """Copy a file of this machine there."""
        self._make_parent(name)
        self._asked(lambda: self._files.put_file(str(source), self._of(name)))

    def write_bytes(self, data: bytes, name: str) -> None:
        """Write a small file there."""
        self._make_parent(name)
        self._asked(lambda: self._files.pipe_file(self._of(name), data))

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return bool(self._asked(lambda: self._files.exists(self._of(name))))

    def _of(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}" if name else self.path

    def _make_parent(self, name: str) -> None:
        if "file" in str(self._files.protocol):
            Path(self._of(name)).parent.mkdir(parents=True, exist_ok=True)

    def _asked(self, call: Callable[[], T]) -> T:
        pause = self._pause_s
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except (FileNotFoundError, IsADirectoryError) as error:
                if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError) or _is_answer(error):
                    missing = InputError(f"{self.url} is not there", hint="check the address", code="remote.missing")
                    raise missing from error
                failure: Exception = error
            except PermissionError as error:
                raise InputError(
                    f"{self.url} may not be read: {error}",
                    hint="give the file system's usual credentials, such as AWS_ACCESS_KEY_ID, in the environment",
                    code="remote.forbidden",
                ) from error
            except ConvkitError:
                raise
            except Exception as error:  # noqa: BLE001 - every file system has errors of its own; raised below
                failure = error
            if attempt == self._attempts:
                raise MissingError(
                    f"{self.url} cannot be reached ({attempt} attempts): {type(failure).__name__}: {failure}",
                    hint="check the network and the address; what was fetched is remembered",
                    code="remote.unreachable",
                ) from failure
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")


def _is_answer(error: OSError) -> bool:
    """Tell whether the other side itself said that a file is not there: a status, rather than a failed connection."""
    return hasattr(error.__cause__, "status") or hasattr(error.__cause__, "response")


def _not_installed(url: str, reason: str) -> MissingError:
    return MissingError(
        f"{url}: {reason}",
        hint='pip install "convkit[remote]" (fsspec and s3fs; other file systems have packages of their own)',
        code="missing.extra",
    )


def fetch(url: str, cache: Cache, observer: Observer, *, beside: tuple[str, ...] = ()) -> Path:
    """Bring a file or a folder to this machine, once for each content, and return where it lies.

    What the file system tells of a file (ETag, time of modification, size) says whether it has changed; where it
    tells nothing, the file is fetched each time.

    Args:
        url: a file, or a folder with all that is below it.
        cache: keeps what was fetched, by its digest.
        observer: is told how far it is.
        beside: names of further files in a file's own folder that come along where they are there; a name that
            begins with ``*`` stands for every file that ends so.

    Raises:
        InputError: there is nothing at the URL, or it may not be read.
        MissingError: a package or the network is missing.
    """
    remote = RemoteFolder(url)
    alone = not remote.is_folder()
    wanted = remote.listing()
    if alone:
        folder, name = url.rstrip("/").rpartition("/")[::2]
        remote = RemoteFolder(folder)
        if beside:
            around = {other: about for other, about in remote.listing().items() if "/" not in other}
            wanted |= {other: about for other, about in around.items() if _matches(other, beside)}
    state = {name: _state(about) for name, about in wanted.items()}
    key = digest_bytes(repr(("fetch", url, sorted(state.items()))).encode()).removeprefix("sha256:")
    entry = cache.load(key) if all(state.values()) else None
    if entry is None:
        entry = _fetched(remote, wanted, key, cache, observer)
    place = Path(entry.result["path"])
    return place / name if alone else place


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name.endswith(p[1:]) if p.startswith("*") else name == p for p in patterns)


def _state(about: Mapping[str, Any]) -> str | None:
    told = [f"{word}={about[word]}" for word in _STATE if about.get(word)]
    return f"{about.get('size')} {' '.join(told)}" if told else None


def _fetched(
    remote: RemoteFolder, wanted: Mapping[str, Mapping[str, Any]], key: str, cache: Cache, observer: Observer
) -> Entry:
    title = f"Fetch {remote.url}"
    observer(StepStarted(stage="source", title=title))
    started = time.perf_counter()
    scratch, lock = cache.new_scratch()
    try:
        folder = scratch / "fetched"
        for number, name in enumerate(wanted):
            observer(StepProgress(done=number, total=len(wanted), text=name))
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise InputError(
                    f"{remote.url} names the file {name}, outside its folder", hint="mend it", code="remote.name"
                )
            remote.read(name, folder / name)
        made = msgspec.to_builtins(gather(folder))
        entry = cache.store(key, Entry(step="fetch", result=made))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        unlock(lock)
    observer(
        StepFinished(stage="source", title=title, seconds=time.perf_counter() - started, peak_bytes=0, cached=False)
    )
    return entry
