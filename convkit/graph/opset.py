"""Raising the opset of a graph, where a later stage needs a form that its own does not have."""

from __future__ import annotations

from convkit.errors import StepError
from convkit.graph.external import load_light, save_with_data, without_large_weights
from convkit.graph.model import Model, load_model
from convkit.graph.names import name_nodes
from convkit.pipeline.step import step


@step(version=1, stage="precision", title="Raise the opset", needs="onnx")
def raise_opset(model: Model, *, opset: int) -> Model:
    """Write a graph in this opset of ONNX's own domain at least; one that has it already comes back as it is.

    Raises:
        StepError: onnx's converter cannot bring an operator there.
    """
    if opset_of(model) >= opset:
        return model
    from onnx import helper, version_converter

    proto = load_light(model)
    try:
        raised = without_large_weights(proto, lambda light: version_converter.convert_version(light, opset))
    except Exception as error:
        raise StepError(
            f"onnx cannot bring the graph from opset {opset_of(model)} to {opset}: {' '.join(str(error).split())}",
            hint=f"convert again with --opset {opset}, so that the exporter writes it",
            code="precision.opset",
        ) from error
    raised.ir_version = max(proto.ir_version, helper.find_min_ir_version_for(raised.opset_import, ignore_unknown=True))
    raised.producer_name, raised.producer_version = "", ""
    for ours, theirs in ((proto.graph.input, raised.graph.input), (proto.graph.output, raised.graph.output)):
        for declared, value in zip(ours, theirs, strict=True):
            value.CopyFrom(declared)
    name_nodes(raised.graph)
    return save_with_data(raised, model.interface, model.path.parent)


def opset_of(model: Model) -> int:
    """Return the opset of ONNX's own domain that a graph is written in."""
    imports = load_model(model, weights=False).opset_import
    return next((int(entry.version) for entry in imports if entry.domain in ("", "ai.onnx")), 0)
