"""The tensors that a PyTorch file stores, told without running anything in it and without torch.

The pickle is read with nothing but empty stand-ins for whatever it names: what it would call is noted, never called.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from convkit.spec.archive import refuse_bomb
from convkit.spec.tensor import DType

_MOST_BYTES = 1 << 26
_MOST_TENSORS = 100_000
_STORAGES = {
    "DoubleStorage": DType.FLOAT64,
    "FloatStorage": DType.FLOAT32,
    "HalfStorage": DType.FLOAT16,
    "BFloat16Storage": DType.BFLOAT16,
    "LongStorage": DType.INT64,
    "IntStorage": DType.INT32,
    "ShortStorage": DType.INT16,
    "CharStorage": DType.INT8,
    "ByteStorage": DType.UINT8,
    "BoolStorage": DType.BOOL,
}
_ODD = (
    *(OSError, EOFError, MemoryError, RuntimeError, ArithmeticError),
    *(ValueError, TypeError, AttributeError, LookupError, StopIteration),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
"""What a damaged archive or pickle makes its reader raise."""
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
_WRAPPERS = {"_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter", "restore_type_tag"}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor in a file."""

    name: str
    """Its keys, joined by dots."""
    dtype: DType | None
    """None: of a type that convkit has no name for."""
    dims: tuple[int, ...]
    storage: str
    """Tensors of one storage share their bytes."""

    @property
    def elements(self) -> int:
        """Return how many it has."""
        return math.prod(self.dims)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What is called with tensors of known shapes: a traced TorchScript file keeps its example's."""

    names: tuple[str, ...]
    """The arguments of ``forward``."""
    examples: tuple[Stored, ...]
    """As many as could be told, in order."""

    @property
    def is_whole(self) -> bool:
        """Tell whether the shape of every argument is known."""
        return len(self.names) == len(self.examples)


def stored_tensors(path: Path) -> tuple[Stored, ...]:
    """Return the tensors of a file that `torch.save` or `torch.jit.save` has written, each storage's first name alone.

    Nothing for a file of another format, or one that cannot be read this way.
    """
    found = list(_tensors_in(path, "data.pkl"))
    first: dict[tuple[str, tuple[int, ...]], Stored] = {}
    for tensor in found:
        first.setdefault((tensor.storage, tensor.dims), tensor)
    return tuple(first.values())


def scripted_call(path: Path) -> Call | None:
    """Return how a TorchScript file's ``forward`` is called; None where the file does not say."""
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_bomb(archive.infolist(), path.stat().st_size)
            names = _forward_arguments(archive)
    except _ODD:
        return None
    if not names:
        return None
    examples = [tensor for tensor in _tensors_in(path, "traced_inputs.pkl") if tensor.name.startswith("forward.")]
    return Call(names=names, examples=tuple(examples))


def _forward_arguments(archive: zipfile.ZipFile) -> tuple[str, ...]:
    """Read the arguments of the outermost module's ``forward`` from the file's own code, whose module is its last."""
    root = _root_class(archive)
    name = next((each for each in archive.namelist() if each.endswith("/code/" + root[0])), None)
    if name is None or archive.getinfo(name).file_size > _MOST_BYTES:
        return ()
    text = archive.read(name).decode("utf-8", "replace")
    _, _, body = text.partition(f"class {root[1]}(Module):")
    match = re.search(r"def forward\(\w+: [\w.]+,?([^)]*)\)", body)
    return tuple(re.findall(r"(\w+): ", match[1])) if match else ()


def _root_class(archive: zipfile.ZipFile) -> tuple[str, str]:
    """Return the code file and the name of the class of the module that was saved."""
    content = archive.read(next(each for each in archive.namelist() if each.endswith("/data.pkl")))
    match = re.search(rb"c(__torch__[\w.]*)\n(\w+)\n", content)
    if match is None:
        return "", ""
    return match[1].decode().replace(".", "/") + ".py", match[2].decode()


def _tensors_in(path: Path, member: str) -> Iterator[Stored]:
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_bomb(archive.infolist(), path.stat().st_size)
            name = next((each for each in archive.namelist() if each.endswith("/" + member)), None)
            if name is None or archive.getinfo(name).file_size > _MOST_BYTES:
                return
            root = _Reader(io.BytesIO(archive.read(name))).load()
        yield from _walk(root)
    except _ODD:
        return


class _Inert:
    """Stands for any object: it takes what the pickle gives, and does nothing with it."""

    what = ""
    arguments: tuple[Any, ...]
    items: dict[Any, Any]
    state: Any

    def __new__(cls, *arguments: Any) -> _Inert:
        self = object.__new__(cls)
        self.arguments = arguments
        self.items = {}
        self.state = None
        return self

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)

    def add(self, value: Any) -> None:
        self.append(value)


class _Reader(pickle.Unpickler):
    """Puts a stand-in in every name's place."""

    def find_class(self, module: str, name: str) -> Any:
        del module
        return type("Inert", (_Inert,), {"what": name})

    def persistent_load(self, identity: Any) -> Any:
        return identity


def _walk(root: Any) -> Iterator[Stored]:
    """Go through containers and modules in their order, each once."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", root)]
    found = 0
    while waiting and found < _MOST_TENSORS:
        name, value = waiting.pop()
        tensor = _tensor(name, value)
        if tensor is not None:
            found += 1
            yield tensor
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        waiting += [(_joined(name, key), inner) for key, inner in reversed(list(_inside(value)))]


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, _Inert):
        yield from value.items.items()
        if value.what in _WRAPPERS:
            yield from (("", each) for each in value.arguments)
        if isinstance(value.state, dict):
            yield from value.state.items()


def _joined(name: str, key: Any) -> str:
    if not isinstance(key, str | int) or key in _MODULE_PARTS or key == "":
        return name
    return f"{name}.{key}" if name else str(key)


def _tensor(name: str, value: Any) -> Stored | None:
    if not isinstance(value, _Inert) or value.what not in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_qtensor"):
        return None
    storage, _, dims = value.arguments[:3]
    _, kind, key, *_ = storage
    if not all(isinstance(dim, int) and dim >= 0 for dim in dims):
        return None
    what = getattr(kind, "what", "")
    return Stored(name=name, dtype=_STORAGES.get(what), dims=tuple(dims), storage=str(key))
