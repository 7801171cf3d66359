"""Narrow tensors are held twice in INT8, half a step apart, and what reads them hears less of the rounding."""

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
from quantize.quantized_graphs import answers, finished, graph, initializers, rewritten, run_as, sqnr_db, weight

PLAIN = msgspec.structs.replace(
    PROFILE, rewrites=tuple(each for each in PROFILE.rewrites if each is not Rewrite.NARROW_SUMS)
)


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
def test_what_runs_through_the_blocks_is_held_twice_by_as_many_operators(bias: bool) -> None:
    source = blocks(bias=bias)
    result, known = rewritten(source)
    found = initializers(result)

    assert operators(result) == operators(source)
    assert [found[f"p{number}__twice"].shape for number in range(3)] == [(32, 48, 1, 1)] * 3
    assert [found[f"{name}__twice"].shape for name in ("e1", "e2", "last")] == [(48, 32, 1, 1)] * 3
    assert known.range("sum2__twice") == known.range("sum2")
    assert len(known.channel_mean("sum2__twice")) == 32  # type: ignore[arg-type]


def test_everything_stays_in_int8(tmp_path: Path) -> None:
    ran = run_as(finished(blocks()), tmp_path)

    assert ran["QLinearConv"] == 9
    assert ran["QLinearAdd"] == 2
    assert ran["QuantizeLinear"] == ran["DequantizeLinear"] == 1
    assert not ran["Add"] + ran["Conv"] + ran["Concat"]


def test_it_leaves_less_noise() -> None:
    source = blocks()
    plain, twice = (sqnr_db(source, finished(source, profile)) for profile in (PLAIN, PROFILE))

    assert plain + 1 < twice


def test_the_second_half_is_half_a_step_higher_and_a_sum_of_both_higher_by_both() -> None:
    source = blocks()
    result, known = rewritten(source)
    result.graph.output.extend(onnx.ValueInfoProto(name=f"{name}__twice") for name in ("q0", "q1", "sum1"))
    held = dict(zip((each.name for each in result.graph.output), answers(result), strict=True))
    higher = {name: (known.scale(name) or 0.0) / 2 for name in ("q0", "q1")}
    higher["sum1"] = sum(higher.values())

    for name, wanted in higher.items():
        both = held[f"{name}__twice"]
        np.testing.assert_allclose(both[:, 16:] - both[:, :16], wanted, rtol=1e-3)


def test_the_weights_of_the_second_half_take_what_rounding_the_first_leaves() -> None:
    source = blocks()
    result = initializers(finished(source))
    whole = result["last__twice__quantized"].astype(np.float64)
    scale = result["last__twice__scale"].astype(np.float64)
    both = (whole[:, :16] + whole[:, 16:]) * scale[:, None, None, None]
    wanted = initializers(source)["last"]

    assert np.abs(both - wanted).max() <= 0.51 * scale.max()
    assert (whole[:, :16] != whole[:, 16:]).mean() > 0.3


@pytest.mark.parametrize(
    "source", [blocks(narrow=48), blocks(size=48), blocks(size="height")], ids=["wide", "small", "of unknown size"]
)
def test_other_tensors_stay_as_they_are(source: onnx.ModelProto) -> None:
    result, _ = rewritten(source)

    assert initializers(result).keys() == initializers(source).keys()


@pytest.mark.parametrize("name", ["project1", "expand2", "last"])
def test_what_is_kept_stays_as_it_is_and_so_does_what_it_reads_and_writes(name: str) -> None:
    result, _ = rewritten(blocks(), keep=frozenset({name}))
    nodes = {each.name: each for each in result.graph.node}
    [before] = [each for each in blocks().graph.node if each.name == name]

    assert nodes[name] == before
    assert not [each for each in nodes["sum2"].input if each.endswith("__twice")]


def test_what_something_else_reads_is_held_once() -> None:
    source = blocks()
    source.graph.node.append(node("Relu", ["sum2"], ["also"], name="also"))
    source.graph.output.append(onnx.helper.make_tensor_value_info("also", 1, ["N", 16, 64, 64]))
    result, _ = rewritten(source)

    assert initializers(result)["last"].shape == (48, 16, 1, 1)
    assert "p0__twice" not in initializers(result)


def test_a_projection_that_a_relu_follows_stays_as_it_is() -> None:
    nodes = [node("Conv", ["x", "w"], ["p"], name="project"), node("Relu", ["p"], ["r"])]
    nodes.append(node("Conv", ["r", "v"], ["y"], name="expand"))
    parts = [weight("w", 16, 32, 1, 1), weight("v", 32, 16, 1, 1)]
    source = graph(nodes, {"x": [1, 32, 64, 64]}, {"y": [1, 32, 64, 64]}, parts)
    result, _ = rewritten(source)

    assert initializers(result).keys() == initializers(source).keys()
