"""Every digest of a version recomputed: one bit that has changed anywhere is found, and its file is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from convkit.errors import ConvkitError
from convkit.pipeline.artifact import digest_file, read_record
from convkit.serving.publish import CONFIG, MANIFEST, PENDING, RECORDS
from convkit.serving.records import SUMS, read_sums
from convkit.serving.remark import Remark, Severity, place_in
from convkit.serving.signature import SIGNATURE, Verifier
from convkit.serving.statement import Statement, read_statement
from convkit.spec.paths import is_plain
from convkit.targets.build_plan import FILE_NAME, read_build_plan

_AGAIN = "publish the version again: convkit convert ... --version N --replace"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version's directory, live or still to be built."""

    number: int
    folder: Path
    pending: bool = False

    @property
    def records(self) -> Path:
        """Return the folder of its records."""
        return self.folder if self.pending else self.folder / RECORDS


class FileCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a version's digests."""

    remarks: tuple[Remark, ...] = ()
    manifest: bytes | None = None
    statement: Statement | None = None
    """The manifest as far as it can be read."""
    files: int = 0
    """How many digests held."""


def check_files(repository: Path, version: Version) -> FileCheck:
    """Hold a version's files against its manifest, its SHA256SUMS and its build.json."""
    remarks: list[Remark] = []
    manifest = _read(repository, version.records / MANIFEST, remarks)
    sums_data = _read(repository, version.records / SUMS, remarks)
    if manifest is None and sums_data is None:
        return FileCheck(remarks=(*remarks, _not_ours(repository, version)))
    statement = _statement(repository, version, manifest, remarks)
    sums = _sums(repository, version, sums_data, remarks)
    prefix = "" if version.pending else f"{RECORDS}/"
    digests = {**{prefix + name: digest for name, digest in sums.items()}, **(statement.subjects if statement else {})}
    if prefix + MANIFEST not in digests and sums:
        remarks.append(_damaged(repository, version.records / SUMS, f"says nothing of {MANIFEST}"))
    held = 0
    for name, digest in sorted(digests.items()):
        fault = _hold(repository, version.folder, name, digest)
        held += fault is None
        remarks += [fault] if fault else []
    remarks += _hold_build_plan(repository, version, digests)
    known = {*digests, prefix + MANIFEST, prefix + SUMS}
    remarks += _unknown(repository, version.folder, known)
    return FileCheck(remarks=tuple(remarks), manifest=manifest, statement=statement, files=held)


def check_beside(repository: Path, model: Path, beside: Mapping[int, Mapping[str, str]]) -> Iterator[Remark]:
    """Hold the files of a model's own folder against the manifests of its versions.

    They are those of the version that was published last; an older version's are as good, since a version may be
    taken away.

    Args:
        repository: the model repository.
        model: the model's folder.
        beside: for each version with a manifest, the digests that it gives for them.
    """
    if not beside:
        return
    newest = beside[max(beside)]
    for name in sorted({name for each in beside.values() for name in each}):
        allowed = {each[name] for each in beside.values() if name in each}
        if name in newest or (model / name).exists():
            fault = _hold(repository, model, name, *allowed)
            if fault:
                yield fault


def check_signature(repository: Path, version: Version, manifest: bytes | None, verifier: Verifier) -> Iterator[Remark]:
    """Hold a version's signature against its manifest."""
    path = version.records / SIGNATURE
    where = place_in(repository, path)
    envelope = path.read_bytes() if path.is_file() else None
    if envelope is None or manifest is None:
        yield Remark(
            code="check.not-signed",
            message=f"{place_in(repository, version.folder)} is not signed",
            hint="publish it with convkit convert --sign KEY.pem",
            path=where,
        )
        return
    fault = verifier.fault(manifest, envelope)
    if fault is not None:
        yield Remark(
            code="check.signature",
            message=f"{where} does not vouch for the manifest: {fault}",
            hint="do not serve this version before you know who published it",
            path=where,
        )


