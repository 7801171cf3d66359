"""`--custom-ops`: the user's libraries and Python files, held against source and target before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from convkit.errors import CheckError, InputError, UsageError
from convkit.pipeline.artifact import digest_file, gather
from convkit.pipeline.events import Warned
from convkit.pipeline.extensions import PYTHON, Extension
from convkit.pipeline.runner import Runner
from convkit.serving.publish import CUSTOM_OPS
from convkit.sources.code import local_imports

OPTION = "--custom-ops"
_ELF = b"\x7fELF"


def find_extensions(named: Sequence[str]) -> tuple[Extension, ...]:
    """Look up what ``--custom-ops`` names; nothing is loaded.

    Raises:
        InputError: a file is not there, or is neither Python nor a shared library.
    """
    return tuple(_found(Path(name).absolute(), name) for name in dict.fromkeys(named))


def _found(path: Path, name: str) -> Extension:
    try:
        if path.suffix == PYTHON:
            return Extension(files=gather(path.parent, [path.name, *local_imports(path)]), name=path.name)
        with path.open("rb") as stream:
            is_library = stream.read(len(_ELF)) == _ELF
    except OSError as error:
        raise InputError(
            f"{OPTION} {name}: {error.strerror}", hint="check the path", code="custom-ops.missing"
        ) from error
    if not is_library:
        raise InputError(
            f"{OPTION} {name} is neither a Python file nor a shared library",
            hint="give a FILE.py that registers PyTorch operators, or a LIB.so that ONNX Runtime can load",
            code="custom-ops.kind",
        )
    return Extension(files=gather(path.parent, [path.name]), name=path.name)


def refuse_useless(extensions: Sequence[Extension], *, environment: str, target: str, backend: str | None) -> None:
    """Refuse a file that the source, or the target, would not load.

    See `refuse_unread` for the source.

    Args:
        extensions: what was named.
        environment: the worker that exports the source.
        target: what the model is converted to.
        backend: what Triton calls the target's runtime.

    Raises:
        UsageError: says which, and why.
    """
    refuse_unread(extensions, {environment})
    for extension in extensions:
        if not extension.is_python and (target, backend) != ("onnxruntime", "onnxruntime"):
            raise UsageError(
                f"{OPTION} {extension.name} --to {target}: a library of ONNX Runtime's operators is loaded by ONNX "
                "Runtime alone",
                hint="convert --to onnxruntime, or write the operator in ONNX's own with a FILE.py",
                code="custom-ops.target",
            )


def refuse_unread(extensions: Sequence[Extension], environments: Collection[str]) -> None:
    """Refuse a file that none of the models would load; `environments` are the workers that read them.

    Raises:
        UsageError: says which, and why.
    """
    for extension in extensions:
        if extension.is_python and "torch" not in environments:
            raise UsageError(
                f"{OPTION} {extension.name}: a Python file registers PyTorch's operators, and this is no PyTorch model",
                hint="leave it out, or name a library for ONNX Runtime",
                code="custom-ops.source",
            )
        if not extension.is_python and set(environments) <= {"tensorflow"}:
            raise UsageError(
                f"{OPTION} {extension.name}: tf2onnx writes no operators but ONNX's, so that no library would be used",
                hint="leave it out",
                code="custom-ops.source",
            )


def published_libraries(extensions: Sequence[Extension]) -> dict[str, bytes]:
    """Return the libraries as files of a model's own folder; each stands under its digest, so that none is changed
    while a server has it loaded.

    Raises:
        CheckError: one has changed since it was looked up.
    """
    files: dict[str, bytes] = {}
    for extension in extensions:
        if extension.is_python:
            continue
        files[f"{CUSTOM_OPS}/{extension.files.digest.partition(':')[2][:12]}/{extension.name}"] = (
            extension.path.read_bytes()
        )
        if gather(Path(extension.files.path), extension.files.files).digest != extension.files.digest:
            raise CheckError(
                f"{extension.path} has changed during the conversion",
                hint="run the same command again when nothing writes there any more",
                code="custom-ops.changed",
            )
    return files


def warn_of_place(run: Runner, libraries: Collection[str], repository: str | None) -> None:
    """Say that config.pbtxt names libraries by where they stand here, unless it was said where the server sees them."""
    if libraries and repository is None:
        message = (
            f"config.pbtxt names {', '.join(Path(name).name for name in libraries)} by its path on this machine: where "
            "the server sees the repository elsewhere, say so with --set triton.repository=/models"
        )
        run.observe(Warned(code="custom-ops.place", message=message))


def digests(extensions: Sequence[Extension]) -> dict[str, str]:
    """Return the digest of every file, by the names under which the manifest records them."""
    return {f"{CUSTOM_OPS}/{file}": digest_file(e.files.file(file)) for e in extensions for file in e.files.files}
