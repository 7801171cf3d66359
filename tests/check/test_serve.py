"""`--serve`: a real Triton server loads the repository, and its answers are held against the recorded ones."""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from triton_server.server import all_ended, installation, lay_out_backends

from check.repositories import codes, dense, errors, foreign, publish
from convkit.checking import check
from convkit.conversion import convert
from convkit.errors import ExitStatus, MissingError
from convkit.pipeline.artifact import digest_file
from convkit.pipeline.cache import Cache
from convkit.request import make_request

serves = pytest.mark.triton


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program `tritonserver` that is told where its libraries and its ONNX Runtime backend are, as in a container."""
    found = installation()
    backends = tmp_path / "backends"
    lay_out_backends(backends, found, ("onnxruntime", "openvino"))
    prefix = f"convkit_{uuid.uuid4().hex[:12]}_"
    arguments = [f"--backend-directory={backends}", f"--backend-config=python,shm-region-prefix-name={prefix}"]
    variables = [f"{name}={value}" for name, value in found.variables().items() if name in ("PATH", "LD_LIBRARY_PATH")]
    kept = ["env", "-u", "PYTHONPATH", "-u", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE=1", *variables]
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join([*kept, str(found.server), *arguments])} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    yield
    for left in Path("/dev/shm").glob(f"{prefix}*"):
        left.unlink(missing_ok=True)


def served(repository: Path) -> dict[str, list[str | None]]:
    report = check(repository, serve=True)
    return {model.name: [version.served for version in model.versions] for model in report.models}


@serves
@pytest.mark.usefixtures("server")
def test_a_server_answers_what_was_recorded(published: Path) -> None:
    report = check(published, serve=True)

    assert (report.exit_code, report.remarks) == (0, ())
    assert [version.served for version in report.models[0].versions] == ["equal"]


@serves
@pytest.mark.usefixtures("server")
def test_an_engine_that_waits_for_its_gpu_is_not_asked(published_pending: Path) -> None:
    assert served(published_pending) == {"dense": [None]}


@serves
@pytest.mark.usefixtures("server")
def test_another_model_under_the_same_name_gives_other_answers(repository: Path) -> None:
    other = dense()
    other.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.ones((4, 3), dtype=np.float32), other.graph.initializer[0].name)
    )
    onnx.save(other, repository / "dense" / "1" / "model.onnx")

    report = check(repository, serve=True)

    assert errors(report) == ["check.digest", "check.outputs-differ"]
    assert report.models[0].versions[0].served == "different"
    assert "dense/1: the server's answer: the output 'y'" in report.remarks[-1].message


@serves
@pytest.mark.usefixtures("server")
def test_the_version_that_the_policy_leaves_out_is_not_compared(tmp_path: Path, cache: Path) -> None:
    publish(tmp_path, cache)
    repository = publish(tmp_path, cache, triton={"warmup": False}, version=2)

    assert served(repository) == {"dense": ["not compared", "equal"]}


@serves
@pytest.mark.usefixtures("server")
def test_what_the_server_refuses_is_told_with_its_reason(repository: Path) -> None:
    model = repository / "dense" / "1" / "model.onnx"
    model.write_bytes(b"no model at all")

    report = check(repository, serve=True)

    assert report.models[0].versions[0].served == "failed"
    assert errors(report)[-1] == "check.not-loaded"
    assert "the server does not load dense: " in report.remarks[-1].message
    assert report.exit_code == ExitStatus.CHECK_FAILED


@serves
@pytest.mark.usefixtures("server")
def test_a_repository_that_others_made_is_served_without_being_compared(tmp_path: Path) -> None:
    repository = foreign(tmp_path / "repository")
    config = repository / "theirs" / "config.pbtxt"
    config.write_text(f'name: "theirs"\n{config.read_text()}backend: "onnxruntime"'.replace("platform", "# platform"))

    report = check(repository, serve=True)

    assert errors(report) == []
    assert codes(report)[-1] == "check.no-samples"


@serves
@pytest.mark.usefixtures("server")
def test_every_type_and_shape_crosses_the_wire(tmp_path: Path, cache: Path) -> None:
    """Half floats, booleans, bytes, 64-bit integers, scalars behind a batch, and none."""
    repository = tmp_path / "repository"
    kinds = {
        "half": (TensorProto.FLOAT16, ["batch", 3]),
        "flag": (TensorProto.BOOL, ["batch"]),
        "byte": (TensorProto.UINT8, ["batch", 2, 2]),
        "long": (TensorProto.INT64, ["batch", "length"]),
    }
    _publish(repository, cache, "batched", kinds)
    _publish(repository, cache, "whole", {"one": (TensorProto.FLOAT, []), "two": (TensorProto.DOUBLE, [2, 3])})

    report = check(repository, serve=True)

    assert errors(report) == []
    assert [version.served for model in report.models for version in model.versions] == ["equal", "equal"]


def _publish(repository: Path, cache: Path, name: str, kinds: dict[str, tuple[int, list[int | str]]]) -> None:
    """Convert a model that gives back each of its inputs."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [kind], [f"{kind}_out"]) for kind in kinds],
        name,
        [helper.make_tensor_value_info(kind, elements, dims) for kind, (elements, dims) in kinds.items()],
        [helper.make_tensor_value_info(f"{kind}_out", elements, dims) for kind, (elements, dims) in kinds.items()],
    )
    source = repository.parent / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), source)
    table = {"model": str(source), "output": str(repository), "measure": {"mode": "none"}}
    convert(make_request(table, environment={}), cache=Cache(cache))


@serves
@pytest.mark.usefixtures("server")
def test_neither_a_server_nor_a_file_is_left_behind(published: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.environ["TMPDIR"], before = str(scratch), os.environ.get("TMPDIR")
    digests = {path: digest_file(path) for path in published.rglob("*") if path.is_file()}
    try:
        import tempfile

        tempfile.tempdir = None
        check(published, serve=True)
    finally:
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
        tempfile.tempdir = None

    assert list(scratch.iterdir()) == []
    assert {path: digest_file(path) for path in published.rglob("*") if path.is_file()} == digests
    assert all_ended(str(published), "tritonserver")


def test_without_a_server_the_check_says_what_is_missing(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_TRITONSERVER", "/nowhere/tritonserver")

    with pytest.raises(MissingError) as refused:
        check(published, serve=True)

    assert refused.value.exit_status == ExitStatus.MISSING
    assert "/nowhere/tritonserver" in refused.value.message
