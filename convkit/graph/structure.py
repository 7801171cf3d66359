"""What stays the same of a model that was trained again: its graph without its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.graph.model import Model, load_model
from convkit.pipeline.artifact import digest_bytes
from convkit.pipeline.step import step

if TYPE_CHECKING:
    import onnx

_SCALED = {"QuantizeLinear", "DequantizeLinear"}


@step(version=1, stage="compile", title="Take the graph's structure", needs="onnx")
def structure_of(model: Model) -> str:
    """Return a digest of the graph in which weights count by name, type and shape alone.

    Weights are the floating-point initializers. Integers are structure (shapes, axes, quantized values), and so are the
    scales of Q/DQ pairs: an engine holds them in its kernels.
    """
    proto = load_model(model)
    graph = proto.graph
    scales = {name for node in graph.node if node.op_type in _SCALED for name in node.input[1:]}
    for weight in graph.initializer:
        if _is_floating(weight) and weight.name not in scales:
            for field in ("raw_data", "float_data", "double_data", "int32_data", "external_data", "data_location"):
                weight.ClearField(field)
    for message in (proto, graph, *graph.node, *graph.initializer):
        message.ClearField("doc_string")
    for field in ("producer_name", "producer_version", "metadata_props"):
        proto.ClearField(field)
    return digest_bytes(proto.SerializeToString(deterministic=True))


def _is_floating(weight: onnx.TensorProto) -> bool:
    import onnx

    types = onnx.TensorProto
    return weight.data_type in (types.FLOAT, types.FLOAT16, types.BFLOAT16, types.DOUBLE)
