"""The sample models to OpenVINO: the numbers here, and those of a real Triton server that runs an older OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server.client import PROTOCOLS, infer
from triton_server.server import TritonServer

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
