"""What a SavedModel reaches for outside its own folder, told from its files alone: TensorFlow is not needed.

The numbers of fields are those of saved_model.proto, meta_graph.proto, graph.proto, function.proto and node_def.proto
(https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from convkit.errors import InputError
from convkit.graph.wire import BYTES, WireError, fields, mapped

_META_GRAPH, _GRAPH, _SIGNATURE, _ASSET, _OBJECTS = 2, 2, 5, 6, 7
_ASSET_NAME, _SIGNATURE_KEY = 2, 1
_NODE, _LIBRARY, _FUNCTION, _FUNCTION_NODE, _NODE_OP = 1, 2, 1, 3, 2

_SCHEMA_VERSION_KEY = 0x08
"""With which a SavedModel begins, and no GraphDef does."""

_REACHING = (b"ReadFile", b"WriteFile", b"MatchingFiles", b"PyFunc", b"PyFuncStateless", b"EagerPyFunc")
"""Operators that read or write any file, or call the Python that the graph was made in."""


def members_of(folder: Path) -> list[str]:
    """Return the files that a SavedModel consists of, relative to its folder.

    Raises:
        InputError: one is a link out of that folder.
    """
    names = ["saved_model.pb"]
    for top in ("variables", "assets"):
        refuse_outside(folder, folder / top)
        for place, below, files in os.walk(folder / top):
            for name in (*below, *files):
                refuse_outside(folder, Path(place, name))
            names += [Path(place, name).relative_to(folder).as_posix() for name in files]
    return [name for name in names if (folder / name).is_file()]


def refuse_outside(folder: Path, path: Path) -> None:
    """Refuse a link that leads out of a folder.

    Raises:
        InputError: names it.
    """
    try:
        leads_out = path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself, or a name that no file has: it is not there
        return
    if leads_out:
        raise InputError(
            f"{path} is a link to {path.readlink()}, outside of the model's folder",
            hint="bring the file itself along: a model's files lie in its own folder",
            code="source.link",
        )


def refuse_reaching_out(file: Path) -> None:
    """Refuse a saved_model.pb that names assets outside its folder, or whose graph reads and writes files itself.

    What cannot be parsed is left to TensorFlow, which says why.

    Raises:
        InputError: names the asset, or the operator.
    """
    try:
        data = mapped(file)
        for graph in _inside(data, _META_GRAPH):
            for asset in _texts(graph, _ASSET, _ASSET_NAME):
                name = PurePosixPath(asset.decode("utf-8", "replace"))
                if name.is_absolute() or ".." in name.parts:
                    raise _refused(file, f"names the asset '{name}', outside of its folder")
        if any(re.search(operator, data) for operator in _REACHING):  # as fast as the bytes can be read
            _refuse_operators(file, data)
    except (WireError, OSError):
        return


def refuse_reaching_graph(file: Path) -> None:
    """Refuse a file that is no GraphDef, or whose graph reads and writes files itself.

    Raises:
        InputError: says which.
    """
    try:
        data = mapped(file)
        if data[0] == _SCHEMA_VERSION_KEY:
            raise InputError(
                f"{file} is the saved_model.pb of a SavedModel under another name",
                hint="call it saved_model.pb, with its folder variables/ beside it",
                code="source.unreadable",
            )
        _refuse_in(file, data)
    except (WireError, OSError) as error:
        raise InputError(
            f"{file} is no frozen graph of TensorFlow: {error}",
            hint="write a GraphDef in binary form, or export a SavedModel",
            code="source.unreadable",
        ) from error


def signs_no_function(file: Path) -> bool:
    """Tell whether TensorFlow 2 wrote a saved_model.pb without a signature. What cannot be parsed: False."""
    try:
        graphs = list(_inside(mapped(file), _META_GRAPH))
        if len(graphs) != 1 or not any(len(objects) for objects in _inside(graphs[0], _OBJECTS)):
            return False
        keys = list(_texts(graphs[0], _SIGNATURE, _SIGNATURE_KEY))
    except (WireError, OSError):
        return False
    return all(name.startswith(b"__saved_model") for name in keys)


def _refuse_operators(file: Path, data: memoryview) -> None:
    for graph in _inside(data, _META_GRAPH):
        for definition in _inside(graph, _GRAPH):
            _refuse_in(file, definition)


def _refuse_in(file: Path, definition: memoryview) -> None:
    for operator in _operators(definition):
        if operator in _REACHING:
            raise _refused(file, f"has the operator {operator.decode()}, which reaches outside of the model")


def _operators(definition: memoryview) -> Iterator[bytes]:
    yield from _texts(definition, _NODE, _NODE_OP)
    for library in _inside(definition, _LIBRARY):
        for function in _inside(library, _FUNCTION):
            yield from _texts(function, _FUNCTION_NODE, _NODE_OP)


def _texts(data: memoryview, outer: int, inner: int) -> Iterator[bytes]:
    for message in _inside(data, outer):
        yield from (bytes(text) for text in _inside(message, inner))


def _inside(data: memoryview, number: int) -> Iterator[memoryview]:
    for field in fields(data):
        if field.number == number and field.wire_type == BYTES:
            yield data[field.body : field.end]


def _refused(file: Path, problem: str) -> InputError:
    return InputError(
        f"{file} {problem}",
        hint="export the model again without it: a served model computes on its inputs alone",
        code="source.reaches-out",
    )
