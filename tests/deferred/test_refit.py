"""Retrained weights on an unchanged graph: the plan is refitted, always checked, and built where that fails.

The stand-in for TensorRT refits its engines by taking the new ONNX model for its answers (`tensorrt_stand_in`);
TensorRT-RTX builds them for real, with REFIT_INDIVIDUAL: with REFIT it wants a driver.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from e2e.command import Outcome
from serving.publications import scaled

from convkit.graph.model import Model, save_model
from convkit.graph.structure import structure_of
from convkit.spec.tensor import DType, Interface, TensorSpec
from deferred.conftest import Prepare
from deferred.machines import L4, NEXT, Container, Machine
from deferred.test_deferred import built

On = Callable[[Machine], Container]
REFIT = ("--set", "tensorrt.refit=true")


@pytest.fixture(scope="module")
def trained(converter: Prepare, workplace: Path, on: On) -> Path:
    """A repository with one built version, whose plan takes other weights, and one of other weights still pending."""
    repository = converter(workplace / "trained", 2.0, asked=REFIT)
    built(on(L4), repository)
    return converter(repository, 3.0, asked=REFIT)


@pytest.fixture
def repository(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "models"))


def made(version: Path) -> tuple[set[str], bool]:
    """Which steps of a build ran for a version, and whether its plan is a refitted one."""
    report = json.loads((version / "convkit" / "report.json").read_bytes())
    titles = {stage["title"] for stage in report["stages"]} & {"Build the TensorRT engine", "Refit the TensorRT engine"}
    [engine] = json.loads((version / "convkit" / "engines.json").read_bytes())["engines"]
    return titles, engine["refitted"]


def test_retrained_weights_refit_the_plan_of_the_version_before(repository: Path, on: On) -> None:
    [result] = built(on(L4), repository)

    assert (result["version"], result["verification"]["passed"]) == (2, True)
    assert made(repository / "scaled" / "2") == ({"Refit the TensorRT engine"}, True)
    text = (repository / "scaled" / "2" / "convkit" / "report.md").read_text(encoding="utf-8")
    assert "refitted with these weights" in text
    inside = json.loads((repository / "scaled" / "2" / "convkit" / "report.json").read_bytes())["inside"]
    assert (inside["told_by"], [layer["name"] for layer in inside["layers"]]) == ("the engine inspector", ["y"])
    assert on(L4).command("check", repository, "--json").exit_status == 0


@pytest.mark.parametrize("fault", ["refit", "refused"])
def test_a_refit_that_answers_wrong_or_is_refused_falls_back_to_a_build(
    repository: Path, workplace: Path, fault: str
) -> None:
    container = Container(L4, workplace, f"fault-{fault}")

    outcome = container.command("build", repository, "--json", variables={"STAND_IN_WRONG": fault})

    assert outcome.exit_status == 0
    assert "built anew" in outcome.stderr
    titles, refitted = made(repository / "scaled" / "2")
    assert "Build the TensorRT engine" in titles
    assert not refitted


def test_another_tensorrt_builds(repository: Path, on: On) -> None:
    built(on(NEXT), repository)

    assert made(repository / "scaled" / "2") == ({"Build the TensorRT engine"}, False)


def test_another_graph_builds(trained: Path, converter: Prepare, on: On, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(trained, tmp_path / "models"))
    shutil.rmtree(repository / "scaled" / "pending")
    converter(repository, 3.0, width=4, asked=(*REFIT, "--replace"))

    built(on(L4), repository)

    assert made(repository / "scaled" / "2") == ({"Build the TensorRT engine"}, False)


@pytest.mark.parametrize("fault", ["", "refit", "refused"])
def test_a_conversion_where_the_gpu_is_refits_as_a_build_does_and_builds_where_that_fails(
    fault: str, workplace: Path, tmp_path: Path
) -> None:
    container = Container(L4, workplace, f"convert-{fault or 'well'}")
    repository = tmp_path / "models"

    def convert(factor: float) -> Outcome:
        onnx.save(scaled(factor), tmp_path / "scaled.onnx")
        asked = ("-o", repository, "--to", "tensorrt", *REFIT)
        return container.command.converted(tmp_path / "scaled.onnx", *asked, variables={"STAND_IN_WRONG": fault})

    first, retrained = convert(2.0), convert(3.0)

    assert (first.result["version"], retrained.result["version"]) == (1, 2)
    assert retrained.result["verification"]["passed"]
    titles, refitted = made(repository / "scaled" / "2")
    assert refitted is not bool(fault)
    assert ("Build the TensorRT engine" in titles) is bool(fault)
    assert [w["code"] for w in retrained.result["warnings"]].count("build.refit") == bool(fault)
    text = (repository / "scaled" / "2" / "convkit" / "report.md").read_text(encoding="utf-8")
    assert ("refitted with these weights" in text) is not bool(fault)
    assert container.command("check", repository, "--json").exit_status == 0


def test_a_damaged_version_before_is_told_of_and_refits_nothing(workplace: Path, tmp_path: Path) -> None:
    container = Container(L4, workplace, "convert-damaged")
    asked = ("-o", tmp_path / "models", "--to", "tensorrt", *REFIT)
    for factor in (2.0, 3.0):
        onnx.save(scaled(factor), tmp_path / "scaled.onnx")
        outcome = container.command.converted(tmp_path / "scaled.onnx", *asked)
        plan = tmp_path / "models" / "scaled" / "1" / "convkit" / "build.json"
        plan.write_text("{}", encoding="utf-8")

    assert made(tmp_path / "models" / "scaled" / "2") == ({"Build the TensorRT engine"}, False)
    assert any("build.json" in w["message"] and w["code"] == "build.refit" for w in outcome.result["warnings"])


def model_of(proto: onnx.ModelProto) -> Model:
    x, y = (TensorSpec(name=name, dtype=DType.FLOAT32, dims=("batch", 3)) for name in "xy")
    return save_model(proto, Interface(inputs=(x,), outputs=(y,)))


def changed(change: Callable[[Any], object]) -> Model:
    proto = scaled(2.0)
    change(proto.graph)
    return model_of(proto)


def test_weights_are_no_structure_and_everything_else_is() -> None:
    structure = structure_of(model_of(scaled(2.0)))

    assert structure_of(model_of(scaled(3.0))) == structure
    assert structure_of(changed(lambda graph: graph.node[0].ClearField("doc_string"))) == structure
    integers = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    for change in (
        lambda graph: setattr(graph.node[0], "op_type", "Add"),
        lambda graph: setattr(graph.initializer[0], "name", "other"),
        lambda graph: graph.initializer.append(integers),
    ):
        assert structure_of(changed(change)) != structure


def test_the_scale_of_a_quantizer_is_structure() -> None:
    def quantized(factor: float) -> Model:
        proto = scaled(factor)
        proto.graph.node[0].CopyFrom(onnx.helper.make_node("DequantizeLinear", ["x", "scale"], ["y"]))
        return model_of(proto)

    assert structure_of(quantized(2.0)) != structure_of(quantized(3.0))
