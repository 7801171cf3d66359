"""Small ONNX graphs that use much of the format: subgraphs, functions, external and sparse weights, old opsets."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sources.onnx_files import FLOAT, X, model, node, value

_Y = value("y", FLOAT, ["N", 4])


def graphs() -> list[onnx.ModelProto]:
    """Return the models."""
    return [model(), _convolution(), _branches(), loop(), _function(), _external(), _shapes(), _old(), _quantized()]


def _weight(name: str, array: object, dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def _convolution() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["b"]),
        node("Relu", ["b"], ["r"]),
        node("GlobalAveragePool", ["r"], ["y"]),
    ]
    weights = [_weight("k", np.ones((2, 1, 3, 3))), _weight("s", [1, 2])]
    return model(nodes, [value("x", FLOAT, ["N", 1, 6, 6])], [value("y", FLOAT, ["N", 2, 1, 1])], weights, opset=17)


def _branches() -> onnx.ModelProto:
    bodies = [helper.make_graph([node(op, ["x"], ["y"])], op, [], [_Y]) for op in ("Abs", "Neg")]
    nodes = [node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])]
    return model(nodes, [X], [_Y], [_weight("c", True, "bool")])


def loop(rounds: int = 3, *, constant: bool = False) -> onnx.ModelProto:
    """A loop; a `constant` one reads no input, and what it gives is added to it."""
    body = helper.make_graph(
        [node("Add", ["a", "one"], ["b"]), node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("a", FLOAT, ["N", 4])],
        [value("on", TensorProto.BOOL, []), value("b", FLOAT, ["N", 4])],
    )
    weights = [_weight("n", rounds, "int64"), _weight("t", True, "bool"), _weight("one", 1)]
    if constant:
        nodes = [node("Loop", ["n", "t", "zero"], ["l"], body=body), node("Add", ["l", "x"], ["y"])]
        return model(nodes, [X], [_Y], [*weights, _weight("zero", np.zeros((1, 4)))])
    return model([node("Loop", ["n", "t", "x"], ["y"], body=body)], [X], [_Y], weights)


def _function() -> onnx.ModelProto:
    proto = model([node("Twice", ["x"], ["y"], domain="mine")], [X], [_Y], [], domains=[("mine", 1)])
    opsets = [helper.make_opsetid("", 20)]
    proto.functions.append(
        helper.make_function("mine", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], opsets)
    )
    return proto


def _external() -> onnx.ModelProto:
    proto = model()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "w.bin"), ("offset", "0"), ("length", "48")):
        weight.external_data.add(key=key, value=text)
    return proto


def _shapes() -> onnx.ModelProto:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Concat", ["n", "four"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[1, 0]),
        node("Transpose", ["t"], ["y"], perm=[1, 0]),
    ]
    proto = model(nodes, [X], [_Y], [_weight("zero", [0], "int64"), _weight("four", [4], "int64")])
    dense = onnx.helper.make_sparse_tensor(_weight("sparse", [1.0]), _weight("at", [2], "int64"), [4])
    proto.graph.sparse_initializer.append(dense)
    proto.metadata_props.add(key="k", value="v")
    return proto


def _old() -> onnx.ModelProto:
    nodes = [node("Softmax", ["x"], ["h"], axis=1), node("Dropout", ["h"], ["y"])]
    return model(nodes, [X], [_Y], [], opset=11, ir_version=6)


def _quantized() -> onnx.ModelProto:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    return model(nodes, [X], [value("y", FLOAT, None)], [_weight("s", 0.1), _weight("z", 3, "uint8")])
