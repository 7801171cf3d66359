"""Weights as users have them: shared, transposed, scaled, overridable, of every product; and the numbers that come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sources.onnx_files import FLOAT, node, value

from convkit.errors import StepError
from convkit.graph.quant_profile import QuantProfile
from convkit.targets.onnxruntime_profile import PROFILE
from convkit.targets.trt_profile import TENSORRT_PROFILE
from quantize.quantized_graphs import (
    graph,
    initializers,
    pairs,
    quantized,
    run_as,
    sqnr_db,
    weight,
)

BOTH = pytest.mark.parametrize("profile", [PROFILE, TENSORRT_PROFILE], ids=["onnxruntime", "tensorrt"])


def product(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], *, columns: int = 24, rows: int = 16
) -> onnx.ModelProto:
    return graph(nodes, {"x": ["N", rows]}, {"y": ["N", columns]}, weights)


def int8_weights(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {name: array for name, array in initializers(proto).items() if array.dtype == np.int8 and array.ndim > 1}


@BOTH
@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.5}, {"beta": 3.0}, {"alpha": -2.0, "beta": 0.25}])
@pytest.mark.parametrize("turned", [0, 1])
def test_a_gemm_of_any_factors_and_side_is_one_of_factors_one(
    profile: QuantProfile, attributes: dict[str, float], turned: int, tmp_path: Path
) -> None:
    shape = (24, 16) if turned else (16, 24)
    gemm = node("Gemm", ["x", "w", "b"], ["y"], transB=turned, **attributes)
    source = product([gemm], [weight("w", *shape), weight("b", 24, scale=2.0)])
    result, _ = quantized(source, profile)

    assert sqnr_db(source, result) > 30
    [left] = [each for each in result.graph.node if each.op_type == "Gemm"]
    assert {each.name for each in left.attribute} <= {"transB"}
    assert [array.shape for array in int8_weights(result).values()] == [shape]
    assert initializers(result)["w__scale"].shape == (24,)
    if profile is PROFILE:
        assert run_as(result, tmp_path)["QGemm"] == 1


@pytest.mark.parametrize("dims", [(24,), (1, 24), (1,), ()])
def test_a_gemm_takes_a_bias_of_any_shape_that_is_one_row(dims: tuple[int, ...], tmp_path: Path) -> None:
    bias = numpy_helper.from_array(np.full(dims, 0.7, np.float32), "b")
    source = product([node("Gemm", ["x", "w", "b"], ["y"])], [weight("w", 16, 24), bias])
    result, _ = quantized(source)

    assert sqnr_db(source, result) > 30
    assert run_as(result, tmp_path)["QGemm"] == 1


def test_a_bias_that_is_no_constant_keeps_its_node_and_says_so() -> None:
    nodes = [node("Add", ["z", "b"], ["c"]), node("Gemm", ["x", "w", "c"], ["y"], name="head")]
    inputs: dict[str, list[Any]] = {"x": ["N", 16], "z": [24]}
    source = graph(nodes, inputs, {"y": ["N", 24]}, [weight("w", 16, 24), weight("b", 24)])
    _, inserted = quantized(source)

    assert [(each.node, "its bias 'c'" in each.why) for each in inserted.kept] == [("head", True)]
    assert quantized(source, TENSORRT_PROFILE)[1].quantized == ("head",)


@BOTH
def test_a_weight_of_two_products_is_written_once(profile: QuantProfile) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w"], ["y"]),
    ]
    source = product(nodes, [weight("w", 16, 16)], columns=16)
    result, _ = quantized(source, profile)

    assert len(int8_weights(result)) == 1
    assert "w" not in initializers(result)
    assert sqnr_db(source, result) > 25


@BOTH
def test_a_weight_that_is_read_elsewhere_too_stays_there(profile: QuantProfile) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Sub", ["h", "w"], ["y"])]
    source = graph(nodes, {"x": [16, 16]}, {"y": [16, 16]}, [weight("w", 16, 16)])
    result, _ = quantized(source, profile)

    assert "w" in initializers(result)
    assert sqnr_db(source, result) > 30


@BOTH
def test_a_weight_may_come_from_a_constant_through_transpose_and_identity(profile: QuantProfile) -> None:
    constant = node("Constant", [], ["raw"], value=numpy_helper.from_array(initializers_of(24, 16), "raw"))
    nodes = [
        constant,
        node("Identity", ["raw"], ["same"]),
        node("Transpose", ["same"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    source = product(nodes, [])
    result, _ = quantized(source, profile)

    assert {each.op_type for each in result.graph.node} == {"QuantizeLinear", "DequantizeLinear", "MatMul"}
    assert sqnr_db(source, result) > 30


def initializers_of(*shape: int) -> np.ndarray:
    return numpy_helper.to_array(weight("w", *shape))


@BOTH
def test_a_weight_that_a_caller_could_override_is_a_weight(profile: QuantProfile) -> None:
    source = product([node("MatMul", ["x", "w"], ["y"])], [weight("w", 16, 24)])
    source.graph.input.append(value("w", FLOAT, [16, 24]))
    result, inserted = quantized(source, profile)

    assert [each.name for each in result.graph.input] == ["x"]
    assert len(inserted.quantized) == 1


def test_a_constant_on_the_left_is_a_weight_for_tensorrt_by_its_rows() -> None:
    source = graph([node("MatMul", ["w", "x"], ["y"])], {"x": [16, 5]}, {"y": [24, 5]}, [weight("w", 24, 16)])
    result, _ = quantized(source, TENSORRT_PROFILE)

    assert initializers(result)["w__scale"].shape == (24,)
    assert [each.i for n in result.graph.node for each in n.attribute if each.name == "axis"] == [0]
    assert sqnr_db(source, result) > 30
    assert quantized(source)[1].quantized == (), "ONNX Runtime has no kernel for it"


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_its_channels_on_the_second_axis(groups: int) -> None:
    deconv = node("ConvTranspose", ["x", "w", "b"], ["y"], group=groups, strides=[2, 2])
    parts = [weight("w", 32, 32 // groups, 2, 2), weight("b", 32)]
    source = graph([deconv], {"x": [1, 32, 4, 4]}, {"y": [1, 32, 8, 8]}, parts)
    result, _ = quantized(source, TENSORRT_PROFILE)

    assert initializers(result)["w__scale"].shape == (32 // groups,)
    assert sqnr_db(source, result) > 30


def test_a_transposed_convolution_with_an_int32_bias_shares_scales_between_groups() -> None:
    import msgspec

    profile = msgspec.structs.replace(TENSORRT_PROFILE, quantize_bias=True)
    deconv = node("ConvTranspose", ["x", "w", "b"], ["y"], group=2, strides=[2, 2])
    parts = [weight("w", 32, 16, 2, 2), weight("b", 32)]
    source = graph([deconv], {"x": [1, 32, 4, 4]}, {"y": [1, 32, 8, 8]}, parts)
    result, _ = quantized(source, profile)

    assert initializers(result)["b__scale"].shape == (32,)
    assert sqnr_db(source, result) > 30


def test_a_bias_far_above_its_weights_fits_into_int32(tmp_path: Path) -> None:
    tiny = initializers_of(8, 4, 1, 1).copy()
    tiny[3] *= 1e-9
    parts = [numpy_helper.from_array(tiny, "w"), numpy_helper.from_array(np.full(8, 5, np.float32), "b")]
    source = graph([node("Conv", ["x", "w", "b"], ["y"])], {"x": [1, 4, 6, 6]}, {"y": [1, 8, 6, 6]}, parts)
    result, _ = quantized(source)

    assert np.abs(initializers(result)["b__quantized"].astype(np.int64)).max() <= 2**30 * 1.001
    assert run_as(result, tmp_path)["QLinearConv"] == 1
    assert sqnr_db(source, result) > 30


@BOTH
def test_a_convolution_that_only_ever_saw_zeros_still_works(profile: QuantProfile) -> None:
    nodes = [node("Mul", ["x", "nothing"], ["z"]), node("Conv", ["z", "w", "b"], ["y"])]
    parts = [weight("w", 16, 16, 1, 1), weight("b", 16), numpy_helper.from_array(np.float32(0), "nothing")]
    source = graph(nodes, {"x": [1, 16, 6, 6]}, {"y": [1, 16, 6, 6]}, parts)
    result, _ = quantized(source, profile)

    assert sqnr_db(source, result) > 30


def test_biases_take_back_what_rounding_adds_on_average() -> None:
    """The error that is left has no mean, where a network without correction has one in every channel."""
    from convkit.quantize.qdq import insert_qdq
    from quantize.quantized_graphs import Seen, feeds_for

    parts = [weight("w", 32, 16, 3, 3), weight("v", 16, 32, 1, 1)]
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]), node("Conv", ["r", "v"], ["y"])]
    source = graph(nodes, {"x": [4, 16, 16, 16]}, {"y": [4, 16, 14, 14]}, parts)
    found = []
    for corrected in (False, True):
        seen = Seen(source, {"x": np.abs(feeds_for(source)["x"])})
        if not corrected:
            seen.channel_mean = lambda name: None  # type: ignore[method-assign]
        result = onnx.ModelProto()
        result.CopyFrom(source)
        insert_qdq(result, seen, PROFILE)
        assert ("a__bias__quantized" in initializers(result)) == corrected
        found.append(channel_errors(source, result, np.abs(feeds_for(source)["x"])))

    assert np.abs(found[1]).mean() < np.abs(found[0]).mean() / 2


@BOTH
@pytest.mark.parametrize("first", [0, 1], ids=["the product first", "the constant first"])
def test_what_is_added_to_a_matrix_product_takes_back_what_rounding_adds_on_average(
    profile: QuantProfile, first: int
) -> None:
    from convkit.quantize.qdq import insert_qdq
    from quantize.quantized_graphs import Seen, feeds_for

    terms = ["p", "b"] if first == 0 else ["b", "p"]
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Add", terms, ["y"])]
    source = graph(nodes, {"x": [4, 20, 64]}, {"y": [4, 20, 32]}, [weight("w", 64, 32), weight("b", 32)])
    x = np.abs(feeds_for(source)["x"])
    noise = []
    for corrected in (False, True):
        seen = Seen(source, {"x": x})
        if not corrected:
            seen.channel_mean = lambda name: None  # type: ignore[method-assign]
        result = onnx.ModelProto()
        result.CopyFrom(source)
        insert_qdq(result, seen, profile)
        assert ("b" in initializers(result)) != corrected
        noise.append(errors(source, result, x))

    assert np.abs(noise[1].mean(axis=(0, 1))).mean() < np.abs(noise[0].mean(axis=(0, 1))).mean() / 2
    assert noise[1].std() < noise[0].std()


def test_a_constant_that_several_products_add_is_corrected_for_each_alone() -> None:
    products = [node("MatMul", ["x", name], [f"{name}x"]) for name in ("v", "w")]
    sums = [node("Add", [f"{name}x", "b"], [f"{name}y"]) for name in ("v", "w")]
    parts = [weight("v", 64, 32), weight("w", 64, 32, scale=1.0), weight("b", 32)]
    outputs = {"vy": [1, 20, 32], "wy": [1, 20, 32]}
    result, _ = quantized(graph([*products, *sums], {"x": [1, 20, 64]}, outputs, parts))

    read = [each.input[1] for each in result.graph.node if each.op_type == "Add"]
    assert len(set(read)) == 2
    assert "b" not in initializers(result)
    assert np.abs(initializers(result)[read[0]] - initializers(result)[read[1]]).max() > 0


def errors(one: onnx.ModelProto, other: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    runs = []
    for proto in (one, other):
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        runs.append(session.run(None, {"x": x})[0].astype(np.float64))
    difference: np.ndarray = runs[1] - runs[0]
    return difference


def channel_errors(one: onnx.ModelProto, other: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    means: np.ndarray = errors(one, other, x).mean(axis=(0, 2, 3))
    return means


def test_a_model_whose_output_is_a_convolution_keeps_its_name_and_type() -> None:
    source = graph(
        [node("Conv", ["x", "w"], ["y"])], {"x": [1, 4, 4, 4]}, {"y": [1, 4, 4, 4]}, [weight("w", 4, 4, 1, 1)]
    )
    result, _ = quantized(source)

    assert result.graph.output == source.graph.output
    assert pairs(result) == {"x", "y"}


def test_names_that_are_taken_are_not_taken_again() -> None:
    nodes = [node("Identity", ["x"], ["w__quantized"]), node("MatMul", ["w__quantized", "w"], ["y"])]
    source = product(nodes, [weight("w", 16, 24), weight("x__scale", 1)])
    result, _ = quantized(source)

    assert sqnr_db(source, result) > 30


@pytest.mark.parametrize("where", ["w", "b"])
def test_a_weight_that_is_not_finite_is_refused_by_its_name(where: str) -> None:
    parts = {"w": weight("w", 16, 24), "b": weight("b", 24)}
    broken = numpy_helper.to_array(parts[where]).copy()
    broken.flat[0] = np.inf
    parts[where] = numpy_helper.from_array(broken, where)
    source = product([node("Gemm", ["x", "w", "b"], ["y"])], list(parts.values()))

    with pytest.raises(StepError, match=f"'{where}' cannot be quantized"):
        quantize_with_ranges(source)


def quantize_with_ranges(source: onnx.ModelProto) -> None:
    from convkit.quantize.qdq import insert_qdq

    class Ones:
        def range(self, name: str) -> tuple[float, float]:
            return (-1.0, 1.0)

        def channel_mean(self, name: str) -> None:
            return None

        def moment(self, node: str) -> None:
            return None

    insert_qdq(source, Ones(), PROFILE)


def test_double_and_half_precision_stay_as_they_are() -> None:
    half = numpy_helper.from_array(initializers_of(16, 24).astype(np.float16), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    source = graph(nodes, {}, {}, [half])
    for values, name, dims in ((source.graph.input, "x", [2, 16]), (source.graph.output, "y", [2, 24])):
        values.append(value(name, onnx.TensorProto.FLOAT16, dims))
    before = source.SerializeToString()
    quantize_with_ranges(source)

    assert source.SerializeToString() == before
