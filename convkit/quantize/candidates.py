"""What of a model could be quantized, node by node, with its weights and its work."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.quant_profile import QuantProfile
from convkit.quantize.constants import Constants
from convkit.quantize.placement import place

if TYPE_CHECKING:
    import onnx


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A node that a profile quantizes."""

    node: str
    """Its name, as `keep` takes it."""
    type: str
    weights: int
    """Elements of its weights; 0 where it has none."""
    macs: int
    """Multiply-accumulates for one row, as far as the graph gives shapes: a dynamic dimension counts once."""


def quantizable(proto: onnx.ModelProto, profile: QuantProfile) -> tuple[Candidate, ...]:
    """Return the nodes that are quantized where nothing is kept and calibration saw everything, in the graph's order.

    Products come with their weights and work; operators between them, and embedding tables, with what applies.

    Args:
        proto: the graph as `insert_qdq` takes it: named, rewritten (`rewrite`), without large weights if need be.
        profile: what the target takes.
    """
    graph = proto.graph
    constants = Constants(graph)
    placement = place(graph, profile, constants, observed=_anything)
    shapes = _shapes(proto)
    found = []
    for number in sorted({*placement.products, *placement.joins, *placement.tables}):
        node, weight = graph.node[number], placement.products.get(number)
        shape: tuple[int, ...] = ()
        if weight is not None:
            shape = constants.shape(node.input[weight.input]) or ()
        elif number in placement.tables:
            shape = constants.shape(node.input[0]) or ()
        elements = math.prod(shape) if shape else 0
        macs = _macs(node, shape, shapes) if number in placement.products else 0
        found.append(Candidate(node=node.name, type=node.op_type, weights=elements, macs=macs))
    return tuple(found)


def _anything(name: str) -> bool:
    """Take calibration to have seen every tensor."""
    del name
    return True


def _macs(node: onnx.NodeProto, weight: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> int:
    """Count a product's work: each output of a convolution, each input of a transposed one, meets one filter."""
    if node.op_type == "Conv":
        return math.prod(shapes.get(node.output[0], ())) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes.get(node.input[0], ())) * math.prod(weight[1:])
    left, written = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
    summed = weight[-2] if len(weight) > 1 else (left[-1] if left else 1)
    if node.op_type == "Gemm" and weight:
        return math.prod(weight) * (written[0] if written else 1)
    return math.prod(written) * summed


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
