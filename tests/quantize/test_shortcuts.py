"""A branch and a shortcut with weights of its own become one convolution, of which nothing is rounded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from sources.onnx_files import node

from convkit.graph.model import load_model, save_model
from convkit.graph.present import interface_of
from convkit.graph.quant_profile import Rewrite
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.static import quantize_static
from convkit.spec.options import CalibrationMethod
from convkit.targets.onnxruntime_profile import PROFILE
from quantize.quantized_graphs import finished, graph, initializers, reads, rewritten, run_as, scale_of, sqnr_db, weight

PLAIN = msgspec.structs.replace(
    PROFILE, rewrites=tuple(each for each in PROFILE.rewrites if each is not Rewrite.JOINED_SHORTCUTS)
)


def block(*, stride: int = 1, bias: bool = True, low: bool = True, **more: Any) -> onnx.ModelProto:
    """The first block of a stage of a residual network, with a convolution before it and one behind it.

    `low`: its input comes in INT8, else from a pool behind a convolution of the image.
    """
    strides = {"strides": [stride] * 2} if stride > 1 else {}
    entry = [node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1] * 4, name="first"), node("Relu", ["c0"], ["s"])]
    if not low:
        entry[1] = node("Relu", ["c0"], ["r0"])
        entry.append(node("MaxPool", ["r0"], ["s"], kernel_shape=[3, 3], pads=[1] * 4))
    nodes = [
        *entry,
        node("Conv", ["s", "w1", "b1"], ["c1"], name="narrow"),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b1"], ["c2"], pads=[1] * 4, name="middle", **strides),
        *([node("Relu", ["c2"], ["a"])] if not more.get("linear") else [node("Tanh", ["c2"], ["a"])]),
        node("Conv", ["a", "w3", *(["b3"] if bias else [])], ["c3"], name="branch"),
        node("Conv", ["s", "w4", *(["b3"] if bias else [])], ["c4"], name="shortcut", **strides),
        node("Add", ["c3", "c4"] if not more.get("turned") else ["c4", "c3"], ["sum"], name="sum"),
        node("Relu", ["sum"], ["t"]),
        node("Conv", ["t", "w5", "b1"], ["y"], name="last"),
    ]
    channels = 32 if low else 3
    parts = [weight("w0", 32, channels, 3, 3), weight("b0", 32), weight("b1", 16), weight("w1", 16, 32, 1, 1)]
    parts += [weight("w2", 16, 16, 3, 3), weight("w3", 64, 16, 1, 1), weight("w4", 64, 32, 1, 1)]
    parts += [weight("w5", 16, 64, 1, 1), *([weight("b3", 64)] if bias else [])]
    size = 8 // stride
    outputs = {"y": [1, 16, size, size], **({"c4": [1, 64, size, size]} if more.get("seen") else {})}
    return graph(nodes, {"x": [1, channels, 8, 8]}, outputs, parts)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_shortcut_and_its_branch_become_one(stride: int, bias: bool, turned: bool) -> None:
    source = block(stride=stride, bias=bias, turned=turned)
    result, known = rewritten(source)
    [concat] = [each for each in result.graph.node if each.op_type == "Concat"]

    assert [each.name for each in result.graph.node if each.op_type == "Conv"] == [
        *("first", "narrow", "middle", "branch", "last")
    ]
    assert initializers(result)["w3__joined"].shape == (64, 48, 1, 1)
    assert not {"w3", "w4"} & initializers(result).keys()
    assert known.tied == {concat.name}
    assert known.merged == ["shortcut"]
    assert {known.range(name) for name in (*concat.input, *concat.output)} == {known.range("s")}
    assert len(known.channel_mean(concat.output[0])) == 48  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_is_requantized_for_the_joining(stride: int, tmp_path: Path) -> None:
    source = block(stride=stride)
    result, plain = finished(source), finished(source, PLAIN)
    ran = run_as(result, tmp_path)

    assert ran["QLinearConv"] == 5
    assert ran["QLinearConcat"] == 1
    assert ran["QuantizeLinear"] == ran["DequantizeLinear"] == 1  # the way in, and out
    assert not ran["QLinearAdd"] + ran["Concat"] + ran["Conv"]
    assert scale_of(result, "a__scaled") == scale_of(result, "s") == scale_of(result, "sum__both")
    assert sqnr_db(source, result) > sqnr_db(source, plain)


def test_behind_a_convolution_of_the_image_it_is_joined_in_int8_too(tmp_path: Path) -> None:
    source = block(low=False)
    result = finished(source)
    ran = run_as(result, tmp_path)

    assert ran["QLinearConv"] == 4
    assert ran["Conv"] == ran["QLinearConcat"] == ran["QuantizeLinear"] == ran["DequantizeLinear"] == 1
    assert not ran["Concat"] + ran["Relu"]
    assert sqnr_db(source, result) > 30


@pytest.mark.parametrize("kept", ["branch", "shortcut", "sum"])
def test_what_is_kept_is_not_joined(kept: str) -> None:
    result, known = rewritten(block(), keep=frozenset({kept}))

    assert known.merged == []
    assert [each.op_type for each in result.graph.node] == [each.op_type for each in block().graph.node]


@pytest.mark.parametrize(
    "source",
    [block(linear=True), block(seen=True)],
    ids=["an activation that lets no factor through", "a shortcut that the caller sees"],
)
def test_other_sums_stay(source: onnx.ModelProto) -> None:
    result, known = rewritten(source)

    assert known.merged == []
    assert "Add" in {each.op_type for each in result.graph.node}


def test_what_is_stretched_over_the_other_is_not_joined() -> None:
    """The gate of one point for an image, added to each of its points."""
    nodes = [
        node("Conv", ["x", "w0"], ["c0"]),
        node("Relu", ["c0"], ["a"]),
        node("GlobalAveragePool", ["a2"], ["g"]),
        node("Conv", ["a", "w3"], ["c3"]),
        node("Conv", ["g", "w4"], ["c4"]),
        node("Add", ["c3", "c4"], ["y"]),
    ]
    nodes = [*nodes[:2], node("Conv", ["x", "w1"], ["c1"]), node("Relu", ["c1"], ["a2"]), *nodes[2:]]
    parts = [weight(name, 16, 16, 1, 1) for name in ("w0", "w1", "w3", "w4")]
    _, known = rewritten(graph(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, parts))

    assert known.merged == []


def test_a_sum_that_is_below_zero_on_one_side_is_not_joined() -> None:
    """Both would need a zero point of their own."""
    source = block()
    source.graph.node[1].op_type = "Tanh"
    _, known = rewritten(source)

    assert known.merged == []


def test_a_joined_shortcut_is_named_among_what_is_quantized_and_can_be_given_back() -> None:
    source = block()
    model = save_model(source, interface_of(source))
    ranges = collect_ranges(model, data=None, samples=4)
    options = {"ranges": ranges, "profile": PROFILE, "method": CalibrationMethod.MINMAX}
    joined = quantize_static(model, **options)
    given_back = quantize_static(model, keep=("shortcut",), **options)

    assert set(joined.nodes) == {"first", "narrow", "middle", "branch", "shortcut", "last"}
    assert set(given_back.nodes) == set(joined.nodes) - {"shortcut"}
    assert given_back.kept == ("shortcut",)
    assert reads(load_model(given_back.model), "shortcut")[1] == "w4"
