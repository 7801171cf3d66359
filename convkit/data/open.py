"""What an option for data names: a file, a folder or a function. Looked at here, and prepared for the model later."""

from __future__ import annotations

import importlib.util
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from convkit.data.images import SUFFIXES
from convkit.data.opened import state_of
from convkit.data.prepare import PREPROCESS, prepare_data
from convkit.data.raw import FunctionCalls, ImageFiles, NpyFolder, NpzFiles, Raw, TextLines
from convkit.errors import InputError, MissingError, UsageError
from convkit.pipeline.artifact import Artifact, digest_bytes, gather
from convkit.pipeline.runner import Runner
from convkit.sources.user_code import find_function
from convkit.spec.preprocess import PreprocessOptions
from convkit.spec.tensor import Interface

_FUNCTION = re.compile(r".*\.py:[A-Za-z_]\w*|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_KINDS = "a .npz file or a folder of them, a folder of .npy files or of images, or FILE.py:function"
_MOST_RUNS = 3


class Data:
    """Data of any kind: everything is there, nothing has run.

    Args:
        raw: the samples as they lie there.
        name: what the report calls them.
        options: what becomes of raw samples.
        labels: the name of the labels.
        at_most: samples to take; None: all.
    """

    def __init__(self, raw: Raw, *, name: str, options: PreprocessOptions, labels: str, at_most: int | None) -> None:
        self.raw, self.name, self.labels, self.at_most = raw, name, labels, at_most
        self.options = options
        self._prepared: Artifact | None = None
        self.function = find_function(options.function, PREPROCESS) if options.function is not None else None

    @property
    def files(self) -> Artifact:
        """Return what the samples are made of: files of data, or of the code that yields them."""
        return self.raw.function.files if isinstance(self.raw, FunctionCalls) else self.raw.files

    @property
    def is_plain(self) -> bool:
        """Tell whether these are ``.npz`` files that are read as they are."""
        return isinstance(self.raw, NpzFiles) and self.function is None

    @property
    def digest(self) -> str:
        """Return one digest over data and code."""
        if self.function is None:
            return self.files.digest
        return digest_bytes(f"{self.files.digest} {self.function.files.digest}".encode())

    def prepared(self, run: Runner, interface: Callable[[], Interface]) -> Artifact:
        """Return the data as ``.npz`` files of rows; those that are such already, as they are.

        What the user's code was seen to read the last time is looked at again, and where it has changed the code runs
        once more.

        Raises:
            InputError: a sample cannot be read, or does not fit the model.
            StepError: the user's code raised.
        """
        if self._prepared is None:
            self._prepared = self.files if self.is_plain else self._run(run, interface)
        return self._prepared

    def _run(self, run: Runner, interface: Callable[[], Interface]) -> Artifact:
        state = ""
        for _ in range(_MOST_RUNS):
            result = run(
                prepare_data,
                self.raw,
                interface=interface(),
                options=self.options if isinstance(self.raw, ImageFiles) else PreprocessOptions(),
                function=self.function,
                labels=self.labels,
                at_most=self.at_most,
                state=state,
            )
            state = state_of(result.opened)
            if state == result.state:
                break
        return result.files


def open_data(
    text: str, option: str, *, options: PreprocessOptions, labels: str = "labels", at_most: int | None = None
) -> Data:
    """Look at what `text` names; see docs/data.md for the kinds.

    Args:
        text: a path, ``FILE.py:function`` or ``module:function``.
        option: the option that says so, for messages.
        options: `[preprocess]`.
        labels: the name of the labels.
        at_most: samples to take; of images, evenly from the whole of the sorted list.

    Raises:
        InputError: it does not exist, or is of no such kind.
        UsageError: it needs a `[preprocess] function`, and there is none.
        MissingError: it needs Pillow, which is not installed.
    """
    raw = _raw(text, option, at_most)
    if isinstance(raw, TextLines) and options.function is None:
        raise UsageError(
            f"{option} {text}: a text becomes arrays by a function, and none is named",
            hint="--set preprocess.function=FILE.py:function, which is called with each line",
            code="preprocess.no-function",
        )
    if isinstance(raw, ImageFiles) and importlib.util.find_spec("PIL") is None:
        raise MissingError(
            f"{option} {text}: images are read with Pillow, which is not installed here",
            hint='pip install "convkit[images]"',
            code="missing.extra",
        )
    return Data(raw, name=Path(text).name, options=options, labels=labels, at_most=at_most)


def _raw(text: str, option: str, at_most: int | None) -> Raw:
    where = Path(text)
    if where.is_file():
        return _file(where.absolute(), option)
    if where.is_dir():
        return _folder(where.absolute(), option, at_most)
    if _FUNCTION.fullmatch(text):
        return FunctionCalls(function=find_function(text, option), option=option)
    raise InputError(f"{option} {text} does not exist", hint=f"name {_KINDS}", code="data.missing")


def _file(path: Path, option: str) -> Raw:
    files = gather(path.parent, [path.name])
    match path.suffix.lower():
        case ".txt" | ".jsonl":
            return TextLines(files=files)
        case ".npy":
            return NpyFolder(files=files)
        case ".npz":
            return NpzFiles(files=files)
        case _ if zipfile.is_zipfile(path):
            return NpzFiles(files=files)
    raise InputError(
        f"{option} {path} is no kind of data that convkit knows",
        hint=f"name {_KINDS}; a .txt or .jsonl file with [preprocess] function",
        code="data.kind",
    )


def _folder(folder: Path, option: str, at_most: int | None) -> Raw:
    """Tell a folder's kind: by .npz files in it, else by .npy files in it or one level below, else by images."""
    if packed := _named(folder.glob("*.npz"), folder):
        return NpzFiles(files=gather(folder, packed))
    if arrays := _named([*folder.glob("*.npy"), *folder.glob("*/*.npy")], folder):
        return NpyFolder(files=gather(folder, arrays))
    images = _images_below(folder)
    if not images:
        raise InputError(
            f"{option} {folder} holds neither .npz nor .npy files, nor images",
            hint=f"name {_KINDS}",
            code="data.missing",
        )
    parents = {name.partition("/")[0] if "/" in name else "" for name in images}
    classes = tuple(sorted(parents)) if len(parents) > 1 and "" not in parents else ()
    return ImageFiles(files=gather(folder, _spread(images, at_most)), classes=classes)


def _named(files: Iterable[Path], folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in files if file.is_file())


def _images_below(folder: Path) -> list[str]:
    """Return the images in and below a folder, sorted, relative to it; not those of hidden folders."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
        found += [Path(place, name).relative_to(folder).as_posix() for name in images]
    return sorted(found, key=lambda name: name.split("/"))


def _spread(names: list[str], at_most: int | None) -> list[str]:
    """Take so many names, evenly from the whole list: of sorted images some of every class."""
    if at_most is None or len(names) <= at_most:
        return names
    return [names[(2 * number + 1) * len(names) // (2 * at_most)] for number in range(at_most)]
