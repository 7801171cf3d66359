"""Sums of few channels stay in floating point from block to block, and what reads them hears less of the rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from sources.onnx_files import node

from convkit.graph.quant_profile import Rewrite
from convkit.targets.onnxruntime_profile import PROFILE
from quantize.quantized_graphs import finished, graph, initializers, rewritten, run_as, sqnr_db, weight

PLAIN = msgspec.structs.replace(
    PROFILE, rewrites=tuple(each for each in PROFILE.rewrites if each is not Rewrite.NARROW_SUMS)
)
LARGE = msgspec.structs.replace(PROFILE, twice_points=1 << 30)
"""No image is so large that it would be read twice."""


def blocks(*, narrow: int = 16, size: int | str = 64, **more: Any) -> onnx.ModelProto:
    """Three inverted residual blocks as in a MobileNetV2, the last two with shortcuts, between two wide layers."""
    nodes, parts = [node("Conv", ["x", "w", "b"], ["c"], name="entry"), node("Relu", ["c"], ["d0"])], []
    parts += [weight("w", 48, 32, 1, 1), weight("b", 48), weight("deep", 48, 1, 3, 3), weight("z", narrow)]
    total = ""
    for number in range(3):
        if number:
            nodes += [
                node("Conv", [total, f"e{number}", "b"], [f"x{number}"], name=f"expand{number}"),
                node("Relu", [f"x{number}"], [f"y{number}"]),
                node("Conv", [f"y{number}", "deep", "b"], [f"f{number}"], group=48, pads=[1] * 4, name=f"deep{number}"),
                node("Relu", [f"f{number}"], [f"d{number}"]),
            ]
            parts.append(weight(f"e{number}", 48, narrow, 1, 1))
        inputs = [f"d{number}", f"p{number}", *(["z"] if more.get("bias", True) else [])]
        nodes.append(node("Conv", inputs, [f"q{number}"], name=f"project{number}"))
        parts.append(weight(f"p{number}", narrow, 48, 1, 1))
        if number:
            nodes.append(node("Add", [total, f"q{number}"], [f"sum{number}"], name=f"sum{number}"))
        total = f"sum{number}" if number else "q0"
    nodes += [node("Conv", [total, "last", "b"], ["l"], name="last"), node("Relu", ["l"], ["out"])]
    parts.append(weight("last", 48, narrow, 1, 1))
    if not more.get("bias", True):
        parts = [each for each in parts if each.name != "z"]
    return graph(nodes, {"x": ["N", 32, size, size]}, {"out": ["N", 48, size, size]}, parts)


def operators(proto: onnx.ModelProto) -> list[str]:
    return [each.op_type for each in proto.graph.node]


@pytest.mark.parametrize("bias", [True, False])
def test_projections_become_products_and_what_reads_the_sums_reads_them_twice(bias: bool) -> None:
    source = blocks(bias=bias)
    result, known = rewritten(source)
    found = {each.name: each.op_type for each in result.graph.node}

    assert [found[f"project{number}"] for number in range(3)] == ["Gemm"] * 3
    assert [found[name] for name in ("expand1", "expand2", "last", "deep1", "entry")] == ["Conv"] * 5
    assert operators(result).count("Concat") == len(known.tied) == 3
    assert initializers(result)["last__twice"].shape == (48, 32, 1, 1)
    assert known.range("sum2__twice") == known.range("sum2__higher") == known.range("sum2")
    assert len(known.channel_mean("sum2__twice")) == 32  # type: ignore[arg-type]


def test_sums_stay_in_floating_point_and_everything_else_in_int8(tmp_path: Path) -> None:
    source = blocks()
    ran = run_as(finished(source), tmp_path)

    assert ran["QGemm"] == 3
    assert ran["QLinearConv"] == 6
    assert ran["QLinearConcat"] == 3
    assert ran["Add"] == 2 + 3  # the sums, and each of them half a step higher
    assert ran["QuantizeLinear"] == 1 + 2 * 3
    assert not ran["QLinearAdd"] + ran["Gemm"] + ran["Conv"] + ran["Concat"]


def test_each_of_the_two_leaves_less_noise() -> None:
    source = blocks()
    plain, once, twice = (sqnr_db(source, finished(source, profile)) for profile in (PLAIN, LARGE, PROFILE))

    assert plain + 0.5 < once
    assert once + 0.5 < twice


def test_the_weights_of_the_second_reading_take_what_rounding_the_first_leaves() -> None:
    source = blocks()
    result = initializers(finished(source))
    whole = result["last__twice__quantized"].astype(np.float64)
    scale = result["last__twice__scale"].astype(np.float64)
    both = (whole[:, :16] + whole[:, 16:]) * scale[:, None, None, None]
    wanted = initializers(source)["last"]

    assert np.abs(both - wanted).max() <= 0.51 * scale.max()
    assert (whole[:, :16] != whole[:, 16:]).mean() > 0.3


def test_an_image_that_is_not_large_is_read_once() -> None:
    result, known = rewritten(blocks(), LARGE)

    assert operators(result).count("Gemm") == 3
    assert not known.tied


@pytest.mark.parametrize(
    "source", [blocks(narrow=48), blocks(size=48), blocks(size="height")], ids=["wide", "small", "of unknown size"]
)
def test_other_sums_stay_as_they_are(source: onnx.ModelProto) -> None:
    result, known = rewritten(source)

    assert operators(result) == operators(source)
    assert not known.tied


def test_what_is_kept_stays_as_it_is() -> None:
    result, _ = rewritten(blocks(), keep=frozenset({"project1", "last"}))
    found = {each.name: each.op_type for each in result.graph.node}

    assert found["project1"] == "Conv"
    assert found["project0"] == found["project2"] == "Gemm"
    assert operators(result).count("Concat") == 2
    assert initializers(result)["last"].shape == (48, 16, 1, 1)


def test_a_projection_that_no_sum_follows_stays_a_convolution() -> None:
    nodes = [node("Conv", ["x", "w"], ["p"], name="project"), node("Relu", ["p"], ["r"])]
    nodes.append(node("Conv", ["r", "v"], ["y"], name="expand"))
    parts = [weight("w", 16, 32, 1, 1), weight("v", 32, 16, 1, 1)]
    result, _ = rewritten(graph(nodes, {"x": [1, 32, 64, 64]}, {"y": [1, 32, 64, 64]}, parts))

    assert operators(result) == ["Conv", "Relu", "Conv"]
