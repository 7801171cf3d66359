"""What one call of a model costs: multiply-accumulates by operator type, and bytes that are read and written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.census import bits_of
from convkit.graph.model import Model, Tensors, load_model
from convkit.graph.names import subgraphs
from convkit.graph.work import Ran, Shape, node_work, ran_operators
from convkit.pipeline.step import observation

if TYPE_CHECKING:
    import onnx

_BYTES = {
    **dict.fromkeys(("bool", "int8", "uint8", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"), 1.0),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2.0),
    **dict.fromkeys(("int32", "uint32", "float"), 4.0),
    **dict.fromkeys(("int64", "uint64", "double"), 8.0),
    **dict.fromkeys(("int4", "uint4"), 0.5),
}
"""Bytes of an element, by ONNX Runtime's name of its type; of a string, which has none, nothing is counted."""
_MOVE_NOTHING = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size", "Constant"}
)
"""Operators that hand on the same bytes under another shape, or read a shape alone."""
_HOLD_OTHERS = frozenset({"If", "Loop", "Scan"})
"""Operators whose inner graphs are counted node by node."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one call costs."""

    shapes: dict[str, tuple[int, ...]]
    """The inputs' shapes in that call."""
    macs: dict[str, int]
    """Multiply-accumulates by the precision that the graph declares, as `convkit.graph.work.Work` has them."""
    macs_by_operator: dict[str, int]
    """The same by operator type, most first."""
    bytes_moved: int
    """What its operators read and write, weights included, after ONNX Runtime has fused them."""
    bytes_least: int
    """The weights, the model's inputs and its outputs: what has to be moved however it is computed. Of tables of which
    a few rows are taken, nothing."""


@observation(version=1, stage="check", title="Count what a call costs", needs="onnx")
def count_call(model: Model, *, samples: Tensors, answers: Tensors) -> Counted:
    """Count one call with the first case of `samples`.

    Args:
        model: the graph.
        samples: inputs under their wire names.
        answers: what comes out for them.

    Raises:
        StepError: ONNX Runtime refuses the model or the inputs.
    """
    macs: Counter[str] = Counter()
    by_operator: Counter[str] = Counter()
    graphs = list(subgraphs(load_model(model, weights=False).graph))
    types = {node.name: node.op_type for graph in graphs for node in graph.node}
    for name, work in node_work.function(model, samples=samples).items():
        macs[work.precision] += work.macs
        by_operator[types.get(name, "others")] += work.macs
    moved = round(sum(map(_moved, ran_operators(model, samples, optimized=True))))
    case, answer = next(iter(samples)), next(iter(answers))
    return Counted(
        shapes={name: tuple(array.shape) for name, array in case.items()},
        macs=dict(macs.most_common()),
        macs_by_operator=dict(by_operator.most_common()),
        bytes_moved=moved,
        bytes_least=min(moved, _read_whole(graphs) + sum(a.nbytes for a in (*case.values(), *answer.values()))),
    )


def _read_whole(graphs: Sequence[onnx.GraphProto]) -> int:
    """Return the bytes of the weights that are read as a whole."""
    readers = [
        (name, node.op_type in _GATHERING and not at)
        for g in graphs
        for node in g.node
        for at, name in enumerate(node.input)
    ]
    whole = {name for name, is_table in readers if not is_table}
    weights = [weight for graph in graphs for weight in graph.initializer if weight.name in whole]
    bits: int = sum(math.prod(weight.dims) * bits_of(weight.data_type) for weight in weights)
    return bits // 8


def _moved(ran: Ran) -> float:
    if ran.operator in _MOVE_NOTHING | _HOLD_OTHERS:
        return 0.0
    read = ran.inputs if ran.operator not in _GATHERING else _gathered(ran)
    return sum(_bytes(each) for each in (*read, *ran.outputs))


_GATHERING = frozenset({"Gather", "GatherElements", "GatherND"})


def _gathered(ran: Ran) -> Sequence[tuple[str, Shape]]:
    """Return what is read of a table of which a few rows are taken: those rows, and their numbers."""
    return [*ran.outputs, *ran.inputs[1:]]


def _bytes(tensor: tuple[str, Shape]) -> float:
    kind, shape = tensor
    return math.prod(shape) * _BYTES.get(kind, 0.0)
