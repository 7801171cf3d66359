"""Graphs that nobody drew: branches, gates, pools and sums at random, for every profile."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sources.onnx_files import node

from convkit.targets import onnxruntime_profile, openvino_profile, trt_profile
from quantize.quantized_graphs import graph, quantized, sqnr_db

CHANNELS = 16
PROFILES = (onnxruntime_profile.PROFILE, trt_profile.TENSORRT_PROFILE, openvino_profile.PROFILE)
UNARY = ("Relu", "Sigmoid", "HardSwish", "Identity", "Tanh", "LeakyRelu")
KINDS = (
    *("convolution",) * 3,
    "depthwise",
    "transposed",
    "clip",
    "Add",
    "Mul",
    "twice",
    "concat",
    "gate",
    "offset",
    "split",
)


class _Drawing:
    """A graph on its way: every tensor is [N, 16, 8, 8]."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))]

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        drawn = self.numbers.standard_normal(shape) / np.sqrt(np.prod(shape[1:], initial=1))
        self.weights.append(numpy_helper.from_array(drawn.astype(np.float32), name))
        return name

    def add(self, kind: str, a: str, b: str, out: str) -> None:
        match kind:
            case "convolution":
                bias = [self.weight(CHANNELS)] if self.random.random() < 0.6 else []
                inputs = [a, self.weight(CHANNELS, CHANNELS, 3, 3), *bias]
                self.nodes.append(node("Conv", inputs, [out], pads=[1] * 4))
            case "depthwise":
                inputs = [a, self.weight(CHANNELS, 1, 3, 3)]
                self.nodes.append(node("Conv", inputs, [out], pads=[1] * 4, group=CHANNELS))
            case "transposed":
                self.nodes.append(node("ConvTranspose", [a, self.weight(CHANNELS, CHANNELS, 1, 1)], [out]))
            case "clip":
                self.nodes.append(node("Clip", [a, "zero", "six"], [out]))
            case "Add" | "Mul":
                self.nodes.append(node(kind, [a, b], [out]))
            case "twice":
                self.nodes.append(node("Add", [a, a], [out]))
            case "MaxPool" | "AveragePool":
                self.nodes.append(node(kind, [a], [out], kernel_shape=[3, 3], pads=[1] * 4))
            case "concat":
                self.nodes.append(node("Concat", [a, b], [f"{out}c"], axis=1))
                self.nodes.append(node("Conv", [f"{out}c", self.weight(CHANNELS, 2 * CHANNELS, 1, 1)], [out]))
            case "gate":
                self.nodes.append(node("GlobalAveragePool", [a], [f"{out}g"]))
                self.nodes.append(node("Mul", [a, f"{out}g"], [out]))
            case "offset":
                self.nodes.append(node("Add", [a, self.weight(1, CHANNELS, 1, 1)], [out]))
            case "split":
                self.nodes.append(node("Split", [a], [f"{out}a", f"{out}b"], axis=1, num_outputs=2))
                self.nodes.append(node("Concat", [f"{out}b", f"{out}a"], [out], axis=1))
            case _:
                self.nodes.append(node(kind, [a], [out]))


def drawn(seed: int) -> onnx.ModelProto:
    drawing, tensors = _Drawing(seed), ["x"]
    for number in range(drawing.random.randint(6, 18)):
        kind = drawing.random.choice((*KINDS, *UNARY, "MaxPool", "AveragePool"))
        drawing.add(kind, drawing.random.choice(tensors[-4:]), drawing.random.choice(tensors), f"t{number}")
        tensors.append(f"t{number}")
    outputs = {tensors[-1], drawing.random.choice(tensors[1:])}
    shape = ["N", CHANNELS, 8, 8]
    return graph(drawing.nodes, {"x": shape}, dict.fromkeys(sorted(outputs), shape), drawing.weights)


@pytest.mark.parametrize("seed", range(15))
def test_every_profile_gives_a_sound_graph_with_almost_the_same_numbers(seed: int) -> None:
    source = drawn(seed)
    for profile in PROFILES:
        result, inserted = quantized(source, profile)

        assert [output.name for output in result.graph.output] == [output.name for output in source.graph.output]
        if inserted.quantized:
            assert sqnr_db(source, result) > 25
