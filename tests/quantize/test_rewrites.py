"""Graphs are given the form that the runtime fuses well, and compute what they did."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sources.onnx_files import node

from convkit.graph.quant_profile import Rewrite
from convkit.quantize.rewrites import rewrite
from quantize.quantized_graphs import graph, sqnr_db, weight
from quantize.test_placement import encoder


def rewritten(source: onnx.ModelProto, *wanted: Rewrite, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    rewrite(copy, wanted, keep=keep)
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
