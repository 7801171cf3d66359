"""Putting a version into a model repository: whole or not at all, while a server may be reading it.

Everything is written into a staging folder on the repository's own file system, held against its digests, flushed to
the disk, and put in place at once (`put`). What fails on the way leaves the repository as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import msgspec

from convkit.errors import CheckError, UsageError
from convkit.pipeline.artifact import digest_files
from convkit.serving.engine_names import same_but_names
from convkit.serving.holding import told
from convkit.serving.in_place import flush_tree, staging_folder, write_file
from convkit.serving.manifest import results
from convkit.serving.put import CONFIG as CONFIG
from convkit.serving.put import put_in_place, read_if_there, set_aside
from convkit.serving.records import SUMS, write_sums

CONFIGS = "configs"
WARMUP = "warmup"
CUSTOM_OPS = "custom_ops"
"""Below a model's folder: libraries of operators that its configuration names."""
PENDING = "pending"
MODEL_FOLDER = "model"
"""Below a pending version: the files that go into the model's own folder with it."""
RECORDS = "convkit"
MANIFEST = "manifest.json"


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
    if publication.config is not None and read_if_there(model / CONFIG) != publication.config:
        return None
    if any(read_if_there(model / name) != data for name, data in publication.beside.items()):
        return None
    return Published(outcome=Outcome.UNCHANGED, version=number, folder=folder)


def _find_built(model: Path, publication: Publication, version: int | None) -> Published | None:
    """Return the version whose engine was built from what would be pending now, with the configuration that stands."""
    number = version if version is not None else max(_numbers(model), default=0)
    folder = model / str(number)
    manifest = read_if_there(folder / RECORDS / MANIFEST)
    if manifest is None:
        return None
    wanted = results(publication.manifest)
    below = f"{MODEL_FOLDER}/"
    standing = {name.removeprefix(below): digest for name, digest in wanted.items() if name.startswith(below)}
    made_from = {f"{RECORDS}/{name}": digest for name, digest in wanted.items() if not name.startswith(below)}
    if publication.config is not None:  # but for the names that engines of several GPUs have got since
        standing.pop(CONFIG, None)
        if not same_but_names(read_if_there(model / CONFIG), publication.config):
            return None
    known = results(manifest)
    if any(known.get(name) != digest for name, digest in {**made_from, **standing}.items()):
        return None
    files = {folder / name: digest for name, digest in made_from.items()}
    files |= {model / name: digest for name, digest in standing.items()}
    if not all(path.is_file() for path in files) or digest_files(list(files)) != list(files.values()):
        return None
    return Published(outcome=Outcome.UNCHANGED, version=number, folder=folder)


def _is_same(folder: Path, publication: Publication) -> bool:
    """Tell whether a version's manifest names the same results, and its files still have those digests."""
    manifest = read_if_there(_manifest_path(folder, pending=publication.pending))
    if manifest is None or results(manifest) != results(publication.manifest):
        return False
    wanted = results(publication.manifest)
    files = {folder / name: digest for name, digest in wanted.items() if name in publication.files}
    return all(path.is_file() for path in files) and digest_files(list(files)) == list(files.values())


def _manifest_path(folder: Path, *, pending: bool) -> Path:
    return folder / MANIFEST if pending else folder / RECORDS / MANIFEST


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
    with told(repository), staging_folder(repository, publication.name) as staging:
        staged = staging / "version"
        _write_tree(staged, publication)
        _verify(staged, publication)
        flush_tree(staged, files=True)
        put_in_place(
            folder,
            staged,
            model=model,
            around=_around(publication),
            is_first=not _has_versions(model),
            keeps_config=publication.pending,
        )
    return Published(outcome=Outcome.PUBLISHED, version=number, folder=folder)


def discard_pending(folder: Path) -> None:
    """Take a pending version away once its engine is published; the folder of pending versions goes with the last."""
    model = folder.parent.parent
    with told(model.parent), staging_folder(model.parent, model.name) as staging:
        set_aside(folder, staging / "replaced")
    with contextlib.suppress(OSError):  # others are pending
        folder.parent.rmdir()


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
        write_file(folder / name, content, flushed=False)


def _verify(folder: Path, publication: Publication) -> None:
    """Read back what was written: a damaged cache must not reach the repository."""
    if not _is_same(folder, publication):
        raise CheckError(
            f"what was written for {publication.name} does not have the digests of its manifest",
            hint="a file of the cache is damaged: remove the cache folder (convkit prints it with --verbose) and rerun",
            code="repository.damaged",
        )


def _around(publication: Publication) -> dict[str, bytes]:
    """Return the files of the model's own folder."""
    return {**publication.beside, **({} if publication.config is None else {CONFIG: publication.config})}


def _has_versions(model: Path) -> bool:
    return bool(_numbers(model) or _numbers(model / PENDING))
