"""The harness itself: the server is real, answers as ONNX Runtime does, and leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from convkit.serving.releases import OLDEST
from convkit.spec.tensor import DType
from triton_server import models
from triton_server.client import PROTOCOLS, Protocol, infer
from triton_server.models import ONNX_TYPES, RELU, interface, tensor
from triton_server.server import HERE, ServerFailedError, TritonServer, all_ended

pytestmark = pytest.mark.triton

SAMPLE = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)
VALUES = {DType.BOOL: [True, False], DType.STRING: ["", "größer, 大"]}
EVERY_TYPE = interface(
    [tensor(f"in_{dtype.value}", dtype, "n", 2) for dtype in ONNX_TYPES],
    [tensor(f"out_{dtype.value}", dtype, "n", 2) for dtype in ONNX_TYPES],
)


def every_type_sample() -> dict[str, np.ndarray]:
    return {
        f"in_{dtype.value}": np.array([VALUES.get(dtype, [3, 100])] * 2, dtype=np.dtype(dtype.numpy))
        for dtype in ONNX_TYPES
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    models.write(folder, "relu", models.relu(), RELU)
    nodes = [helper.make_node("Identity", [f"in_{each.value}"], [f"out_{each.value}"]) for each in ONNX_TYPES]
    models.write(folder, "types", models.graph(nodes, EVERY_TYPE), EVERY_TYPE)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as running:
        yield running


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_server_answers_what_onnxruntime_answers(
    server: TritonServer, protocol: Protocol, repository: Path
) -> None:
    session = onnxruntime.InferenceSession(repository / "relu" / "1" / "model.onnx")

    answer = infer(server, protocol, "relu", {"x:0": SAMPLE})

    np.testing.assert_array_equal(answer["y:0"], session.run(["y:0"], {"x:0": SAMPLE})[0])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_element_type_arrives_and_comes_back(server: TritonServer, protocol: Protocol) -> None:
    sample = every_type_sample()

    answer = infer(server, protocol, "types", sample)

    for dtype in ONNX_TYPES:
        sent, got = sample[f"in_{dtype.value}"], answer[f"out_{dtype.value}"]
        wanted = [text.encode() for text in sent.reshape(-1)] if dtype is DType.STRING else sent.reshape(-1).tolist()
        assert got.shape == sent.shape
        assert got.reshape(-1).tolist() == wanted, dtype


def test_a_batch_above_the_largest_is_refused_by_the_server(server: TritonServer) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        infer(server, "http", "relu", {"x:0": np.zeros((9, 3), np.float32)})


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, Path]]:
    """A server that loads what it is told to, and the repository to write into."""
    folder = tmp_path_factory.mktemp("loaded")
    with TritonServer(folder, model_control="explicit") as running:
        yield running, folder


@pytest.mark.parametrize(
    ("name", "correct", "wrong", "reason"),
    [
        ("misnamed", 'name: "x:0"', 'name: "image"', r"input 'image' is not in the model"),
        ("mistyped", "TYPE_FP32", "TYPE_FP64", r"is TYPE_FP64 in the configuration and TYPE_FP32 in the model"),
        ("misshaped", "dims: [3]", "dims: [4]", r"has the shape \[4\] in the configuration and \[-1, 3\] in the model"),
        ("unbatched", "max_batch_size: 8", "max_batch_size: 0", r"has the shape \[3\] in the configuration"),
        ("fileless", '"model.onnx"', '"other.onnx"', r"there is no file .*other\.onnx"),
    ],
)
def test_a_configuration_that_is_not_the_models_is_refused_with_the_reason(
    loader: tuple[TritonServer, Path], name: str, correct: str, wrong: str, reason: str
) -> None:
    server, folder = loader
    models.write(folder, name, models.relu(), RELU)
    path = folder / name / "config.pbtxt"
    path.write_text(path.read_text().replace(correct, wrong))

    with pytest.raises(ServerFailedError, match=reason):
        server.load(name)


def test_an_output_declared_wider_than_the_models_is_refused_as_triton_refuses_it(
    loader: tuple[TritonServer, Path],
) -> None:
    server, folder = loader
    models.write(folder, "wide", models.relu(), RELU)
    path = folder / "wide" / "config.pbtxt"
    head, output = path.read_text().split("output {")
    path.write_text(head + "output {" + output.replace("dims: [3]", "dims: [-1]", 1))

    with pytest.raises(ServerFailedError, match="'y:0' has the shape"):
        server.load("wide")


def test_a_model_newer_than_the_oldest_release_reads_is_refused(loader: tuple[TritonServer, Path]) -> None:
    server, folder = loader
    models.write(folder, "newer", models.relu(ir_version=OLDEST.ir_version + 1), RELU)

    with pytest.raises(ServerFailedError, match="Unsupported model IR version"):
        server.load("newer")


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ServerFailedError, match=r"end of the server's log(.|\n)*failed to load all models"):
        TritonServer(tmp_path).__enter__()


def test_the_servers_onnxruntime_is_the_oldest_releases() -> None:
    assert f"onnxruntime=={OLDEST.onnxruntime}" in (HERE / "requirements.txt").read_text().splitlines()


def test_a_polling_server_serves_a_model_that_appears(tmp_path: Path) -> None:
    repository, outside = tmp_path / "repository", tmp_path / "outside"
    repository.mkdir()
    models.write(outside, "relu", models.relu(), RELU)

    with TritonServer(repository, model_control="poll") as server:
        assert not server.is_ready("relu")
        shutil.move(outside / "relu", repository / "relu")
        server.wait_until_ready("relu", 1)
        answer = infer(server, "grpc", "relu", {"x:0": SAMPLE}, version=1)

    np.testing.assert_array_equal(answer["y:0"], SAMPLE.clip(min=0))


def test_a_server_under_explicit_control_loads_and_unloads(repository: Path) -> None:
    with TritonServer(repository, model_control="explicit") as server:
        assert not server.is_ready("relu")
        server.load("relu")
        assert server.is_ready("relu")
        server.unload("relu")
        with pytest.raises(ServerFailedError, match="absent"):
            server.load("absent")


def test_a_stopped_server_leaves_no_process_and_no_shared_memory(repository: Path) -> None:
    with TritonServer(repository) as server:
        prefix, scratch = server.shared_memory_prefix, server.scratch
        assert list(Path("/dev/shm").glob(f"{prefix}*"))

    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    assert not scratch.exists()
    assert all_ended(prefix)
