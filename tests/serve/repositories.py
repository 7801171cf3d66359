"""Repositories with a model of each kind of request, published by the real pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper
from triton_server.models import graph, interface, tensor

from convkit.conversion import convert
from convkit.pipeline.cache import Cache
from convkit.request import make_request
from convkit.spec.tensor import DType

ROWS = ("batch", 3)


def small() -> onnx.ModelProto:
    """Two inputs and two outputs whose sample is short."""
    face = interface(
        [tensor("x:0", DType.FLOAT32, *ROWS), tensor("ids", DType.INT64, "batch")],
        [tensor("y:0", DType.FLOAT32, *ROWS), tensor("twice", DType.INT64, "batch")],
        max_batch_size=8,
    )
    return graph(
        [helper.make_node("Sigmoid", ["x:0"], ["y:0"]), helper.make_node("Add", ["ids", "ids"], ["twice"])], face
    )


def large() -> onnx.ModelProto:
    """An image, whose sample is no longer one for a line."""
    image = ("batch", 3, 32, 32)
    face = interface([tensor("image", DType.FLOAT32, *image)], [tensor("out", DType.FLOAT32, *image)], 8)
    return graph([helper.make_node("Tanh", ["image"], ["out"])], face)


def mixed() -> onnx.ModelProto:
    """Every type that JSON has no words for, a number alone, and no batch."""
    face = interface(
        [tensor("half", DType.FLOAT16, 3), tensor("flag", DType.BOOL, 3), tensor("scale", DType.FLOAT32)],
        [tensor("picked", DType.FLOAT16, 3), tensor("inverse", DType.BOOL, 3), tensor("less", DType.FLOAT32)],
    )
    nodes = [
        helper.make_node("Neg", ["half"], ["other"]),
        helper.make_node("Where", ["flag", "half", "other"], ["picked"]),
        helper.make_node("Not", ["flag"], ["inverse"]),
        helper.make_node("Neg", ["scale"], ["less"]),
    ]
    return graph(nodes, face)


def texts() -> onnx.ModelProto:
    """Strings beside numbers."""
    face = interface(
        [tensor("text", DType.STRING, *ROWS), tensor("x", DType.FLOAT32, *ROWS)],
        [tensor("same", DType.STRING, *ROWS), tensor("y", DType.FLOAT32, *ROWS)],
        max_batch_size=4,
    )
    return graph([helper.make_node("Identity", ["text"], ["same"]), helper.make_node("Abs", ["x"], ["y"])], face)


def publish(repository: Path, cache: Path, name: str, model: onnx.ModelProto, **options: object) -> Path:
    """Convert a model into a repository; return the folder of its records, of a pending version too."""
    source = repository.with_name(f"{name}.onnx")
    onnx.save(model, source)
    arguments = {"model": str(source), "output": str(repository), "measure": {"mode": "none"}, **options}
    report = convert(make_request(arguments, environment={}), cache=Cache(cache))
    assert report.report
    return Path(report.report).parent


def command_of(folder: Path, curl: str, url: str) -> Sequence[str]:
    """Return the line of a report as it is run against another server."""
    import shlex

    return shlex.split(curl.replace("http://localhost:8000", url))
