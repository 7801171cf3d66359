"""Which tensors of a graph calibration looks at: every activation that some target may want to quantize."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.names import subgraphs

if TYPE_CHECKING:
    import onnx

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"MatMul", "Gemm"})
QUANTIZABLE = (
    CONVOLUTIONS
    | PRODUCTS
    | {"Add", "Sub", "Mul", "Div", "Concat", "Split", "Slice", "Gather", "Pad", "Resize", "Where", "Einsum"}
    | {"AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "ReduceMean"}
    | {"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu", "Softmax"}
    | {"LayerNormalization", "InstanceNormalization", "BatchNormalization", "LSTM", "GRU"}
)
"""Operators next to which one target or another has Q/DQ pairs."""
_FUSED_AFTER = frozenset({"Conv", "ConvTranspose", "Gemm", "Add", "BatchNormalization"})
_ACTIVATIONS = frozenset({"Relu", "Clip"})
VIEWS = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""Operators whose first output holds the numbers of their first input."""
_MAXIMA = {"MaxPool", "GlobalMaxPool"}
_MASKING = VIEWS | {"Add", "Where", "Mul", "Div", "Sub", "Expand", "Cast", "Slice", "Gather"}


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors to look at."""

    names: tuple[str, ...]
    """Candidates: those of a floating point type are observed."""
    views: dict[str, str]
    """Tensors that hold the same numbers, with the name that stands for them."""
    may_mask: frozenset[str]
    """What reaches a Softmax by nothing but sums, choices and scaling: it may hold an attention's mask."""
    rectified: frozenset[str]
    """What can hold nothing below 0: that of a Relu, and its views and maxima."""
    channel_axes: dict[str, int]
    """Inputs of convolutions and matrix products with constant weights: the axis along which the weights see them."""


def observed_tensors(graph: onnx.GraphProto) -> Observed:
    """Choose the tensors of the main graph that calibration looks at.

    Left out are constants and what is computed from them alone; the result of a convolution, product or sum that only
    a Relu or Clip reads, because every runtime fuses the two; tensors that no operator of `QUANTIZABLE` reads or
    writes. Of tensors that are views of one another one is observed.
    """
    constants = _constants(graph)
    readers, escaping = _readers(graph)
    candidates: dict[str, bool] = {value.name: False for value in graph.input if value.name not in constants}
    root: dict[str, str] = {}
    for node in graph.node:
        for number, name in enumerate(node.output):
            if not name or name in constants:
                continue
            candidates[name] = node.op_type in QUANTIZABLE
            if number == 0 and node.op_type in VIEWS and node.input[0] not in constants:
                root[name] = root.get(node.input[0], node.input[0])
            only_reader = readers[name][0].op_type if len(readers[name]) == 1 and name not in escaping else ""
            if node.op_type in _FUSED_AFTER and only_reader in _ACTIVATIONS:
                del candidates[name]
    axes = _channel_axes(graph, constants)
    members: dict[str, list[str]] = defaultdict(list)
    for name in candidates:
        members[root.get(name, name)].append(name)
    names: list[str] = []
    views: dict[str, str] = {}
    for group in members.values():
        if not any(candidates[name] or any(n.op_type in QUANTIZABLE for n in readers[name]) for name in group):
            continue
        chosen = next((name for name in group if name in axes), group[0])
        names.append(chosen)
        views.update({name: chosen for name in group if name != chosen})
    return Observed(
        names=tuple(names),
        views=views,
        may_mask=frozenset(names) & _before_softmax(graph),
        rectified=frozenset(names) & _rectified(graph),
        channel_axes={name: axes[name] for name in names if name in axes},
    )


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Return the weights, and what is computed from them alone."""
    found = {tensor.name for tensor in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    for node in graph.node:
        made_from_nothing = not any(node.input) and node.op_type != "Constant"  # random numbers
        if not made_from_nothing and all(not name or name in found for name in node.input) and not _inner(node):
            found.update(name for name in node.output if name)
    return found


def _inner(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _readers(graph: onnx.GraphProto) -> tuple[dict[str, list[onnx.NodeProto]], set[str]]:
    """Return the nodes that read each tensor, and the tensors that are read elsewhere: by a caller, by inner graphs."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    escaping = {value.name for value in graph.output}
    for inner in subgraphs(graph):
        if inner is not graph:
            escaping.update(name for node in inner.node for name in node.input)
            escaping.update(value.name for value in inner.output)
    return readers, escaping


def _channel_axes(graph: onnx.GraphProto, constants: set[str]) -> dict[str, int]:
    """Return, for what is multiplied with constant weights, the axis over which the products are summed."""
    axes: dict[str, int] = {}
    for node in graph.node:
        if len(node.input) < 2 or node.input[1] not in constants:
            continue
        if node.op_type in CONVOLUTIONS:
            axes[node.input[0]] = 1
        elif node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transA")):
            axes[node.input[0]] = -1
    return axes


def _before_softmax(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that a mask, which is -infinity or the lowest number in places, passes on its way."""
    found = {name for node in graph.node if node.op_type == "Softmax" for name in node.input}
    for node in reversed(graph.node):  # the nodes are in topological order
        if node.op_type in _MASKING and found.intersection(node.output):
            found.update(name for name in node.input if name)
    return found


def _rectified(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that a Relu made, or views and maxima of such ones."""
    found: set[str] = set()
    for node in graph.node:  # in topological order
        if node.op_type == "Relu" or (node.op_type in VIEWS | _MAXIMA and node.input[0] in found):
            found.add(node.output[0])
    return found


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)
