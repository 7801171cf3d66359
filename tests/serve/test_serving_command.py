"""`convkit serve`: a real Triton server is started, asked by the lines that were printed, and ended by a signal."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from triton_server.server import installation

import convkit
from convkit.errors import ExitStatus, InputError, MissingError
from convkit.hosting import container_line
from convkit.serving.program import Program
from convkit.serving.server import Listen, Server
from serve.repositories import mixed, publish, small, texts

PROGRAM = Path(sys.executable).with_name("convkit")
FREE = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def environment(path: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONVKIT_")}
    return {**inherited, "PATH": path, "NO_PROXY": "*"}


@contextmanager
def serving(repository: Path, path: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [PROGRAM, "serve", repository, *FREE, *options],
        env=environment(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    return dict(json.loads(line))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.triton
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_printed_lines_ask_the_server_and_a_signal_ends_it(
    repository: Path, server_on_path: str, tmp_path: Path, number: int, status: int
) -> None:
    with serving(repository, server_on_path, "--json") as process:
        told = ready(process)
        (model,) = told["models"]
        said = [
            subprocess.run(
                shlex.split(line),
                cwd=tmp_path,
                env=environment(server_on_path),
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for line in (model["client"], model["curl"])
        ]
        process.send_signal(number)
        errors = process.communicate(timeout=120)[1]

    assert (told["schema"], told["status"], told["config"]) == ("convkit.serve/1", "ready", "cpu")
    assert (model["name"], model["version"], told["pending"]) == ("small", 1, ["engine"])
    assert "y:0 float32 (1, 3)" in said[0]
    assert {output["name"] for output in json.loads(said[1])["outputs"]} == {"y:0", "twice"}
    assert process.returncode == status
    assert "Traceback" not in errors
    assert not is_alive(told["pid"])


@pytest.mark.triton
def test_a_person_reads_where_it_listens_and_how_to_ask(repository: Path, server_on_path: str) -> None:
    with serving(repository / "small", server_on_path, "--verbose") as process:
        lines = []
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert process.stderr
        assert any("Started HTTPService" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)

    text = "".join(lines)
    assert "  HTTP     http://localhost:" in text
    assert "  metrics  http://localhost:" in text
    assert f"python {repository}/small/1/convkit/client.py http://localhost:" in text
    assert "curl -sS http://localhost:" in text
    assert "engine" not in text


@pytest.mark.triton
def test_a_port_that_is_taken_is_said(repository: Path, server_on_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", server_on_path)
    with convkit.serve(repository) as first:
        port = int(first.http.rpartition(":")[2])
        with (
            pytest.raises(convkit.StepError, match=f"port {port}: Address already in use") as refused,
            convkit.serve(repository, http_port=port),
        ):
            pass

    assert "another port" in refused.value.hint
    assert not is_alive(first.pid)


@pytest.mark.triton
def test_a_server_that_ends_by_itself_is_an_error(repository: Path, server_on_path: str) -> None:
    with serving(repository, server_on_path, "--json") as process:
        os.kill(ready(process)["pid"], signal.SIGKILL)
        errors = process.communicate(timeout=120)[1]

    assert process.returncode == ExitStatus.STEP_FAILED
    assert "the Triton server has ended by itself" in errors


@pytest.mark.triton
def test_what_the_server_cannot_load_is_said(repository: Path, server_on_path: str, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(repository, tmp_path / "broken"))
    (broken / "small" / "1" / "model.onnx").write_bytes(b"no model")

    with serving(broken, server_on_path, "--json") as process:
        told, errors = process.communicate(timeout=60)

    assert process.returncode == ExitStatus.STEP_FAILED
    assert json.loads(told)["error"]["code"] == "check.server-failed"
    assert "small" in errors


@pytest.mark.triton
def test_the_server_of_the_pytriton_wheel_runs_what_convkit_writes(
    tmp_path: Path, cache: Path, repository: Path
) -> None:
    found = installation()
    wheel = Program(found.server, wheel=found.server.parents[1], python=found.python)
    models = Path(shutil.copytree(repository, tmp_path / "models"))
    np.savez(tmp_path / "texts.npz", text=np.array([["a", "b", "größe"]]), x=np.ones((1, 3), np.float32))
    publish(models, cache, "texts", texts(), export={"samples": str(tmp_path / "texts.npz")})
    publish(models, cache, "mixed", mixed())
    publish(models, cache, "vino", small(), to="openvino")
    names = ["small", "texts", "mixed", "vino"]

    with Server(models, load=names, listen=Listen(), program=wheel) as server:
        for name in names:
            records = models / name / "1" / "convkit"
            client = runpy.run_path(str(records / "client.py"))
            with np.load(client["SAMPLE"]) as sample, np.load(records / "references" / "0000.npz") as wanted:
                answers = client["infer"](dict(sample), f"http://127.0.0.1:{server.listens.http}")
                for output, reference in wanted.items():
                    answer = answers[output].reshape(reference.shape)
                    if reference.dtype.kind == "U":
                        assert answer.tolist() == reference.tolist()
                    else:
                        np.testing.assert_allclose(answer, reference, rtol=1e-3, atol=1e-4, err_msg=name)
        pid = server.pid

    assert not is_alive(pid)


def test_without_a_server_the_line_for_a_container_is_given(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_TRITONSERVER", "/nowhere/tritonserver")

    with pytest.raises(MissingError) as refused, convkit.serve(repository, http_port=8000):
        pass

    assert refused.value.exit_status == ExitStatus.MISSING
    line = refused.value.hint.rpartition(": ")[2]
    assert line == container_line(repository, Listen(http=8000), "cpu", ["small"])
    words = shlex.split(line)
    assert words[:2] == ["docker", "run"]
    assert f"{repository}:/models:ro" in words
    assert "127.0.0.1:8000:8000" in words
    assert words[-3:] == ["--model-control-mode=explicit", "--load-model=small", "--model-config-name=cpu"]


def test_with_a_gpu_the_container_gets_it_and_the_main_configuration_is_served(tmp_path: Path) -> None:
    words = shlex.split(container_line(tmp_path, Listen(http=9000, metrics=0), None))

    assert "--gpus=all" in words
    assert "127.0.0.1:9000:8000" in words
    assert "127.0.0.1:8002:8002" in words
    assert words[-2:] == ["tritonserver", "--model-repository=/models"]


def test_a_repository_of_engines_to_be_built_has_nothing_to_serve(repository: Path) -> None:
    with pytest.raises(InputError, match="still to be built") as refused, convkit.serve(repository / "engine"):
        pass

    assert "convkit build" in refused.value.hint
