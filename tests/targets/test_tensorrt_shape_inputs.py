"""Inputs whose values are shapes: found in the graph as the real parser finds them, given values, built."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from e2e.command import Command
from onnx import TensorProto, helper

import convkit
from convkit.errors import UsageError
from convkit.graph.facts import read_facts
from convkit.graph.model import Model, Tensors, save_model, save_tensors
from convkit.graph.shape_inputs import shape_inputs
from convkit.mended import write_profiles
from convkit.pipeline import events
from convkit.pipeline.artifact import use_scratch
from convkit.serving.triton_text import parse
from convkit.spec.tensor import DType, Interface, TensorSpec
from convkit.targets.ort_profiles import provider_options, tuned_for_largest
from convkit.targets.rtx_layout import readme
from convkit.targets.trt_api import Flavour, open_api
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_options import ShapeRange, TensorRTOptions
from convkit.targets.trt_profiles import Profile, profiles_for
from convkit.targets.trt_rules_shapes import shape_findings
from convkit.targets.trt_together import together
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


def assumed_and_together(name: str, *cases: tuple[int, tuple[int, ...]]) -> tuple[Model, Profile, tuple[Profile, ...]]:
    """The profile that is assumed, and those that go with it in the graph, of cases: the rows of `x`, and `s`."""
    model = model_of(NETWORKS[name])
    held = save_tensors([{"x": np.zeros((rows, 6), "f4"), "s": np.array(shape, "i8")} for rows, shape in cases])
    [assumed] = profiles_for(model.interface, ADA, seen=held, shape_inputs=("s",))
    return model, assumed, together(model, (assumed,), seen=held)


def said_of(model: Model, profiles: tuple[Profile, ...]) -> str:
    """What TensorRT-RTX warns of as it builds; without a GPU it looks at the profiles no closer."""
    warnings: list[str] = []

    def heard(event: events.Event) -> None:
        if isinstance(event, events.Warned):
            warnings.append(event.message)

    events.observe(heard)
    try:
        assert build_rtx(model, profiles, ADA).files.bytes > 0
    finally:
        events.observe(events.nobody)
    return "\n".join(warnings)


def points(profile: Profile) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    x, s = profile.shapes["x"], profile.values["s"]
    return [(x.min, s.min), (x.opt, s.opt), (x.max, s.max)]


@pytest.mark.parametrize(
    ("cases", "chosen"),
    [
        ([(2, (3, 4))], [[((2, 6), (3, 4))] * 3]),
        ([(2, (3, 4)), (1, (3, 2)), (4, (3, 8))], [[((1, 6), (3, 2)), ((2, 6), (3, 4)), ((4, 6), (3, 8))]]),
        ([(2, (3, 4)), (2, (12, 1)), (2, (3, 4))], [[((2, 6), (3, 4))] * 3, [((2, 6), (12, 1))] * 3]),
    ],
    ids=["one", "a range", "no range"],
)
@pytest.mark.parametrize("name", ["reshape", "computed"])
def test_sizes_that_do_not_go_with_the_values_are_those_of_the_samples_and_tensorrt_says_so(
    name: str, cases: list[tuple[int, tuple[int, ...]]], chosen: list[Any]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    model, assumed, profiles = assumed_and_together(name, *cases)

    assert [points(profile) for profile in profiles] == chosen
    assert "not self-consistent" in said_of(model, (assumed,))
    assert "not self-consistent" not in said_of(model, profiles)


def test_sizes_that_go_with_any_values_stay_as_they_are_assumed() -> None:
    _, assumed, profiles = assumed_and_together("tile", (2, (3, 4)), (3, (2, 6)))

    assert profiles == (assumed,)


def test_more_samples_than_an_engine_has_profiles_for_are_left_to_the_preflight_which_names_the_node() -> None:
    cases = [(rows, (size, 6 * rows // size)) for rows in (1, 2, 3, 4) for size in (1, 2, 6)]
    model, assumed, profiles = assumed_and_together("reshape", *cases)

    assert profiles == (assumed,)
    [finding] = shape_findings(read_facts(model.path), profiles)
    assert (finding.node, finding.operator) == ("Reshape-y", "Reshape")
    assert "s = [" in finding.reason
    assert "go together" in finding.fix


def test_profiles_of_a_recipe_that_do_not_go_together_are_named_before_anything_is_built(tmp_path: Path) -> None:
    onnx.save(RESHAPED, tmp_path / "shaped.onnx")
    profile = (
        "[[tensorrt.profiles]]\nx = { min = [1, 6], opt = [2, 6], max = [12, 6] }\n"
        "s = { min = [2, 3], opt = [3, 4], max = [6, %d] }\n"
    )
    command = Command(tmp_path)

    def checked(last: int) -> tuple[int, str]:
        (tmp_path / "recipe.toml").write_text('to = "tensorrt"\n' + profile % last, encoding="utf-8")
        done = command("check", tmp_path / "shaped.onnx", "--recipe", tmp_path / "recipe.toml", "--json")
        return done.exit_status, done.stdout

    assert checked(12)[0] == 0
    status, said = checked(11)
    assert status == 5
    assert "it reshapes [12, 6] to [6, 11]" in said


def test_what_an_accelerator_reads_of_values_is_tuned_for_the_largest() -> None:
    x = ShapeRange(min=(1, 6), opt=(2, 6), max=(12, 6))
    with_values = Profile(shapes={"x": x}, values={"s": ValueRange(min=(2, 3), opt=(3, 4), max=(6, 12))})

    assert provider_options(tuned_for_largest((with_values, Profile(shapes={"x": x}))), prefix="trt") == {
        "trt_profile_min_shapes": "x:1x6,s:2x3,x:1x6",
        "trt_profile_opt_shapes": "x:12x6,s:6x12,x:2x6",
        "trt_profile_max_shapes": "x:12x6,s:6x12,x:12x6",
    }


@pytest.mark.parametrize(
    ("shape", "written", "said"),
    [
        ([[3, 4]], {"min": "x:2x6,s:3x4", "opt": "x:2x6,s:3x4", "max": "x:2x6,s:3x4"}, "tensorrt.sample-profiles"),
        (None, {}, "tensorrt.no-profiles"),
    ],
)
def test_an_accelerator_is_told_the_values_where_samples_have_them(
    shape: list[list[int]] | None, written: dict[str, str], said: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    onnx.save(RESHAPED if shape else NETWORKS["slice"], tmp_path / "shaped.onnx")
    np.savez(tmp_path / "samples.npz", x=np.zeros((2, 6), "f4"), s=np.array([3, 4]))

    report = convkit.convert(
        tmp_path / "shaped.onnx",
        output=tmp_path / "models",
        cache=tmp_path / "cache",
        export={"max_batch_size": 0, "samples": tmp_path / "samples.npz" if shape else None},
        measure={"mode": "none"},
        onnxruntime={"accelerator": "tensorrt"},
    )

    config: Any = parse((tmp_path / "models/shaped/config.pbtxt").read_text())
    parameters = config.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters
    found = {key.split("_")[2]: text for key, text in parameters.items() if key.startswith("trt_profile")}
    assert found == written
    assert said in {warning.code for warning in report.warnings}


def test_the_readme_and_the_recipe_of_assumed_shapes_have_the_values(tmp_path: Path) -> None:
    interface = model_of(RESHAPED).interface
    profile = Profile(
        shapes={"x": ShapeRange(min=(1, 6), opt=(2, 6), max=(12, 6))},
        values={"s": ValueRange(min=(2, 3), opt=(3, 4), max=(6, 12))},
    )

    text = readme(
        interface,
        (profile,),
        engine_file="model.engine",
        onnx_file="model.onnx",
        version="1",
        compute_capabilities=("8.9",),
    ).decode()
    write_profiles(tmp_path / "recipe.toml", "tensorrt", (profile,))

    assert "the shapes in `s` from [2, 3] to [6, 12], tuned for [3, 4]" in text
    assert '"nv_profile_max_shapes": "x:12x6,s:6x12"' in text
    [table] = tomllib.loads((tmp_path / "recipe.toml").read_text(encoding="utf-8"))["tensorrt"]["profiles"]
    assert table["s"] == {"min": [2, 3], "opt": [3, 4], "max": [6, 12]}
    [again] = profiles_for(
        interface, TensorRTOptions(profiles=(msgspec.convert(table, dict[str, ShapeRange]),)), shape_inputs=("s",)
    )
    assert again == profile
