"""Random graphs with branches, and ways to spoil one node of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Random = np.random.Generator
Array = NDArray[np.float32]
CHANNELS, SIZE = 4, 6
"""Images are [batch, 4, 6, 6], vectors [batch, 16]."""


class RandomGraph:
    """A graph of 10 to 60 nodes; every tensor leads to an output."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.images, self.vectors = ["image"], []
        self.read: set[str] = set()
        wanted = int(self.rng.integers(10, 60))
        while len(self.nodes) < wanted:
            makers = [self.conv, self.relu, self.add, self.pool, self.concat, self.scale, self.flatten]
            makers += [self.matmul, self.relu_vector, self.add_vectors, self.softmax] if self.vectors else []
            makers[self.rng.integers(len(makers))]()
        self.model = self._finished()

    def _finished(self) -> onnx.ModelProto:
        ends = [name for name in (*self.images, *self.vectors) if name not in self.read]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ends]
        shape = ["batch", CHANNELS, SIZE, SIZE]
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(inferred, full_check=True)
        return inferred

    def _weight(self, *shape: int, scale: float = 1.0) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array((self.rng.normal(size=shape) * scale).astype(np.float32), name))
        return name

    def _integers(self, *values: int) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _node(self, operator: str, inputs: list[str], into: list[str] | None, **attributes: object) -> str:
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"/{output}", **attributes))
        self.read.update(inputs)
        if into is not None:
            into.append(output)
        return output

    def _any(self, names: list[str]) -> str:
        """One of the newest, mostly."""
        return names[-1] if self.rng.random() < 0.6 else names[self.rng.integers(len(names))]

    def conv(self) -> None:
        weights = [self._weight(CHANNELS, CHANNELS, 3, 3, scale=0.3), self._weight(CHANNELS)]
        self._node("Conv", [self._any(self.images), *weights], self.images, pads=[1, 1, 1, 1], strides=[1, 1])

    def relu(self) -> None:
        self._node("Relu", [self._any(self.images)], self.images)

    def add(self) -> None:
        self._node("Add", [self._any(self.images), self._any(self.images)], self.images)

    def pool(self) -> None:
        operator = "MaxPool" if self.rng.random() < 0.5 else "AveragePool"
        self._node(operator, [self._any(self.images)], self.images, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def scale(self) -> None:
        self._node("Mul", [self._any(self.images), self._weight(1, CHANNELS, 1, 1)], self.images)

    def concat(self) -> None:
        """Two images side by side, mixed back to as many channels as before."""
        both = self._node("Concat", [self._any(self.images), self._any(self.images)], None, axis=1)
        self._node("Conv", [both, self._weight(CHANNELS, 2 * CHANNELS, 1, 1, scale=0.4)], self.images)

    def flatten(self) -> None:
        flat = self._node("Reshape", [self._any(self.images), self._integers(0, -1)], None)
        self._node("MatMul", [flat, self._weight(CHANNELS * SIZE * SIZE, 16, scale=0.1)], self.vectors)

    def matmul(self) -> None:
        self._node("MatMul", [self._any(self.vectors), self._weight(16, 16, scale=0.3)], self.vectors)

    def relu_vector(self) -> None:
        self._node("Relu", [self._any(self.vectors)], self.vectors)

    def add_vectors(self) -> None:
        self._node("Add", [self._any(self.vectors), self._any(self.vectors)], self.vectors)

    def softmax(self) -> None:
        self._node("Softmax", [self._any(self.vectors)], self.vectors, axis=-1)


def plant_fault(model: onnx.ModelProto, rng: Random, image: Array) -> tuple[onnx.ModelProto, str]:
    """Spoil one node: a weight, or what it computes, so that its own output is another one for this image.

    Return the model and the node's name.
    """
    while True:
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        weights = {tensor.name: tensor for tensor in spoilt.graph.initializer}
        node = spoilt.graph.node[rng.integers(len(spoilt.graph.node))]
        faults = FAULTS.get(node.op_type, ())
        if not faults:
            continue
        faults[rng.integers(len(faults))](node, weights, rng)
        before, after = (_value(graph, node.output[0], image) for graph in (model, spoilt))
        if not np.allclose(before, after, rtol=1e-3, atol=1e-3):
            return spoilt, node.name


def _value(model: onnx.ModelProto, name: str, image: Array) -> Array:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [value] = session.run([name], {"image": image})
    return value


Weights = dict[str, onnx.TensorProto]


def _change_weight(node: onnx.NodeProto, weights: Weights, rng: Random) -> None:
    """Move one element of one of the node's weights by 1."""
    tensor = weights[[name for name in node.input if name in weights][-1]]
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[rng.integers(values.size)] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _change_pads(node: onnx.NodeProto, weights: Weights, rng: Random) -> None:
    """Move the window by one pixel."""
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [2, 1, 0, 1]


def _change_axis(node: onnx.NodeProto, weights: Weights, rng: Random) -> None:
    node.attribute[0].i = 0


def _becomes(operator: str) -> Callable[[onnx.NodeProto, Weights, Random], None]:
    def change(node: onnx.NodeProto, weights: Weights, rng: Random) -> None:
        node.op_type = operator

    return change


def _other_pool(node: onnx.NodeProto, weights: Weights, rng: Random) -> None:
    node.op_type = "AveragePool" if node.op_type == "MaxPool" else "MaxPool"


FAULTS: dict[str, tuple[Callable[[onnx.NodeProto, Weights, Random], None], ...]] = {
    "Conv": (_change_weight,),
    "MatMul": (_change_weight,),
    "Mul": (_change_weight, _becomes("Add")),
    "Add": (_becomes("Sub"), _becomes("Mul")),
    "Relu": (_becomes("Abs"), _becomes("Sigmoid"), _becomes("Neg")),
    "MaxPool": (_other_pool, _change_pads),
    "AveragePool": (_other_pool, _change_pads),
    "Softmax": (_change_axis, _becomes("LogSoftmax")),
}
