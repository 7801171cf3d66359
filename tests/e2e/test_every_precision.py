"""Every sample model in every precision that the TensorRT family takes: TensorRT-RTX parses and builds it.

In short, its FP32 graph comes from one conversion, and convkit's steps are called as functions; `make rtx` runs the
command for both targets.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from rtx.steps import PRECISIONS, build, narrowed

from convkit.errors import UsageError
from convkit.graph.model import Model
from convkit.graph.present import interface_of
from convkit.pipeline.artifact import gather, use_scratch
from convkit.spec.options import Precision
from e2e.command import Command
from e2e.digits import CNN, DOCS, KERAS, LINES, MOBILE, NAMES, Digits
from e2e.matrix import Case, Matrix

pytest.importorskip("tensorrt_rtx")

SOURCES = {
    **{digits.name: Case(digits, "tensorrt-rtx", "fp32") for digits in (CNN, KERAS)},
    **{digits.name: Case(digits, "onnxruntime", "fp32") for digits in (MOBILE, LINES, NAMES, DOCS)},
}
"""The conversions, among those that other tests need, in which each model's FP32 graph is."""
MODELS = (CNN, KERAS, MOBILE, LINES, NAMES, DOCS)


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.value)
@pytest.mark.parametrize("digits", MODELS, ids=lambda digits: digits.name)
def test_its_graph_parses_and_builds(digits: Digits, precision: Precision, matrix: Matrix, tmp_path: Path) -> None:
    use_scratch(tmp_path / "scratch")
    folder, data = tmp_path / "model", tmp_path / "data"
    for each in (folder, data):
        each.mkdir()
    shutil.copy(matrix[SOURCES[digits.name]].onnx, folder)
    digits.write_calibration(data / "calibration.npz")
    model = Model(files=gather(folder), interface=interface_of(onnx.load(folder / "model.onnx")))

    if precision is Precision.INT4:  # none of them has a product that is worth it
        with pytest.raises(UsageError, match="has none"):
            narrowed(model, precision, gather(data))
        return
    low = narrowed(model, precision, gather(data))

    engine = build(low, precision)
    assert engine.files.bytes > 0
    ranges = [shapes for profile in engine.profiles for shapes in profile.shapes.values()]
    assert {(shapes.min[0], shapes.max[0]) for shapes in ranges} == {(1, 8)}
    assert (low.files.digest == model.files.digest) == (precision is Precision.NONE)


@pytest.mark.rtx
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.value)
@pytest.mark.parametrize("digits", MODELS, ids=lambda digits: digits.name)
def test_it_is_converted(digits: Digits, precision: Precision, target: str, convkit: Command, repository: Path) -> None:
    data = ("--calibration-data", digits.calibration) if precision.is_calibrated else ()
    outcome = convkit.convert(
        digits.folder, *digits.arguments, "--to", target, "--quantize", precision.value, *data, "-o", repository
    )

    if precision is Precision.INT4:  # none of them has a product that is worth it
        assert (outcome.exit_status, outcome.result["error"]["code"]) == (2, "quantize.nothing-to-do")
        return
    assert outcome.exit_status == 0, outcome.stderr
    assert outcome.result["engine"] == ("deferred" if target == "tensorrt" else "built")
    assert outcome.result["verification"]["passed"]
    if target == "tensorrt":
        facts = (repository / digits.name / "pending" / "1" / "report.md").read_text(encoding="utf-8")
        assert "TensorRT-RTX" in facts  # the parser of the same family has taken it
