"""Putting a version into a model repository: whole or not at all, while a server may be reading it.

Everything is written into a staging folder on the repository's own file system, flushed to the disk, and renamed
into place. A live model's folder is touched by one rename for the version, and one more where config.pbtxt changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

import msgspec

from convkit.errors import CheckError, InputError, MissingError, UsageError
from convkit.pipeline.artifact import digest_file
from convkit.serving.manifest import results

CONFIG = "config.pbtxt"
CONFIGS = "configs"
WARMUP = "warmup"
PENDING = "pending"
MODEL_FOLDER = "model"
"""Below a pending version: the files that go into the model's own folder with it."""
RECORDS = "convkit"
MANIFEST = "manifest.json"
_STAGING = ".convkit-staging-"
_RENAME_EXCHANGE = 2  # renameat2(2)
_AT_FDCWD = -100


class Outcome(Enum):
    """What a publication did."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one model, as it is to stand in the repository. File names are relative; contents are either
    a path to copy from or bytes."""

    name: str
    files: Mapping[str, Path | bytes]
    """The version's directory, its records under ``convkit/`` included except the manifest."""
    manifest: bytes
    """The in-toto statement over the result (`convkit.serving.manifest`)."""
    config: bytes | None
    """config.pbtxt; None where no Triton backend loads what the target makes."""
    beside: Mapping[str, bytes] = {}
    """Files in the model's own folder: ``configs/cpu.pbtxt``, ``warmup/...``."""
    pending: bool = False
    """An engine still to be built: the files go below ``pending/``, and a model that is there already keeps its
    configuration until the engine stands."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """Where the version stands, and whether anything had to be written."""

    outcome: Outcome
    version: int
    folder: Path


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Hold the repository against other publications; readers are not held up. Made if it is not there.

    Raises:
        InputError: the path is a file, or cannot be written.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(
            f"the repository {repository} cannot be used: {error.strerror}",
            hint="name a folder that can be written with --output",
            code="repository.unusable",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def find_unchanged(repository: Path, publication: Publication, version: int | None) -> Published | None:
    """Return the version that holds this very result already, undamaged: the one asked for, else the latest."""
    model = repository / publication.name
    place = model / PENDING if publication.pending else model
    number = version if version is not None else max(_numbers(place), default=0)
    folder = place / str(number)
    if not _is_same(folder, publication):
        return None
    if publication.pending:
        return Published(outcome=Outcome.UNCHANGED, version=number, folder=folder)
    if publication.config is not None and _read(model / CONFIG) != publication.config:
        return None
    if any(_read(model / name) != data for name, data in publication.beside.items()):
        return None
    return Published(outcome=Outcome.UNCHANGED, version=number, folder=folder)


def _is_same(folder: Path, publication: Publication) -> bool:
    """Tell whether a version's manifest names the same results, and its files still have those digests."""
    manifest = _read(_manifest_path(folder, pending=publication.pending))
    if manifest is None or results(manifest) != results(publication.manifest):
        return False
    return all(
        (folder / name).is_file() and digest_file(folder / name) == digest
        for name, digest in results(publication.manifest).items()
        if name in publication.files
    )


def _manifest_path(folder: Path, *, pending: bool) -> Path:
    return folder / MANIFEST if pending else folder / RECORDS / MANIFEST


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit() and path.is_dir()]


def next_version(repository: Path, name: str) -> int:
    """Return the number after the highest that stands or is pending."""
    model = repository / name
    return max([*_numbers(model), *_numbers(model / PENDING)], default=0) + 1


def publish(
    repository: Path, publication: Publication, *, version: int | None, replace: bool, same_interface: bool
) -> Published:
    """Publish a version; the caller holds the lock.

    Args:
        repository: the model repository.
        publication: what to publish.
        version: the number, or None for the next one.
        replace: an existing version with other content, or with another interface, may be replaced.
        same_interface: whether the model's present configuration describes the same tensors.

    Raises:
        UsageError: the version exists with other content, or the interface has changed, and `replace` is off.
        MissingError: the disk is full.
        CheckError: what was written does not read back as the manifest says.
    """
    model = repository / publication.name
    number = version if version is not None else next_version(repository, publication.name)
    folder = (model / PENDING if publication.pending else model) / str(number)
    _refuse_replacement(model, folder, replace=replace, same_interface=same_interface)
    with _staging(repository, publication.name) as staging:
        try:
            staged = staging / "version"
            _write_tree(staged, publication)
            _verify(staged, publication)
            _put_in_place(model, folder, staged, staging, publication)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise MissingError(
                    f"no space left for {publication.name} in {repository}; nothing was changed",
                    hint="free some space and run the same command again: finished steps are remembered",
                    code="repository.disk-full",
                ) from error
            raise
    return Published(outcome=Outcome.PUBLISHED, version=number, folder=folder)


