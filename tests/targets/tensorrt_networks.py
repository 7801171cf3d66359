"""Small ONNX networks for the tests of the TensorRT family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import MODEL_FILE, Model, save_model
from convkit.graph.present import interface_of
from convkit.pipeline import events
from convkit.pipeline.artifact import gather
from convkit.spec.tensor import DType, Interface, TensorSpec

OPSET = 17


def network(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    weights: dict[str, Any] | None = None,
    element_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Make a model from its nodes, the shapes of its inputs and outputs, and its weights."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, element_type, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, element_type, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("house.made", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def conv_network(batch: int | str = "batch") -> onnx.ModelProto:
    """Conv, Relu, mean over the image, Gemm: `x` [batch, 3, 16, 16] to `y` [batch, 10]."""
    numbers = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="classify", transB=1),
    ]
    weights = {
        "w": numbers.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "b": numbers.standard_normal(16).astype(np.float32),
        "v": numbers.standard_normal((10, 16)).astype(np.float32),
    }
    return network(nodes, {"x": [batch, 3, 16, 16]}, {"y": [batch, 10]}, weights)


def model_of(proto: onnx.ModelProto) -> Model:
    """Write a model with the interface that its graph declares."""
    return save_model(proto, interface_of(proto))


def external_model(proto: onnx.ModelProto, folder: Path) -> Model:
    """Write a model whose weights lie beside it."""
    interface = interface_of(proto)
    onnx.save_model(
        proto, str(folder / MODEL_FILE), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return Model(files=gather(folder), interface=interface)


def quantized(proto: onnx.ModelProto, folder: Path, **settings: Any) -> onnx.ModelProto:
    """Quantize with ONNX Runtime's static quantizer; signed types unless told otherwise."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            numbers = np.random.default_rng(1)
            self.cases: Iterator[dict[str, Any]] = iter(
                [{"x": numbers.standard_normal((2, 3, 16, 16)).astype(np.float32)} for _ in range(2)]
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self.cases, None)

    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(proto, str(source))
    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(source), str(target), Reader(), **{**types, **settings})
    return onnx.load(str(target))


SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def spec(name: str, *dims: int | str, **more: Any) -> TensorSpec:
    """Describe a float32 tensor."""
    return TensorSpec(name=name, dtype=DType.FLOAT32, dims=dims, **more)


def interface(*inputs: TensorSpec, max_batch_size: int = 0) -> Interface:
    """Describe a model by its inputs."""
    return Interface(inputs=inputs, outputs=(spec("y", "batch", 10),), max_batch_size=max_batch_size)


@pytest.fixture
def happened() -> Iterator[list[events.Event]]:
    """What steps that are called as plain functions tell."""
    seen: list[events.Event] = []
    events.observe(seen.append)
    yield seen
    events.observe(lambda _: None)


def warnings_of(happened: list[events.Event]) -> list[str]:
    """Return the codes of the warnings among what happened."""
    return [event.code for event in happened if isinstance(event, events.Warned)]
