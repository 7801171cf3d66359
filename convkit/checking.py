"""Checking a model repository: digests, configurations, what a release can read, and what a server answers."""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import msgspec

from convkit.errors import ExitStatus
from convkit.pipeline.artifact import use_index
from convkit.served import check_served, open_server
from convkit.serving.check_config import ConfigCheck, configurations, served_versions
from convkit.serving.check_files import (
    FileCheck,
    Version,
    check_beside,
    check_files,
    check_signature,
    check_unknown_beside,
)
from convkit.serving.check_layout import check_root, check_versions, find_models, versions_of
from convkit.serving.check_release import check_release, check_tensorrt, check_tensorrt_name
from convkit.serving.publish import CONFIG, MODEL_FOLDER
from convkit.serving.releases import TritonRelease, release
from convkit.serving.remark import Remark, Severity
from convkit.serving.server import Server
from convkit.serving.signature import Verifier
from convkit.serving.triton_text import ModelConfig


class CheckStatus(Enum):
    """Whether anything is wrong: a remark that is an error."""

    OK = "ok"
    FAILED = "failed"


class CheckedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version."""

    version: int
    pending: bool
    """Its engine is still to be built."""
    recorded: bool
    """A manifest of convkit's tells what its files should be."""
    files: int
    """How many files have the digest that they should have."""
    served: str | None = None
    """With `serve`: ``equal``, ``different``, ``failed``, or ``not compared``; None where no server was asked."""


class CheckedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    name: str
    versions: tuple[CheckedVersion, ...]
    findings: tuple[Remark, ...]


class CheckReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="convkit.check/1"):
    """What `convkit check` prints with `--json`."""

    status: CheckStatus
    exit_code: int
    repository: str
    models: tuple[CheckedModel, ...]
    findings: tuple[Remark, ...]
    """On the repository as a whole."""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Return every finding, those on the repository first."""
        return (*self.findings, *(remark for model in self.models for remark in model.findings))


def check(
    path: Path,
    *,
    triton: str | None = None,
    tensorrt: str | None = None,
    serve: bool = False,
    key: Path | None = None,
) -> CheckReport:
    """Check a model repository, or one model in it; nothing is written.

    Every digest is computed anew from the bytes on the disk. No publication is let in while the files are read.

    Args:
        path: REPOSITORY or REPOSITORY/NAME.
        triton: a release such as ``26.07``: what it cannot read is an error.
        tensorrt: the TensorRT version that will load engines; by default that of the release.
        serve: start a Triton server and hold its answers against the recorded ones.
        key: a public key (PEM, Ed25519): every manifest must be signed with its private key.

    Raises:
        InputError: there is no repository, or the key cannot be read.
        UsageError: the release or version is none.
        MissingError: no server is on this machine, or the extra for signatures is missing.
    """
    return contextvars.copy_context().run(_check, path, triton, tensorrt, serve, key)


def _check(path: Path, triton: str | None, tensorrt: str | None, serve: bool, key: Path | None) -> CheckReport:
    use_index(None)  # the bytes themselves, not what was known of them
    repository, models = find_models(path)
    asked = _Asked(triton=triton, tensorrt=tensorrt, key=key)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_no_publication(repository))
        server = stack.enter_context(open_server(repository)) if serve else None
        root = tuple(check_root(repository)) if path.absolute() == repository else ()
        checked = tuple(_model(repository, model, asked, server) for model in models)
    wrong = any(remark.severity is Severity.ERROR for model in checked for remark in (*root, *model.findings))
    return CheckReport(
        status=CheckStatus.FAILED if wrong else CheckStatus.OK,
        exit_code=int(ExitStatus.CHECK_FAILED if wrong else ExitStatus.DONE),
        repository=str(path),
        models=checked,
        findings=root,
    )


class _Asked:
    """What the caller wants to know of every version: who is to load it, and who must have signed it."""

    def __init__(self, *, triton: str | None, tensorrt: str | None, key: Path | None) -> None:
        self.verifier = Verifier(key) if key is not None else None
        self.release: TritonRelease | None = release(triton) if triton else None
        named = check_tensorrt_name(tensorrt) if tensorrt else None
        self.tensorrt = named or (self.release.tensorrt if self.release else None)
        self.server = f"TensorRT {named}" if named else f"Triton {triton}"
        self.about_engines = self.release is not None or named is not None

    def remarks(
        self, repository: Path, version: Version, config: ModelConfig | None, files: FileCheck
    ) -> Iterator[Remark]:
        if self.release is not None:
            yield from check_release(repository, version, config, self.release)
        if self.verifier is not None:
            yield from check_signature(repository, version, files.manifest, self.verifier)
        if self.about_engines:
            yield from check_tensorrt(
                repository, version, config, files.statement, tensorrt=self.tensorrt, server=self.server
            )


def _model(repository: Path, model: Path, asked: _Asked, server: Server | None) -> CheckedModel:
    versions = versions_of(model)
    remarks = list(check_versions(repository, model, versions))
    files = [check_files(repository, version) for version in versions]
    remarks += [remark for each in files for remark in each.remarks]
    beside = _beside(versions, files)
    remarks += check_beside(repository, model, beside)
    if beside:
        remarks += check_unknown_beside(repository, model, {name for told in beside.values() for name in told})
    config = None
    for path in configurations(model):
        configuration = ConfigCheck(repository, path, versions, ours=bool(beside))
        remarks += configuration.remarks()
        config = configuration.config if path.name == CONFIG else config
    for version, file in zip(versions, files, strict=True):
        remarks += asked.remarks(repository, version, config, file)
    served: dict[int, str] = {}
    if server is not None:
        live = [version for version in versions if not version.pending]
        wanted = served_versions(config, live) if config is not None else set()
        served = check_served(repository, model, live, wanted, server, remarks)
    return CheckedModel(
        name=model.name,
        versions=tuple(
            CheckedVersion(
                version=version.number,
                pending=version.pending,
                recorded=each.statement is not None,
                files=each.files,
                served=None if version.pending else served.get(version.number),
            )
            for version, each in zip(versions, files, strict=True)
        ),
        findings=tuple(remarks),
    )


def _beside(versions: list[Version], files: list[FileCheck]) -> dict[int, dict[str, str]]:
    """Return, by version, the digests of the model's own files; from what is pending where nothing is live yet."""
    told = [(version, each.statement) for version, each in zip(versions, files, strict=True) if each.statement]
    live = {version.number: statement.byproducts for version, statement in told if not version.pending}
    if live:
        return {number: digests for number, digests in live.items() if digests}
    prefix = f"{MODEL_FOLDER}/"
    return {
        version.number: {n.removeprefix(prefix): d for n, d in statement.subjects.items() if n.startswith(prefix)}
        for version, statement in told
    }


@contextlib.contextmanager
def _no_publication(repository: Path) -> Iterator[None]:
    """Keep publications waiting, as far as the file system can: a repository is not to change while it is read."""
    descriptor = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a network file system that does not lock folders
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
