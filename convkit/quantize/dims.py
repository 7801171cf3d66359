"""What is known of the dims of a graph's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Dims = tuple[int | str | None, ...]
"""Numbers, names of what changes from call to call, None for what nobody knows."""


def dims_of(proto: onnx.ModelProto) -> dict[str, Dims]:
    """Infer the dims of a graph's tensors; those of which not even the rank is known are left out."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: tuple(dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
