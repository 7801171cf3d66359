"""The sample models to OpenVINO: the numbers here, and those of a real Triton server that runs an older OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server.client import PROTOCOLS, infer
from triton_server.server import TritonServer

from convkit import convert
from convkit.errors import CheckError
from convkit.graph.model import Tensors, save_tensors
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.runner import Runner
from convkit.targets import openvino as openvino_target
from convkit.targets.answering import answers_to
from convkit.targets.openvino_model import OpenVINOModel
from e2e.command import Command
from e2e.digits import CNN, KERAS, Digits
from e2e.matrix import Case
from e2e.published import accuracy, read_config

CASES = [Case(digits, "openvino", precision) for digits in (CNN, KERAS) for precision in ("fp32", "int8")]


@pytest.fixture(scope="module")
def published(convkit: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A repository with every case, and what was said of each."""
    repository = tmp_path_factory.mktemp("openvino")
    results = {}
    for case in CASES:
        outcome = convkit.convert(case.digits.folder, *case.arguments, "--name", case.name, "-o", repository)
        assert outcome.exit_status == 0, outcome.stderr
        results[case.name] = outcome.result
    return repository, results


def scores_of(model: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import openvino

    compiled = openvino.Core().compile_model(str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    scores: np.ndarray[Any, Any] = compiled({"image": images})[0]
    return scores


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_gives_the_frameworks_answers(case: Case, published: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    repository, results = published
    digits = case.digits

    scores = scores_of(repository / case.name / "1" / "model.xml", digits.images)

    if case.precision == "fp32":
        np.testing.assert_allclose(scores, digits.scores, rtol=1e-3, atol=1e-4)
    assert accuracy(scores, digits.labels) >= accuracy(digits.scores, digits.labels) - 0.01
    assert results[case.name]["engine"] == "none"
    assert results[case.name]["verification"]["passed"] is True


@pytest.mark.parametrize("case", [case for case in CASES if case.precision == "int8"], ids=str)
def test_int8_convolutions_run_in_int8(case: Case, published: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    import openvino

    model = published[0] / case.name / "1" / "model.xml"
    compiled = openvino.Core().compile_model(str(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ran = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]

    assert ran
    assert sum("8" in precision for precision in ran) >= len(ran) / 2


def test_the_configuration_speaks_to_tritons_openvino_backend(published: tuple[Path, dict[str, Any]]) -> None:
    config = read_config(published[0] / "digits_cnn_fp32" / "config.pbtxt")

    assert (config.backend, config.default_model_filename) == ("openvino", "model.xml")
    assert {key: value.string_value for key, value in config.parameters.items()} == {"PERFORMANCE_HINT": "LATENCY"}


def test_two_folders_give_the_same_bytes(convkit: Command, tmp_path: Path, published: tuple[Path, Any]) -> None:
    case = CASES[0]
    variables = {"CONVKIT_CACHE_DIR": str(tmp_path / "cache"), "PYTHONHASHSEED": "4711"}

    convkit.converted(
        case.digits.folder, *case.arguments, "--name", case.name, "-o", tmp_path / "models", variables=variables
    )

    for name in ("model.xml", "model.bin", "convkit/manifest.json"):
        ours = (tmp_path / "models" / case.name / "1" / name).read_bytes()
        assert ours == (published[0] / case.name / "1" / name).read_bytes(), name


def test_accuracy_is_openvinos_own(convkit: Command, tmp_path: Path) -> None:
    asked = (*Case(CNN, "openvino", "int8").arguments, "--eval-data", CNN.folder / "heldout.npz", "--max-drop", "1%")

    result = convkit.converted(CNN.folder, *asked, "-o", tmp_path).result

    report = json.loads(Path(result["report"]).read_text(encoding="utf-8"))
    assert [stage["title"] for stage in report["stages"]].count("Ask OpenVINO for its answers") == 1
    scores = scores_of(tmp_path / "digits_cnn" / "1" / "model.xml", CNN.images)
    found = result["accuracy"]
    assert found["final"] == accuracy(scores, CNN.labels)
    assert (found["emulated"], found["verdict"]) == (False, "passed")
    assert report["checks"][-1]["tolerance"] == "SQNR >= 0 dB", "the accuracy is judged instead"


def test_what_openvino_loses_beyond_the_budget_is_not_published(
    convkit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph keeps its accuracy in ONNX Runtime; OpenVINO is made to answer 0 for every digit."""

    def always_zero(
        model: OpenVINOModel, *, data: Artifact, outputs: tuple[str, ...], at_most: int | None, options: object
    ) -> Tensors:
        def answer(case: dict[str, Any]) -> dict[str, Any]:
            return {"logits": np.tile(np.eye(10)[0], (len(case["image"]), 1))}

        return save_tensors(answers_to(model.interface, data, outputs, at_most, answer))

    run_step = Runner.__call__

    def run_here(self: Runner, called: Any, *arguments: Any, **options: Any) -> Any:
        if called is always_zero:
            return called(*arguments, **options)
        return run_step(self, called, *arguments, **options)

    monkeypatch.setattr(Runner, "__call__", run_here)
    monkeypatch.setattr(openvino_target, "answer_openvino", always_zero)
    with pytest.raises(CheckError) as refused:
        convert(
            str(CNN.folder),
            trust=True,
            to="openvino",
            measure={"mode": "none"},
            accuracy={"data": str(CNN.folder / "heldout.npz"), "max_drop": "1%"},
            output=str(tmp_path / "models"),
            cache=convkit.cache,
        )

    assert refused.value.code == "gates.failed"
    assert not (tmp_path / "models" / "digits_cnn").exists()


@pytest.mark.parametrize("precision", ["dynamic", "fp16"])
def test_what_openvino_gains_nothing_from_is_refused_with_what_to_do(convkit: Command, precision: str) -> None:
    outcome = convkit.convert(CNN.folder, "--trust", "--to", "openvino", "--quantize", precision)

    assert outcome.exit_status == 2
    assert "openvino" in outcome.result["error"]["message"]
    assert "int8" in outcome.result["error"]["hint"]


@pytest.mark.triton
def test_a_real_server_answers_with_an_openvino_of_its_own_time(published: tuple[Path, dict[str, Any]]) -> None:
    repository, _ = published

    with TritonServer(repository) as server:
        for protocol in PROTOCOLS:
            for case in CASES:
                digits: Digits = case.digits
                scores = infer(server, protocol, case.name, {"image": digits.images[:5]})[digits.output]
                noise = np.square(scores - digits.scores[:5]).sum()
                least = 60 if case.precision == "fp32" else 10
                assert 10 * np.log10(np.square(digits.scores[:5]).sum() / noise) > least, case
