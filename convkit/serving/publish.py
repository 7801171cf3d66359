"""Putting a version into a model repository: whole or not at all, while a server may be reading it.

Everything is written into a staging folder on the repository's own file system, flushed to the disk, and put in place
by one rename: that of the version, or, where files of the model's own folder change with it, that of the whole folder,
in which what stays is linked. Where a file system cannot do that, the version goes first and config.pbtxt after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

import msgspec

from convkit.errors import CheckError, InputError, MissingError, UsageError
from convkit.pipeline.artifact import digest_file
from convkit.serving.in_place import exchange, flush, flush_tree, link_tree, lock_folder, staging_folder, write_file
from convkit.serving.manifest import results
from convkit.serving.records import SUMS, write_sums

CONFIG = "config.pbtxt"
CONFIGS = "configs"
WARMUP = "warmup"
PENDING = "pending"
MODEL_FOLDER = "model"
"""Below a pending version: the files that go into the model's own folder with it."""
RECORDS = "convkit"
MANIFEST = "manifest.json"
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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

    @property
    def records(self) -> Path:
        """Return the folder with the version's manifest and report."""
        return self.folder if self.folder.parent.name == PENDING else self.folder / RECORDS


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Hold the repository against other publications; readers are not held up. Made if it is not there.

    Raises:
        InputError: the path is a file, or cannot be written.
    """
    with _told(repository):
        repository.mkdir(parents=True, exist_ok=True)
        descriptor = lock_folder(repository)
    try:
        yield
    finally:
        os.close(descriptor)


def require_usable(folder: Path, option: str) -> None:
    """Make sure, before anything runs, that a folder can be written, or can be made.

    Raises:
        InputError: the path is a file, or cannot be written; `option` is what named it.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    number = errno.EACCES if there.is_dir() else errno.ENOTDIR
    if number == errno.ENOTDIR or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {folder} cannot be used: {os.strerror(number)}: {there}",
            hint=f"name a folder that can be written with {option}",
            code="repository.unusable",
        )


