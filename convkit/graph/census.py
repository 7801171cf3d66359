"""Reading a graph: its operators, nodes, weights."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.model import Model, load_model
from convkit.graph.names import subgraphs

if TYPE_CHECKING:
    import onnx


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph consists of."""

    nodes: int
    operators: dict[str, int]
    """Operator types (``domain::Type`` outside ONNX's own domain) and their number, most frequent first."""
    parameters: int
    """Elements of all weights."""
    weight_bytes: int
    opset: int
    ir_version: int


def take_census(proto: onnx.ModelProto) -> Census:
    """Count a graph's nodes, those of inner graphs included, and its weights. External data are not read."""
    graphs = list(subgraphs(proto.graph))
    counts = Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        for graph in graphs
        for node in graph.node
    )
    elements = weight_bits = 0
    for graph in graphs:
        for tensor in graph.initializer:
            count = 1
            for dim in tensor.dims:
                count *= dim
            elements += count
            weight_bits += count * bits_of(tensor.data_type)
    return Census(
        nodes=sum(counts.values()),
        operators=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        parameters=elements,
        weight_bytes=weight_bits // 8,
        opset=next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0),
        ir_version=proto.ir_version,
    )


def bits_of(onnx_type: int) -> int:
    """Return the bits of an element, by ONNX's number for its type."""
    from convkit.spec.tensor import DType

    dtype = DType.from_onnx(onnx_type)
    if dtype is not None:
        return dtype.bits
    return 4 if onnx_type in (21, 22, 23) else 8  # UINT4, INT4, FLOAT4E2M1; the 8 bit floats


def census_of(model: Model) -> Census:
    """Take the census of a model on the disk."""
    return take_census(load_model(model, weights=False))
