"""Tiny ONNX models made by hand, and the repositories that convkit's configurations make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from convkit.serving.triton import ServingOptions, Warmup, cpu_config, model_config, render
from convkit.spec.tensor import DType, Interface, TensorSpec

ONNX_TYPES = tuple(dtype for dtype in DType if dtype is not DType.BFLOAT16)


def tensor(name: str, dtype: DType, *dims: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, dims=dims)


def interface(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch_size: int = 0) -> Interface:
    return Interface(inputs=tuple(inputs), outputs=tuple(outputs), max_batch_size=max_batch_size)


def graph(
    nodes: Sequence[onnx.NodeProto], face: Interface, *, ir_version: int = 10, opset: int = 21
) -> onnx.ModelProto:
    """Make a model of these nodes with that interface."""
    made = helper.make_graph(nodes, "g", list(map(_value, face.inputs)), list(map(_value, face.outputs)))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, spec.dtype.onnx, list(spec.dims))


RELU = interface(
    [tensor("x:0", DType.FLOAT32, "batch", 3)], [tensor("y:0", DType.FLOAT32, "batch", 3)], max_batch_size=8
)
"""y = max(x, 0), with a batch, under the names of a TensorFlow graph."""


def relu(**stamp: int) -> onnx.ModelProto:
    return graph([helper.make_node("Relu", ["x:0"], ["y:0"])], RELU, **stamp)


def write(
    repository: Path,
    name: str,
    model: onnx.ModelProto,
    face: Interface,
    *,
    options: ServingOptions | None = None,
    warmups: Sequence[Warmup] = (),
    version: int = 1,
) -> Any:
    """Write `name/<version>/model.onnx` and its configuration; return the configuration."""
    folder = repository / name
    (folder / str(version)).mkdir(parents=True)
    onnx.save(model, folder / str(version) / "model.onnx")
    config = model_config(
        name=name,
        interface=face,
        backend="onnxruntime",
        filename="model.onnx",
        gpu=False,
        options=options,
        warmups=warmups,
    )
    (folder / "config.pbtxt").write_text(render(config))
    return config


def write_plan(
    repository: Path, name: str, model: onnx.ModelProto, face: Interface, *, options: ServingOptions | None = None
) -> Any:
    """Write a TensorRT model as convkit lays it out, with bytes that are no engine, and its `configs/cpu.pbtxt`."""
    folder = repository / name
    (folder / "1" / "convkit").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "1" / "model.plan").write_bytes(b"no engine")
    onnx.save(model, folder / "1" / "convkit" / "model.onnx")
    config = model_config(
        name=name, interface=face, backend="tensorrt", filename="model.plan", gpu=True, options=options
    )
    (folder / "config.pbtxt").write_text(render(config))
    (folder / "configs" / "cpu.pbtxt").write_text(render(cpu_config(config)))
    return config
