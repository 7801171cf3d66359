"""Small graphs, run in ONNX Runtime before and after they are written in another precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import MODEL_FILE, Model, Tensors, save_tensors
from convkit.pipeline.artifact import gather
from convkit.spec.tensor import DType, Interface, TensorSpec

Array = np.ndarray[Any, Any]
TYPES = {TensorProto.FLOAT: DType.FLOAT32, TensorProto.INT64: DType.INT64}


def model_of(
    folder: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, Array],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, list[Any]],
    *,
    opset: int = 17,
) -> Model:
    """Write a graph; inputs by name with their ONNX type and dims, outputs in float32."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, folder / MODEL_FILE)
    interface = Interface(
        inputs=tuple(TensorSpec(name=n, dtype=TYPES[k], dims=tuple(d)) for n, (k, d) in inputs.items()),
        outputs=tuple(TensorSpec(name=n, dtype=DType.FLOAT32, dims=tuple(d)) for n, d in outputs.items()),
        max_batch_size=0,
    )
    return Model(files=gather(folder), interface=interface)


def answers(model: Model, case: dict[str, Array]) -> list[Array]:
    """Run a model on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, case)
    return found


def sqnr_db(found: Array, wanted: Array) -> float:
    """10 log10 of signal over noise."""
    noise = float(np.square(found.astype(np.float64) - wanted).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(np.square(wanted.astype(np.float64)).sum() / noise))


def one_case(case: dict[str, Array]) -> Tensors:
    """Store a case as a step wants it."""
    return save_tensors([case])


def operators(model: Model) -> list[str]:
    """Return the operators of a model's graph, in order."""
    return [node.op_type for node in onnx.load(str(model.path)).graph.node]
