"""Convolutions of single points with nothing between become one, and the model computes what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from sources.onnx_files import node

from convkit.graph.model import Model
from convkit.graph.present import interface_of
from convkit.pipeline.artifact import gather
from convkit.quantize.compose import compose
from quantize.quantized_graphs import graph, initializers, sqnr_db, weight


def block(*, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None, **more: Any) -> onnx.ModelProto:
    """A projection from 32 channels to 16 and an expansion to 96, between two activations."""
    size, between = more.get("size", 1), more.get("between", "p")
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Conv", ["r", "v", *(["c"] if more.get("bias", True) else [])], ["p"], name="project", **(first or {})),
        *([node("Relu", ["p"], ["q"])] if between == "q" else []),
        node("Conv", [between, "w", "b"], ["e"], name="expand", **(second or {})),
        node("Relu", ["e"], ["y"]),
    ]
    groups = (second or {}).get("group", 1)
    parts = [weight("v", 16, 32, 1, 1), weight("w", 96, 16 // groups, size, size), weight("b", 96)]
    parts += [weight("c", 16)] if more.get("bias", True) else []
    outputs = {"y": ["N", 96, "h", "w2"], **({"p": ["N", 16, 8, 8]} if more.get("seen") else {})}
    return graph(nodes, {"x": ["N", 32, 8, 8]}, outputs, parts)


def composed(source: onnx.ModelProto, tmp_path: Path) -> tuple[onnx.ModelProto, bool]:
    """The graph afterwards, and whether it is another file than before."""
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(source, folder / "model.onnx")
    model = Model(files=gather(folder), interface=interface_of(source))
    result = compose(model)
    return onnx.load(result.path), result.files.digest != model.files.digest


@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_and_the_expansion_after_it_become_one(bias: bool, tmp_path: Path) -> None:
    source = block(bias=bias)
    result, _ = composed(source, tmp_path)

    assert [each.name for each in result.graph.node if each.op_type == "Conv"] == ["expand"]
    assert {name: array.shape for name, array in initializers(result).items()} == {
        "w__joined": (96, 32, 1, 1),
        "e__bias": (96,),
    }
    assert sqnr_db(source, result) > 100
    onnx.checker.check_model(result, full_check=True)


@pytest.mark.parametrize(
    "source",
    [
        block(between="q"),
        block(seen=True),
        block(size=3),
        block(second={"group": 2}),
        block(first={"strides": [2, 2]}),
        block(second={"pads": [1, 1, 1, 1]}),
        block(second={"auto_pad": "SAME_UPPER"}),
    ],
    ids=["an activation between", "an output between", "3x3", "groups", "strides", "pads", "padded by itself"],
)
def test_what_is_more_than_two_matrices_in_a_row_stays_as_it_is(source: onnx.ModelProto, tmp_path: Path) -> None:
    result, changed = composed(source, tmp_path)

    assert not changed
    assert len([each for each in result.graph.node if each.op_type == "Conv"]) == 2


def test_what_another_node_reads_too_stays(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "v"], ["p"]),
        node("Conv", ["p", "w"], ["e"]),
        node("Conv", ["p", "u"], ["f"]),
        node("Add", ["e", "f"], ["y"]),
    ]
    parts = [weight("v", 16, 32, 1, 1), weight("w", 96, 16, 1, 1), weight("u", 96, 16, 1, 1)]
    _, changed = composed(graph(nodes, {"x": [1, 32, 8, 8]}, {"y": [1, 96, 8, 8]}, parts), tmp_path)

    assert not changed


def test_a_pair_that_would_become_more_work_stays(tmp_path: Path) -> None:
    """A bottleneck of 2 channels between 96 and 96: 384 products for each point, and 9216 as one."""
    nodes = [node("Conv", ["x", "v"], ["p"]), node("Conv", ["p", "w"], ["y"])]
    parts = [weight("v", 2, 96, 1, 1), weight("w", 96, 2, 1, 1)]
    _, changed = composed(graph(nodes, {"x": [1, 96, 8, 8]}, {"y": [1, 96, 8, 8]}, parts), tmp_path)

    assert not changed


def test_three_in_a_row_lose_one(tmp_path: Path) -> None:
    nodes = [node("Conv", [one, w], [other]) for one, w, other in (("x", "u", "a"), ("a", "v", "b"), ("b", "w", "y"))]
    parts = [weight(name, 16, 16, 1, 1) for name in "uvw"]
    source = graph(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, parts)
    result, _ = composed(source, tmp_path)

    assert len(result.graph.node) == 2
    assert sqnr_db(source, result) > 100
