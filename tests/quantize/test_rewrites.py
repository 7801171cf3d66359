"""Graphs are given the form that the runtime fuses well, and compute what they did."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sources.onnx_files import node

from convkit.graph.quant_profile import Rewrite
from convkit.quantize.known import Known
from convkit.quantize.rewrites import rewrite
from convkit.targets.onnxruntime_profile import PROFILE
from quantize.quantized_graphs import Seen, feeds_for, finished, graph, run_as, sqnr_db, weight
from quantize.test_placement import encoder


def rewritten(source: onnx.ModelProto, *wanted: Rewrite, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    profile = msgspec.structs.replace(PROFILE, rewrites=wanted)
    rewrite(copy, profile, Known(Seen(source, feeds_for(source)), profile), keep=keep)
    onnx.checker.check_model(copy, full_check=True)
    assert sqnr_db(source, copy) > 100
    return copy


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(each.op_type for each in proto.graph.node)


def classifier(*, rank: int = 2, bias: tuple[int, ...] = (5,), twice: bool = False) -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["m"], name="product"), node("Add", ["m", "b"], ["s"])]
    nodes.append(node("Sub", ["s", "m"] if twice else ["s", "b"], ["y"]))
    dims: list[str | int] = ["N", 4, 8] if rank == 3 else ["N", 8]
    numbers = numpy_helper.from_array(np.full(bias, 0.3, np.float32), "b")
    return graph(nodes, {"x": dims}, {"y": [*dims[:-1], 5]}, [weight("w", 8, 5), numbers])


@pytest.mark.parametrize("bias", [(5,), (1, 5)])
def test_a_product_of_matrices_and_its_bias_become_one(bias: tuple[int, ...]) -> None:
    result = rewritten(classifier(bias=bias), Rewrite.PRODUCT_WITH_BIAS)

    assert operators(result) == {"Gemm": 1, "Sub": 1}
    assert result.graph.node[0].name == "product"
    assert result.graph.node[0].output[0] == "s"


@pytest.mark.parametrize("source", [classifier(rank=3), classifier(bias=(1,)), classifier(twice=True)])
def test_other_products_stay(source: onnx.ModelProto) -> None:
    assert operators(rewritten(source, Rewrite.PRODUCT_WITH_BIAS))["MatMul"] == 1


def test_a_product_that_is_kept_stays_as_it_is() -> None:
    result = rewritten(classifier(), Rewrite.PRODUCT_WITH_BIAS, keep=frozenset({"product"}))

    assert operators(result)["MatMul"] == 1


def test_the_sum_before_a_normalization_is_one_that_is_not_fused_with_it() -> None:
    source = encoder()
    result = rewritten(source, Rewrite.SUM_BEFORE_NORM)

    assert operators(result)["Sum"] == 1
    assert operators(result)["Add"] == operators(source)["Add"] - 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_gelu_is_multiplied_in_the_order_that_is_known(turned: bool) -> None:
    source = encoder()
    if turned:
        for each in source.graph.node:
            if each.output[0] in ("eh", "gelu", "e1"):
                each.input[:] = list(reversed(each.input))
    result = rewritten(source, Rewrite.GELU_ORDER)
    makers = {each.output[0]: each for each in result.graph.node}

    assert "half" in makers["gelu"].input
    [inner] = [name for name in makers["gelu"].input if name != "half"]
    assert sorted(makers[inner].input) == ["e1", "u"]
    assert inner != "eh", "the tensor holds other numbers now"


def test_another_half_of_something_is_no_gelu() -> None:
    nodes = [node("Mul", ["half", "x"], ["h"]), node("Mul", ["x", "h"], ["y"])]
    half = numpy_helper.from_array(np.float32(0.5), "half")
    source = graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}, [half])
    result = rewritten(source, Rewrite.GELU_ORDER)

    assert result == source


def mean(*, opset: int = 18, axes: tuple[int, ...] = (2, 3), keepdims: int = 1, rank: int = 4) -> onnx.ModelProto:
    """The mean over some axes, which are an input from opset 18 on and an attribute before."""
    given = numpy_helper.from_array(np.array(axes, np.int64), "axes")
    inputs, more = (["x", "axes"], {}) if opset >= 18 else (["x"], {"axes": list(axes)})
    nodes = [node("ReduceMean", inputs, ["y"], keepdims=keepdims, **more)]
    dims = ["N", 8, 6, 5, 4][:rank]
    return graph(nodes, {"x": dims}, {"y": [None] * (rank if keepdims else rank - len(axes))}, [given], opset=opset)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
def test_the_mean_of_an_image_s_points_is_a_pool(axes: tuple[int, ...], opset: int) -> None:
    assert operators(rewritten(mean(axes=axes, opset=opset), Rewrite.MEAN_AS_POOL)) == {"GlobalAveragePool": 1}


@pytest.mark.parametrize("source", [mean(axes=(1, 2)), mean(axes=(3,)), mean(keepdims=0), mean(rank=5)])
def test_another_mean_stays(source: onnx.ModelProto) -> None:
    assert operators(rewritten(source, Rewrite.MEAN_AS_POOL)) == {"ReduceMean": 1}


def pooled(*, kernel: int = 7, seen: bool = False) -> onnx.ModelProto:
    """A residual network's entry."""
    nodes = [
        node("Conv", ["x", "w0", "b"], ["c"], name="stem", pads=[kernel // 2] * 4, strides=[2, 2]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Conv", ["p", "w1", "b"], ["y"], name="later"),
    ]
    outputs = {"y": [1, 16, 6, 6], **({"r": [1, 16, 12, 12]} if seen else {})}
    parts = [weight("w0", 16, 3, kernel, kernel), weight("w1", 16, 16, 1, 1), weight("b", 16)]
    return graph(nodes, {"x": [1, 3, 24, 24]}, outputs, parts)


def test_the_pool_behind_an_image_s_convolution_comes_before_its_relu(tmp_path: Path) -> None:
    source = pooled()
    result = rewritten(source, Rewrite.POOL_BEFORE_RELU)
    ran = run_as(finished(source), tmp_path)

    assert [each.op_type for each in result.graph.node] == ["Conv", "MaxPool", "Relu", "Conv"]
    assert [each.name for each in result.graph.node] == ["stem", "pool", "relu", "later"]
    assert ran["Conv"] == ran["MaxPool"] == ran["QLinearConv"] == ran["QuantizeLinear"] == 1
    assert not ran["Relu"]


@pytest.mark.parametrize("source", [pooled(kernel=9), pooled(seen=True)], ids=["243 products", "seen by the caller"])
def test_a_pool_elsewhere_stays_where_it_is(source: onnx.ModelProto) -> None:
    assert operators(rewritten(source, Rewrite.POOL_BEFORE_RELU)) == operators(source)
    assert rewritten(source, Rewrite.POOL_BEFORE_RELU).graph.node[1].op_type == "Relu"
