"""What an ONNX file says of itself, read without onnx and without its weights: versions, inputs, outputs, data files.

The numbers of fields are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from convkit.graph.wire import BYTES, VARINT, Field, WireError, fields, mapped, read_varint

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_WEIGHT_TYPE, _WEIGHT_NAME, _WEIGHT_EXTERNAL = 2, 8, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_ELEMENTS, _TENSOR_SHAPE = 1, 2
_SHAPE_DIM = 1
_DIM_VALUE = 1


class HeaderTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output of the graph."""

    name: str
    elements: int
    """ONNX's number for the element type; 0 for what is no tensor."""
    dims: tuple[int, ...] | None
    """-1 where a dimension is dynamic; None where the file gives no shape."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime decides by whether it reads the file, and what its callers see."""

    ir_version: int
    opset: int
    """Of the domain ``ai.onnx``; 0 where the file names none."""
    inputs: tuple[HeaderTensor, ...]
    """Without those that are weights."""
    outputs: tuple[HeaderTensor, ...]
    data_files: tuple[str, ...]
    """Where weights lie that are kept beside the file, as it names them: relative to its folder, or so they should."""


def read_header(path: Path) -> Header:
    """Read an ONNX file's header; memory does not grow with its weights.

    Raises:
        WireError: the file is no ONNX model.
        OSError: it cannot be read.
    """
    return _header(mapped(path))


def weight_types(path: Path) -> frozenset[int]:
    """Return ONNX's numbers for the element types of an ONNX file's initializers, without reading them.

    Raises:
        WireError: the file is no ONNX model.
        OSError: it cannot be read.
    """
    data = mapped(path)
    types = set()
    for graph in _inside(data, _MODEL_GRAPH):
        for weight in _inside(graph, _GRAPH_INITIALIZER):
            first = next((field for field in fields(weight) if field.number == _WEIGHT_TYPE), None)
            types.add(0 if first is None else _number(weight, first))
    return frozenset(types)


def _header(data: memoryview) -> Header:
    ir_version, opset, graph = 0, 0, None
    for field in fields(data):
        if field.number == _MODEL_IR_VERSION and field.wire_type == VARINT:
            ir_version = _number(data, field)
        elif field.number == _MODEL_OPSET and field.wire_type == BYTES:
            domain, version = _opset(data[field.body : field.end])
            opset = version if domain in ("", "ai.onnx") else opset
        elif field.number == _MODEL_GRAPH and field.wire_type == BYTES:
            graph = data[field.body : field.end]
    if graph is None or not ir_version:
        raise WireError("it has no graph, or no IR version")
    weights: set[str] = set()
    data_files: dict[str, None] = {}
    inputs, outputs = [], []
    for field in fields(graph):
        if field.wire_type != BYTES:
            continue
        body = graph[field.body : field.end]
        if field.number == _GRAPH_INITIALIZER:
            weights.add(_text(body, _WEIGHT_NAME))
            data_files.update(dict.fromkeys(_locations(body)))
        elif field.number == _GRAPH_INPUT:
            inputs.append(_value(body))
        elif field.number == _GRAPH_OUTPUT:
            outputs.append(_value(body))
    return Header(
        ir_version=ir_version,
        opset=opset,
        inputs=tuple(tensor for tensor in inputs if tensor.name not in weights),
        outputs=tuple(outputs),
        data_files=tuple(data_files),
    )


def _opset(data: memoryview) -> tuple[str, int]:
    versions = [_number(data, field) for field in fields(data) if field.number == _OPSET_VERSION]
    return _text(data, _OPSET_DOMAIN), versions[-1] if versions else 0


def _locations(weight: memoryview) -> Iterator[str]:
    """Yield the file that a weight's data are in, where they are not in the model itself."""
    for entry in _inside(weight, _WEIGHT_EXTERNAL):
        if _text(entry, _ENTRY_KEY) == "location":
            yield _text(entry, _ENTRY_VALUE)


def _value(data: memoryview) -> HeaderTensor:
    elements, dims = 0, None
    for kind in _inside(data, _VALUE_TYPE):
        for tensor in _inside(kind, _TYPE_TENSOR):
            for field in fields(tensor):
                if field.number == _TENSOR_ELEMENTS and field.wire_type == VARINT:
                    elements = _number(tensor, field)
            for shape in _inside(tensor, _TENSOR_SHAPE):
                dims = tuple(_dim(dim) for dim in _inside(shape, _SHAPE_DIM))
    return HeaderTensor(name=_text(data, _VALUE_NAME), elements=elements, dims=dims)


def _dim(data: memoryview) -> int:
    sizes = [_number(data, f) for f in fields(data) if f.number == _DIM_VALUE and f.wire_type == VARINT]
    return sizes[-1] if sizes and sizes[-1] < 1 << 63 else -1


def _inside(data: memoryview, number: int) -> Iterator[memoryview]:
    for field in fields(data):
        if field.number == number and field.wire_type == BYTES:
            yield data[field.body : field.end]


def _text(data: memoryview, number: int) -> str:
    found = [bytes(body) for body in _inside(data, number)]
    try:
        return found[-1].decode() if found else ""
    except UnicodeDecodeError as error:
        raise WireError("a name in it is no UTF-8") from error


def _number(data: memoryview, field: Field) -> int:
    if field.wire_type != VARINT:
        raise WireError(f"wire type {field.wire_type} where a number should be")
    return read_varint(data, field.body)[0]
