"""What a PyTorch file is and what it would call, read from its pickle opcodes: nothing is run, torch is not needed."""

from __future__ import annotations

import io
import pickletools
import re
import tarfile
import zipfile
import zlib
from collections import deque
from enum import Enum
from pathlib import Path
from typing import IO

import msgspec

from convkit.errors import InputError
from convkit.sources.torch_archives import foreign_in_program, foreign_in_script
from convkit.spec.archive import refuse_bomb

_LEGACY_PICKLES = 5  # magic number, protocol, system information, the object, storage keys
_MAX_PICKLE_BYTES = 1 << 28
_ZIP_START = b"PK\x03\x04"
_HIDDEN = "a hidden name"
_STRINGS = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"}
)

_TENSOR_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_qtensor",
        "torch.serialization._get_layout",
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
    }
)
"""What tensors in containers are made of; torch's own restricted unpickler admits these."""
_CONTAINER_GLOBALS = frozenset({"__builtin__.set", "builtins.set", "builtins.frozenset", "__builtin__.frozenset"})
_MODULE_CLASS = re.compile(r"torch\.nn\.modules\.[a-z_]+\.[A-Z][A-Za-z0-9_]*")
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,  # an encrypted member
    MemoryError,  # a length that is no length
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    tarfile.TarError,
)


class CheckpointKind(Enum):
    """What a PyTorch file holds."""

    TENSORS = "tensors"
    """A state dict, or tensors in other plain containers."""
    TORCH_MODULE = "torch module"
    """A whole module made of torch's own module classes alone."""
    PICKLED_MODULE = "pickled module"
    """A whole object whose loading runs code from elsewhere."""
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "exported program"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A PyTorch file's kind, and every ``module.name`` that loading it would import or call, sorted."""

    kind: CheckpointKind
    names: tuple[str, ...] = ()

    @property
    def foreign(self) -> tuple[str, ...]:
        """Return the names that are neither tensors' nor torch's own module classes'."""
        return tuple(name for name in self.names if not _is_tensor(name) and not _MODULE_CLASS.fullmatch(name))

    @property
    def module_classes(self) -> tuple[str, ...]:
        """Return the names of torch's own module classes."""
        return tuple(name for name in self.names if _MODULE_CLASS.fullmatch(name))


def _is_tensor(name: str) -> bool:
    if name in _TENSOR_GLOBALS or name in _CONTAINER_GLOBALS:
        return True
    module, _, attribute = name.rpartition(".")
    return module in ("torch", "torch.storage") and (attribute.endswith("Storage") or attribute in _DTYPES)


_DTYPES = frozenset(
    (
        "float32",
        "float",
        "float64",
        "double",
        "float16",
        "half",
        "bfloat16",
        "int8",
        "int16",
        "short",
        "int32",
        "int",
        "int64",
        "long",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
        "complex64",
        "complex128",
        "quint8",
        "qint8",
        "qint32",
        "float8_e4m3fn",
        "float8_e5m2",
    )
)


