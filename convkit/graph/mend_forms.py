"""Forms brought to those that runtimes take: order, names, opset, unread outputs, training mode, batch, pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.graph.facts import Facts, Placed
from convkit.graph.mend_edit import Edit, drop_attributes, drop_unused_weights
from convkit.graph.names import name_nodes
from convkit.graph.ordering import order_nodes

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""What an older graph is raised to: every server reads it, and every later stage can work on it."""


def sort_nodes(proto: onnx.ModelProto, _: frozenset[str]) -> onnx.ModelProto:
    """Put the nodes into an order in which they can run."""
    order_nodes(proto.graph)
    return proto


def name_apart(proto: onnx.ModelProto, _: frozenset[str]) -> onnx.ModelProto:
    """Give every node a name of its own."""
    name_nodes(proto.graph)
    return proto


def raise_opset(proto: onnx.ModelProto, _: frozenset[str]) -> onnx.ModelProto:
    """Write the graph in a newer opset, where onnx can; else it stays as it is."""
    import onnx
    from onnx import version_converter

    if Facts(proto).opset >= OPSET or proto.functions:
        return proto
    try:
        raised: onnx.ModelProto = version_converter.convert_version(proto, OPSET)
        onnx.checker.check_model(raised)
    except (RuntimeError, ValueError, onnx.checker.ValidationError):  # it has no way for one of the operators
        return proto
    raised.ir_version = max(proto.ir_version, 8)
    return raised


def drop_unread_outputs(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Leave out outputs, behind a node's first, that nothing reads."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        now = edit.current(node)
        kept = [name if index == 0 or edit.facts.is_read(name) else "" for index, name in enumerate(now.output)]
        while kept and not kept[-1]:
            kept.pop()
        del now.output[:]
        now.output.extend(kept)
    return edit.proto


def set_to_inference(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Let Dropout pass everything on, and BatchNormalization use the statistics that it has learned."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        now = edit.current(node)
        if node.operator == "Dropout":
            del now.input[2:]
        elif node.operator == "BatchNormalization" and not any(edit.facts.is_read(name) for name in now.output[1:]):
            drop_attributes(now, "training_mode")
            del now.output[1:]
    drop_unused_weights(edit.proto)
    return edit.proto


def free_batch(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Let a Reshape take its first size from what comes in."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        wanted = edit.facts.value(node.input(1))
        if node.operator == "Reshape" and wanted is not None and wanted.size and -1 not in wanted.tolist():
            freed = wanted.copy()
            freed[0] = -1
            edit.current(node).input[1] = edit.weight(freed, f"{node.input(1)}__free")
    drop_unused_weights(edit.proto)
    return edit.proto


def covers_the_image(node: Placed, facts: Facts) -> bool:
    """Tell whether the one window of a pool holds the whole of every channel."""
    window, image = node.attribute("kernel_shape", []), facts.dims.get(node.input(0), ())[2:]
    if not window or len(window) != len(image) or any(node.attribute("pads", [])):
        return False
    rounded_up = bool(node.attribute("ceil_mode", 0))
    sizes = zip(window, image, strict=True)
    return all(isinstance(size, int) and (one == size or (rounded_up and one > size)) for one, size in sizes)


def pool_everything(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Write an average over windows as large as the image, or larger, as that over the whole image."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        if node.operator == "AveragePool" and covers_the_image(node, edit.facts):
            now = edit.current(node)
            drop_attributes(now, *(each.name for each in now.attribute))
            now.op_type = "GlobalAveragePool"
    return edit.proto
