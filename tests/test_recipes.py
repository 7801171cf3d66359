"""Recipes: those that are shipped, what a recipe may hold, and who wins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from convkit.request import OPTIONS, Request, make_request
from convkit.serving.triton_text import parse
from convkit.spec.options import EngineMode, MeasureMode, Precision, TensorNames
from convkit.targets.build_plan import read_build_plan

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
SAMPLE = ROOT / "sample_models" / "digits_cnn"
CALIBRATION = ("--calibration-data", str(SAMPLE / "calibration.npz"))

VARIABLES = ("SOURCE_MODEL_PATH", "TARGET_MODEL_PATH", "MODEL_NAME", "MODEL_TYPE", "CONVKIT_TARGET", "CONVKIT_TRUST")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: the sample model is exported once."""
    return tmp_path_factory.mktemp("cache")


def convert_sample(recipe: str, folder: Path, cache: Path, *arguments: str) -> dict[str, Any]:
    """Run the real command with a shipped recipe; return its JSON."""
    command = [sys.executable, "-P", "-m", "convkit", "convert", SAMPLE, "--trust", "--recipe", RECIPES / recipe]
    done = subprocess.run(
        [*map(str, command), *arguments, "--output", folder, "--measure", "none", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**{k: v for k, v in os.environ.items() if k not in VARIABLES}, "CONVKIT_CACHE_DIR": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert (result["status"], result["exit_code"], result["error"]) == ("ok", 0, None)
    assert result["verification"]["passed"]
    return result


def held_out_accuracy(model: Path) -> float:
    """Return the share of held-out digits that an ONNX model reads right."""
    with np.load(SAMPLE / "heldout.npz") as data:
        images, labels = data["image"], data["labels"]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images})
    return float((logits.argmax(axis=1) == labels).mean())


def zero_points(model: onnx.ModelProto) -> list[np.ndarray[Any, Any]]:
    """Return the zero points of a graph's quantizers and dequantizers; one that is left out is 0."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return [constants[node.input[2]] for node in pairs if len(node.input) > 2]


def test_every_shipped_recipe_has_its_test() -> None:
    here = Path(__file__)
    texts = [
        here.read_text(encoding="utf-8"),
        (here.parent / "recipes" / "test_shipped.py").read_text(encoding="utf-8"),
    ]
    tested = {name for text in texts for name in re.findall(r"^def test_the_recipe_(\w+)", text, re.MULTILINE)}

    assert {path.stem.replace("-", "_") for path in RECIPES.iterdir()} == tested


def test_the_recipe_cpu_int8(tmp_path: Path, cache: Path) -> None:
    result = convert_sample("cpu-int8.toml", tmp_path, cache, *CALIBRATION)

    published = tmp_path / "digits_cnn" / "1" / "model.onnx"
    model = onnx.load(published)
    assert result["engine"] == "none"
    assert {stage["name"] for stage in result["stages"]} >= {"source", "simplify", "quantize", "check"}
    assert {points.dtype for points in zero_points(model)} >= {np.dtype("uint8"), np.dtype("int8")}
    assert parse((tmp_path / "digits_cnn" / "config.pbtxt").read_text()).backend == "onnxruntime"
    assert held_out_accuracy(published) >= 0.985


def test_the_recipe_tensorrt_fp16(tmp_path: Path, cache: Path) -> None:
    result = convert_sample("tensorrt-fp16.toml", tmp_path, cache)

    pending = tmp_path / "digits_cnn" / "pending" / "1"
    weights = {tensor.data_type for tensor in onnx.load(pending / "model.onnx").graph.initializer if tensor.dims}
    assert result["engine"] == "deferred"
    assert TensorProto.FLOAT16 in weights
    assert TensorProto.FLOAT not in weights
    assert read_build_plan(pending / "build.json").options.builder_optimization_level == 3
    assert held_out_accuracy(pending / "model.onnx") >= 0.99
    assert_awaits_its_engine(tmp_path / "digits_cnn")


def test_the_recipe_tensorrt_int8(tmp_path: Path, cache: Path) -> None:
    result = convert_sample("tensorrt-int8.toml", tmp_path, cache, *CALIBRATION)

    pending = tmp_path / "digits_cnn" / "pending" / "1"
    points = zero_points(onnx.load(pending / "model.onnx"))
    assert result["engine"] == "deferred"
    assert points
    assert all(each.dtype == np.int8 and not each.any() for each in points), (
        "TensorRT takes signed, symmetric pairs only"
    )
    assert read_build_plan(pending / "build.json").precision is Precision.INT8
    assert held_out_accuracy(pending / "model.onnx") >= 0.985
    assert_awaits_its_engine(tmp_path / "digits_cnn")


def assert_awaits_its_engine(model: Path) -> None:
    """Hold a published model against what a deferred engine is: pending, and no version that Triton would load."""
    main = parse((model / "config.pbtxt").read_text())
    assert (main.backend, main.default_model_filename) == ("tensorrt", "model.plan")
    assert parse((model / "configs" / "cpu.pbtxt").read_text()).backend == "onnxruntime"
    assert (model / "pending" / "1" / "manifest.json").is_file()
    assert not (model / "1").exists()


EVERY_OPTION = """
model = "somewhere/model.pth"
to = "tensorrt"
output = "repository"
config = "config.txt"
name = "resnet"
version = 7
replace = true
trust = ["sha256:00"]
engine = "defer"
report_dir = "reports"
locked = "manifest.json"
sign = "key.pem"