def check_unknown_beside(repository: Path, model: Path, known: Iterable[str]) -> Iterator[Remark]:
    """Note the files of a model's own folder that no manifest names."""
    own = [path for path in model.iterdir() if not (path.name.isdigit() or path.name == PENDING)]
    for path in sorted(own):
        inner = [path] if not path.is_dir() else [p for p in path.rglob("*") if not p.is_dir()]
        for file in sorted(inner):
            if file.relative_to(model).as_posix() not in {*known, CONFIG}:
                yield _unlisted(repository, file)


def _read(repository: Path, path: Path, remarks: list[Remark]) -> bytes | None:
    try:
        return read_record(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        remarks.append(_unreadable(repository, path, error))
        return None


def _statement(repository: Path, version: Version, manifest: bytes | None, remarks: list[Remark]) -> Statement | None:
    if manifest is None:
        return None  # SHA256SUMS names it, so that it is missed there
    try:
        return read_statement(manifest)
    except ValueError as error:
        remarks.append(_damaged(repository, version.records / MANIFEST, f"is no manifest: {error}"))
        return None


def _sums(repository: Path, version: Version, data: bytes | None, remarks: list[Remark]) -> dict[str, str]:
    if data is None:
        remarks.append(_missing(repository, version.records / SUMS, "nothing says whether its records are whole"))
        return {}
    try:
        return read_sums(data)
    except ValueError as error:
        remarks.append(_damaged(repository, version.records / SUMS, f"is damaged: {error}"))
        return {}


def _hold(repository: Path, folder: Path, name: str, *allowed: str) -> Remark | None:
    """Hold one file against the digests that it may have; None where it has one."""
    path = folder / name
    if not is_plain(name):
        return _damaged(repository, folder, f"has a manifest that names '{name}', outside of its folder")
    try:
        found = digest_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return _missing(repository, path, "a manifest names it")
    except OSError as error:
        return _unreadable(repository, path, error)
    if found in allowed:
        return None
    return Remark(
        code="check.digest",
        message=f"{place_in(repository, path)} is not the file that was published: its digest is another",
        hint=_AGAIN,
        path=place_in(repository, path),
    )


def _hold_build_plan(repository: Path, version: Version, digests: Mapping[str, str]) -> Iterator[Remark]:
    """See that build.json names the very files that the manifest names."""
    path = version.records / FILE_NAME
    prefix = "" if version.pending else f"{RECORDS}/"
    if not path.is_file():
        return
    try:
        plan = read_build_plan(path)
    except ConvkitError as error:
        yield Remark(code=error.code, message=error.message, hint=error.hint, path=place_in(repository, path))
        return
    for name, digest in plan.files.items():
        if digests.get(prefix + name) != digest:
            yield _damaged(repository, path, f"was written for another {name}")


def _unknown(repository: Path, folder: Path, known: set[str]) -> Iterator[Remark]:
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in known:
            yield _unlisted(repository, path)


def _not_ours(repository: Path, version: Version) -> Remark:
    return Remark(
        code="check.no-manifest",
        severity=Severity.NOTE,
        message=f"{place_in(repository, version.folder)} has no manifest of convkit's: nothing tells what its files "
        "should be",
        hint="publish it with convkit convert, if it should be held against digests",
        path=place_in(repository, version.folder),
    )


def _missing(repository: Path, path: Path, why: str) -> Remark:
    where = place_in(repository, path)
    return Remark(code="check.missing-file", message=f"{where} is missing: {why}", hint=_AGAIN, path=where)


def _damaged(repository: Path, path: Path, what: str) -> Remark:
    where = place_in(repository, path)
    return Remark(code="check.damaged-record", message=f"{where} {what}", hint=_AGAIN, path=where)


def _unreadable(repository: Path, path: Path, error: OSError) -> Remark:
    where = place_in(repository, path)
    return Remark(
        code="check.unreadable",
        message=f"{where} cannot be read: {error.strerror}",
        hint="let the user who runs the check read it",
        path=where,
    )


def _unlisted(repository: Path, path: Path) -> Remark:
    where = place_in(repository, path)
    return Remark(
        code="check.unknown-file",
        severity=Severity.NOTE,
        message=f"{where} was not published by convkit",
        hint="remove it, if nobody needs it",
        path=where,
    )
