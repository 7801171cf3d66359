"""Samples as the user has them, one after the other, before anything is done to them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.errors import InputError
from convkit.graph.npz import NpzReader, reading
from convkit.pipeline.artifact import Artifact
from convkit.sources.user_code import UserFunction, load_function, running

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Sample:
    """One raw sample."""

    value: Any
    """A dict of arrays, the path of an image, a line of text or a JSON object."""
    label: Any
    """What it is, where the data say so; None where they do not."""
    where: str
    """What messages call it."""


class NpzFiles(msgspec.Struct, frozen=True, kw_only=True, tag="npz"):
    """``.npz`` files whose arrays are stacked along the first axis."""

    files: Artifact

    def samples(self, labels: str) -> Iterator[Sample]:
        """Yield row after row, the arrays under their names."""
        for member in self.files.files:
            path = self.files.file(member)
            with NpzReader(path) as reader:
                columns = {name: reader.column(name) for name in reader.names}
                rows = {len(column) for column in columns.values()}
                if len(rows) != 1:
                    raise _uneven(path, rows)
                for row in range(rows.pop()):
                    arrays = {name: column.take(1)[0] for name, column in columns.items()}
                    yield Sample(arrays, arrays.pop(labels, None), f"{path}, row {row}")


class NpyFolder(msgspec.Struct, frozen=True, kw_only=True, tag="npy"):
    """A folder with a ``NAME.npy`` for each tensor, its rows the samples, or a folder ``NAME`` of one file for each."""

    files: Artifact

    def samples(self, labels: str) -> Iterator[Sample]:
        """Yield row after row, the arrays under their names."""
        tensors: dict[str, list[np.ndarray] | np.ndarray] = {}
        for name, members in self._members().items():
            paths = [self.files.file(member) for member in members]
            whole = len(members) == 1 and "/" not in members[0]
            tensors[name] = _mapped(paths[0]) if whole else [_mapped(path) for path in paths]
        rows = {len(tensor) for tensor in tensors.values()}
        if len(rows) != 1:
            raise _uneven(self.files.path, rows)
        for row in range(rows.pop()):
            arrays = {name: tensor[row] for name, tensor in tensors.items()}
            yield Sample(arrays, arrays.pop(labels, None), f"{self.files.path}, row {row}")

    def _members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for member in self.files.files:
            name = PurePosixPath(member)
            found.setdefault(name.parts[0] if len(name.parts) > 1 else name.stem, []).append(member)
        return found


class ImageFiles(msgspec.Struct, frozen=True, kw_only=True, tag="images"):
    """Images, in folders that are their classes where `classes` names those."""

    files: Artifact
    classes: tuple[str, ...] = ()
    """The names of all sub-folders of the first level, sorted; the label is the place of the image's own among them."""

    def samples(self, labels: str) -> Iterator[Sample]:
        """Yield the path of image after image."""
        del labels
        for member in self.files.files:
            label = self.classes.index(member.partition("/")[0]) if self.classes else None
            yield Sample(self.files.file(member), label, str(self.files.file(member)))


class TextLines(msgspec.Struct, frozen=True, kw_only=True, tag="lines"):
    """A ``.txt`` file of one sample in each line, or a ``.jsonl`` file of one JSON object in each."""

    files: Artifact

    def samples(self, labels: str) -> Iterator[Sample]:
        """Yield line after line; those with nothing in them are passed over."""
        path = self.files.file()
        try:
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _line(
                            line.rstrip("\r\n"), f"{path}, line {number}", labels, as_json=path.suffix != ".txt"
                        )
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is no text in UTF-8: {error}", hint="save it in UTF-8", code="data.text"
            ) from error


class FunctionCalls(msgspec.Struct, frozen=True, kw_only=True, tag="function"):
    """A function of the user's that yields samples."""

    function: UserFunction
    option: str

    def samples(self, labels: str) -> Iterator[Sample]:
        """Yield what the function yields."""
        name = self.function.name
        with running(self.function):
            values = iter(load_function(self.function, self.option)())
        for number in itertools.count():
            with running(self.function):
                value = next(values, _END)
            if value is _END:
                return
            arrays = dict(value) if isinstance(value, Mapping) else value
            label = arrays.pop(labels, None) if isinstance(arrays, dict) else None
            yield Sample(arrays, label, f"{name}, sample {number}")


Raw = NpzFiles | NpyFolder | ImageFiles | TextLines | FunctionCalls
_END = object()


def _line(line: str, where: str, labels: str, *, as_json: bool) -> Sample:
    if not as_json:
        return Sample(line, None, where)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is no JSON: {error}", hint="write one JSON object in each line", code="data.text"
        ) from error
    return Sample(value, value.get(labels) if isinstance(value, dict) else None, where)


def _mapped(path: Path) -> np.ndarray:
    """Open a ``.npy`` file without reading it."""
    import numpy as np

    with reading(path, kind=".npy"):
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _uneven(path: Path | str, rows: set[int]) -> InputError:
    return InputError(
        f"{path}: its arrays have {sorted(rows)} rows: they must have the same number",
        hint="stack every tensor along the first axis, one row for each sample",
        code="data.rows",
    )