[export]
model_def = "net.py:make"
state_key = "ema.module"
signature = "serving_default"
opset = 17
tensor_names = "name"
max_batch_size = 16
samples = "samples.npz"
custom_ops = ["operators.py", "libops.so"]
layout = "nchw"

[quantize]
precision = "int8"
data = "calibration"
method = "entropy"
samples = 32
allow_random = true

[accuracy]
data = "heldout"
labels = "classes"
metric = "metric.py:f1"
max_drop = "1%"
budget_evals = 8

[check]
max_error = 0.5
min_sqnr = 20

[measure]
mode = "full"

[gates]
max_latency = 5
min_speedup = 1.5
max_size = "10MB"
min_low_precision = "90%"

[limits]
memory = "8GB"
time = "30m"

[triton]
release = "26.04"

[onnxruntime]
accelerator = "tensorrt"
"""


def request_of(text: str, folder: Path, *, environment: dict[str, str] | None = None, **arguments: Any) -> Request:
    """Make a request from a recipe's text."""
    recipe = folder / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    return make_request(arguments, recipe=recipe, environment=environment or {})


def value_at(request: Request, dotted: str) -> Any:
    value: Any = request
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def test_every_option_of_convert_can_stand_in_a_recipe(tmp_path: Path) -> None:
    request = request_of(EVERY_OPTION, tmp_path)

    left_alone = [key for key in OPTIONS if value_at(request, key) == value_at(Request(model=""), key)]
    assert left_alone == []
    assert request.export.tensor_names is TensorNames.NAME
    assert request.engine is EngineMode.DEFER
    assert request.measure.mode is MeasureMode.FULL


def test_paths_in_a_recipe_are_seen_from_where_it_lies(tmp_path: Path) -> None:
    request = request_of(EVERY_OPTION, tmp_path)

    assert request.model == str(tmp_path / "somewhere" / "model.pth")
    assert request.quantize.data == str(tmp_path / "calibration")
    assert request.output == str(tmp_path / "repository")
    assert request.accuracy.metric == str(tmp_path / "metric.py:f1")


def test_code_and_metrics_by_name_are_no_paths(tmp_path: Path) -> None:
    recipe = 'model = "m"\n[export]\nsamples = "data.rows:samples"\n[preprocess]\nfunction = "tokens:tokenize"\n'
    request = request_of(recipe + '[accuracy]\ndata = "data.rows:held_out"\nmetric = "agreement"\n', tmp_path)

    assert request.export.samples == "data.rows:samples"
    assert request.preprocess.function == "tokens:tokenize"
    assert (request.accuracy.data, request.accuracy.metric) == ("data.rows:held_out", "agreement")


def test_the_command_line_wins_over_the_environment_and_that_over_the_recipe(tmp_path: Path) -> None:
    recipe = 'model = "m"\nto = "onnxruntime"\n[quantize]\nprecision = "int8"\nsamples = 5\n'
    environment = {"CONVKIT_TARGET": "tensorrt"}

    assert request_of(recipe, tmp_path).to == "onnxruntime"
    assert request_of(recipe, tmp_path, environment=environment).to == "tensorrt"
    both = request_of(recipe, tmp_path, environment=environment, to="tensorrt-rtx", quantize={"precision": "dynamic"})
    assert both.to == "tensorrt-rtx"
    assert (both.quantize.precision, both.quantize.samples) == (Precision.DYNAMIC, 5), "tables merge key by key"
