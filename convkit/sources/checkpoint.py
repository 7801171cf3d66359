"""What a PyTorch file is and what it would call, read from its pickle opcodes: nothing is run, torch is not needed."""

from __future__ import annotations

import io
import pickletools
import tarfile
import zipfile
from enum import Enum
from pathlib import Path
from typing import IO

import msgspec

from convkit.errors import InputError

_LEGACY_PICKLES = 5  # magic number, protocol, system information, the object, storage keys
_MAX_PICKLE_BYTES = 1 << 28

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
_MODULE_PREFIX = "torch.nn.modules."


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
        return tuple(name for name in self.names if not _is_tensor(name) and not name.startswith(_MODULE_PREFIX))


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
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                pickles = [archive.extractfile(member) for member in archive if member.isfile()]
                return _classified(set().union(*(_names(stream) for stream in pickles if stream is not None)))
        with path.open("rb") as stream:
            return _classified(_names(stream, pickles=_LEGACY_PICKLES))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path", code="source.missing") from error
    except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise InputError(
            f"{path} is no file that torch.save writes: {error}",
            hint="save it again with torch.save(model.state_dict(), path)",
            code="source.unreadable",
        ) from error


def _read_zip(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        if any("/code/" in f"/{name}" for name in members) and any(name.endswith("constants.pkl") for name in members):
            return Checkpoint(kind=CheckpointKind.TORCHSCRIPT)
        if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in members):
            return Checkpoint(kind=CheckpointKind.EXPORTED)
        pickles = [name for name in members if name.endswith(".pkl")]
        if not pickles:
            raise ValueError("a zip archive without data.pkl")
        names: set[str] = set()
        for name in pickles:
            if archive.getinfo(name).file_size > _MAX_PICKLE_BYTES:
                raise ValueError(f"its member {name} unpacks to more than {_MAX_PICKLE_BYTES >> 20} MiB")
            names |= _names(io.BytesIO(archive.read(name)))
    return _classified(names)


def _classified(names: set[str]) -> Checkpoint:
    ordered = tuple(sorted(names))
    if all(_is_tensor(name) for name in ordered):
        return Checkpoint(kind=CheckpointKind.TENSORS, names=ordered)
    bare = Checkpoint(kind=CheckpointKind.TORCH_MODULE, names=ordered)
    return msgspec.structs.replace(bare, kind=CheckpointKind.PICKLED_MODULE) if bare.foreign else bare


def _names(stream: IO[bytes], *, pickles: int = 1) -> set[str]:
    """Return the ``module.name`` of every global in the stream's first pickles.

    Opcodes that take module and name from the stack are resolved by following the strings pushed; one that cannot
    be resolved counts as ``unknown``, which nothing admits.
    """
    names: set[str] = set()
    for number in range(pickles):
        if number and not _more(stream):
            break
        recent: list[str] = []
        memo: dict[int, str] = {}
        for opcode, argument, _ in pickletools.genops(stream):
            match opcode.name:
                case "GLOBAL" | "INST":
                    names.add(str(argument).replace(" ", "."))
                case "STACK_GLOBAL":
                    names.add(".".join(recent[-2:]) if len(recent) >= 2 else "unknown.unknown")
                case "EXT1" | "EXT2" | "EXT4":
                    names.add(f"unknown.extension_{argument}")
                case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8" | "UNICODE" | "SHORT_BINSTRING" | "BINSTRING":
                    recent.append(str(argument))
                case "MEMOIZE":
                    memo[len(memo)] = recent[-1] if recent else ""
                case "BINPUT" | "LONG_BINPUT" | "PUT":
                    memo[int(str(argument))] = recent[-1] if recent else ""
                case "BINGET" | "LONG_BINGET" | "GET":
                    recent.append(memo.get(int(str(argument)), "unknown"))
                case _:
                    pass
    return names


def _more(stream: IO[bytes]) -> bool:
    head = stream.read(1)
    stream.seek(-len(head), io.SEEK_CUR)
    return head == b"\x80"
