"""Operators on tensors that hold one value everywhere, whatever their size is: the places where it is not 0 are all.

Exporters write a mask that is always true as arithmetic on constants that are spread to the size of the batch; no
simplifier folds it, since the size is free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convkit.graph.facts import Facts, Placed
from convkit.graph.mend_edit import Edit, Lines, drop_unused_weights

if TYPE_CHECKING:
    import numpy as np
    import onnx

_SPREAD = ("Expand", "Tile", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Identity", "Slice")
"""They move values about, and change none."""
_DEEPEST = 32


def uniform_value(name: str, facts: Facts, depth: int = 0) -> np.ndarray | None:
    """Return the scalar that a tensor holds at every place; None where there is none, or it cannot be told."""
    import numpy as np

    weight = facts.value(name)
    if weight is not None:
        alike = weight.size > 0 and bool((weight == weight.reshape(-1)[0]).all())
        return np.asarray(weight.reshape(-1)[0]) if alike else None
    maker = facts.makers.get(name)
    if maker is None or depth > _DEEPEST:
        return None
    if maker.operator == "ConstantOfShape":
        tensor = maker.attribute("value")
        return np.asarray(np.float32(0)) if tensor is None else _only(tensor)
    if maker.operator in _SPREAD:
        return uniform_value(maker.input(0), facts, depth + 1)
    compute = _elementwise(maker)
    values = [uniform_value(each, facts, depth + 1) for each in maker.proto.input] if compute is not None else []
    known = [value for value in values if value is not None]
    if compute is None or not known or len(known) < len(values):
        return None
    return np.asarray(compute(*known))


def _only(tensor: onnx.TensorProto) -> np.ndarray:
    import numpy as np
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor).reshape(-1)[0])


def _elementwise(node: Placed) -> Callable[..., Any] | None:
    import numpy as np
    from onnx import helper

    if node.operator == "Cast":
        kind = helper.tensor_dtype_to_np_dtype(int(node.attribute("to")))
        return lambda value: value.astype(kind)
    arithmetic = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Neg": np.negative, "Abs": np.abs}
    logic = {"Not": np.logical_not, "And": np.logical_and, "Or": np.logical_or}
    order = {"Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal}
    return {**arithmetic, **logic, **order, "Equal": np.equal}.get(node.operator)


def is_everywhere(node: Placed, facts: Facts) -> bool:
    """Tell whether a NonZero node finds every place of a tensor of one dimension or more."""
    value = uniform_value(node.input(0), facts) if facts.dims.get(node.input(0)) else None
    return value is not None and bool(value)


def count_places(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Write NonZero of a tensor that is nowhere 0 as the places counted through, in the order of the memory."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        if node.operator != "NonZero" or not is_everywhere(node, edit.facts):
            continue
        lines = Lines(edit, node.name)
        _count(lines, node, len(edit.facts.dims[node.input(0)]))
        edit.replace(node, lines.nodes)
    drop_unused_weights(edit.proto)
    return edit.proto


def _count(lines: Lines, node: Placed, rank: int) -> None:
    """Place number p has along each dimension the index p / stride mod size."""
    first = lines.ints(0)
    sizes = [
        lines.add("Squeeze", lines.add("Shape", node.input(0), start=axis, end=axis + 1), first) for axis in range(rank)
    ]
    strides = [lines.number(1)]
    for size in reversed(sizes):
        strides.insert(0, lines.add("Mul", strides[0], size))
    places = lines.add("Range", lines.number(0), strides[0], lines.number(1))
    rows = [
        lines.add("Unsqueeze", lines.add("Mod", lines.add("Div", places, stride), size), first)
        for size, stride in zip(sizes, strides[1:], strict=True)
    ]
    lines.add("Concat", *rows, axis=0, output=node.output(0))