def read_checkpoint(path: Path) -> Checkpoint:
    """Tell what a ``.pth``, ``.pt`` or ``.pt2`` file holds.

    Raises:
        InputError: the file cannot be read, or is none that torch writes.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_ZIP_START))  # torch, too, goes by the start: a zip may hang behind anything
        if not start:
            raise EOFError("it is empty")
        if start == _ZIP_START:
            return _read_zip(path)
        if tarfile.is_tarfile(path):
            return _read_tar(path)
        with path.open("rb") as stream:
            return _classified(_names(stream, pickles=_LEGACY_PICKLES))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path", code="source.missing") from error
    except _DAMAGED as error:
        raise InputError(
            f"{path} is no file that torch.save writes: {error}",
            hint="save it again with torch.save(model.state_dict(), path)",
            code="source.unreadable",
        ) from error


def _read_zip(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()  # two members may have one name
        refuse_bomb(members, path.stat().st_size)
        if min((member.header_offset for member in members), default=0) != 0:
            raise ValueError("two zip archives in one file, or none that begins where the file does")
        names = [member.filename for member in members]
        if any("/code/" in f"/{name}" for name in names) and any(name.endswith("constants.pkl") for name in names):
            called = foreign_in_script(archive, lambda member: _names_of_member(archive, member))
            return Checkpoint(kind=CheckpointKind.TORCHSCRIPT, names=tuple(sorted(called)))
        if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
            called = foreign_in_program(archive, lambda member: _names_of_member(archive, member))
            return Checkpoint(kind=CheckpointKind.EXPORTED, names=tuple(sorted(called)))
        called = _names_in_pickles(archive)
    return _classified(called)


def _names_in_pickles(archive: zipfile.ZipFile) -> set[str]:
    pickles = [member for member in archive.infolist() if member.filename.lower().endswith(".pkl")]
    if not pickles:
        raise ValueError("a zip archive without data.pkl")
    called: set[str] = set()
    for member in pickles:
        called |= _names_of_member(archive, member)
    return called


def _names_of_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> set[str]:
    """Return what a pickled member names; one that torch.save wrote is an archive itself."""
    if member.file_size > _MAX_PICKLE_BYTES:
        raise ValueError(f"its member {member.filename} unpacks to more than {_MAX_PICKLE_BYTES >> 20} MiB")
    content = archive.read(member)
    if not content.startswith(_ZIP_START):
        return _names(io.BytesIO(content), pickles=1 if member.filename.endswith(".pkl") else _LEGACY_PICKLES)
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        refuse_bomb(inner.infolist(), len(content))
        return _names_in_pickles(inner)


def _read_tar(path: Path) -> Checkpoint:
    """Read torch's format before 0.1.10: pickles and bare numbers in turn, so that not all it names is to be had."""
    names = {_HIDDEN}
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            names |= _names(stream) if stream is not None else set()
    return _classified(names)


def _classified(names: set[str]) -> Checkpoint:
    ordered = tuple(sorted(names))
    if all(_is_tensor(name) for name in ordered):
        return Checkpoint(kind=CheckpointKind.TENSORS, names=ordered)
    bare = Checkpoint(kind=CheckpointKind.TORCH_MODULE, names=ordered)
    return msgspec.structs.replace(bare, kind=CheckpointKind.PICKLED_MODULE) if bare.foreign else bare


def _names(stream: IO[bytes], *, pickles: int = 1) -> set[str]:
    """Return the ``module.name`` of every global in the stream's first pickles.

    An opcode that takes module and name from the stack is resolved where two strings were pushed, or fetched from the
    memo, right before it, as every pickler writes it. Any other way to get them there counts as a hidden name, which
    nothing admits.
    """
    names: set[str] = set()
    for _ in range(pickles):
        if not stream.read(1):
            break
        stream.seek(-1, io.SEEK_CUR)
        names |= _names_in_one(stream)
    return names


def _names_in_one(stream: IO[bytes]) -> set[str]:
    names: set[str] = set()
    last: deque[str | None] = deque((None, None), maxlen=2)  # what the last two opcodes pushed, where it was a string
    memo: dict[int, str | None] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "GLOBAL" | "INST":
                names.add(_global(*str(argument).split(" ", 1)))
                last.append(None)
            case "STACK_GLOBAL":
                module, name = last
                names.add(_HIDDEN if module is None or name is None else _global(module, name))
                last.append(None)
            case "EXT1" | "EXT2" | "EXT4":
                names.add(_HIDDEN)
                last.append(None)
            case "MEMOIZE":
                memo[len(memo)] = last[-1]
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[int(str(argument))] = last[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                last.append(memo.get(int(str(argument))))
            case "PROTO" | "FRAME":
                pass
            case string:
                last.append(str(argument) if string in _STRINGS else None)
    return names


def _global(module: str, name: str) -> str:
    """Join the two; a dotted name, which reaches through the module into what it imports, is told by its colon."""
    return f"{module}:{name}" if "." in name else f"{module}.{name}"
