"""The two targets from a checked model to what is published."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from convkit.errors import MissingError, StepError, UsageError
from convkit.graph.model import Model, save_tensors
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, Warned
from convkit.pipeline.runner import Runner
from convkit.spec.options import CheckOptions, EngineMode, Precision
from convkit.targets import tensorrt, trt_preflight
from convkit.targets.build_plan import read_build_plan, verify_files
from convkit.targets.target import Compiled, Job, Target, open_target, refuse_impossible
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_options import TensorRTOptions
from targets.tensorrt_networks import conv_network, model_of, network

RECORDED = ["samples/0000.npz", "references/0000.npz"]


def compiled(
    target: str, model: Model, folder: Path, options: TensorRTOptions | None = None
) -> tuple[Compiled, list[Event]]:
    happened: list[Event] = []
    recorded = save_tensors([{"x": np.zeros((1, 3, 16, 16), np.float32)}])
    job = Job(
        precision=Precision.NONE,
        engine=EngineMode.AUTO,
        options=options,
        check=CheckOptions(max_error=0.5),
        samples=recorded,
        references=recorded,
    )
    with Runner(Cache(folder), observer=happened.append) as run:
        made = open_target(target).compile(run, model, job)
    return made, happened


def placed(files: Any, folder: Path) -> Path:
    """Write what is to be published into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def test_without_a_gpu_a_plan_is_deferred_with_all_that_its_build_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "gpu", lambda: None)
    model = model_of(conv_network())

    made, _ = compiled("tensorrt", model, tmp_path / "cache", TensorRTOptions(workspace="1GiB"))

    assert (made.engine, set(made.files)) == ("deferred", {"model.onnx", "build.json", *RECORDED})
    assert "parsed the model in TensorRT's place: it takes every node" in made.facts[0]
    folder = placed(made.files, tmp_path / "pending")
    plan = read_build_plan(folder / "build.json")
    verify_files(plan, folder)
    assert (plan.target, plan.interface, plan.options.workspace) == (Flavour.TENSORRT, model.interface, "1GiB")
    assert (list(plan.samples), list(plan.references)) == (RECORDED[:1], RECORDED[1:])
    assert plan.check.max_error == 0.5
    assert plan.profiles[0].shapes["x"].max == (8, 3, 16, 16)


def test_tensorrt_rtx_is_built_with_the_record_of_what_from(tmp_path: Path) -> None:
    made, _ = compiled("tensorrt-rtx", model_of(conv_network()), tmp_path / "cache")

    assert made.engine == "built"
    records = {"model.onnx", "build.json", *RECORDED}
    assert set(made.files) == {"model.engine", "model_ctx.onnx", "README.md", *(f"convkit/{name}" for name in records)}
    assert "for compute capability 8.6, 8.9, 12.0" in made.facts[0]
    folder = placed(made.files, tmp_path / "1")
    assert made.served_bytes == (folder / "model.engine").stat().st_size
    verify_files(read_build_plan(folder / "convkit" / "build.json"), folder / "convkit")


def test_a_model_that_the_stand_in_refuses_is_not_deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "gpu", lambda: None)
    nodes = [helper.make_node("Sorcery", ["x"], ["y"], name="first/spell", domain="house.made")]

    with pytest.raises(StepError, match=r"first/spell \(Sorcery\)"):
        compiled("tensorrt", model_of(network(nodes, {"x": [2, 3]}, {"y": [2, 3]})), tmp_path)


def test_a_model_that_may_want_a_plugin_is_deferred_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "gpu", lambda: None)
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"], name="nonzero"),
        helper.make_node("Cast", ["i"], ["y"], name="cast", to=TensorProto.FLOAT),
    ]

    made, happened = compiled("tensorrt", model_of(network(nodes, {"x": [2, 3]}, {"y": [2, "found"]})), tmp_path)

    assert made.engine == "deferred"
    assert "tensorrt.doubtful" in [event.code for event in happened if isinstance(event, Warned)]


def test_where_no_parser_is_installed_the_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tensorrt, trt_preflight):
        monkeypatch.setattr(module, "installed", lambda _: False)

    made, happened = compiled("tensorrt", model_of(conv_network()), tmp_path)

    assert made.facts[0].startswith("No TensorRT parser has seen the model")
    assert [event.code for event in happened if isinstance(event, Warned)] == ["tensorrt.not-parsed"]


def test_an_engine_to_be_built_now_needs_tensorrt_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    target: Target = open_target("tensorrt")
    target.require(EngineMode.AUTO)
    monkeypatch.setattr(tensorrt, "installed", lambda _: False)
    with pytest.raises(MissingError) as absent:
        target.require(EngineMode.NOW)
    monkeypatch.setattr(tensorrt, "installed", lambda _: True)
    monkeypatch.setattr(tensorrt, "driver_present", lambda: False)
    with pytest.raises(MissingError) as blind:
        target.require(EngineMode.NOW)

    assert (absent.value.code, blind.value.code) == ("tensorrt.not-installed", "tensorrt.no-gpu")


def test_tensorrt_rtx_has_nothing_to_defer() -> None:
    target = open_target("tensorrt-rtx")
    target.require(EngineMode.NOW)

    with pytest.raises(UsageError, match="nothing to defer"):
        target.require(EngineMode.DEFER)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_dynamic_quantization_is_refused_with_what_works_instead(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_impossible(open_target(name), Precision.DYNAMIC)

    assert "--calibration-data" in refused.value.hint
