"""What stands in a model repository, read with the official protobuf, onnx and ONNX Runtime, and nothing of convkit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf import text_format

Array = np.ndarray[Any, Any]

TRITON_TYPES = {
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
}


def files_below(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its SHA-256, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if not path.is_dir()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_config(path: Path) -> Any:
    """Parse a config.pbtxt into the official `inference.ModelConfig`."""
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def hold_config_to_model(config: Any, path: Path) -> None:
    """See that a configuration has the tensors of an ONNX file: names in order, types, dims, and the batch."""
    graph = onnx.load(path).graph
    for configured, actual in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in configured] == [value.name for value in actual]
        for tensor, value in zip(configured, actual, strict=True):
            found = value.type.tensor_type
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in found.shape.dim]
            declared = list(tensor.dims)
            if config.max_batch_size > 0:
                declared.insert(0, -1)
            assert (
                tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
                == TRITON_TYPES[found.elem_type]
            ), value.name
            assert declared == dims, value.name


def hold_statement_to_disk(manifest: Path, version: Path, model: Path, sources: Mapping[str, Path]) -> None:
    """See that a manifest is an in-toto statement, and that every digest in it is that of a file.

    Args:
        manifest: manifest.json.
        version: the folder that its subjects lie in.
        model: the model's folder, in which its byproducts lie.
        sources: the files that it must name as what the result was made from.
    """
    statement = json.loads(manifest.read_text(encoding="utf-8"))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    build, run = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert build["buildType"]
    assert run["builder"]["id"]
    assert {"convkit", "python", "onnx", "onnxruntime"} <= set(run["builder"]["version"])
    subjects = _digests(statement["subject"])
    assert subjects
    assert subjects == {name: sha256(version / name) for name in subjects}
    byproducts = _digests(run.get("byproducts", []))
    assert byproducts == {name: sha256(model / name) for name in byproducts}
    made_from = _digests(build["resolvedDependencies"])
    assert {name: made_from.get(name) for name in sources} == {name: sha256(path) for name, path in sources.items()}


def _digests(described: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = [entry["name"] for entry in described]
    assert len(set(names)) == len(names)
    return {entry["name"]: entry["digest"]["sha256"] for entry in described}


def answers(path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run an ONNX file in ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def accuracy(scores: Array, labels: Array) -> float:
    """Return top-1."""
    return float((scores.argmax(axis=1) == labels).mean())
