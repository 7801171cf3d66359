"""Multiply-accumulates counted by hand, as declared by the graph, and as run by ONNX Runtime and OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import MODEL_FILE, Model, Tensors, save_tensors
from convkit.graph.work import Work, declared_work, executed_work
from convkit.pipeline.artifact import gather, use_scratch
from convkit.spec.tensor import DType, Interface, TensorSpec
from convkit.targets.openvino_model import OpenVINOOptions, convert_to_openvino, openvino_work

GENERATOR = np.random.default_rng(0)
HEIGHT = WIDTH = 6


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> None:
    use_scratch(tmp_path / "scratch")


def weights(name: str, *shape: int, dtype: Any = np.float32) -> onnx.TensorProto:
    values = GENERATOR.standard_normal(shape) if dtype is np.float32 else GENERATOR.integers(-100, 100, shape)
    return numpy_helper.from_array(values.astype(dtype), name)


def model_of(
    folder: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], x: list[Any], y: list[Any]
) -> Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        initializers,
    )
    folder.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / MODEL_FILE)
    interface = Interface(
        inputs=(TensorSpec(name="x", dtype=DType.FLOAT32, dims=tuple(x)),),
        outputs=(TensorSpec(name="y", dtype=DType.FLOAT32, dims=tuple(y)),),
        max_batch_size=0,
    )
    return Model(files=gather(folder), interface=interface)


def samples_of(*shape: int) -> Tensors:
    return save_tensors([{"x": GENERATOR.standard_normal(shape).astype(np.float32)}])


def network(folder: Path) -> Model:
    """3x3 convolution 4 to 8, depthwise 3x3, its transposed 2x2 with stride 2 back to 4, product to 5 classes."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"], "depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("ConvTranspose", ["b", "w3"], ["c"], "up", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], "pool"),
        helper.make_node("Flatten", ["d"], ["e"], "flat"),
        helper.make_node("Gemm", ["e", "w4"], ["f"], "dense", transB=1),
        helper.make_node("MatMul", ["f", "w5"], ["y"], "product"),
    ]
    filters = [weights("w1", 8, 4, 3, 3), weights("w2", 8, 1, 3, 3), weights("w3", 8, 4, 2, 2)]
    dense = [weights("w4", 7, 4), weights("w5", 7, 5)]
    return model_of(folder, nodes, [*filters, *dense], ["batch", 4, HEIGHT, WIDTH], ["batch", 5])


def by_hand(batch: int) -> int:
    pixels = HEIGHT * WIDTH
    return batch * (8 * 4 * 9 * pixels + 8 * 9 * pixels + 8 * 4 * 4 * pixels + 4 * 7 + 7 * 5)


@pytest.mark.parametrize("batch", [1, 3])
def test_all_kinds_of_products_are_counted_as_by_hand(tmp_path: Path, batch: int) -> None:
    model, samples = network(tmp_path / "model"), samples_of(batch, 4, HEIGHT, WIDTH)

    assert declared_work(model, samples=samples) == Work(macs={"fp32": by_hand(batch)})
    assert executed_work(model, samples=samples).macs == {"fp32": by_hand(batch)}


def test_openvino_counts_the_same_from_its_compiled_graph(tmp_path: Path) -> None:
    nodes = network(tmp_path / "model")
    graph = onnx.load(nodes.path).graph
    kept = [node for node in graph.node if node.name in ("first", "depthwise", "pool", "flat", "dense", "product")]
    next(node for node in kept if node.name == "pool").input[0] = "b"
    tensors = [*graph.initializer[:2], weights("w4", 7, 8), graph.initializer[4]]
    model = model_of(tmp_path / "other", kept, tensors, ["batch", 4, HEIGHT, WIDTH], ["batch", 5])

    work = openvino_work(convert_to_openvino(model), samples=samples_of(2, 4, HEIGHT, WIDTH), options=OpenVINOOptions())

    pixels = HEIGHT * WIDTH
    assert work.macs == {"fp32": 2 * (8 * 4 * 9 * pixels + 8 * 9 * pixels + 8 * 7 + 7 * 5)}
    assert work.seen_by is not None
    assert work.seen_by.startswith("OpenVINO ")


def quantized(folder: Path, *, output_pair: bool) -> Model:
    """A convolution between Q/DQ pairs; without a pair behind it ONNX Runtime has no integer kernel for it."""
    scale = [numpy_helper.from_array(np.array(0.05, np.float32), "s"), numpy_helper.from_array(np.uint8(128), "z")]
    signed = numpy_helper.from_array(np.int8(0), "zw")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["wd"], "dqw"),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "conv"),
    ]
    if output_pair:
        nodes += [
            helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "q2"),
            helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"], "dq2"),
        ]
    else:
        nodes.append(helper.make_node("Sin", ["c"], ["y"], "sin"))
    filters = weights("w", 8, 4, 3, 3, dtype=np.int8)
    return model_of(folder, nodes, [*scale, signed, filters], [1, 4, 6, 6], [1, 8, 4, 4])


def test_a_pair_that_was_not_fused_does_not_count(tmp_path: Path) -> None:
    macs = 8 * 4 * 9 * 16
    samples = samples_of(1, 4, 6, 6)

    fused, alone = (quantized(tmp_path / str(pair), output_pair=pair) for pair in (True, False))

    assert declared_work(fused, samples=samples).macs == {"int8": macs}
    assert declared_work(alone, samples=samples).macs == {"int8": macs}
    assert executed_work(fused, samples=samples).macs == {"int8": macs}
    assert executed_work(alone, samples=samples).macs == {"fp32": macs}


def test_the_share_counts_what_is_as_low_or_lower() -> None:
    work = Work(macs={"int4": 10, "int8": 30, "fp16": 40, "fp32": 20})

    assert [work.share(bits) for bits in (4, 8, 16, 32)] == [0.1, 0.4, 0.8, 1.0]
    assert Work(macs={}).share(8) == 0
