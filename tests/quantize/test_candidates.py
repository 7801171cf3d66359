"""What an accuracy budget can give back, with its weight."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from sources.onnx_files import node

from convkit.graph.quant_profile import QuantProfile
from convkit.quantize.candidates import quantizable
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.trt_profile import TENSORRT_PROFILE
from quantize.quantized_graphs import graph, quantized, weight
from quantize.test_placement import encoder, residual


@pytest.mark.parametrize("profile", [PROFILE, TENSORRT_PROFILE])
def test_it_names_what_is_then_quantized(profile: QuantProfile) -> None:
    for source in (residual(), encoder()):
        assert tuple(each.node for each in quantizable(source, profile)) == quantized(source, profile)[1].quantized


def test_work_is_counted_from_the_shapes_that_are_known() -> None:
    found = {each.node: (each.weights, each.macs) for each in quantizable(residual(), PROFILE)}

    assert found["stem"] == (16 * 16 * 9, 64 * 16 * 16 * 9)
    assert found["two"] == (16 * 16 * 9, 16 * 16 * 16 * 9)
    assert found["head"] == (160, 160)
    assert found["sum"] == (0, 0)


def test_depthwise_and_transposed_convolutions_and_products_of_rows() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="depthwise", group=16),
        node("ConvTranspose", ["a", "v"], ["b"], name="transposed", strides=[2, 2]),
        node("Reshape", ["b", "shape"], ["c"]),
        node("MatMul", ["c", "u"], ["y"], name="rows"),
    ]
    shape = numpy_helper.from_array(np.array([1, 16, 64]), "shape")
    parts = [weight("w", 16, 1, 1, 1), weight("v", 16, 16, 2, 2), weight("u", 64, 5), shape]
    source = graph(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 5]}, parts)
    found = {each.node: each.macs for each in quantizable(source, TENSORRT_PROFILE)}

    assert found == {"depthwise": 16 * 16, "transposed": 16 * 16 * 16 * 4, "rows": 16 * 5 * 64}
