"""Small ONNX files of every kind that users bring."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
WEIGHT = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3) / 10, "w")


def value(name: str, element_type: int, dims: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, dims)


X = value("x", FLOAT, ["N", 4])
Y = value("y", FLOAT, ["N", 3])
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto] = (MATMUL,),
    inputs: Sequence[onnx.ValueInfoProto] = (X,),
    outputs: Sequence[onnx.ValueInfoProto] = (Y,),
    weights: Sequence[onnx.TensorProto] = (WEIGHT,),
    *,
    opset: int = 20,
    domains: Sequence[tuple[str, int]] = (),
    ir_version: int | None = 10,
) -> onnx.ModelProto:
    """A model of these parts; without `ir_version` it gets what this onnx writes by itself."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*domain) for domain in domains)]
    stamp = {} if ir_version is None else {"ir_version": ir_version}
    return helper.make_model(graph, opset_imports=opsets, **stamp)


def write(folder: Path, proto: onnx.ModelProto, *, config: dict[str, Any] | None = None) -> Path:
    """Write net.onnx, and config.txt where there is one; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    if config is not None:
        (folder / "config.txt").write_text(json.dumps(config), encoding="utf-8")
    return folder / "net.onnx"


def tensor(name: str, data_type: str, dims: Sequence[int], node_name: str | None = None) -> dict[str, Any]:
    return {"name": name, "node_name": node_name or name, "data_type": data_type, "dims": list(dims)}
