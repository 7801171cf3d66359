"""What MODEL is: which framework wrote it, where its config.txt lies, what it would be called."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import msgspec

from convkit.errors import InputError, UsageError
from convkit.sources.source import ending_of, other_endings
from convkit.spec.wording import printable

_TORCH_SUFFIXES = (".pth", ".pt", ".pt2", ".bin", ".ckpt")
KERAS = (".keras", ".h5", ".hdf5")
FROZEN = ".pb"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_DEPTH = 6


class Framework(Enum):
    """Who wrote the model."""

    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow"
    ONNX = "onnx"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A model on the disk."""

    framework: Framework | str
    """Who wrote it; the name of someone else's source."""
    folder: str
    """The folder that holds the model; a SavedModel's own."""
    file: str
    """The model's file in it; ``saved_model.pb`` for a SavedModel."""
    config: str | None
    """The path of its config.txt."""
    name: str
    """What it is called unless the user says otherwise."""

    @property
    def path(self) -> Path:
        """Return the model's file."""
        return Path(self.folder, self.file)

    @property
    def written_by(self) -> str:
        """Return the framework's name."""
        return self.framework.value if isinstance(self.framework, Framework) else self.framework


def find_model(model: Path, *, config: Path | None = None, name: str | None = None) -> Found:
    """Look at MODEL, a file or a folder that holds one, anywhere below as dl_inference does.

    Raises:
        InputError: there is no model, more than one, or one of a kind that convkit does not take.
        UsageError: the name is no plain folder name.
    """
    try:
        there = model.exists()
    except PermissionError as error:
        raise _unreadable(model) from error
    if not there:
        raise InputError(f"{model} does not exist", hint="check the path", code="source.missing")
    file = _file_in(model) if model.is_dir() else model
    framework = _framework(file)
    if not file.is_file():
        raise InputError(
            f"{file} is no regular file", hint="name the file itself: it is read more than once", code="source.no-file"
        )
    if not os.access(file, os.R_OK):
        raise _unreadable(file)
    folder = file.parent.absolute()
    return Found(
        framework=framework,
        folder=str(folder),
        file=file.name,
        config=_config(model, folder, config),
        name=plain_name(name or _default_name(model, file, framework)),
    )


def plain_name(name: str) -> str:
    """Return `name` if it can be a folder of a model repository.

    Raises:
        UsageError: it is a path, hidden, empty, or holds characters that URLs and folders do not share.
    """
    if not _PLAIN_NAME.fullmatch(name) or len(name) > 200:
        raise UsageError(
            f"'{printable(name)}' cannot be a model's name",
            hint="use letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_': --name NAME",
            code="usage.name",
        )
    return name


def _framework(file: Path) -> Framework | str:
    if file.name == "saved_model.pb":
        return Framework.TENSORFLOW
    if file.suffix == ".onnx":
        return Framework.ONNX
    if file.suffix in (*KERAS, FROZEN):
        return Framework.TENSORFLOW
    if file.suffix in _TORCH_SUFFIXES:
        return Framework.PYTORCH
    if (ending := ending_of(file)) is not None:
        return other_endings()[ending]
    raise InputError(
        f"{file} is no model that convkit takes",
        hint="convkit takes .pth, .pt, .pt2, a SavedModel's folder, .keras, .h5, a frozen .pb, and .onnx",
        code="source.unknown-kind",
    )


def _unreadable(path: Path) -> InputError:
    return InputError(f"{path} may not be read", hint="ask its owner for the right to", code="source.permission")


def _file_in(folder: Path) -> Path:
    """Find the one model in a folder: in itself, else in the nearest folders below that may be read."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _unreadable(folder)
    for models_in in (_models_in, _less_surely_models_in, _other_models_in):
        candidates = _nearest(folder, models_in)
        if len(candidates) > 1:
            preferred = [file for file in candidates if file.name in ("model.pth", "saved_model.pb")]
            candidates = preferred if len(preferred) == 1 else candidates
        if len(candidates) > 1:
            listed = ", ".join(str(file.relative_to(folder)) for file in candidates[:5])
            raise InputError(
                f"{folder} holds {len(candidates)} models: {listed}", hint="name the one meant", code="source.ambiguous"
            )
        if candidates:
            return candidates[0]
    raise InputError(
        f"{folder} holds no model",
        hint="it should hold a model.pth, .pt or .pt2, a saved_model.pb with its variables, a .keras, .h5 or frozen "
        ".pb, or an .onnx file",
        code="source.missing",
    )


def _nearest(folder: Path, models_in: Callable[[Path], Iterator[Path]]) -> list[Path]:
    """Return the models in a folder, else those in the nearest folders below."""
    level = [folder]
    for _ in range(_DEPTH):
        candidates = [file for place in level for file in models_in(place)]
        if candidates:
            return candidates
        level = [below for place in level for below in _folders_in(place)]
    return []


def _models_in(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.is_file() and (file.suffix in (".pth", ".pt", ".pt2", ".onnx") or file.name == "saved_model.pb"):
            yield file


def _less_surely_models_in(folder: Path) -> Iterator[Path]:
    """Yield what may as well be the weights of a model beside it."""
    yield from (file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix in (*KERAS, FROZEN))


def _other_models_in(folder: Path) -> Iterator[Path]:
    """Yield what someone else's source takes."""
    if endings := other_endings():
        yield from (file for file in sorted(folder.iterdir()) if file.is_file() and file.name.endswith(tuple(endings)))


def _folders_in(folder: Path) -> Iterator[Path]:
    """Yield folders that may hold a source; a model repository's own folders are no source."""
    for below in sorted(folder.iterdir()):
        if below.is_symlink() or not below.is_dir() or below.name.startswith("."):
            continue
        if os.access(below, os.R_OK | os.X_OK) and not (below / "config.pbtxt").exists():
            yield below


def _config(model: Path, folder: Path, config: Path | None) -> str | None:
    if config is not None:
        if not config.is_file():
            raise InputError(f"--config {config} does not exist", hint="check the path", code="metadata.file")
        return str(config)
    places = [folder, model if model.is_dir() else folder]
    if (folder / "saved_model.pb").exists():
        places.append(folder.parent)
    return next((str(place / "config.txt") for place in places if (place / "config.txt").is_file()), None)


def _default_name(model: Path, file: Path, framework: Framework | str) -> str:
    if model.is_dir():
        return model.resolve().name
    ending = ending_of(file) if isinstance(framework, str) else file.suffix
    stem = file.name.removesuffix(ending or "")
    return file.resolve().parent.name if stem in ("model", "saved_model") else stem