def discard_pending(folder: Path) -> None:
    """Take a pending version away once its engine is published; the folder of pending versions goes with the last."""
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # others are pending
        folder.parent.rmdir()


def _refuse_replacement(model: Path, folder: Path, *, replace: bool, same_interface: bool) -> None:
    if replace:
        return
    if folder.exists():
        raise UsageError(
            f"version {folder.name} of {model.name} exists with other content",
            hint="let convkit take the next number (--version auto), or say --replace",
            code="repository.version-exists",
        )
    if not same_interface:
        raise UsageError(
            f"{model.name} is there with other inputs or outputs; its clients would break",
            hint="publish under another --name, or say --replace",
            code="repository.interface-changed",
        )


def _write_tree(folder: Path, publication: Publication) -> None:
    manifest = MANIFEST if publication.pending else f"{RECORDS}/{MANIFEST}"
    for name, content in {**publication.files, manifest: publication.manifest}.items():
        _write(folder / name, content)
    for directory in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        _flush(directory)
    _flush(folder)


def _write(path: Path, content: Path | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        if isinstance(content, bytes):
            target.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())


def _verify(folder: Path, publication: Publication) -> None:
    """Read back what was written: a damaged cache or disk must not reach the repository."""
    if not _is_same(folder, publication):
        raise CheckError(
            f"what was written for {publication.name} does not have the digests of its manifest",
            hint="a file of the cache is damaged: remove the cache folder (convkit prints it with --verbose) and rerun",
            code="repository.damaged",
        )


def _put_in_place(model: Path, folder: Path, staged: Path, staging: Path, publication: Publication) -> None:
    if not model.exists():
        whole = staging / "model"
        target = whole / folder.relative_to(model)
        target.parent.mkdir(parents=True)
        staged.rename(target)
        _write_beside(whole, publication)
        _flush(whole)
        whole.rename(model)
        _flush(model.parent)
        return
    if not publication.pending:
        for name, data in publication.beside.items():
            _replace_file(model / name, data, staging)
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
        _exchange(staged, folder)
    else:
        staged.rename(folder)
    _flush(folder.parent)
    if publication.config is not None and not publication.pending:
        _replace_file(model / CONFIG, publication.config, staging)


def _write_beside(folder: Path, publication: Publication) -> None:
    for name, data in publication.beside.items():
        _write(folder / name, data)
    if publication.config is not None:
        _write(folder / CONFIG, publication.config)


def _replace_file(path: Path, data: bytes, staging: Path) -> None:
    if _read(path) == data:
        return
    path.parent.mkdir(exist_ok=True)
    temporary = staging / "file"
    _write(temporary, data)
    temporary.replace(path)
    _flush(path.parent)


def _exchange(one: Path, other: Path) -> None:
    """Swap two directories in one step, so that a reader sees the old one or the new one and never none."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        if renameat2(*arguments) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    aside = one.parent / "replaced"  # a file system without the exchange: two renames
    other.rename(aside)
    one.rename(other)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _staging(repository: Path, name: str) -> Iterator[Path]:
    """Make a folder from which renames into the repository work, and remove it in the end.

    Beside the repository where that can be written and is the same file system; else inside the model's folder,
    where a server ignores it. Never at the repository's root: a server takes every directory there for a model.
    """
    place = repository.absolute().parent
    if not os.access(place, os.W_OK) or place.stat().st_dev != repository.stat().st_dev:
        place = repository / name
        place.mkdir(exist_ok=True)
    prefix = f"{_STAGING}{repository.name}-"
    for stale in place.glob(f"{prefix}*"):  # the lock is held: whoever left it is gone
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
