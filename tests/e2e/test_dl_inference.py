"""dl_inference's users: four environment variables, its folder layout, and its README's example."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from models.tf1_saved_model import INPUT, OUTPUT

from e2e.command import Command, hold_to_head
from e2e.networks import torch_answers, write_scale, write_whole_module
from e2e.published import Array, answers, files_below, hold_config_to_model, read_config

IMAGES = np.random.default_rng(7).standard_normal((5, 16, 16, 3), dtype=np.float32)


class Tf1(NamedTuple):
    """The model of dl_inference's README, and what TensorFlow 1's session says to `IMAGES`."""

    folder: Path
    probs: Array


@pytest.fixture(scope="module")
def tf1(tf1_source: Path) -> Tf1:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.saved_model.load(session, ["serve"], str(tf1_source))
        return Tf1(tf1_source, session.run(OUTPUT, {INPUT: IMAGES}))


def variables(source: Path, target: Path, name: str, kind: str, **more: str) -> dict[str, str]:
    return {
        "SOURCE_MODEL_PATH": str(source),
        "TARGET_MODEL_PATH": str(target),
        "MODEL_NAME": name,
        "MODEL_TYPE": kind,
        **more,
    }


def test_the_readmes_example_needs_the_four_variables_and_no_argument(
    tf1: Tf1, repository: Path, convkit: Command
) -> None:
    before = files_below(tf1.folder)

    outcome = convkit("convert", variables=variables(tf1.folder, repository, "resnet", "tensorflow"))

    assert outcome.exit_status == 0, outcome.stderr
    assert files_below(tf1.folder) == before
    pending = repository / "resnet" / "pending" / "1"
    assert {"model.onnx", "build.json", "manifest.json"} <= set(files_below(pending))
    assert not (repository / "resnet" / "1").exists()
    config = read_config(repository / "resnet" / "config.pbtxt")
    hold_config_to_model(config, pending / "model.onnx")
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [(INPUT, [-1, 16, 16, 3])]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [(OUTPUT, [-1, 19])]
    assert config.max_batch_size == 0
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert [group.kind for group in config.instance_group] == [config.instance_group[0].KIND_GPU]
    assert config.backend == "tensorrt"
    assert config.default_model_filename == "model.plan"
    probs = answers(pending / "model.onnx", {INPUT: IMAGES})[OUTPUT]
    np.testing.assert_allclose(probs, tf1.probs, atol=1e-5)
    assert_measured(pending / "report.json")
    assert "resnet" in outcome.stdout


def assert_measured(path: Path) -> None:
    """See that TensorFlow and the FP32 graph were timed in alternation, with intervals, and the engine was not."""
    report = json.loads(path.read_text(encoding="utf-8"))
    latencies = {subject["role"]: subject["latency"] for subject in report["subjects"]}
    for role in ("source", "baseline"):
        latency = latencies[role]
        assert 0 < latency["low_ms"] <= latency["p50_ms"] <= latency["high_ms"]
        assert latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
        assert latency["rounds"] > 1
    assert "measure" in [stage["name"] for stage in report["stages"]]
    [final] = [subject for subject in report["subjects"] if subject["role"] == "final"]
    assert final["emulated"] is True


def test_source_and_target_may_be_the_same_folder(tf1: Tf1, tmp_path: Path, convkit: Command) -> None:
    folder = tmp_path / "both"
    shutil.copytree(tf1.folder, folder)
    before = files_below(folder)
    named = variables(folder, folder, "resnet", "tensorflow")

    first = convkit.converted(None, variables=named)

    after = files_below(folder)
    assert {name: digest for name, digest in after.items() if not name.startswith("resnet/")} == before
    assert sorted(path.name for path in folder.iterdir()) == ["config.txt", "resnet", "saved_model.pb", "variables"]
    assert "resnet/pending/1/model.onnx" in after
    assert any("variables" in message for message in first.warnings.values()), "Triton takes 'variables' for a model"
    again = convkit.converted(None, variables=named)
    assert again.result["status"] == "unchanged"
    assert files_below(folder) == after


@pytest.mark.parametrize(("kind", "status"), [("pytorch", 3), ("onnx", 3), ("caffe", 2)])
def test_a_model_type_that_is_not_the_files_is_refused(
    tf1: Tf1, repository: Path, convkit: Command, kind: str, status: int
) -> None:
    outcome = convkit.convert(None, variables=variables(tf1.folder, repository, "resnet", kind))

    assert outcome.exit_status == status
    hold_to_head(outcome.result)
    assert outcome.result["status"] == "failed"
    assert outcome.result["exit_code"] == status
    assert kind in outcome.result["error"]["message"]
    assert not repository.exists()


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_other_weights_replace_version_1(tmp_path: Path, repository: Path, convkit: Command, target: str) -> None:
    folder = tmp_path / "source"
    named = variables(folder, repository, "scale", "pytorch", CONVKIT_TRUST="1", CONVKIT_TARGET=target)
    x = np.eye(4, dtype=np.float32)
    version = repository / "scale" / ("pending/1" if target == "tensorrt" else "1")
    found = []

    for seed in (1, 2):
        write_scale(folder, seed=seed)
        outcome = convkit.converted(None, variables=named)
        assert (outcome.result["status"], outcome.result["version"]) == ("ok", 1)
        found.append(answers(version / "model.onnx", {"x": x})["y"])
        np.testing.assert_allclose(found[-1], torch_answers(folder, x)[0], atol=1e-5)

    assert not np.allclose(*found)
    assert [path.name for path in version.parent.iterdir() if path.name.isdigit()] == ["1"]
    assert read_config(repository / "scale" / "config.pbtxt").version_policy.WhichOneof("policy_choice") == "all"


def test_a_module_saved_whole_is_converted_with_the_names_of_model_py(
    tmp_path: Path, repository: Path, convkit: Command
) -> None:
    folder = write_whole_module(tmp_path / "source")
    before = files_below(folder)
    named = variables(folder, repository, "whole", "pytorch", CONVKIT_TARGET="onnxruntime")

    refused = convkit.convert(None, variables=named)

    assert refused.exit_status == 3
    assert "__main__.Scale" in refused.result["error"]["message"]
    assert "--trust" in refused.result["error"]["hint"]
    assert not repository.exists()

    converted = convkit.converted(None, variables={**named, "CONVKIT_TRUST": "1"})

    assert converted.result["verification"]["passed"] is True
    assert onnx.load(repository / "whole" / "1" / "model.onnx").graph.input[0].name == "x"
    assert files_below(folder) == before


def test_an_argument_beats_the_environment(tf1: Tf1, repository: Path, convkit: Command) -> None:
    named = variables(tf1.folder, repository, "resnet", "tensorflow", CONVKIT_TARGET="tensorrt")

    outcome = convkit.converted(None, "--name", "other", "--to", "onnxruntime", "--version", "3", variables=named)

    assert outcome.result["model"] == str(repository / "other")
    assert outcome.result["version"] == 3
    assert [path.name for path in repository.iterdir()] == ["other"]
    assert (repository / "other" / "3" / "model.onnx").is_file()


def test_a_model_named_by_argument_is_no_affair_of_dl_inferences_variables(
    tf1: Tf1, tmp_path: Path, repository: Path, convkit: Command
) -> None:
    named = variables(tmp_path / "absent", tmp_path / "elsewhere", "resnet", "pytorch")

    outcome = convkit.converted(tf1.folder, "-o", repository, "--name", "tf1", variables=named)

    assert outcome.result["engine"] == "none"
    assert (repository / "tf1" / "1" / "model.onnx").is_file()
    assert not (tmp_path / "elsewhere").exists()
    config = read_config(repository / "tf1" / "config.pbtxt")
    assert config.version_policy.WhichOneof("policy_choice") == "latest"
