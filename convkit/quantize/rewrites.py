"""Forms of an FP32 graph that a runtime's own fusions would spoil, or miss, rewritten before it is quantized.

Numbers stay the same up to the order of float operations; a tensor that calibration saw keeps its name, or is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.graph.quant_profile import QuantProfile, Rewrite
from convkit.quantize.constants import Constants
from convkit.quantize.draft import names_inside
from convkit.quantize.known import Known
from convkit.quantize.placement import is_thin
from convkit.quantize.shortcuts import join_shortcuts
from convkit.quantize.streams import hold_twice

if TYPE_CHECKING:
    import onnx


def rewrite(proto: onnx.ModelProto, profile: QuantProfile, known: Known, *, keep: frozenset[str]) -> None:
    """Apply the rewrites that a profile asks for.

    Args:
        proto: nodes in topological order, and named; it is changed.
        profile: what the target takes.
        known: the ranges of its activations; it is told of those that are new.
        keep: names of nodes that stay as they are.
    """
    for each in profile.rewrites:
        match each:
            case Rewrite.POOL_BEFORE_RELU:
                _pools_before_relus(proto.graph, profile)
            case Rewrite.JOINED_SHORTCUTS:
                join_shortcuts(proto, known, keep=keep)
            case Rewrite.NARROW_SUMS:
                hold_twice(proto, known, channels=profile.narrow_channels, points=profile.narrow_points, keep=keep)
            case Rewrite.PRODUCT_WITH_BIAS:
                _products_with_bias(proto, keep)
            case Rewrite.SUM_BEFORE_NORM:
                _sums_before_norms(proto.graph)
            case Rewrite.MEAN_AS_POOL:
                _means_as_pools(proto, keep)
            case Rewrite.GELU_ORDER:
                _order_gelus(proto.graph)


def _products_with_bias(proto: onnx.ModelProto, keep: frozenset[str]) -> None:
    """Join a MatMul of matrices and the constant that is added to it in one Gemm."""
    graph = proto.graph
    constants, readers, ranks = Constants(graph), _readers(graph), _ranks(proto)
    outputs = {value.name for value in graph.output}
    gone = set()
    for node in graph.node:
        following = readers.get(node.output[0], [])
        if node.op_type != "MatMul" or node.name in keep or len(following) != 1 or node.output[0] in outputs:
            continue
        [add] = following
        weight, product = constants.shape(node.input[1]), node.output[0]
        if add.op_type != "Add" or ranks.get(node.input[0]) != 2 or weight is None or len(weight) != 2:
            continue
        bias = add.input[1] if add.input[0] == product else add.input[0]
        fits = constants.shape(bias) in ((weight[1],), (1, weight[1]))
        if fits and constants.is_float32(bias) and constants.is_float32(node.input[1]):
            node.op_type = "Gemm"
            node.input.append(bias)
            node.output[0] = add.output[0]
            gone.add(add.name)
    _drop(graph, gone)


def _sums_before_norms(graph: onnx.GraphProto) -> None:
    """Write the Add before a LayerNormalization as Sum, so that the two are not fused."""
    readers = _readers(graph)
    for node in graph.node:
        if node.op_type == "Add" and any(each.op_type == "LayerNormalization" for each in readers[node.output[0]]):
            node.op_type = "Sum"


def _means_as_pools(proto: onnx.ModelProto, keep: frozenset[str]) -> None:
    """Write the mean over the last two of four dimensions, which stay as ones, as GlobalAveragePool."""
    constants, ranks = Constants(proto.graph), _ranks(proto)
    for node in proto.graph.node:
        if node.op_type != "ReduceMean" or node.name in keep or ranks.get(node.input[0]) != 4:
            continue
        given = {attribute.name: attribute for attribute in node.attribute}
        if len(node.input) > 1:
            axes = constants.value(node.input[1]).tolist() if node.input[1] in constants else []
        else:
            axes = list(given["axes"].ints) if "axes" in given else []
        if sorted(axis % 4 for axis in axes) == [2, 3] and ("keepdims" not in given or given["keepdims"].i):
            node.op_type = "GlobalAveragePool"
            del node.attribute[:], node.input[1:]


def _pools_before_relus(graph: onnx.GraphProto, profile: QuantProfile) -> None:
    """Exchange the Relu and the MaxPool behind a convolution of the graph's input that stays in floating point."""
    makers = {name: node for node in graph.node for name in node.output}
    constants, readers = Constants(graph), _readers(graph)
    outside = {value.name for value in graph.output} | names_inside(graph)
    inputs = {value.name for value in graph.input}

    def alone(name: str) -> bool:
        return len(readers[name]) == 1 and name not in outside

    pools = [node for node in graph.node if node.op_type == "MaxPool" and len(node.output) == 1]
    for pool in pools:
        relu = makers.get(pool.input[0])
        if relu is None or relu.op_type != "Relu" or not alone(relu.output[0]) or not alone(relu.input[0]):
            continue
        first = makers.get(relu.input[0])
        if first is None or first.op_type != "Conv" or first.input[0] not in inputs:
            continue
        shape = constants.shape(first.input[1])
        if shape and is_thin(shape, profile, pooled=True):
            pool.input[0], relu.output[0] = relu.input[0], pool.output[0]
            pool.output[0] = relu.input[0] = f"{pool.output[0]}__before_relu"
            _exchange(graph, pool.name, relu.name)


