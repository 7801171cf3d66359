"""The client beside each report, run against a real server: the program and the curl line give the recorded answers."""

from __future__ import annotations

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from triton_server.server import TritonServer

from convkit.graph.model import read_npz
from convkit.report.document import Report, read_report
from serve.repositories import command_of, large, mixed, publish, small, texts

Array = np.ndarray[Any, Any]


class Asked(NamedTuple):
    """A server, and the records of each of its models."""

    server: TritonServer
    records: Mapping[str, Path]

    @property
    def url(self) -> str:
        return f"http://{self.server.http_url}"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("clients")
    repository, cache = folder / "models", folder / "cache"
    np.savez(folder / "texts.npz", text=np.array([["a 'b'", "c\nd", "größe"]]), x=np.ones((1, 3), np.float32))
    samples = {"samples": str(folder / "texts.npz")}
    records = {
        "small": publish(repository, cache, "small", small()),
        "large": publish(repository, cache, "large", large()),
        "mixed": publish(repository, cache, "mixed", mixed()),
        "texts": publish(repository, cache, "texts", texts(), export=samples),
        "engine": as_built(publish(repository, cache, "engine", small(), to="tensorrt", engine="defer")),
    }
    with TritonServer(repository, config_name="cpu") as server:
        yield Asked(server, records)


def as_built(pending: Path) -> Path:
    """Put a pending version where `convkit build` puts it, with a plan that is none; return its records."""
    model = pending.parents[1]
    records = model / pending.name / "convkit"
    records.parent.mkdir()
    shutil.move(pending, records)
    pending.parent.rmdir()
    (records.parent / "model.plan").write_bytes(b"no plan")
    shutil.copytree(records / "model", model, dirs_exist_ok=True)
    return records


def report_of(records: Path) -> Report:
    return read_report((records / "report.json").read_bytes(), where="report.json")


def recorded(records: Path) -> dict[str, Array]:
    return read_npz(records / "references" / "0000.npz")


def assert_recorded(answers: Mapping[str, Array], records: Path) -> None:
    wanted = recorded(records)
    assert set(answers) == set(wanted)
    for name, reference in wanted.items():
        answer = np.asarray(answers[name]).reshape(reference.shape)
        if reference.dtype.kind == "U":
            assert answer.tolist() == reference.tolist(), name
        else:
            np.testing.assert_allclose(answer, reference, rtol=1e-3, atol=1e-4, err_msg=name)


MODELS = ["small", "large", "mixed", "texts", "engine"]


@pytest.mark.triton
@pytest.mark.parametrize("name", MODELS)
def test_the_program_gets_the_recorded_answers(asked: Asked, name: str) -> None:
    records = asked.records[name]
    client = runpy.run_path(str(records / "client.py"))
    with np.load(client["SAMPLE"]) as sample:
        answers = client["infer"](dict(sample), asked.url)

    assert_recorded(answers, records)
    assert {key: value.dtype.kind for key, value in answers.items()} == {
        key: "O" if value.dtype.kind == "U" else value.dtype.kind for key, value in recorded(records).items()
    }


@pytest.mark.triton
@pytest.mark.parametrize("name", MODELS)
def test_the_curl_line_gets_the_recorded_answers(asked: Asked, name: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    records = asked.records[name]
    report = report_of(records)
    assert report.client

    done = subprocess.run(
        command_of(records, report.client.curl, asked.url),
        cwd=records,
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=True,
    )

    answer = records / "answer.bin"
    if name == "mixed":  # half precision is no JSON
        head = json.JSONDecoder().raw_decode(answer.read_bytes().decode("latin-1"))[0]
        answer.unlink()
        (picked,) = [output for output in head["outputs"] if output["name"] == "picked"]
        assert picked["parameters"] == {"binary_data_size": 6}
    else:
        outputs = json.loads(done.stdout)["outputs"]
        assert_recorded({output["name"]: np.array(output["data"]) for output in outputs}, records)


@pytest.mark.triton
def test_the_program_run_by_itself_prints_the_answers_and_a_servers_refusal(asked: Asked) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        script = asked.records["small"] / "client.py"
        environment = {**os.environ, "NO_PROXY": "*"}
        return subprocess.run(
            [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    said = run(asked.url)
    wrong = run(asked.url, asked.records["small"] / "samples" / "0001.npz")
    np.savez(asked.records["small"].parents[2] / "nine.npz", **{"x:0": np.zeros((9, 3)), "ids": np.zeros(9, np.int64)})
    refused = run(asked.url, asked.records["small"].parents[2] / "nine.npz")

    assert "y:0 float32 (1, 3)" in said.stdout
    assert wrong.returncode == 0
    assert "y:0 float32 (3, 3)" in wrong.stdout
    assert refused.returncode == 1
    assert "batch-size must be <= 8" in refused.stderr


def test_a_short_sample_is_in_the_line_and_a_long_one_in_a_file(asked: Asked) -> None:
    lines = {name: report_of(records).client for name, records in asked.records.items()}

    assert {name: "@request.bin" in (line.curl if line else "") for name, line in lines.items()} == {
        "small": False, "large": True, "mixed": True, "texts": False, "engine": False
    }  # fmt: skip
    for name, records in asked.records.items():
        assert (records / "request.bin").is_file() == (name in ("large", "mixed"))


def test_the_program_is_the_same_for_the_engine_and_reads_as_python(asked: Asked) -> None:
    texts = {name: (records / "client.py").read_text() for name, records in asked.records.items()}

    assert texts["engine"] == texts["small"].replace("/models/small/", "/models/engine/").replace(
        "Ask small", "Ask engine"
    )
    for name, text in texts.items():
        ast.parse(text)
        assert len(text.splitlines()) < (90 if name == "texts" else 66)
        assert max(map(len, text.splitlines())) <= 120
        assert ("def encode" in text) == (name == "texts")


def test_the_report_shows_how_to_ask(asked: Asked) -> None:
    records = asked.records["small"]
    for name in ("report.md", "report.html"):
        text = (records / name).read_text()
        assert "Ask it" in text
        assert "curl -sS http://localhost:8000/v2/models/small/infer" in text
        assert "python client.py" in text
