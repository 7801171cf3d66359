"""The recipes that are shipped beyond those of tests/test_recipes.py, each run by the real command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from e2e.command import Command
from onnx import TensorProto

from convkit.serving.triton_text import parse

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
SAMPLE = ROOT / "sample_models" / "digits_cnn"


@pytest.fixture(scope="module")
def convkit(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command, with a cache for the module: the sample model is exported once."""
    return Command(tmp_path_factory.mktemp("cache"))


def encoder(folder: Path) -> Path:
    """Write a transformer's encoder layer for sequences of any length, as an ONNX file; return the file."""
    import torch

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(d_model=64, nhead=4, dim_feedforward=128, batch_first=True).eval()
    path = folder / "encoder.onnx"
    torch.onnx.export(
        layer,
        (torch.randn(2, 6, 64),),
        path,
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},),
        dynamo=True,
        verbose=False,
    )
    return path


def test_the_recipe_cpu_fp32(convkit: Command, tmp_path: Path) -> None:
    outcome = convkit.converted(SAMPLE, "--trust", "--recipe", RECIPES / "cpu-fp32.toml", "-o", tmp_path)

    model = tmp_path / "digits_cnn" / "1" / "model.onnx"
    assert outcome.result["verification"]["passed"]
    assert {weight.data_type for weight in onnx.load(model).graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    with np.load(SAMPLE / "heldout.npz") as data:
        (scores,) = onnxruntime.InferenceSession(model).run(["logits"], {"image": data["image"]})
        assert (scores.argmax(axis=1) == data["labels"]).mean() >= 0.985


def test_the_recipe_cpu_dynamic_transformer(convkit: Command, tmp_path: Path) -> None:
    model = encoder(tmp_path)

    outcome = convkit.converted(model, "--recipe", RECIPES / "cpu-dynamic-transformer.toml", "-o", tmp_path / "models")

    published = onnx.load(tmp_path / "models" / "encoder" / "1" / "model.onnx")
    operators = [node.op_type for node in published.graph.node]
    assert outcome.result["verification"]["passed"]
    assert all(output["sqnr_db"] >= 15 for output in outcome.result["verification"]["outputs"])
    assert operators.count("DynamicQuantizeLinear") >= 3
    assert parse((tmp_path / "models/encoder/config.pbtxt").read_text()).input[0].dims == [-1, 64]


def test_the_recipe_tensorrt_rtx_fp16(convkit: Command, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")

    outcome = convkit.converted(SAMPLE, "--trust", "--recipe", RECIPES / "tensorrt-rtx-fp16.toml", "-o", tmp_path)

    version = tmp_path / "digits_cnn" / "1"
    weights = {w.data_type for w in onnx.load(version / "convkit" / "model.onnx").graph.initializer if w.dims}
    assert outcome.result["engine"] == "built"
    assert (version / "model.engine").stat().st_size > 1000
    assert TensorProto.FLOAT not in weights


def test_the_recipe_dl_inference(convkit: Command, tmp_path: Path) -> None:
    variables = {"SOURCE_MODEL_PATH": str(SAMPLE), "TARGET_MODEL_PATH": str(tmp_path), "MODEL_NAME": "digits"}
    arguments = ("--recipe", str(RECIPES / "dl_inference.toml"), "--trust")

    first = convkit("convert", *arguments, "--json", variables=variables)
    bare = convkit("convert", "--trust", "--json", "--measure", "none", variables=variables)

    assert first.exit_status == 0, first.stderr
    assert (first.result["name"], first.result["version"], first.result["engine"]) == ("digits", 1, "deferred")
    config = parse((tmp_path / "digits" / "config.pbtxt").read_text())
    assert (config.backend, config.version_policy.WhichOneof("policy_choice")) == ("tensorrt", "all")
    assert bare.result["status"] == "unchanged", "the environment alone does the same"


def test_the_recipe_fleet(convkit: Command, tmp_path: Path) -> None:
    outcome = convkit.converted(RECIPES / "fleet.toml", "--trust", "-o", tmp_path)

    names = ["digits_cnn", "digits_cnn_int8", "digits_keras"]
    assert outcome.result["schema"] == "convkit.fleet/1"
    assert [(each["name"], each["status"]) for each in outcome.result["results"]] == [(name, "ok") for name in names]
    assert all((tmp_path / name / "1" / "model.onnx").is_file() for name in names)
    operators = {node.op_type for node in onnx.load(tmp_path / "digits_cnn_int8/1/model.onnx").graph.node}
    assert "QuantizeLinear" in operators
    assert json.loads((tmp_path / "digits_keras/1/convkit/report.json").read_bytes())["status"] == "ok"


def test_the_recipe_cpu_int8_budget(convkit: Command, tmp_path: Path) -> None:
    data = ("--calibration-data", SAMPLE / "calibration.npz", "--eval-data", SAMPLE / "heldout.npz")
    recipe = RECIPES / "cpu-int8-budget.toml"

    outcome = convkit.converted(SAMPLE, "--trust", "--recipe", recipe, *data, "-o", tmp_path)

    assert outcome.result["accuracy"]["max_drop"] == 0.01
    assert outcome.result["accuracy"]["verdict"] == "passed"


def test_the_recipe_openvino_int8(convkit: Command, tmp_path: Path) -> None:
    data = ("--calibration-data", SAMPLE / "calibration.npz")

    convkit.converted(SAMPLE, "--trust", "--recipe", RECIPES / "openvino-int8.toml", *data, "-o", tmp_path)

    assert (tmp_path / "digits_cnn" / "1" / "model.xml").is_file()


def test_the_recipe_auto(convkit: Command, tmp_path: Path) -> None:
    outcome = convkit.converted(SAMPLE, "--trust", "--recipe", RECIPES / "auto.toml", "-o", tmp_path)

    report = json.loads(Path(outcome.result["report"]).read_text(encoding="utf-8"))
    assert report["precision"] == "none"
    assert report["choice"][-1] == "FP32 it is: nothing lower pays."


def test_the_recipe_onnxruntime_tensorrt(convkit: Command, tmp_path: Path) -> None:
    data = ("--calibration-data", SAMPLE / "calibration.npz")

    outcome = convkit.converted(
        SAMPLE, "--trust", "--recipe", RECIPES / "onnxruntime-tensorrt.toml", *data, "-o", tmp_path
    )

    config = parse((tmp_path / "digits_cnn" / "config.pbtxt").read_text())
    [accelerator] = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert outcome.result["engine"] == "none"
    assert (config.backend, accelerator.name) == ("onnxruntime", "tensorrt")
    assert accelerator.parameters["precision_mode"] == "INT8"
    assert accelerator.parameters["trt_timing_cache_path"] == accelerator.parameters["trt_engine_cache_path"]
    assert (tmp_path / "digits_cnn" / "1" / "model.onnx").is_file()
