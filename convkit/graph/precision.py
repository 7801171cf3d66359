"""Writing a graph's floating point numbers in fewer bits."""

from __future__ import annotations

from convkit.graph.model import Model, load_model, save_model
from convkit.graph.names import strip_origins
from convkit.graph.ordering import order_nodes
from convkit.pipeline.step import step


@step(version=1, stage="precision", title="Write FP16", needs="onnx")
def to_fp16(model: Model) -> Model:
    """Rewrite the graph in FP16; inputs and outputs keep their types.

    There is no range check here: an overflow shows in the check against the source framework that follows.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = load_model(model)
    ir_version = proto.ir_version
    converted = convert_float_to_float16(proto, keep_io_types=True)
    converted.ir_version = ir_version
    converted.graph.ClearField("value_info")
    strip_origins(converted)
    order_nodes(converted.graph)  # the converter puts its casts at the end
    return save_model(converted, model.interface)
