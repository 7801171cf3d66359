"""Protobuf messages, pickles and zip archives spoiled by their fields, opcodes and members."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from fuzz.mutate import NUMBERS, TEXTS, spoil

Spoil = Callable[[Random, bytes, Sequence[bytes]], bytes]


def spoil_message(chance: Random, message: Any) -> bytes:
    """Change a few fields of a protobuf message, wherever they are inside it, and return its bytes."""
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        holders = list(_messages(message))
        _spoil_field(chance, chance.choice(holders), holders)
    data: bytes = message.SerializeToString()
    return data


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _spoil_field(chance: Random, message: Any, holders: list[Any]) -> None:
    field = chance.choice(message.DESCRIPTOR.fields)
    there = [found for found, _ in message.ListFields()]
    if there and chance.random() < 0.85:
        field = chance.choice(there)
    alike = [found for found in holders if found.DESCRIPTOR is field.message_type]
    if chance.random() < 0.15:
        message.ClearField(field.name)
    elif field.is_repeated:
        _spoil_repeated(chance, field, getattr(message, field.name), alike)
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.ParseFromString(chance.choice(alike).SerializeToString()) if alike else target.SetInParent()
    else:
        setattr(message, field.name, _scalar(chance, field, getattr(message, field.name)))


def _spoil_repeated(chance: Random, field: Any, values: Any, alike: list[Any]) -> None:
    if values and chance.random() < 0.3:
        del values[chance.randrange(len(values))]
    elif field.message_type is not None:
        copied = chance.choice(alike) if alike else field.message_type._concrete_class()
        values.append(type(copied).FromString(copied.SerializeToString()))
    elif values and chance.random() < 0.7:
        at = chance.randrange(len(values))
        values[at] = _scalar(chance, field, values[at])
    else:
        values.append(_scalar(chance, field, values[0] if values else None))


def _scalar(chance: Random, field: Any, before: Any) -> Any:
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return chance.choice((0.0, -1.5, 1e38, float("inf"), float("nan")))
    if field.cpp_type == field.CPPTYPE_ENUM:
        return chance.choice(field.enum_type.values).number
    if field.type == field.TYPE_BYTES:
        return spoil(chance, before or b"\0" * 16, [b"\0\0\x80\x3f" * 4])
    if field.cpp_type == field.CPPTYPE_STRING:
        return chance.choice((*TEXTS, (before or "") + "x", "y", "w", "Loop", "If", "Reshape", "ai.onnx.ml"))
    if field.cpp_type == field.CPPTYPE_BOOL:
        return not before
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(max(chance.choice((*NUMBERS, *range(20), (before or 0) + 1)), low), high)


def spoil_pickle(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Drop, double, swap and replace opcodes of a stream of pickles."""
    pieces = _opcodes(data)
    foreign = [piece for other in others for piece in _opcodes(other)] or pieces
    for _ in range(chance.choice((1, 1, 2, 4, 10))):
        if not pieces:
            break
        at = chance.randrange(len(pieces))
        match chance.randrange(6):
            case 0:
                del pieces[at]
            case 1:
                pieces.insert(at, pieces[at])
            case 2:
                other = chance.randrange(len(pieces))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 3:
                pieces.insert(at, chance.choice(foreign))
            case 4:
                code = chance.choice(pickletools.opcodes)
                argument = b"" if code.arg is None else chance.randbytes(chance.choice((1, 2, 4, 8, 9)))
                pieces.insert(at, code.code.encode("latin-1") + argument)
            case 5:
                pieces[at] = pickle.dumps(chance.choice((*NUMBERS, *TEXTS, (), [], {})), protocol=2)[2:-1]
    return b"".join(pieces)


def _opcodes(data: bytes) -> list[bytes]:
    stream, pieces = io.BytesIO(data), []
    try:
        while stream.tell() < len(data):
            places = [position for _, _, position in pickletools.genops(stream) if position is not None]
            ends = [*places[1:], stream.tell()]
            pieces += [data[start:end] for start, end in zip(places, ends, strict=True)]
    except (ValueError, EOFError, OverflowError, MemoryError):
        pieces.append(data[sum(map(len, pieces)) :])
    return pieces


def spoil_zip(inside: Spoil) -> Spoil:
    """Return what spoils members of an archive with `inside`, their names and order, or the archive as bytes."""

    def spoil_archive(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
        members = members_of(data)
        if not members or chance.random() < 0.25:
            return spoil(chance, data, others)
        contents = [content for other in others for _, content in members_of(other)]
        at = chance.randrange(len(members))
        name, content = members[at]
        match chance.randrange(8):
            case 0:
                members[at] = (chance.choice((*TEXTS, name.upper(), f"../{name}", f"{name}/")), content)
            case 1:
                members.append((name, chance.choice(contents)))
            case 2:
                del members[at]
            case 3:
                members[at] = (name, spoil(chance, content, contents))
            case _:
                members[at] = (name, inside(chance, content, contents))
        return zipped(members, chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))

    return spoil_archive


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    """Return an archive's members; nothing where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(member.filename, archive.read(member)) for member in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError):
        return []


def zipped(members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Write an archive; several members may have one name, and one of any length."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name or "_"), content, compress_type=compression)
    return buffer.getvalue()
