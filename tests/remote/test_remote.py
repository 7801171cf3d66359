"""Models, data and a shared cache by URL, on a real object store (moto's server, on loopback)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convkit.errors import InputError, MissingError
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Event, StepFinished, Warned
from convkit.pipeline.remote import RemoteFolder, fetch
from convkit.pipeline.shared import SharedCache

SAMPLE = Path(__file__).parents[2] / "sample_models" / "digits_cnn"


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """Start an object store; return the environment that leads to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield environment
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def bucket(store: dict[str, str]) -> Iterator[str]:
    """Put the sample model into a bucket; return its URL."""
    patch = pytest.MonkeyPatch()
    for name, value in store.items():
        patch.setenv(name, value)
    import s3fs

    files = s3fs.S3FileSystem()
    files.mkdir("models")
    for name in ("model.pth", "model.py", "config.txt", "calibration.npz"):
        files.put_file(str(SAMPLE / name), f"models/digits/{name}")
    yield "s3://models"
    patch.undo()


def convkit(cache: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "convkit", "convert", *arguments, "--measure", "none", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "CONVKIT_CACHE_DIR": str(cache), **variables},
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["exit_code"] == done.returncode, done.stderr
    return result


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as an ONNX file: its conversion takes no framework."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    path = tmp_path_factory.mktemp("network") / "small.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def nobody(_: Event) -> None:
    pass


def test_a_model_and_its_data_are_converted_from_an_object_store(bucket: str, tmp_path: Path) -> None:
    result = convkit(
        tmp_path / "cache",
        f"{bucket}/digits",
        "--trust",
        "--quantize",
        "int8",
        "--calibration-data",
        f"{bucket}/digits/calibration.npz",
        "-o",
        str(tmp_path / "repository"),
    )

    assert (result["status"], result["name"]) == ("ok", "digits")
    assert (tmp_path / "repository" / "digits" / "1" / "model.onnx").is_file()


def test_a_file_brings_its_metadata_and_its_code_along_and_the_code_still_needs_trust(
    bucket: str, tmp_path: Path
) -> None:
    repository = ("-o", str(tmp_path / "repository"))
    refused = convkit(tmp_path / "cache", f"{bucket}/digits/model.pth", *repository)
    trusted = convkit(tmp_path / "cache", f"{bucket}/digits/model.pth", "--trust", *repository)

    assert (refused["exit_code"], refused["error"]["code"]) == (3, "trust.required")
    assert (trusted["status"], trusted["name"]) == ("ok", "digits")


def test_what_has_not_changed_is_fetched_once_and_what_has_changed_again(bucket: str, tmp_path: Path) -> None:
    import s3fs

    cache = Cache(tmp_path / "cache")
    happened: list[Event] = []
    s3fs.S3FileSystem().pipe_file("models/notes/a.txt", b"one")

    first = fetch(f"{bucket}/notes", cache, happened.append)
    again = fetch(f"{bucket}/notes", cache, happened.append)
    assert first == again
    assert [event.title for event in happened if isinstance(event, StepFinished)] == [f"Fetch {bucket}/notes"]

    s3fs.S3FileSystem().pipe_file("models/notes/a.txt", b"two")
    changed = fetch(f"{bucket}/notes", cache, happened.append)
    assert (changed / "a.txt").read_bytes() == b"two"
    assert (first / "a.txt").read_bytes() == b"one"


def test_an_address_with_nothing_behind_it_is_refused_and_a_dead_host_is_named(bucket: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(InputError, match="s3://models/none"):
        fetch(f"{bucket}/none", cache, nobody)
    with pytest.raises(MissingError) as unknown:
        fetch("nosuch://host/model.onnx", cache, nobody)
    assert "convkit[remote]" in unknown.value.hint

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    with pytest.raises(MissingError) as dead:
        RemoteFolder(f"http://127.0.0.1:{closed}/model.onnx", attempts=2, pause_s=0.01).listing()
    assert dead.value.code == "remote.unreachable"
    assert "2 attempts" in dead.value.message


def test_a_call_that_fails_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("one")
    remote = RemoteFolder(tmp_path.as_uri(), attempts=3, pause_s=0.001)
    whole = remote._files.cat_file
    answers = [OSError("reset"), TimeoutError("slow")]

    def shaky(path: str) -> bytes:
        if answers:
            raise answers.pop()
        return bytes(whole(path))

    monkeypatch.setattr(remote._files, "cat_file", shaky)

    assert remote.read_bytes("a.txt") == b"one"
    assert answers == []


@pytest.mark.parametrize("place", ["s3://models/cache", "file"])
def test_a_second_machine_takes_results_from_the_shared_cache(
    bucket: str, network: Path, tmp_path: Path, place: str
) -> None:
    url = place if place.startswith("s3") else (tmp_path / "shared").as_uri()
    arguments = (str(network), "-o")
    first = convkit(tmp_path / "one", *arguments, str(tmp_path / "a"), CONVKIT_SHARED_CACHE=url)
    second = convkit(tmp_path / "two", *arguments, str(tmp_path / "b"), CONVKIT_SHARED_CACHE=url)

    assert first["status"] == second["status"] == "ok"
    assert not all(stage["cached"] for stage in first["stages"] if stage["name"] == "source")
    assert all(stage["cached"] for stage in second["stages"] if stage["name"] != "publish")
    model = Path("small", "1", "model.onnx")
    assert (tmp_path / "a" / model).read_bytes() == (tmp_path / "b" / model).read_bytes()


def test_a_damaged_shared_result_is_made_again(network: Path, tmp_path: Path) -> None:
    url = (tmp_path / "shared").as_uri()
    arguments = (str(network), "-o")
    convkit(tmp_path / "one", *arguments, str(tmp_path / "a"), CONVKIT_SHARED_CACHE=url)
    for model in (tmp_path / "shared" / "objects").glob("*/*/model.onnx"):
        model.write_bytes(b"\0" + model.read_bytes()[1:])

    second = convkit(tmp_path / "two", *arguments, str(tmp_path / "b"), CONVKIT_SHARED_CACHE=url)

    assert second["status"] == "ok"
    assert not all(stage["cached"] for stage in second["stages"] if stage["name"] == "source")


def test_a_shared_cache_that_cannot_be_reached_is_a_warning(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    happened: list[Event] = []
    cache = SharedCache(tmp_path / "cache", f"http://127.0.0.1:{closed}/cache", happened.append)

    assert cache.load("0" * 64) is None
    assert cache.load("1" * 64) is None

    warned = [event for event in happened if isinstance(event, Warned)]
    assert [event.code for event in warned] == ["cache.shared-unreachable"]
