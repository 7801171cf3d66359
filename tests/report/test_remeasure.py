"""`convkit report --remeasure`: what was published is measured again, and the old figures hold or do not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convkit
from convkit import remeasuring
from convkit.cli.app import run
from convkit.errors import InputError
from convkit.report.changes import Change
from convkit.report.document import Report, Role, read_report, to_json
from convkit.report.latency import Latency

WEIGHTS = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of a small network whose latency was not measured, as its folder."""
    return converted(tmp_path_factory.mktemp("remeasure"), to="onnxruntime")


@pytest.fixture(scope="module")
def for_openvino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for OpenVINO."""
    pytest.importorskip("openvino")
    return converted(tmp_path_factory.mktemp("remeasure_openvino"), to="openvino")


def converted(folder: Path, *, to: str) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 64])],
        [value("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "small.onnx"
    )
    convkit.convert(folder / "small.onnx", to=to, output=folder / "models", name="small", measure={"mode": "none"})
    return folder / "models" / "small" / "1"


def altered(folder: Path, tmp_path: Path, **changes: Any) -> Path:
    """Write a version's report anew beside it, with its final subject changed, and return its path."""
    report = read_report((folder / "convkit" / "report.json").read_bytes(), where="")
    subjects = tuple(
        msgspec.structs.replace(subject, **changes) if subject.role is Role.FINAL else subject
        for subject in report.subjects
    )
    path = tmp_path / "report.json"
    path.write_text(to_json(msgspec.structs.replace(report, subjects=subjects)), encoding="utf-8")
    return path


def latency(ms: float) -> Latency:
    return Latency(p50_ms=ms, p90_ms=ms, p99_ms=ms, mean_ms=ms, low_ms=ms, high_ms=ms, calls=10, rounds=10, batch=1)


def test_what_was_just_published_holds(published: Path) -> None:
    found = convkit.remeasure(published, measure="none")

    assert found.exit_code == 0
    (model,) = found.models
    assert {figure.name: figure.change for figure in model.figures} == {
        "size": Change.SAME,
        "operators": Change.SAME,
        "numbers: y": Change.SAME,
        "latency": Change.NOT_COMPARABLE,
    }


def test_a_report_that_promises_more_does_not_hold(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = altered(published, tmp_path, file_bytes=100)

    assert run(["report", str(path), "--remeasure", "--measure", "none"]) == 5

    shown = capsys.readouterr()
    assert "FAILED to hold" in shown.out
    assert "size" in shown.err
    assert run(["report", str(path), "--remeasure", "--measure", "none", "--json"]) == 5
    assert msgspec.json.decode(capsys.readouterr().out)["error"]["code"] == "report.does-not-hold"


def test_a_latency_is_measured_anew_and_may_be_better(published: Path, tmp_path: Path) -> None:
    found = convkit.remeasure(altered(published, tmp_path, latency=latency(1e6)))

    figure = next(figure for figure in found.models[0].figures if figure.name == "latency")
    assert figure.change is Change.BETTER
    assert figure.after is not None
    assert 0 < figure.after < 1e6
    assert found.exit_code == 0


def test_a_latency_that_nothing_reaches_does_not_hold(published: Path, tmp_path: Path) -> None:
    found = convkit.remeasure(altered(published, tmp_path, latency=latency(1e-9)))

    assert found.exit_code == 5
    assert found.error is not None
    assert "latency" in found.error.message


def test_a_report_whose_model_is_not_there_is_refused(published: Path, tmp_path: Path) -> None:
    path = altered(published, tmp_path)
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    path.write_text(to_json(msgspec.structs.replace(report, model=str(tmp_path / "gone"))), encoding="utf-8")

    with pytest.raises(InputError) as refused:
        convkit.remeasure(path)

    assert refused.value.code == "report.not-published"


def test_remeasure_options_are_refused_where_they_say_nothing(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(published), "--measure", "full"]) == 2
    assert "add --remeasure" in capsys.readouterr().err
    assert run(["report", str(published), "--remeasure", "--format", "html"]) == 2


def test_what_was_published_for_openvino_is_asked_of_openvino(for_openvino: Path) -> None:
    found = convkit.remeasure(for_openvino, measure="none")

    assert found.exit_code == 0
    (model,) = found.models
    assert {figure.name: figure.change for figure in model.figures} == {
        "size": Change.SAME,
        "operators": Change.NOT_COMPARABLE,
        "numbers: y": Change.SAME,
        "latency": Change.NOT_COMPARABLE,
    }
    assert any("OpenVINO's model has others" in note for note in found.notes)


def test_answers_of_openvino_that_are_not_the_recorded_ones_do_not_hold(for_openvino: Path, tmp_path: Path) -> None:
    copy = tmp_path / "models" / "small" / "1"
    shutil.copytree(for_openvino, copy)
    weights = np.fromfile(copy / "model.bin", np.float32)
    (weights * 1.5).tofile(copy / "model.bin")

    found = convkit.remeasure(copy, measure="none")

    assert found.exit_code == 5
    assert found.error is not None
    assert "numbers: y" in found.error.message


def test_the_latency_of_openvinos_model_is_measured_anew(for_openvino: Path, tmp_path: Path) -> None:
    found = convkit.remeasure(altered(for_openvino, tmp_path, latency=latency(1e6)))

    figure = next(figure for figure in found.models[0].figures if figure.name == "latency")
    assert figure.change is Change.BETTER
    assert figure.after is not None
    assert 0 < figure.after < 1e6


def test_without_openvino_its_model_keeps_its_size_and_a_note_says_why(
    for_openvino: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remeasuring, "find_spec", lambda name: None)

    found = convkit.remeasure(for_openvino)

    assert {figure.name: figure.change for figure in found.models[0].figures}["size"] is Change.SAME
    assert any("OpenVINO is not installed here" in note for note in found.notes)
