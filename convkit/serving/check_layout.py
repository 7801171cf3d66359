"""What stands in a repository, seen as Triton sees it: models, versions, and what it would stumble over."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from convkit.errors import InputError
from convkit.serving.check_files import Version
from convkit.serving.in_place import STAGING
from convkit.serving.layout import STRANGER, STRANGER_HINT, is_model, numbered, strangers
from convkit.serving.publish import CONFIG, CONFIGS, CUSTOM_OPS, PENDING, WARMUP
from convkit.serving.remark import Remark, Severity, place_in

_KNOWN_FOLDERS = (PENDING, CONFIGS, WARMUP, CUSTOM_OPS, "initial_state")
_NO_REPOSITORY = "name a model repository, or one model in it: a model's folder holds config.pbtxt or numbered versions"


def find_models(path: Path) -> tuple[Path, list[Path]]:
    """Return the repository, and the models to look at: all of them, or the one that was named.

    Raises:
        InputError: there is no model repository there.
    """
    path = path.absolute()
    try:
        if not path.is_dir():
            raise InputError(f"{path} is no folder", hint=_NO_REPOSITORY, code="repository.missing")
        if is_model(path):
            return path.parent, [path]
        models = sorted(child for child in path.iterdir() if child.is_dir() and is_model(child))
    except PermissionError as error:
        raise InputError(
            f"{path} cannot be read", hint="let the user who runs the check read it", code="repository.unreadable"
        ) from error
    if not models:
        raise InputError(f"there is no model in {path}", hint=_NO_REPOSITORY, code="repository.no-model")
    return path, models


def versions_of(model: Path) -> list[Version]:
    """Return a model's versions, those still to be built after the others, each in the order of their numbers."""
    live = [Version(number=int(p.name), folder=p) for p in numbered(model)]
    pending = [Version(number=int(p.name), folder=p, pending=True) for p in numbered(model / PENDING)]
    return [*sorted(live, key=lambda v: v.number), *sorted(pending, key=lambda v: v.number)]


def check_root(repository: Path) -> Iterator[Remark]:
    """Look for folders that Triton would take for models, and for what interrupted runs have left."""
    for folder in strangers(repository):
        yield Remark(
            code="repository.not-a-model",
            message=STRANGER.format(name=folder.name),
            hint=STRANGER_HINT,
            path=folder.name,
        )
    for folder in sorted(repository.glob(f"{STAGING}*")):
        yield _leftover(repository, folder)
    for folder in sorted(repository.parent.glob(f"{STAGING}{glob.escape(repository.name)}-*")):
        yield _leftover(repository, folder)


def check_versions(repository: Path, model: Path, versions: list[Version]) -> Iterator[Remark]:
    """Look at a model's own folder: its versions, and folders that mean nothing there."""
    live = [version for version in versions if not version.pending]
    for folder in sorted(child for child in model.iterdir() if child.is_dir()):
        if folder.name.startswith(STAGING):
            yield _leftover(repository, folder)
        elif folder.name.isdigit() and folder.name.startswith("0"):
            yield Remark(
                code="repository.version-ignored",
                severity=Severity.WARNING,
                message=f"{place_in(repository, folder)}: Triton ignores a version whose number begins with 0",
                hint="rename it to a number from 1 on",
                path=place_in(repository, folder),
            )
        elif not folder.name.isdigit() and folder.name not in _KNOWN_FOLDERS:
            yield Remark(
                code="repository.folder-ignored",
                severity=Severity.NOTE,
                message=f"{place_in(repository, folder)} is no version: Triton ignores it",
                hint="remove it, if nobody needs it",
                path=place_in(repository, folder),
            )
    for version in versions:
        if version.pending:
            yield _still_to_build(repository, version)
    if not versions:
        yield Remark(
            code="repository.no-version",
            message=f"{model.name} has a configuration and no version: Triton cannot load it",
            hint="publish a version, or remove the folder",
            path=model.name,
        )
    elif live and not (model / CONFIG).is_file():
        yield Remark(
            code="repository.no-config",
            severity=Severity.WARNING,
            message=f"{model.name} has no config.pbtxt",
            hint="a server completes it by itself for some backends only, and then without batching or warm-up",
            path=model.name,
        )


def _leftover(repository: Path, folder: Path) -> Remark:
    return Remark(
        code="repository.leftover",
        severity=Severity.WARNING,
        message=f"{folder} was left by an interrupted run",
        hint="the next publication into this repository removes it; or remove it now",
        path=place_in(repository, folder),
    )


def _still_to_build(repository: Path, version: Version) -> Remark:
    where = place_in(repository, version.folder)
    return Remark(
        code="repository.pending",
        severity=Severity.WARNING,
        message=f"{where}: the engine is still to be built",
        hint="run convkit build on the repository where the GPU is",
        path=where,
    )
