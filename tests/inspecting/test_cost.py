"""What a call costs: against counts by hand, and against the figures published for two networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.measure.roofline import machine_peaks
from convkit.pipeline.runner import Runner
from inspecting.conftest import Inspect

SAMPLES = Path(__file__).parents[2] / "sample_models"


def digits_cnn() -> int:
    """3x3 convolutions at 8x8 and, behind a pool, 4x4 pixels; one 1x1 shortcut; 128 features to 10 classes."""
    stem = 16 * 1 * 9 * 64
    widening = 32 * 16 * 9 * 64 + 32 * 32 * 9 * 64 + 32 * 16 * 64
    second = 2 * (32 * 32 * 9 * 16)
    return stem + widening + second + 128 * 10


def digits_mobile() -> int:
    """Expansion, depthwise 3x3, projection, from 16x16 pixels down to 4x4."""

    def block(channels_in: int, channels: int, before: int, after: int) -> int:
        hidden = 4 * channels_in
        return channels_in * hidden * before + hidden * 9 * after + hidden * channels * after

    stem = 16 * 1 * 9 * 256
    blocks = block(16, 16, 256, 256) + block(16, 24, 256, 64) + block(24, 24, 64, 64)
    blocks += block(24, 32, 64, 16) + block(32, 32, 16, 16)
    return stem + blocks + 32 * 96 * 16 + 96 * 10


def digits_keras() -> int:
    """3x3 convolutions at 8x8 pixels, twice, and at 4x4; 128 features to 64 to 10."""
    return 16 * 1 * 9 * 64 + 32 * 16 * 9 * 64 + 32 * 32 * 9 * 16 + 128 * 64 + 64 * 10


def python_lines() -> int:
    """Two layers of attention 64 wide over 64 characters: four projections, scores and their sums; 192 hidden."""
    length, width = 64, 64
    projections = 4 * length * width * width
    attention = 2 * length * length * width
    hidden = 2 * length * width * 192
    return 2 * (projections + attention + hidden) + width * 8 + length * width * 7


def python_names() -> int:
    """Four experts of 61 to 64 to 32 numbers; for each of two tasks a gate over them, their sum, and a tower."""
    experts = 4 * (61 * 64 + 64 * 32)
    task = 61 * 4 + 4 * 32 + 32 * 16 + 16 * 2
    return experts + 2 * task


def python_docs() -> int:
    """16 and 64 words through one convolution of three words, each with each, and five numbers to 16 to 2."""
    convolution = (16 + 64) * 32 * 32 * 3
    return convolution + 16 * 64 * 32 + 5 * 16 + 16 * 2


BY_HAND = {
    "digits_cnn": digits_cnn(),
    "digits_mobile": digits_mobile(),
    "digits_keras": digits_keras(),
    "python_lines": python_lines(),
    "python_names": python_names(),
    "python_docs": python_docs(),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_multiply_accumulates_of_a_sample_model_are_those_counted_by_hand(inspected: Inspect, name: str) -> None:
    told = inspected(SAMPLES / name, trust=True)

    assert told.work is not None
    assert told.work.macs == sum(told.work.macs_by_operator.values()) == BY_HAND[name]
    assert told.work.macs_by_precision == {"fp32": BY_HAND[name]}
    assert {shape[0] for shape in told.work.shapes.values()} == {1}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the older exporter, which writes these in a second
@pytest.mark.parametrize(
    ("name", "parameters", "low", "high"),
    [("resnet50", 25_557_032, 4.09, 4.11), ("mobilenetv2", 3_504_872, 0.30, 0.32)],
)
def test_a_published_network_has_its_published_work(
    inspected: Inspect, tmp_path: Path, name: str, parameters: int, low: float, high: float
) -> None:
    """In 1e9: torchvision's models say 4.09 for ResNet50 (stride in the 3x3), 0.3 for MobileNetV2."""
    import torch

    from benchmarks.networks import NETWORKS

    network = NETWORKS[name].make().eval()
    torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), tmp_path / f"{name}.onnx", dynamo=False)

    told = inspected(tmp_path / f"{name}.onnx")

    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert told.work is not None
    assert low <= round(told.work.macs / 1e9, 2) <= high


def model_file(path: Path, nodes: list[Any], x: list[int], y: list[int], weights: list[onnx.TensorProto]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_bytes_are_those_that_each_operator_reads_and_writes(inspected: Inspect, tmp_path: Path) -> None:
    """y = tanh(x w), 5x7 by 7x3: the product reads 35 and 21 and writes 15, tanh reads and writes 15."""
    weights = numpy_helper.from_array(np.ones((7, 3), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]

    told = inspected(model_file(tmp_path / "net.onnx", nodes, [5, 7], [5, 3], [weights]))

    assert told.work is not None
    assert told.work.macs == 5 * 7 * 3
    assert told.work.bytes_moved == 4 * (35 + 21 + 15 + 15 + 15)
    assert told.work.bytes_least == 4 * (35 + 21 + 15)
    assert told.work.intensity == pytest.approx(2 * 105 / 404)


def test_of_a_table_the_rows_that_are_taken_are_counted(inspected: Inspect, tmp_path: Path) -> None:
    """Two rows of 1000 x 4 numbers: two indices of 8 bytes, 8 numbers read and written; then 2 x 4 by 4 x 3."""
    table = numpy_helper.from_array(np.ones((1000, 4), np.float32), "table")
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [table, weights],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx"
    )

    told = inspected(tmp_path / "net.onnx")

    assert told.work is not None
    assert told.work.bytes_moved == (16 + 2 * 32) + 4 * (8 + 12 + 6)
    assert told.work.bytes_least == 4 * 12 + 16 + 4 * 6


def test_a_reshape_moves_nothing(inspected: Inspect, tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([7, 5], np.int64), "shape")
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Reshape", ["h", "shape"], ["y"])]

    told = inspected(model_file(tmp_path / "net.onnx", nodes, [5, 7], [7, 5], [shape]))

    assert told.work is not None
    assert (told.work.macs, told.work.bytes_moved, told.work.intensity) == (0, 2 * 4 * 35, 0.0)


def test_what_the_machine_reaches_is_measured_once(run: Runner) -> None:
    first, second = run(machine_peaks), run(machine_peaks)

    assert first == second
    assert 1e8 < first.flops < 1e15
    assert 1e8 < first.bytes_per_s < 1e13
    assert first.ridge == first.flops / first.bytes_per_s
