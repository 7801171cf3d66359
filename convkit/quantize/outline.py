"""A graph read without its large weights, and written again with some of them changed, one in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from convkit.graph.model import Model, load_model
from convkit.graph.weights import ModelWriter, Weights
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array

SMALL = 1024
"""Elements of the weights that are read with the graph."""


def read_outline(model: Model, weights: Weights) -> onnx.ModelProto:
    """Read the graph with what shape inference wants to see of its weights: the small ones."""
    proto = load_model(model, weights=False)
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            tensor.CopyFrom(weights.tensor(tensor.name))
    return proto


def write_outline(
    proto: onnx.ModelProto,
    weights: Weights,
    interface: Interface,
    *,
    changed: Mapping[str, Callable[[], Array]] | None = None,
) -> Model:
    """Write the graph with the weights that are new, those that `changed` makes, and those that stay as they were."""
    from onnx import helper, numpy_helper

    changed = changed or {}
    sizes = (math.prod(t.dims) * helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for t in proto.graph.initializer)
    writer = ModelWriter(expected_bytes=sum(sizes))
    for tensor in proto.graph.initializer:
        if tensor.name in changed:
            writer.add(numpy_helper.from_array(changed[tensor.name](), tensor.name))
        else:
            writer.add(weights.tensor(tensor.name) if tensor.name in weights else tensor)
    proto.graph.ClearField("initializer")
    return writer.finish(proto, interface)
