"""Inputs whose values are shapes: found in the graph as the real parser finds them, given values, built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from e2e.command import Command
from onnx import TensorProto, helper

from convkit.errors import UsageError
from convkit.graph.model import Model, Tensors, save_model, save_tensors
from convkit.graph.shape_inputs import shape_inputs
from convkit.pipeline.artifact import use_scratch
from convkit.serving.triton_text import parse
from convkit.spec.tensor import DType, Interface, TensorSpec
from convkit.targets.trt_api import Flavour, open_api
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_options import ShapeRange, TensorRTOptions
from convkit.targets.trt_profiles import profiles_for
from convkit.targets.trt_values import ValueRange

ADA = TensorRTOptions(compute_capabilities=("8.9",))


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> None:
    use_scratch(tmp_path / "scratch")


def network(*nodes: Any, size: int = 2, rank: int = 2) -> onnx.ModelProto:
    """Rows of six numbers `x` and a row of integers `s`, which nodes make `y` of."""
    graph = helper.make_graph(
        list(nodes),
        "shaped",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6]),
            helper.make_tensor_value_info("s", TensorProto.INT64, [size]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{axis}" for axis in range(rank)])],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(operator: str, *inputs: str, to: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), [to], name=f"{operator}-{to}", **attributes)


RESHAPED = network(node("Relu", "x", to="r"), node("Reshape", "r", "s"))
NETWORKS = {
    "reshape": RESHAPED,
    "computed": network(node("Mul", "s", "one", to="t"), node("Reshape", "x", "t")),
    "expand": network(node("Expand", "x", "s")),
    "tile": network(node("Tile", "x", "s")),
    "slice": network(node("Slice", "x", "one", "s", "one"), size=1),
    "looked-up": network(node("Gather", "x", "s", axis=0)),
}


def model_of(proto: onnx.ModelProto) -> Model:
    size = proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value
    inputs = (
        TensorSpec(name="x", dtype=DType.FLOAT32, dims=("n", 6)),
        TensorSpec(name="s", dtype=DType.INT64, dims=(size,)),
    )
    outputs = (TensorSpec(name="y", dtype=DType.FLOAT32, dims=("d0", "d1")),)
    return save_model(proto, Interface(inputs=inputs, outputs=outputs))


def seen(*shapes: tuple[int, int]) -> Tensors:
    return save_tensors([{"x": np.zeros((2, 6), "f4"), "s": np.array(shape, "i8")} for shape in shapes])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_input_is_a_shape_where_the_real_parser_says_so(name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = model_of(NETWORKS[name])
    parsed = open_api(Flavour.TENSORRT_RTX).network()
    assert parsed.parser.parse_from_file(str(model.path))

    by_parser = tuple(tensor.name for tensor in parsed.inputs if tensor.is_shape_tensor)  # type: ignore[attr-defined]
    assert shape_inputs(model) == by_parser


def test_its_values_are_those_of_the_samples_and_an_engine_is_built_with_them() -> None:
    pytest.importorskip("tensorrt_rtx")
    model = model_of(NETWORKS["tile"])

    [profile] = profiles_for(model.interface, ADA, seen=seen((3, 4), (2, 6), (4, 3)), shape_inputs=("s",))

    assert profile.values == {"s": ValueRange(min=(2, 3), opt=(3, 4), max=(4, 6))}
    assert profile.shapes == {"x": ShapeRange(min=(1, 6), opt=(2, 6), max=(32, 6))}
    assert build_rtx(model, (profile,), ADA).files.bytes > 0


def test_a_recipe_gives_its_values_where_it_gives_shapes_of_others() -> None:
    pytest.importorskip("tensorrt_rtx")
    rows = ShapeRange(min=(1, 6), opt=(2, 6), max=(12, 6))
    values = ShapeRange(min=(2, 3), opt=(3, 4), max=(6, 12))
    model = model_of(RESHAPED)
    interface = model.interface

    for table in ({"x": rows, "s": values}, {"s": values}):
        [profile] = profiles_for(interface, TensorRTOptions(profiles=(table,)), shape_inputs=("s",))
        assert profile.values == {"s": ValueRange(min=(2, 3), opt=(3, 4), max=(6, 12))}
        assert set(profile.shapes) == {"x"}
    both = TensorRTOptions(profiles=({"x": rows, "s": values},), compute_capabilities=("8.9",))
    assert build_rtx(model, profiles_for(interface, both, shape_inputs=("s",)), both).files.bytes > 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "nothing says which come"),
        ({"s": ShapeRange(min=(1,), opt=(2,), max=(3,))}, "holds a shape of 2 numbers"),
        ({"s": ShapeRange(min=(1, 9), opt=(3, 4), max=(6, 12))}, "min 9, opt 4, max 12"),
    ],
)
def test_values_that_nobody_gives_or_that_cannot_be_are_refused(table: dict[str, ShapeRange], message: str) -> None:
    options = TensorRTOptions(profiles=(table,) if table else ())

    with pytest.raises(UsageError, match=message):
        profiles_for(model_of(RESHAPED).interface, options, shape_inputs=("s",))


def test_a_pending_engine_and_its_configuration_know_what_is_a_shape(tmp_path: Path) -> None:
    onnx.save(RESHAPED, tmp_path / "shaped.onnx")
    np.savez(tmp_path / "samples.npz", x=np.zeros((2, 6), "f4"), s=np.array([3, 4]))
    command = Command(tmp_path)

    command.converted(
        tmp_path / "shaped.onnx", "--to", "tensorrt", "--samples", tmp_path / "samples.npz", "-o", tmp_path / "models",
        "--max-batch-size", "0",
    )  # fmt: skip
    without = command("check", tmp_path / "shaped.onnx", "--to", "tensorrt", "--json")

    [profile] = json.loads((tmp_path / "models/shaped/pending/1/build.json").read_bytes())["profiles"]
    assert profile["values"] == {"s": {"min": [3, 4], "opt": [3, 4], "max": [3, 4]}}
    config = parse((tmp_path / "models/shaped/config.pbtxt").read_text())
    assert {each.name for each in config.input if each.is_shape_tensor} == {"s"}
    assert without.exit_status == 5
    assert "nothing says which come" in without.stdout
