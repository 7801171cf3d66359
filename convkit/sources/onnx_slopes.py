"""PRelu of old opsets: what onnx's own converter leaves as it is, though it means another thing afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

BROADCAST_FROM = 7
"""The opset from which on slopes are broadcast from the last axis; below it a vector has one for each channel, axis 1.
https://github.com/onnx/onnx/blob/main/docs/Changelog.md#PRelu-6 and #PRelu-7"""


def slopes_by_channel(converted: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Give vectors of slopes the shape [channels, 1, …] in a graph that was converted from below `BROADCAST_FROM`.

    Slopes that are no weights, that inputs of several ranks share, or whose input has no known rank, stay as they are.

    Args:
        converted: the graph in its new opset; changed in place.
        before: as it was, with the same names.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(before).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    graph = converted.graph
    uses: dict[str, set[int]] = {}
    for node in graph.node:
        if node.op_type == "PRelu":
            uses.setdefault(node.input[1], set()).add(ranks.get(node.input[0], 0))
    declared = {value.name: value for value in graph.input}  # weights, too, in old files
    for slopes in graph.initializer:
        rank, *others = uses.get(slopes.name, {0})
        if len(slopes.dims) != 1 or slopes.dims[0] == 1 or rank < 3 or others:
            continue
        slopes.dims.extend([1] * (rank - 2))
        if slopes.name in declared:
            shaped = onnx.helper.make_tensor_value_info(slopes.name, slopes.data_type, slopes.dims)
            declared[slopes.name].CopyFrom(shaped)