@contextlib.contextmanager
def _told(repository: Path) -> Iterator[None]:
    """Turn what the file system refuses into a letter to the user.

    Raises:
        InputError: the path is a file, or cannot be written.
        MissingError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise MissingError(
                f"no space left in {repository}; nothing was changed",
                hint="free some space and run the same command again: finished steps are remembered",
                code="repository.disk-full",
            ) from error
        if error.errno in _NO_ACCESS:
            raise InputError(
                f"the repository {repository} cannot be used: {error.strerror}: {error.filename}",
                hint="name a folder that can be written with --output",
                code="repository.unusable",
            ) from error
        raise


def find_unchanged(repository: Path, publication: Publication, version: int | None) -> Published | None:
    """Return the version that holds this very result already, undamaged: the one asked for, else the latest."""
    model = repository / publication.name
    place = model / PENDING if publication.pending else model
    number = version if version is not None else max(_numbers(place), default=0)
    folder = place / str(number)
    if publication.pending and (built := _find_built(model, publication, version)) is not None:
        return built
    if not _is_same(folder, publication):
        return None
    if publication.pending:
        return Published(outcome=Outcome.UNCHANGED, version=number, folder=folder)
    if publication.config is not None and _read(model / CONFIG) != publication.config:
        return None
    if any(_read(model / name) != data for name, data in publication.beside.items()):
        return None
    return Published(outcome=Outcome.UNCHANGED, version=number, folder=folder)


def _find_built(model: Path, publication: Publication, version: int | None) -> Published | None:
    """Return the version whose engine was built from what would be pending now, with the configuration that stands."""
    number = version if version is not None else max(_numbers(model), default=0)
    folder = model / str(number)
    manifest = _read(folder / RECORDS / MANIFEST)
    if manifest is None:
        return None
    wanted = results(publication.manifest)
    below = f"{MODEL_FOLDER}/"
    standing = {name.removeprefix(below): digest for name, digest in wanted.items() if name.startswith(below)}
    made_from = {f"{RECORDS}/{name}": digest for name, digest in wanted.items() if not name.startswith(below)}
    known = results(manifest)
    if any(known.get(name) != digest for name, digest in {**made_from, **standing}.items()):
        return None
    files = {folder / name: digest for name, digest in made_from.items()}
    files |= {model / name: digest for name, digest in standing.items()}
    if any(not path.is_file() or digest_file(path) != digest for path, digest in files.items()):
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
    model = repository.resolve() / publication.name
    number = version if version is not None else next_version(repository, publication.name)
    folder = (model / PENDING if publication.pending else model) / str(number)
    if not replace:
        _refuse_replacement(model, folder, publication, same_interface=same_interface)
    with _told(repository), staging_folder(repository, publication.name) as staging:
        staged = staging / "version"
        _write_tree(staged, publication)
        _verify(staged, publication)
        _put_in_place(model, folder, staged, staging, publication)
    return Published(outcome=Outcome.PUBLISHED, version=number, folder=folder)


def discard_pending(folder: Path) -> None:
    """Take a pending version away once its engine is published; the folder of pending versions goes with the last."""
    model = folder.parent.parent
    with _told(model.parent), staging_folder(model.parent, model.name) as staging:
        _set_aside(folder, staging)
    with contextlib.suppress(OSError):  # others are pending
        folder.parent.rmdir()


def _set_aside(folder: Path, staging: Path) -> None:
    """Take a folder away at once; piece by piece where it lies in a lower layer of the file system."""
    try:
        folder.rename(staging / "replaced")
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.rmtree(folder)


def _refuse_replacement(model: Path, folder: Path, publication: Publication, *, same_interface: bool) -> None:
    if folder.exists() and not _is_same(folder, publication):
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
    records = "" if publication.pending else f"{RECORDS}/"
    files = {**publication.files, records + MANIFEST: publication.manifest}
    told = results(publication.manifest)
    untold = {name.removeprefix(records): content for name, content in files.items() if name not in told}
    for name, content in {**files, records + SUMS: write_sums(untold)}.items():
        write_file(folder / name, content)
    flush_tree(folder)


def _verify(folder: Path, publication: Publication) -> None:
    """Read back what was written: a damaged cache or disk must not reach the repository."""
    if not _is_same(folder, publication):
        raise CheckError(
            f"what was written for {publication.name} does not have the digests of its manifest",
            hint="a file of the cache is damaged: remove the cache folder (convkit prints it with --verbose) and rerun",
            code="repository.damaged",
        )


def _put_in_place(model: Path, folder: Path, staged: Path, staging: Path, publication: Publication) -> None:
    around = _around(publication)
    changed = {name: data for name, data in around.items() if _read(model / name) != data}
    if not _has_versions(model):
        _put_new(model, folder, staged, staging, around)
    elif not changed or publication.pending:
        _put(staged, folder)
    elif not _put_with_folder(model, folder, staged, staging, changed):
        config = changed.pop(CONFIG, None)
        for name, data in changed.items():
            _replace_file(model / name, data, staging)
        _put(staged, folder)
        if config is not None:
            _replace_file(model / CONFIG, config, staging)


def _around(publication: Publication) -> dict[str, bytes]:
    """Return the files of the model's own folder."""
    return {**publication.beside, **({} if publication.config is None else {CONFIG: publication.config})}


def _has_versions(model: Path) -> bool:
    return bool(_numbers(model) or _numbers(model / PENDING))


def _put_new(model: Path, folder: Path, staged: Path, staging: Path, around: Mapping[str, bytes]) -> None:
    """Put a model's first version in place; the version comes last where the folder is there already."""
    if model.exists():
        for name, data in around.items():
            _replace_file(model / name, data, staging)
        _put(staged, folder)
        return
    whole = staging / "model"
    target = whole / folder.relative_to(model)
    target.parent.mkdir(parents=True)
    staged.rename(target)
    for name, data in around.items():
        write_file(whole / name, data)
    flush_tree(whole)
    whole.rename(model)
    flush(model.parent)


def _put(staged: Path, folder: Path) -> None:
    """Put a version in place, at once."""
    folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        staged.rename(folder)
    elif not exchange(staged, folder):
        _set_aside(folder, staged.parent)
        staged.rename(folder)
    flush(folder.parent)


def _put_with_folder(model: Path, folder: Path, staged: Path, staging: Path, changed: Mapping[str, bytes]) -> bool:
    """Put a version and the files around it in place at once, by swapping the whole folder; tell whether it could."""
    if model in staging.parents or model.is_symlink():
        return False
    whole = staging / "model"
    replaced = {model / name for name in changed} | {folder}
    link_tree(model, whole, leave_out=replaced)
    for name, data in changed.items():
        write_file(whole / name, data)
    target = whole / folder.relative_to(model)
    staged.rename(target)
    flush_tree(whole)
    if not exchange(whole, model):
        target.rename(staged)
        return False
    flush(model.parent)
    return True


def _replace_file(path: Path, data: bytes, staging: Path) -> None:
    if _read(path) == data:
        return
    path.parent.mkdir(exist_ok=True)
    temporary = staging / "file"
    write_file(temporary, data)
    temporary.replace(path)
    flush(path.parent)
