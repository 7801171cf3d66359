"""TensorRT-RTX parses and builds what is quantized for its family; it needs no GPU for that."""

from __future__ import annotations

import onnx
import pytest
from sources.onnx_files import node

from convkit.graph.model import save_model
from convkit.graph.present import interface_of
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_profile import TENSORRT_PROFILE
from convkit.targets.trt_profiles import profiles_for
from quantize.quantized_graphs import graph, quantized, weight
from quantize.test_placement import encoder, residual

pytest.importorskip("tensorrt_rtx")


def mixed() -> onnx.ModelProto:
    """What else has weights: a transposed convolution, a scaled Gemm, a constant on the left; and three pools."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], group=16, pads=[1] * 4),
        node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", ["p", "v"], ["d"], strides=[2, 2]),
        node("Relu", ["d"], ["r"]),
        node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["m", "u", "b"], ["e"]),
        node("GlobalAveragePool", ["e"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "t", "b"], ["h"], alpha=0.5, beta=2.0, transB=1),
        node("Transpose", ["h"], ["turned"], perm=[1, 0]),
        node("MatMul", ["s", "turned"], ["y"]),
    ]
    shapes = {"w": (16, 1, 3, 3), "v": (16, 16, 2, 2), "u": (16, 16, 1, 1), "t": (16, 16), "s": (24, 16), "b": (16,)}
    parts = [weight(name, *shape) for name, shape in shapes.items()]
    return graph(nodes, {"x": ["N", 16, 8, 8]}, {"y": [24, "N"]}, parts)


@pytest.mark.parametrize("source", [residual(), encoder(), mixed()], ids=["residual", "encoder", "mixed"])
def test_it_parses_and_builds(source: onnx.ModelProto) -> None:
    result, inserted = quantized(source, TENSORRT_PROFILE)
    model = save_model(result, interface_of(result))
    options = TensorRTOptions()

    assert len(inserted.quantized) >= 5
    assert build_rtx(model, profiles_for(model.interface, options), options).files.bytes > 0
