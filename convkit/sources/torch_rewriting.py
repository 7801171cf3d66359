"""What torch's exporter rewrites by the rules of onnxscript, held to what the module computes."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def hold_rules_exact() -> None:
    """Mend two rules of onnxscript's, once in a process."""
    _keep_small_sums()
    _cut_by_free_sizes()


def _keep_small_sums() -> None:
    """Let a sum with a small constant stand.

    onnxscript (to 0.7 at least) leaves out ``x + c`` where c is within 1e-8 of 0: what keeps a divisor from being 0 is
    gone, and the graph gives NaN. Its rules have no setting for that but the tolerance of their patterns.
    """
    from onnxscript.rewriter.rules.common import _no_op

    for rule in getattr(_no_op, "rules", ()):
        for node in getattr(rule, "_target_pattern", ()):
            for value in node.inputs:
                if hasattr(value, "_abs_tol"):
                    value._abs_tol = 0.0


def _cut_by_free_sizes() -> None:
    """Cut with Slice what ``tensor.split(size)`` cuts into pieces of a free size, such as the batch's.

    onnxscript (to 0.7 at least) raises an AttributeError there; where it does not, a sequence stays in the graph, which
    TensorRT does not take.
    """
    from onnxscript.optimizer import _constant_folding as folding

    key = ("", "SplitToSequence")
    registry: Any = getattr(folding, "registry", None)
    evaluators = getattr(registry, "op_evaluators", {}).get(key, [])
    for number, evaluator in enumerate(evaluators):
        own = evaluator.function

        def cut(node: Any, op: Any, state: Any, own: Any = own) -> Any:
            return _sliced(node, op) if _by_free_size(node) else own(node, op, state)

        evaluators[number] = type(evaluator)(evaluator.min_version, evaluator.max_version, cut)


def _by_free_size(node: Any) -> bool:
    """Tell whether a SplitToSequence cuts into pieces of one size that is known only when the graph runs."""
    size = node.inputs[1] if len(node.inputs) > 1 else None
    return size is not None and size.const_value is None and size.shape is not None and size.shape.rank() == 0


def _sliced(node: Any, op: Any) -> Any:
    """Return the pieces that are read, piece i from i * size to (i + 1) * size; None: not all that is read is known."""
    whole, size = node.inputs
    readers = [use.node for use in node.outputs[0].uses()]
    places = [_place(reader) for reader in readers]
    if (
        not places
        or min(places) < 0
        or node.outputs[0].is_graph_output()
        or node.attributes.get_int("keepdims", 1) != 1
    ):
        return None
    axis = node.attributes.get_int("axis", 0)
    name = node.outputs[0].name
    step = op.Reshape(size, op.Constant(value_ints=[1]))
    pieces = []
    for number in range(max(places) + 1):
        first, last = (op.Mul(step, op.Constant(value_ints=[count])) for count in (number, number + 1))
        pieces.append(op.Slice(whole, first, last, op.Constant(value_ints=[axis]), _outputs=[f"{name}_{number}"]))
    return op.SequenceConstruct(*pieces)


def _place(reader: Any) -> int:
    """Return which piece a node reads; below 0: it is not known, or counted from the end."""
    from onnx_ir.convenience import get_const_tensor

    index = get_const_tensor(reader.inputs[1]) if reader.op_type == "SequenceAt" else None
    return -1 if index is None else int(index.numpy().item())