def _exchange(graph: onnx.GraphProto, one: str, other: str) -> None:
    """Let two nodes change places."""
    nodes = list(graph.node)
    at = {node.name: number for number, node in enumerate(nodes)}
    nodes[at[one]], nodes[at[other]] = nodes[at[other]], nodes[at[one]]
    del graph.node[:]
    graph.node.extend(nodes)


def _order_gelus(graph: onnx.GraphProto) -> None:
    """Turn x · (½ · (1 + erf(x/√2))) into (x · (1 + erf(x/√2))) · ½, the order that is recognized as a Gelu."""
    makers = {name: node for node in graph.node for name in node.output}
    constants, readers = Constants(graph), _readers(graph)
    for node in graph.node:
        if node.op_type != "Mul":
            continue
        for index, name in enumerate(node.input):
            halved = makers.get(name)
            if halved is None or halved.op_type != "Mul" or len(readers[name]) != 1:
                continue
            x = node.input[1 - index]
            halves = [i for i, each in enumerate(halved.input) if _is(constants, each, 0.5)]
            if len(halves) == 1 and _is_one_plus_erf(makers, constants, halved.input[1 - halves[0]], x):
                node.input[1 - index], halved.input[halves[0]] = halved.input[halves[0]], x
                node.input[index] = halved.output[0] = f"{name}__doubled"  # it holds other numbers now
                break


def _is_one_plus_erf(makers: dict[str, onnx.NodeProto], constants: Constants, name: str, x: str) -> bool:
    """Tell whether a tensor is 1 + erf(x/√2)."""
    add = makers.get(name)
    if add is None or add.op_type != "Add":
        return False
    for one, other in ((0, 1), (1, 0)):
        erf = makers.get(add.input[other])
        if erf is not None and erf.op_type == "Erf" and _is(constants, add.input[one], 1.0):
            scaled = makers.get(erf.input[0])
            return scaled is not None and scaled.op_type in ("Div", "Mul") and x in scaled.input
    return False


def _is(constants: Constants, name: str, value: float) -> bool:
    return name in constants and constants.shape(name) in ((), (1,)) and float(constants.value(name).item()) == value


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {name: [] for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _drop(graph: onnx.GraphProto, names: set[str]) -> None:
    remaining = [node for node in graph.node if node.name not in names]
    del graph.node[:]
    graph.node.extend(remaining)
