"""Zeros around an image, in front of a MaxPool: a form that no optimizer takes for the pool's own padding.

A MaxPool leaves its own padding out of the maximum; zeros count, where all else in the window is negative. ONNX Runtime
(Pad_Fusion, since 1.17) and onnxsim (onnx/optimizer, fuse_pad_into_pool) make the one of the other all the same, and
give other numbers. Padding with the smallest number of float16 keeps them from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

SMALLEST = 2.0**-24
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Sqrt", "Exp", "Softplus"})
_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")


def keep_zeros(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Change the zeros that a MaxPool sees as such to `SMALLEST`, where what they surround may be negative."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {weight.name: weight for weight in graph.initializer}
    for pool in graph.node:
        pad = makers.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        if pad is None or pad.op_type != "Pad" or len(pad.input) < 2 or not _is_zero(pad, makers, weights):
            continue
        inner, kind = makers.get(pad.input[0]), _kind(pad, weights, graph)
        if not kind or (inner is not None and inner.op_type in _NEVER_NEGATIVE):
            continue
        name = f"{pad.output[0]}__zero"
        if name not in weights:
            value = np.array(SMALLEST, helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind)))
            weights[name] = numpy_helper.from_array(value, name)
            graph.initializer.append(weights[name])
        if len(pad.input) == 2:
            pad.input.append(name)
        else:
            pad.input[2] = name
    return proto


def _is_zero(pad: onnx.NodeProto, makers: dict[str, onnx.NodeProto], weights: dict[str, onnx.TensorProto]) -> bool:
    from onnx import helper, numpy_helper

    mode = next((helper.get_attribute_value(each) for each in pad.attribute if each.name == "mode"), b"constant")
    if mode != b"constant":
        return False
    name = pad.input[2] if len(pad.input) > 2 else ""
    if not name:
        return True
    tensor = weights.get(name)
    if tensor is None and name in makers and makers[name].op_type == "Constant":
        tensor = next((each.t for each in makers[name].attribute if each.name == "value"), None)
    return tensor is not None and not numpy_helper.to_array(tensor).any()


def _kind(pad: onnx.NodeProto, weights: dict[str, onnx.TensorProto], graph: onnx.GraphProto) -> str:
    """Return the element type: that of the value given, else the graph's only one; empty where it is not sure."""
    from onnx import TensorProto

    given = weights.get(pad.input[2]) if len(pad.input) > 2 else None
    numbers = {each.data_type for each in ([given] if given is not None else weights.values())}
    if given is None:
        numbers |= {each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)}
    floats = {TensorProto.DataType.Name(number) for number in numbers}.intersection(_FLOATS)
    return floats.pop() if len(floats) == 1 else ""
