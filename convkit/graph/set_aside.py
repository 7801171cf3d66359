"""A graph apart from its large weights: moved into a file beside it, in pieces, or left where they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.census import bits_of
from convkit.graph.weights import SMALL, copy_piece, point_to
from convkit.graph.wire import BYTES, fields, key, mapped, varint

if TYPE_CHECKING:
    import onnx


class _Numbers(NamedTuple):
    """Fields by the numbers that onnx.proto gives them."""

    graph: int
    initializer: int
    raw_data: int
    typed: dict[int, int]
    """Fields whose encoding is that of `raw_data`, each with the element type for which that holds."""


def set_weights_aside(path: Path, light: Path, data_file: str) -> None:
    """Write an ONNX file anew, with the data of its large initializers in a file beside it.

    Everything else is copied as it stands: nodes, small weights, weights that lie beside the file already, and those
    whose data are not of the size that their shape asks for. Memory does not grow with the weights.

    Args:
        path: the file.
        light: where the new one is written.
        data_file: the name of the file for weights, in the folder of `light`.

    Raises:
        WireError: the file is no protobuf message.
        DecodeError: a weight in it is none.
        OSError: a file cannot be read, or written.
    """
    with path.open("rb") as source, (light.parent / data_file).open("xb") as aside, light.open("xb") as stream:
        for part in _light(path, data_file, lambda start, length: copy_piece(source, start, length, aside)):
            stream.write(part)


def weights_in_place(path: Path) -> bytes:
    """Return an ONNX file's graph whose large weights are said to lie beside it: in that file, where they are.

    Raises:
        WireError: the file is no protobuf message.
        DecodeError: a weight in it is none.
        OSError: the file cannot be read.
    """
    return b"".join(_light(path, path.name, lambda start, _: start))


def _light(path: Path, data_file: str, place: Callable[[int, int], int]) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the file anew, in parts; the data of a large weight lie in `data_file`, from `place(start, length)` on."""
    numbers = _numbers()
    data = mapped(path)
    for field in fields(data):
        if field.number != numbers.graph or field.wire_type != BYTES:
            yield data[field.start : field.end]
            continue
        graph = bytearray()
        for inner in fields(data[field.body : field.end]):
            start, body, end = (field.body + at for at in (inner.start, inner.body, inner.end))
            tensor = None
            if inner.number == numbers.initializer and inner.wire_type == BYTES and end - body > SMALL:
                tensor = _aside(data, body, end, numbers, data_file, place)
            graph += data[start:end] if tensor is None else key(inner.number) + varint(len(tensor)) + tensor
        yield key(field.number) + varint(len(graph))
        yield graph


def _numbers() -> _Numbers:
    import onnx

    tensor = onnx.TensorProto.DESCRIPTOR.fields_by_name
    return _Numbers(
        onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number,
        onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number,
        tensor["raw_data"].number,
        {
            tensor["float_data"].number: onnx.TensorProto.FLOAT,
            tensor["double_data"].number: onnx.TensorProto.DOUBLE,
        },
    )


def _aside(
    data: memoryview, start: int, end: int, numbers: _Numbers, data_file: str, place: Callable[[int, int], int]
) -> bytes | None:
    """Put a weight's data into their place, and return the weight that points there; None where it stays."""
    import onnx

    rest, found = bytearray(), []
    for field in fields(data[start:end]):
        if field.wire_type == BYTES and field.number in (numbers.raw_data, *numbers.typed):
            found.append(field)
        else:
            rest += data[start + field.start : start + field.end]
    if len(found) != 1 or found[0].end - found[0].body <= SMALL:
        return None
    (held,) = found
    tensor = onnx.TensorProto.FromString(bytes(rest))
    length = held.end - held.body
    fits = length == math.ceil(math.prod(tensor.dims) * bits_of(tensor.data_type) / 8)
    right = held.number == numbers.raw_data or numbers.typed[held.number] == tensor.data_type
    if not fits or not right or not _is_plain(tensor):
        return None
    point_to(tensor, data_file, place(start + held.body, length), length)
    return bytes(tensor.SerializeToString(deterministic=True))


def _is_plain(tensor: onnx.TensorProto) -> bool:
    """Tell whether the weight holds numbers, and these in the one field that was taken out."""
    held = {field.name for field, _ in tensor.ListFields()}
    others = {"float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data", "segment"}
    is_number = tensor.data_type not in (tensor.UNDEFINED, tensor.STRING)
    return is_number and tensor.data_location != tensor.EXTERNAL and not held & (others | {"external_data"})
