"""The signatures of a SavedModel, read from its file alone: TensorFlow is not needed, nothing is loaded.

The numbers of fields and types are those of saved_model.proto, meta_graph.proto, tensor_shape.proto and types.proto
(https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from convkit.errors import InputError
from convkit.graph.wire import BYTES, VARINT, WireError, fields, mapped, read_varint
from convkit.spec.tensor import DType

_META_GRAPH, _SIGNATURE = 2, 5
_KEY, _VALUE = 1, 2
_INPUTS, _OUTPUTS = 1, 2
_TENSOR_NAME, _TENSOR_TYPE, _TENSOR_SHAPE = 1, 2, 3
_SHAPE_DIM, _SHAPE_UNKNOWN = 2, 3
_DIM_SIZE = 1
_TYPES = {
    1: DType.FLOAT32,
    2: DType.FLOAT64,
    3: DType.INT32,
    4: DType.UINT8,
    5: DType.INT16,
    6: DType.INT8,
    7: DType.STRING,
    9: DType.INT64,
    10: DType.BOOL,
    14: DType.BFLOAT16,
    17: DType.UINT16,
    19: DType.FLOAT16,
    22: DType.UINT32,
    23: DType.UINT64,
}
_PRIVATE = "__saved_model_init_op"


class SignatureTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output of a signature."""

    key: str
    tensor: str
    """The graph's name for it; empty where it is no plain tensor."""
    dtype: DType | None
    dims: tuple[int, ...] | None
    """-1 where a dimension is free; None where not even their number is known."""


class SavedSignature(msgspec.Struct, frozen=True, kw_only=True):
    """A way in which a SavedModel can be called."""

    name: str
    inputs: tuple[SignatureTensor, ...]
    outputs: tuple[SignatureTensor, ...]


def read_signatures(file: Path) -> tuple[SavedSignature, ...]:
    """Return the signatures of a saved_model.pb, by their names.

    Raises:
        InputError: it cannot be read, or is no SavedModel.
    """
    try:
        data = mapped(file)
        found = [
            SavedSignature(
                name=name,
                inputs=tuple(_tensors(signature, _INPUTS)),
                outputs=tuple(_tensors(signature, _OUTPUTS)),
            )
            for graph in _inside(data, _META_GRAPH)
            for name, signature in _entries(graph, _SIGNATURE)
            if name != _PRIVATE
        ]
    except (WireError, OSError, ValueError) as error:
        raise InputError(
            f"{file} is no SavedModel: {error}", hint="check that the file is whole", code="source.unreadable"
        ) from error
    return tuple(sorted(found, key=lambda signature: signature.name))


def _tensors(signature: memoryview, side: int) -> Iterator[SignatureTensor]:
    for key, info in sorted(_entries(signature, side), key=lambda entry: entry[0]):
        dims: tuple[int, ...] | None = None
        for shape in _inside(info, _TENSOR_SHAPE):
            known = not any(_numbers(shape, _SHAPE_UNKNOWN))
            dims = tuple(_size(dim) for dim in _inside(shape, _SHAPE_DIM)) if known else None
        kind = [*_numbers(info, _TENSOR_TYPE), 0][0]
        yield SignatureTensor(key=key, tensor=_text(info, _TENSOR_NAME), dtype=_TYPES.get(kind), dims=dims)


def _size(dim: memoryview) -> int:
    """Return a dimension's size; a number that protobuf writes as a negative one is -1."""
    size = [*_numbers(dim, _DIM_SIZE), 0][0]
    return size if size < 1 << 63 else -1


def _entries(data: memoryview, number: int) -> Iterator[tuple[str, memoryview]]:
    for entry in _inside(data, number):
        yield _text(entry, _KEY), next(_inside(entry, _VALUE), memoryview(b""))


def _inside(data: memoryview, number: int) -> Iterator[memoryview]:
    for field in fields(data):
        if field.number == number and field.wire_type == BYTES:
            yield data[field.body : field.end]


def _numbers(data: memoryview, number: int) -> Iterator[int]:
    for field in fields(data):
        if field.number == number and field.wire_type == VARINT:
            yield read_varint(data, field.body)[0]


def _text(data: memoryview, number: int) -> str:
    return next((bytes(text).decode() for text in _inside(data, number)), "")
