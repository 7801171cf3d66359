"""The faults of dl_inference, each gone: what it ignored is converted, and what it hid is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from e2e.command import Command, Outcome, hold_to_head
from e2e.digits import CNN
from e2e.networks import (
    LOAD_MODEL,
    SCALE,
    UNREPEATABLE,
    torch_answers,
    write_affine,
    write_config,
    write_scale,
    write_unparsable,
    write_whole_module,
    write_without_counterpart,
)
from e2e.published import answers, files_below, read_config


def write_unrepeatable(folder: Path) -> Path:
    return write_scale(folder, code=UNREPEATABLE + LOAD_MODEL)


@pytest.fixture(scope="module")
def tagger(
    tagger_source: Path, tmp_path_factory: pytest.TempPathFactory, convkit: Command
) -> tuple[Path, Path, Outcome]:
    """The tagger's source, its pending version for TensorRT, and what the command said."""
    repository = tmp_path_factory.mktemp("tagger") / "repository"
    named = {
        "SOURCE_MODEL_PATH": str(tagger_source),
        "TARGET_MODEL_PATH": str(repository),
        "MODEL_NAME": "tagger",
        "MODEL_TYPE": "pytorch",
        "CONVKIT_TRUST": "1",
    }
    outcome = convkit.converted(None, variables=named)
    return tagger_source, repository / "tagger", outcome


def test_every_input_and_output_is_exported_not_the_first_alone(tagger: tuple[Path, Path, Outcome]) -> None:
    _, model, _ = tagger
    config = read_config(model / "config.pbtxt")

    assert [tensor.name for tensor in config.input] == ["ids", "weights"]
    assert [tensor.name for tensor in config.output] == ["tags", "pooled"]
    assert config.max_batch_size == 4


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 7), (5, 130)])
def test_integer_inputs_and_free_dimensions_of_pytorch_give_pytorchs_answers(
    tagger: tuple[Path, Path, Outcome], batch: int, length: int
) -> None:
    source, model, _ = tagger
    generator = np.random.default_rng(batch)
    ids = generator.integers(0, 5, (batch, length))
    weights = generator.standard_normal((batch, length), dtype=np.float32)

    found = answers(model / "pending" / "1" / "model.onnx", {"ids": ids, "weights": weights})

    for value, wanted in zip(found.values(), torch_answers(source, ids, weights), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-5)


def test_the_engines_profile_covers_what_the_configuration_promises(tagger: tuple[Path, Path, Outcome]) -> None:
    _, model, outcome = tagger
    [profile] = read_json(model / "pending" / "1" / "build.json")["profiles"]

    for name in ("ids", "weights"):
        shapes = profile["shapes"][name]
        assert (shapes["min"][0], shapes["max"][0]) == (1, 4), "the batch of the configuration"
        assert shapes["min"][1] == 1
        assert shapes["min"][1] < shapes["opt"][1] < shapes["max"][1]
    assert profile["shapes"]["ids"] == profile["shapes"]["weights"]
    assert "ids" in outcome.warnings["tensorrt.assumed-profile"], "the length's range is assumed, and said to be"


def test_dimensions_in_config_txt_bound_the_profile(tmp_path: Path, repository: Path, convkit: Command) -> None:
    write_config(tmp_path, 0, [("x", "float", [-1, 3])], [("y", "float", [-1, 3])])
    config = read_json(tmp_path / "config.txt")
    config["input"][0].update(min_dims=[2, 3], opt_dims=[16, 3], max_dims=[100, 3])
    (tmp_path / "config.txt").write_text(json.dumps(config), encoding="utf-8")
    source = write_affine(tmp_path / "affine.onnx", scale=2)

    outcome = convkit.converted(source, "--to", "tensorrt", "-o", repository)

    [profile] = read_json(repository / "affine" / "pending" / "1" / "build.json")["profiles"]
    assert profile["shapes"]["x"] == {"min": [2, 3], "opt": [16, 3], "max": [100, 3]}
    assert "tensorrt.assumed-profile" not in outcome.warnings


def test_nothing_is_written_into_the_source_folder(tagger: tuple[Path, Path, Outcome]) -> None:
    source, _, _ = tagger

    assert sorted(path.name for path in source.rglob("*")) == ["config.txt", "model.pth", "model.py"]


def test_the_numbers_were_checked_at_two_sizes_before_anything_was_published(
    tagger: tuple[Path, Path, Outcome],
) -> None:
    _, model, outcome = tagger
    report = read_json(model / "pending" / "1" / "report.json")

    assert outcome.result["verification"]["passed"] is True
    assert [check["passed"] for check in report["checks"]] == [True] * len(report["checks"])
    assert {check["cases"] for check in report["checks"]} == {2}
    assert report["checks"][0]["against"].startswith("torch ")


