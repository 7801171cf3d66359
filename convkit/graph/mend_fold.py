"""What can be computed beforehand, and operators written out in simpler ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.errors import StepError
from convkit.graph.facts import Placed
from convkit.graph.flow import Flow
from convkit.graph.mend_edit import Edit, drop_unused_weights
from convkit.graph.session import run_session, session_options, start_session

if TYPE_CHECKING:
    import numpy as np
    import onnx

_LARGEST = 1 << 24
"""Elements of a constant beyond which it is left to be computed."""
_CLOSE = 1e-4


def fold(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Compute nodes that read constants alone, with ONNX Runtime, and store what they give."""
    import numpy as np
    from onnx import numpy_helper

    edit = Edit(proto)
    for node in edit.named(nodes):
        names = [name for name in node.proto.output if name]
        values = _computed(edit.proto, names)
        if values is None or any(not isinstance(each, np.ndarray) or each.size > _LARGEST for each in values):
            continue
        edit.replace(node)
        for name, value in zip(names, values, strict=True):
            edit.proto.graph.initializer.append(numpy_helper.from_array(value, name))
    _drop_unread_nodes(edit.proto.graph)
    drop_unused_weights(edit.proto)
    return edit.proto


def _computed(proto: onnx.ModelProto, names: list[str]) -> list[Any] | None:
    """Run the part of a graph that these tensors need; None where it needs inputs, or ONNX Runtime cannot."""
    import onnx

    flow = Flow(proto.graph)
    behind = flow.behind(names)
    read = {name for index in behind for name in flow.needs[index]}
    if not behind or read & set(flow.inputs):
        return None
    part = onnx.helper.make_graph(
        [flow.nodes[index] for index in behind],
        "part",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in names],
        [weight for weight in proto.graph.initializer if weight.name in read],
    )
    model = onnx.helper.make_model(part, opset_imports=proto.opset_import, ir_version=min(proto.ir_version, 10))
    return _run(model, {})


def _run(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any] | None:
    names = tuple(value.name for value in model.graph.output)
    try:
        session = start_session(Path("part.onnx"), session_options(), content=model.SerializeToString())
        return list(run_session(session, names, inputs).values())
    except StepError:  # ONNX Runtime does not have it either: the node stays as it is
        return None


def _drop_unread_nodes(graph: onnx.GraphProto) -> None:
    flow = Flow(graph)
    kept = set(flow.behind([value.name for value in graph.output]))
    nodes = [type(node).FromString(node.SerializeToString()) for i, node in enumerate(graph.node) if i in kept]
    del graph.node[:]
    graph.node.extend(nodes)


def expand(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Write operators out as ONNX itself defines them."""
    from onnx import inliner

    edit = Edit(proto)
    operators = sorted({("", node.operator) for node in edit.named(nodes)})
    return inliner.inline_selected_functions(proto, operators, exclude=False, inline_schema_functions=True)


def resize_by_products(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Write the Resize of an image of known size as a product from the left and one from the right.

    Each output of a separable Resize is a weighted sum of the input's rows, and of its columns: A x Bᵀ. ONNX Runtime
    gives the weights, as what it makes of images that are 1 in a single row or column. Where the two products do not
    give what the Resize does, it stays.
    """
    from onnx import helper

    edit = Edit(proto)
    for node in edit.named(nodes):
        weights = _resize_weights(edit, node)
        if weights is None:
            continue
        rows, columns = weights
        between = edit.free(f"{node.output(0)}__rows")
        left, right = edit.weight(rows, f"{node.name}__left"), edit.weight(columns.T.copy(), f"{node.name}__right")
        first = helper.make_node("MatMul", [left, node.input(0)], [between], name=f"{node.name}__rows")
        second = helper.make_node("MatMul", [between, right], [node.output(0)], name=node.name)
        edit.replace(node, [first, second])
    drop_unused_weights(edit.proto)
    return edit.proto


def _resize_weights(edit: Edit, node: Placed) -> tuple[np.ndarray, np.ndarray] | None:
    import numpy as np

    dims = edit.facts.dims.get(node.input(0), ())
    constants = all(edit.facts.value(name) is not None for name in node.proto.input[1:] if name)
    if len(dims) != 4 or not constants or edit.facts.type_name(node.input(0)) != "float":
        return None
    height, width = dims[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    rows = _resized(edit, node, np.eye(height, dtype=np.float32)[:, None, :, None].repeat(width, 3))
    columns = _resized(edit, node, np.eye(width, dtype=np.float32)[:, None, None, :].repeat(height, 2))
    image = np.random.default_rng(0).standard_normal((1, 1, height, width)).astype(np.float32)
    real = _resized(edit, node, image)
    if rows is None or columns is None or real is None:
        return None
    middle = (real.shape[2] // 2, real.shape[3] // 2)
    left, right = rows[:, 0, :, middle[1]].T, columns[:, 0, middle[0], :].T
    close = np.allclose(left @ image[0, 0] @ right.T, real[0, 0], atol=_CLOSE)
    return (np.ascontiguousarray(left), np.ascontiguousarray(right)) if close else None


def _resized(edit: Edit, node: Placed, images: np.ndarray) -> np.ndarray | None:
    """Return what a Resize makes of other images, a batch of them with one channel."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    constants = {name: np.asarray(edit.facts.value(name)) for name in node.proto.input[1:] if name}
    sizes = node.input(3)
    if sizes and constants[sizes].size == 4:
        constants[sizes] = np.array([len(images), 1, *constants[sizes][2:]], np.int64)
    copy = type(node.proto).FromString(node.proto.SerializeToString())
    copy.input[0], copy.output[0] = "images", "resized"
    graph = helper.make_graph(
        [copy],
        "resize",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, images.shape)],
        [helper.make_empty_tensor_value_info("resized")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=edit.proto.opset_import, ir_version=10)
    found = _run(model, {"images": images})
    return None if found is None else np.asarray(found[0])
