"""Names, element types and shapes of the tensors that cross a model's boundary."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec


class _TypeNames(NamedTuple):
    onnx: int  # onnx.TensorProto.DataType
    triton: str  # inference::DataType in Triton's model_config.proto, without TYPE_
    numpy: str  # numpy's name; bfloat16 is ml_dtypes', strings are numpy objects
    bits: int  # 0: as long as the string


class DType(Enum):
    """An element type, named as numpy names it."""

    BOOL = "bool"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"

    @property
    def onnx(self) -> int:
        """Return the number that ONNX's TensorProto.DataType gives this type."""
        return _NAMES[self].onnx

    @property
    def triton(self) -> str:
        """Return Triton's name in config.pbtxt, such as ``TYPE_FP32``."""
        return "TYPE_" + _NAMES[self].triton

    @property
    def numpy(self) -> str:
        """Return what `numpy.dtype` takes; ``object`` for strings, ``bfloat16`` needs ml_dtypes imported."""
        return _NAMES[self].numpy

    @property
    def bits(self) -> int:
        """Return the bits of one element; 0 for strings, which have no fixed size."""
        return _NAMES[self].bits

    @property
    def is_float(self) -> bool:
        """Tell whether this is a floating point type of any width."""
        return self in (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64)

    @classmethod
    def from_onnx(cls, number: int) -> DType | None:
        """Return the type with this ONNX number, or None where convkit has none (complex, 4 and 8 bit floats)."""
        return next((dtype for dtype, names in _NAMES.items() if names.onnx == number), None)


_NAMES = {
    DType.BOOL: _TypeNames(9, "BOOL", "bool", 8),
    DType.UINT8: _TypeNames(2, "UINT8", "uint8", 8),
    DType.UINT16: _TypeNames(4, "UINT16", "uint16", 16),
    DType.UINT32: _TypeNames(12, "UINT32", "uint32", 32),
    DType.UINT64: _TypeNames(13, "UINT64", "uint64", 64),
    DType.INT8: _TypeNames(3, "INT8", "int8", 8),
    DType.INT16: _TypeNames(5, "INT16", "int16", 16),
    DType.INT32: _TypeNames(6, "INT32", "int32", 32),
    DType.INT64: _TypeNames(7, "INT64", "int64", 64),
    DType.FLOAT16: _TypeNames(10, "FP16", "float16", 16),
    DType.BFLOAT16: _TypeNames(16, "BF16", "bfloat16", 16),
    DType.FLOAT32: _TypeNames(1, "FP32", "float32", 32),
    DType.FLOAT64: _TypeNames(11, "FP64", "float64", 64),
    DType.STRING: _TypeNames(8, "STRING", "object", 0),
}


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: what it is called on the wire, what it holds, and its shape, batch first.

    A dimension is a number, or a name where it is dynamic; two dimensions of one name are always equal.
    """

    name: str
    dtype: DType
    dims: tuple[int | str, ...]
    alias: str | None = None
    """The `name` in config.txt where the wire uses `node_name`, or the other way round; data files may use it."""
    range: tuple[float, float] | None = None
    """Inclusive bounds of the values that random samples take."""
    min_dims: tuple[int, ...] | None = None
    opt_dims: tuple[int, ...] | None = None
    max_dims: tuple[int, ...] | None = None
    """The smallest, usual and largest shape to prepare for, batch included."""

    @property
    def is_dynamic(self) -> bool:
        """Tell whether any dimension is dynamic."""
        return any(isinstance(dim, str) for dim in self.dims)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.value}[{', '.join(map(str, self.dims))}]"


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a caller of the model sees.

    `max_batch_size` is Triton's: 0 means that the dims are sent as they are; N > 0 that every tensor's first
    dimension is the batch, from 1 to N, which Triton's own dims leave out.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int = 0

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        """Return the names of the inputs' dynamic dimensions, each once, in order of appearance."""
        names = (dim for spec in self.inputs for dim in spec.dims if isinstance(dim, str))
        return tuple(dict.fromkeys(names))
