"""Repositories to check: published by the real pipeline from a small ONNX file, or made by hand as others make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from convkit.checking import CheckReport
from convkit.conversion import convert
from convkit.pipeline.cache import Cache
from convkit.request import make_request
from convkit.serving.remark import Severity


def dense(*, opset: int = 17, ir_version: int = 9, batch: int | str = "batch", width: int = 3) -> onnx.ModelProto:
    """y = x W + b, of three numbers from four, with a batch."""
    generator = np.random.default_rng(7)
    weights = {"w": generator.normal(size=(4, width)), "b": generator.normal(size=width)}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def publish(folder: Path, cache: Path, **options: object) -> Path:
    """Convert `dense` into a repository below `folder`, and return the repository."""
    source = folder / "dense.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(dense(), source)
    arguments = {"model": str(source), "output": str(folder / "repository"), "measure": {"mode": "none"}, **options}
    convert(make_request(arguments, environment={}), cache=Cache(cache))
    return folder / "repository"


def errors(report: CheckReport) -> list[str]:
    return codes(report, Severity.ERROR)


def codes(report: CheckReport, severity: Severity | None = None) -> list[str]:
    """Return the codes of what was found, in order."""
    return [remark.code for remark in report.remarks if severity in (None, remark.severity)]


FOREIGN_CONFIG = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 3 ] }]
"""


def foreign(repository: Path, *, config: str | None = FOREIGN_CONFIG, model: onnx.ModelProto | None = None) -> Path:
    """Write a repository as people write them by hand: no manifest, no records."""
    folder = repository / "theirs"
    (folder / "1").mkdir(parents=True)
    onnx.save(model or dense(), folder / "1" / "model.onnx")
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return repository
