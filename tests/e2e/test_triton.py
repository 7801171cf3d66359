"""A real Triton server loads what convkit emitted, and answers as the source framework does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from models.tf1_saved_model import INPUT, OUTPUT
from triton_server.client import PROTOCOLS, Protocol, infer
from triton_server.server import TritonServer, validate_config

from e2e.command import Command
from e2e.digits import CNN, KERAS
from e2e.matrix import CASES, Case, Matrix
from e2e.networks import torch_answers, write_types
from e2e.published import Array, accuracy

pytestmark = pytest.mark.triton

SERVED = [case for case in CASES if case.target == "onnxruntime"]
DEFERRED = [case for case in CASES if case.target == "tensorrt"]
EXACT = {"rtol": 1e-3, "atol": 1e-4}
GENERATOR = np.random.default_rng(3)


class Served(NamedTuple):
    """The one server of this module, what it had run before any request, and the sources of its further models."""

    server: TritonServer
    warmed: Mapping[str, int]
    sources: Mapping[str, Path]


@pytest.fixture(scope="module")
def served(
    matrix: Matrix, convkit: Command, tagger_source: Path, tf1_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    repository = matrix.repository("onnxruntime")
    for case in SERVED:
        assert matrix[case].outcome.exit_status == 0, matrix[case].outcome.stderr
    types = write_types(tmp_path_factory.mktemp("types") / "source")
    sources = {"tagger": tagger_source, "types": types, "tf1": tf1_source}
    for name, source in sources.items():
        convkit.converted(source, "--trust", "--name", name, "-o", repository)
    with TritonServer(repository) as server:
        yield Served(server, executions(server), sources)


def executions(server: TritonServer) -> dict[str, int]:
    """Count how often the server has run each model."""
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(server.http_url) as client:
        statistics = client.get_inference_statistics()["model_stats"]
    return {entry["name"]: int(entry["execution_count"]) for entry in statistics}


def test_every_model_was_warmed_up_before_the_server_called_itself_ready(served: Served) -> None:
    names = {case.name for case in SERVED} | set(served.sources)

    assert served.warmed == dict.fromkeys(names, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", [case for case in SERVED if case.precision == "fp32"], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_fp32_gives_the_frameworks_numbers(served: Served, case: Case, batch: int, protocol: Protocol) -> None:
    digits = case.digits

    answer = infer(served.server, protocol, case.name, digits.rows(slice(batch)))

    np.testing.assert_allclose(answer[digits.output], digits.scores[:batch], **EXACT)


@pytest.mark.parametrize("case", SERVED, ids=str)
def test_every_precision_reads_held_out_digits_as_the_framework_does(served: Served, case: Case) -> None:
    digits = case.digits
    scores = np.concatenate(
        [
            infer(served.server, PROTOCOLS[start // 8 % 2], case.name, digits.rows(slice(start, start + 8)))[
                digits.output
            ]
            for start in range(0, 200, 8)
        ]
    )

    signal = np.square(digits.scores[:200]).sum() / np.square(scores - digits.scores[:200]).sum()
    assert 10 * np.log10(signal) > (60 if case.precision == "fp32" else 10)
    assert accuracy(scores, digits.labels[:200]) >= accuracy(digits.scores[:200], digits.labels[:200]) - 0.01


def test_a_batch_size_is_the_largest_batch_and_0_takes_any(served: Served, matrix: Matrix) -> None:
    from tritonclient.utils import InferenceServerException

    cnn, keras = (case for case in SERVED if case.precision == "fp32" and case.digits in (CNN, KERAS))

    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        infer(served.server, "grpc", cnn.name, {"image": cnn.digits.images[:9]})
    answer = infer(served.server, "grpc", keras.name, {"image": keras.digits.images})
    np.testing.assert_allclose(answer["probs"], keras.digits.scores, **EXACT)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch", [1, 6])
def test_names_of_tensorflow_1_with_colon_and_slash_go_over_the_wire(
    served: Served, batch: int, protocol: Protocol
) -> None:
    import tensorflow.compat.v1 as tf

    images = GENERATOR.standard_normal((batch, 16, 16, 3), dtype=np.float32)
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.saved_model.load(session, ["serve"], str(served.sources["tf1"]))
        wanted = session.run(OUTPUT, {INPUT: images})

    answer = infer(served.server, protocol, "tf1", {INPUT: images})

    np.testing.assert_allclose(answer[OUTPUT], wanted, **EXACT)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 33), (4, 7)])
def test_two_inputs_and_two_outputs_of_any_length_give_pytorchs_answers(
    served: Served, batch: int, length: int, protocol: Protocol
) -> None:
    ids = GENERATOR.integers(0, 5, (batch, length))
    weights = GENERATOR.standard_normal((batch, length), dtype=np.float32)

    answer = infer(served.server, protocol, "tagger", {"ids": ids, "weights": weights})

    tags, pooled = torch_answers(served.sources["tagger"], ids, weights)
    np.testing.assert_allclose(answer["tags"], tags, **EXACT)
    np.testing.assert_allclose(answer["pooled"], pooled, **EXACT)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_booleans_bytes_and_half_precision_arrive_and_come_back(served: Served, protocol: Protocol) -> None:
    feeds: dict[str, Array] = {
        "flags": np.array([[True, False, True], [False, False, True]]),
        "pixels": np.array([[0, 255, 7], [1, 2, 3]], np.uint8),
        "halves": np.array([[0.5, -1.25, 3], [1e-4, 2, 65000]], np.float16),
    }

    answer = infer(served.server, protocol, "types", feeds)

    for name, wanted in zip(
        ("picked", "doubled", "inverse"), torch_answers(served.sources["types"], *feeds.values()), strict=True
    ):
        assert answer[name].dtype == wanted.dtype
        np.testing.assert_array_equal(answer[name], wanted)


@pytest.fixture(scope="module")
def built(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deferred repository, with each version where `convkit build` puts it; the plans are no plans."""
    folder = tmp_path_factory.mktemp("built")
    for case in DEFERRED:
        conversion = matrix[case]
        assert conversion.outcome.exit_status == 0, conversion.outcome.stderr
        shutil.copytree(conversion.model, folder / case.name)
        version = folder / case.name / "1"
        version.mkdir()
        (folder / case.name / "pending" / "1").rename(version / "convkit")
        (folder / case.name / "pending").rmdir()
        (version / "model.plan").write_bytes(b"no plan")
    return folder


@pytest.mark.parametrize("case", DEFERRED, ids=str)
def test_the_configuration_for_a_gpu_passes_the_servers_checks(built: Path, case: Case) -> None:
    assert validate_config(built, case.name) is None


def test_a_deferred_repository_is_served_without_a_gpu_by_the_name_cpu(built: Path) -> None:
    with TritonServer(built, config_name="cpu") as server:
        for case in DEFERRED:
            digits = case.digits
            scores = infer(server, "grpc", case.name, {"image": digits.images[:8]})[digits.output]
            assert accuracy(scores, digits.labels[:8]) == 1.0, case
            if case.precision == "fp32":
                np.testing.assert_allclose(scores, digits.scores[:8], **EXACT)