def test_a_model_whose_onnx_answers_otherwise_is_not_published(
    tmp_path: Path, repository: Path, convkit: Command
) -> None:
    source = write_scale(tmp_path / "source", code=UNREPEATABLE + LOAD_MODEL)

    outcome = convkit.convert(source, "--trust", "-o", repository)

    refused(outcome, 5, "check.outputs-differ", repository)
    assert "'y'" in outcome.result["error"]["message"]
    assert Path(outcome.result["candidate"]).is_file()
    assert outcome.result["verification"]["passed"] is False


def test_what_tf2onnx_cannot_express_ends_the_command_and_names_the_operation(
    tmp_path: Path, repository: Path, convkit: Command
) -> None:
    source = write_without_counterpart(tmp_path / "source")
    before = files_below(source)

    outcome = convkit.convert(source, "-o", repository, "--name", "bessel")

    refused(outcome, 4, "export.unsupported-operator", repository)
    assert "BesselI0" in outcome.result["error"]["message"]
    assert files_below(source) == before


def test_what_tensorrts_parser_refuses_ends_the_command_and_names_the_node(
    tmp_path: Path, repository: Path, convkit: Command
) -> None:
    source = write_unparsable(tmp_path / "determinant.onnx")

    outcome = convkit.convert(source, "--to", "tensorrt", "-o", repository)

    assert outcome.exit_status == 4
    hold_to_head(outcome.result)
    assert "the_determinant" in outcome.result["error"]["message"]
    assert outcome.result["error"]["stage"] == "compile"
    assert not repository.exists()


def test_a_forward_that_fails_on_the_declared_shapes_is_the_inputs_fault(
    tmp_path: Path, repository: Path, convkit: Command
) -> None:
    source = write_scale(tmp_path / "source")
    write_config(source, 0, [("x", "float", [-1, 5])], [("y", "float", [-1, 2])])

    outcome = convkit.convert(source, "--trust", "-o", repository)

    refused(outcome, 3, "source.forward-failed", repository)
    assert "[1, 5]" in outcome.result["error"]["message"]


def test_a_checkpoint_from_a_gpu_is_exported_without_one(tmp_path: Path, repository: Path, convkit: Command) -> None:
    source = write_whole_module(tmp_path / "source")
    assert b"cuda:0" in (source / "model.pth").read_bytes()

    outcome = convkit.converted(source, "--trust", "-o", repository, variables={"CUDA_VISIBLE_DEVICES": "-1"})

    x = np.eye(4, dtype=np.float32)
    write_scale(tmp_path / "on_cpu", code=SCALE + LOAD_MODEL)
    found = answers(Path(outcome.result["model"]) / "1" / "model.onnx", {"x": x})
    np.testing.assert_allclose(found["y"], torch_answers(tmp_path / "on_cpu", x)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("write", "kind", "status", "code"),
    [
        (write_without_counterpart, "tensorflow", 4, "export.unsupported-operator"),
        (write_unrepeatable, "pytorch", 5, "check.outputs-differ"),
    ],
    ids=["tf2onnx fails", "the numbers differ"],
)
def test_with_its_four_variables_too_a_step_that_fails_ends_in_an_exit_status_and_no_model(
    tmp_path: Path, repository: Path, convkit: Command, write: Callable[[Path], Path], kind: str, status: int, code: str
) -> None:
    source = write(tmp_path / "source")
    before = files_below(source)
    named = {
        "SOURCE_MODEL_PATH": str(source),
        "TARGET_MODEL_PATH": str(repository),
        "MODEL_NAME": "model",
        "MODEL_TYPE": kind,
        "CONVKIT_TRUST": "1",
    }

    outcome = convkit.convert(None, variables=named)

    refused(outcome, status, code, repository)
    assert files_below(source) == before


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        (("--quantize", "fp16"), onnx.TensorProto.FLOAT16),
        (("--quantize", "int8", "--calibration-data", CNN.calibration), onnx.TensorProto.INT8),
    ],
    ids=["FP16", "INT8"],
)
def test_its_folders_are_converted_in_lower_precision_too(
    repository: Path, convkit: Command, arguments: tuple[str | Path, ...], stored: int
) -> None:
    named = {
        "SOURCE_MODEL_PATH": str(CNN.folder),
        "TARGET_MODEL_PATH": str(repository),
        "MODEL_NAME": "digits",
        "MODEL_TYPE": "pytorch",
        "CONVKIT_TRUST": "1",
    }

    convkit.converted(None, *arguments, variables=named)

    graph = onnx.load(repository / "digits" / "pending" / "1" / "model.onnx").graph
    weights = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    assert stored in weights
    assert [value.name for value in (*graph.input, *graph.output)] == ["image", "logits"], "what clients send"


def refused(outcome: Outcome, status: int, code: str, repository: Path) -> None:
    """See that a command failed as the contract says, and that nothing was published."""
    assert outcome.exit_status == status, outcome.stderr
    hold_to_head(outcome.result)
    assert outcome.result["exit_code"] == status
    assert outcome.result["error"]["code"] == code
    assert outcome.result["error"]["hint"]
    assert outcome.result["version"] is None
    assert "Traceback" not in outcome.stderr
    assert not repository.exists()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
