"""Reading and writing ONNX files field by field, so that weights are never in memory as a whole.

A protobuf message's encoding is that of its fields one after another, in any order; each begins with a key, the
field's number and wire type (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.pipeline.hashing import HashedFile

if TYPE_CHECKING:
    import onnx

VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5


_MOST_FIELDS = 1 << 22
"""Of one message: beyond it nothing is a model, and going on would take minutes."""


class WireError(ValueError):
    """The bytes are no protobuf message."""


class Field(NamedTuple):
    """One field of a message: where its key starts, and its value (for `BYTES` their content) begins and ends."""

    number: int
    start: int
    body: int
    end: int
    wire_type: int


def read_without_weights(path: Path, *, keep: int = -1) -> onnx.ModelProto:
    """Parse an ONNX file whose initializers' raw data are left out; names, types and shapes are there.

    Data of `keep` bytes at most stay in.

    Raises:
        WireError: the file is no protobuf message.
    """
    import onnx

    model = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
    graph = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
    tensor = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
    slim = _without(mapped(path), (model, graph, tensor), keep)
    proto = onnx.ModelProto()
    proto.ParseFromString(slim)
    return proto


def mapped(path: Path) -> memoryview:
    """Return a file's bytes, of which only what is looked at is read.

    The mapping ends with its last view: to close it while an error's traceback still holds one would fail.

    Raises:
        WireError: the file is empty.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        if not path.stat().st_size:
            raise WireError(f"{path.name} is empty")
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _without(data: memoryview, way: tuple[int, ...], keep: int) -> bytes:
    """Return a message without what is larger than `keep` at the end of `way`, field numbers from the outside in."""
    parts = bytearray()
    for field in fields(data):
        last = len(way) == 1 and field.end - field.body <= keep
        if field.number != way[0] or field.wire_type != BYTES or last:
            parts += data[field.start : field.end]
        elif len(way) > 1:
            inner = _without(data[field.body : field.end], way[1:], keep)
            parts += key(field.number) + varint(len(inner)) + inner
    return bytes(parts)


def fields(data: memoryview) -> Iterator[Field]:
    """Go through a message's own fields, without a look into them.

    Raises:
        WireError: the bytes are no protobuf message.
    """
    at = count = 0
    while at < len(data):
        start = at
        head, at = read_varint(data, at)
        count += 1
        if head < 8 or count > _MOST_FIELDS:
            raise WireError(f"field number 0 at byte {start}" if head < 8 else f"more than {_MOST_FIELDS} fields")
        wire_type = head & 7
        body = at
        if wire_type == VARINT:
            _, at = read_varint(data, at)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        elif wire_type == BYTES:
            size, body = read_varint(data, at)
            at = body + size
        else:
            raise WireError(f"wire type {wire_type} at byte {start}")
        if at > len(data):
            raise WireError(f"the field at byte {start} goes beyond the end")
        yield Field(head >> 3, start, body, at, wire_type)


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError(f"no number at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def write_by_parts(proto: onnx.ModelProto, path: Path) -> str:
    """Write an ONNX file weight by weight, and return its digest. The same model gives the same bytes."""
    import onnx

    graph = proto.graph
    model_rest, graph_rest = onnx.ModelProto(), onnx.GraphProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy_field(model_rest, field, value)
    for field, value in graph.ListFields():
        if field.name != "initializer":
            _copy_field(graph_rest, field, value)
    head = graph_rest.SerializeToString(deterministic=True)
    initializer = key(onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number)
    sizes = [len(weight.SerializeToString(deterministic=True)) for weight in graph.initializer]
    whole = len(head) + sum(len(initializer) + len(varint(size)) + size for size in sizes)
    with HashedFile(path) as stream:
        stream.write(model_rest.SerializeToString(deterministic=True))
        stream.write(key(onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number) + varint(whole) + head)
        for weight, size in zip(graph.initializer, sizes, strict=True):
            stream.write(initializer + varint(size))
            stream.write(weight.SerializeToString(deterministic=True))
    return stream.digest


def _copy_field(target: Any, field: Any, value: Any) -> None:
    if field.is_repeated:
        getattr(target, field.name).extend(value)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)


def key(number: int) -> bytes:
    """Return the key that stands before a length-delimited field."""
    return varint(number << 3 | BYTES)


def varint(value: int) -> bytes:
    """Encode a number in groups of seven bits, the lowest first."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
